#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "runtime/parallel/communicator.h"

namespace llmq::runtime {

/// Number of processes that an MPI launcher (mpirun) started this program in, by the environment
/// that it sets (OMPI_COMM_WORLD_SIZE, or PMI_SIZE); nothing where it was not started by one.
std::optional<int64_t> mpi_launched_ranks();

/// Whether this build can talk to the other processes of a launcher.
bool has_mpi();

/// Runs fn(communicator) as the rank that the launcher gave this process. `on_error` is called with
/// the rank where fn throws; it shows the error and gives the exit code with which the whole job is
/// then ended, so that no rank waits for ever. Ranks above 0 wait a moment before that, because
/// what fails everywhere is best told by rank 0. Must be called once at most, on the
/// main thread. Throws Error{kUsage} in a build without MPI and where no launcher started this.
void run_mpi_rank(const std::function<void(Communicator&)>& fn,
                  const std::function<int(int64_t rank)>& on_error);

}  // namespace llmq::runtime

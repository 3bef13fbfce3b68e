#pragma once

#include <cstdint>
#include <functional>

#include "runtime/parallel/communicator.h"

namespace llmq::runtime {

/// Runs fn(communicator) once for each of `n_ranks` ranks, rank 0 on the calling thread and every
/// other on a thread of its own, and returns when all have ended. Where ranks throw, the others are
/// woken out of the calls they wait in, and the exception of the rank that failed first is
/// rethrown. Throws Error{kUsage} unless 1 <= n_ranks <= 1024, Error{kMemory} where threads cannot
/// be started.
void run_thread_ranks(int64_t n_ranks, const std::function<void(Communicator&)>& fn);

}  // namespace llmq::runtime

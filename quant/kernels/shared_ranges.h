#pragma once

#include <cstdint>
#include <functional>

#include "quant/kernels/thread_team.h"

namespace llmq::quant {

/// Runs task(i) once for each i in [0, n_tasks) on the threads of `team` and returns when all have
/// ended. Each thread has a contiguous range of tasks and takes them in order, so that it reads
/// memory as one stream; a thread that has finished takes tasks from the end of another's range,
/// so that one that is late or shares its CPU does not hold up the others. Errors and nesting are
/// those of ThreadTeam::parallel_for, except that after an error any other task may be skipped and
/// that which of several errors is rethrown is not determined. Allocates nothing once a thread has
/// started a loop on a team of this size, provided that `task` holds a std::cref.
void for_each_in_ranges(ThreadTeam& team, int64_t n_tasks,
                        const std::function<void(int64_t)>& task);

}  // namespace llmq::quant

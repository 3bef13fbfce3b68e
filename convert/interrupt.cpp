#include "convert/interrupt.h"

#include <atomic>
#include <csignal>

#include "formats/error.h"

namespace llmq::convert {
namespace {

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int signal) {
  if (interrupted.exchange(true)) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

void install_signal_handlers() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

void throw_if_interrupted() {
  if (!interrupted.load(std::memory_order_relaxed)) return;
  throw formats::Error(formats::ErrorCode::kInterrupted,
                       "interrupted; the same command goes on where this one stopped");
}

}  // namespace llmq::convert

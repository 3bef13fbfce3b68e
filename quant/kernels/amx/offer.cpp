#include "quant/kernels/amx/offer.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace llmq::quant {
namespace {

// What the child writes before it ends; a child that a signal ended has written nothing.
constexpr char kAgrees = 'y';
constexpr char kDisagrees = 'n';

// No handler of this process (a crash reporter, a sanitizer) shall report the child, nor a core
// file be left.
void expect_signals() {
  for (const int number : {SIGILL, SIGSEGV, SIGBUS}) std::signal(number, SIG_DFL);
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
}

char read_answer(int from) {
  char answer = 0;
  ssize_t count = 0;
  do {
    count = read(from, &answer, 1);
  } while (count < 0 && errno == EINTR);
  return count == 1 ? answer : '\0';
}

std::string refusal_by_trial(bool (*trial)()) {
  std::string could_not = "the trial of the tiles could not be started";
  int ends[2] = {-1, -1};
  if (pipe(ends) != 0) return could_not;
  const pid_t child = fork();
  if (child == 0) {
    expect_signals();
    const char answer = trial() ? kAgrees : kDisagrees;
    const bool written = write(ends[1], &answer, 1) == 1;
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  // The pipe rather than the exit status, which is lost where the program ignores SIGCHLD.
  const char answer = child > 0 ? read_answer(ends[0]) : '\0';
  close(ends[0]);
  if (child < 0) return could_not;
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (answer == kAgrees) return "";
  if (answer == kDisagrees) return "a trial product through the tiles was wrong";
  return "the tile instructions fault although CPU and operating system announce them";
}

}  // namespace

std::string amx_refusal(const AmxFacts& facts) {
  if (!facts.has_avx512_vnni) return "AVX512-VNNI, which its kernels also use, is not supported";
  if (!facts.has_instructions) return "the CPU lacks AMX-TILE, AMX-INT8, AMX-BF16 or AVX512-BF16";
  if (!facts.saves_tiles) return "the operating system has not enabled tile registers";
  if (!facts.request_permission())
    return "the kernel does not permit tiles to this process (arch_prctl)";
  return refusal_by_trial(facts.trial);
}

}  // namespace llmq::quant

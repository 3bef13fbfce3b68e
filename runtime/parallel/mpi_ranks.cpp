#include "runtime/parallel/mpi_ranks.h"

#include <cstdlib>
#include <string>

#include "formats/error.h"

#ifdef LLMQ_HAS_MPI
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <thread>
#include <vector>
#endif

namespace llmq::runtime {

std::optional<int64_t> mpi_launched_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* text = std::getenv(name);
    if (text == nullptr) continue;
    char* end = nullptr;
    const int64_t n = std::strtoll(text, &end, 10);
    if (end != text && *end == '\0' && n > 0) return n;
  }
  return std::nullopt;
}

#ifdef LLMQ_HAS_MPI
namespace {

using formats::Error;
using formats::ErrorCode;

constexpr auto kPatience = std::chrono::milliseconds(500);
// Elements a call; MPI counts in int.
constexpr size_t kMostElements = size_t{1} << 26;

void check(int status, const char* what) {
  if (status == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(status, text.data(), &length);
  throw Error(ErrorCode::kInternal,
              fmt::format("stopped because {} over MPI failed: {}", what,
                          std::string(text.data(), static_cast<size_t>(length))));
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator() {
    check(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "asking for the rank");
    check(MPI_Comm_size(MPI_COMM_WORLD, &size_), "asking for the number of ranks");
  }

  [[nodiscard]] int64_t rank() const override { return rank_; }
  [[nodiscard]] int64_t size() const override { return size_; }

  void sum(std::span<int32_t> values) override {
    // Unsigned, for which wrapping is defined; the order of integer additions does not matter.
    all_reduce(values.data(), values.size(), MPI_UINT32_T, MPI_SUM);
  }
  void max(std::span<float> values) override {
    all_reduce(values.data(), values.size(), MPI_FLOAT, MPI_MAX);
  }

  // MPI may add in any order; so every rank collects all operands and adds them itself.
  void sum(std::span<float> values) override {
    constexpr size_t kPiece = size_t{1} << 18;
    const auto n_ranks = static_cast<size_t>(size_);
    for (size_t first = 0; first < values.size(); first += kPiece) {
      const std::span<float> piece = values.subspan(first, std::min(kPiece, values.size() - first));
      operands_.resize(piece.size() * n_ranks);
      gather(piece, operands_);
      for (size_t i = 0; i < piece.size(); ++i) {
        float total = operands_[i];
        for (size_t rank = 1; rank < n_ranks; ++rank) total += operands_[rank * piece.size() + i];
        piece[i] = total;
      }
    }
  }

  void gather(std::span<const float> mine, std::span<float> all) override {
    if (mine.size() > kMostElements)
      throw Error(ErrorCode::kInternal, "more than 2^26 elements in one message");
    const int count = static_cast<int>(mine.size());
    check(
        MPI_Allgather(mine.data(), count, MPI_FLOAT, all.data(), count, MPI_FLOAT, MPI_COMM_WORLD),
        "gathering");
  }

  void barrier() override { check(MPI_Barrier(MPI_COMM_WORLD), "meeting"); }

 private:
  template <typename T>
  void all_reduce(T* values, size_t n, MPI_Datatype type, MPI_Op op) {
    for (size_t first = 0; first < n; first += kMostElements) {
      check(MPI_Allreduce(MPI_IN_PLACE, values + first,
                          static_cast<int>(std::min(kMostElements, n - first)), type, op,
                          MPI_COMM_WORLD),
            "adding up");
    }
  }

  int rank_ = 0;
  int size_ = 1;
  std::vector<float> operands_;
};

}  // namespace

bool has_mpi() {
  return true;
}

void run_mpi_rank(const std::function<void(Communicator&)>& fn,
                  const std::function<int(int64_t rank)>& on_error) {
  if (!mpi_launched_ranks()) throw formats::usage_error("no MPI launcher started this program");
  int provided = 0;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "starting");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MpiCommunicator communicator;
  try {
    fn(communicator);
    communicator.barrier();
  } catch (...) {
    if (communicator.rank() != 0) std::this_thread::sleep_for(kPatience);
    MPI_Abort(MPI_COMM_WORLD, on_error(communicator.rank()));
  }
  MPI_Finalize();
}
#else

bool has_mpi() {
  return false;
}

void run_mpi_rank(const std::function<void(Communicator&)>& /*fn*/,
                  const std::function<int(int64_t rank)>& /*on_error*/) {
  throw formats::usage_error(
      "this llmq was built without MPI; build it where OpenMPI's headers are installed "
      "(libopenmpi-dev), or start it without mpirun, which runs the ranks as threads");
}
#endif

}  // namespace llmq::runtime

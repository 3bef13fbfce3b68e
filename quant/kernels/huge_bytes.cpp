#include "quant/kernels/huge_bytes.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace llmq::quant {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr size_t kLineBytes = 64;

}  // namespace

void FreeHugeBytes::operator()(int8_t* p) const {
  std::free(p);
}

// A sweep through many megabytes in pages of 4 KiB misses the TLB at every page: large matrices ask
// for huge pages, except for their last part, which would pad each of them to a multiple of 2 MiB.
HugeBytes allocate_huge(size_t size_bytes) {
  const size_t huge_size_bytes = size_bytes / kHugePageBytes * kHugePageBytes;
  const size_t alignment = huge_size_bytes > 0 ? kHugePageBytes : kLineBytes;
  void* data = nullptr;
  if (posix_memalign(&data, alignment, size_bytes) != 0) throw std::bad_alloc();
  // Advice only: where it is refused, pages are small.
  if (huge_size_bytes > 0) madvise(data, huge_size_bytes, MADV_HUGEPAGE);
  return HugeBytes(static_cast<int8_t*>(data));
}

}  // namespace llmq::quant

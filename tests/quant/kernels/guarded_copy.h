#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

namespace llmq::quant {

/// A copy of `bytes` that ends where unreadable memory begins.
class GuardedCopy {
 public:
  explicit GuardedCopy(const void* bytes, size_t size_bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t payload = (size_bytes + page - 1) / page * page;
    size_ = payload + page;
    base_ = static_cast<unsigned char*>(
        mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    data_ = base_ + payload - size_bytes;
    std::memcpy(data_, bytes, size_bytes);
    mprotect(base_ + payload, page, PROT_NONE);
  }
  ~GuardedCopy() { munmap(base_, size_); }
  GuardedCopy(const GuardedCopy&) = delete;
  GuardedCopy& operator=(const GuardedCopy&) = delete;

  [[nodiscard]] const unsigned char* data() const { return data_; }
  [[nodiscard]] unsigned char* mutable_data() { return data_; }

 private:
  unsigned char* base_ = nullptr;
  unsigned char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace llmq::quant

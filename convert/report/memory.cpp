#include "convert/report/memory.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>
#include <string>

namespace llmq::convert {
namespace {

constexpr auto kSampleInterval = std::chrono::milliseconds(20);

}  // namespace

MemoryUse memory_now() {
  std::ifstream file("/proc/self/status");
  MemoryUse use;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string name;
    uint64_t kibibytes = 0;
    fields >> name >> kibibytes;
    if (name == "RssAnon:" || name == "RssShmem:") use.private_bytes += kibibytes * 1024;
    if (name == "RssFile:") use.mapped_bytes += kibibytes * 1024;
  }
  return use;
}

MemorySampler::MemorySampler() {
  sample();
  thread_ = std::thread([this] {
    while (!stop_.load(std::memory_order_relaxed)) {
      sample();
      std::this_thread::sleep_for(kSampleInterval);
    }
  });
}

MemorySampler::~MemorySampler() {
  stop_ = true;
  thread_.join();
}

MemoryUse MemorySampler::peak() const {
  return {peak_private_.load(), peak_mapped_.load()};
}

void MemorySampler::sample() {
  const MemoryUse use = memory_now();
  peak_private_ = std::max(peak_private_.load(), use.private_bytes);
  peak_mapped_ = std::max(peak_mapped_.load(), use.mapped_bytes);
}

}  // namespace llmq::convert

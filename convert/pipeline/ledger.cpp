#include "convert/pipeline/ledger.h"

#include <algorithm>

namespace llmq::convert {

std::string_view fate_name(Fate fate) {
  switch (fate) {
    case Fate::kQuantized:
      return "quantized";
    case Fate::kCopied:
      return "copied";
    case Fate::kCloned:
      return "cloned";
    case Fate::kTied:
      return "tied";
    case Fate::kDropped:
      return "dropped";
    case Fate::kAdded:
      return "added";
  }
  return "?";
}

uint64_t Ledger::source_bytes() const {
  uint64_t total = 0;
  for (const LedgerEntry& entry : entries) {
    if (entry.fate != Fate::kAdded) total += entry.source->bytes.size();
  }
  return total;
}

uint64_t Ledger::output_bytes() const {
  uint64_t total = 0;
  for (const LedgerEntry& entry : entries) {
    for (const OutputModule& output : entry.outputs) {
      for (const OutputTensor& tensor : output.tensors)
        total += formats::tensor_size_bytes(tensor.dtype, tensor.shape);
    }
  }
  return total;
}

std::vector<const OutputModule*> Ledger::modules_in_order() const {
  std::vector<const OutputModule*> modules;
  for (const LedgerEntry& entry : entries) {
    for (const OutputModule& output : entry.outputs) modules.push_back(&output);
  }
  std::stable_sort(
      modules.begin(), modules.end(),
      [](const OutputModule* a, const OutputModule* b) { return a->order < b->order; });
  return modules;
}

std::vector<size_t> Ledger::unit_begins() const {
  std::vector<size_t> begins;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i == 0 || entries[i].layer < 0 || entries[i].layer != entries[i - 1].layer)
      begins.push_back(i);
  }
  begins.push_back(entries.size());
  return begins;
}

formats::DType choose_model_dtype(const formats::Checkpoint& source,
                                  const formats::ModelConfig& config,
                                  std::optional<formats::DType> requested) {
  if (requested) return *requested;
  for (const formats::StoredTensor& tensor : source.tensors()) {
    if (tensor.dtype == formats::DType::kF16 || tensor.dtype == formats::DType::kBF16) {
      if (tensor.shape.size() == 2) return tensor.dtype;
    }
  }
  return config.torch_dtype == formats::DType::kBF16 ? formats::DType::kBF16 : formats::DType::kF16;
}

}  // namespace llmq::convert

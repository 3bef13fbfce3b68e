#include "tests/runtime/model/model_testing.h"

#include <cstring>

#include "formats/checkpoint.h"
#include "formats/float16.h"

namespace llmq::testing {

using formats::DType;

NewTensors read_tensors(const std::filesystem::path& folder) {
  NewTensors tensors;
  const formats::Checkpoint checkpoint = formats::Checkpoint::open(folder);
  for (const formats::StoredTensor& tensor : checkpoint.tensors()) {
    tensors[tensor.name] = {tensor.dtype, tensor.shape, {tensor.bytes.begin(), tensor.bytes.end()}};
  }
  return tensors;
}

std::vector<float> float_values(const NewTensor& tensor) {
  const size_t element = formats::dtype_size_bytes(tensor.dtype);
  std::vector<float> values(tensor.bytes.size() / element);
  for (size_t i = 0; i < values.size(); ++i) {
    const std::byte* from = tensor.bytes.data() + i * element;
    uint16_t bits = 0;
    std::memcpy(tensor.dtype == DType::kF32 ? static_cast<void*>(&values[i]) : &bits, from,
                element);
    if (tensor.dtype == DType::kBF16) values[i] = formats::bf16_to_float(bits);
    if (tensor.dtype == DType::kF16) values[i] = formats::fp16_to_float(bits);
  }
  return values;
}

void write_model(const std::filesystem::path& folder, const formats::Json& config,
                 const NewTensors& tensors) {
  std::vector<formats::TensorEntry> entries;
  for (const auto& [name, tensor] : tensors) {
    formats::TensorEntry entry;
    entry.name = name;
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    entries.push_back(entry);
  }
  formats::assign_offsets(entries);
  std::string file = formats::serialize_safetensors_header(entries, {});
  for (const auto& [name, tensor] : tensors)
    file.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  formats::write_text_file(folder / "model.safetensors", file);
  formats::write_text_file(folder / "config.json", config.dump());
}

std::vector<float> all_logits(runtime::Model& model, std::span<const int32_t> tokens) {
  std::vector<float> logits;
  runtime::Sequence sequence = model.new_sequence();
  const runtime::BatchItem item{&sequence, tokens};
  model.score({&item, 1},
              [&](const quant::ConstMatrixF32& rows, std::span<const runtime::RowOrigin>) {
                logits.insert(logits.end(), rows.data, rows.data + rows.n_rows * rows.n_cols);
              });
  return logits;
}

}  // namespace llmq::testing

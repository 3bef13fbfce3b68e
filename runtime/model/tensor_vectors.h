#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/dtype.h"
#include "formats/scheme.h"

namespace llmq::runtime {

/// Throws Error{kBadInput} naming the tensor where its shape is not `shape` in one of the spellings
/// that formats::accepts_shape takes.
void check_shape(const formats::StoredTensor& tensor, const formats::Shape& shape);

/// Throws Error{kBadInput} naming tensor and element where a scale is not above zero.
void check_positive(const std::string& name, std::span<const float> scales);

/// Reads the small tensors of a checkpoint (norms, biases, scales, offsets) as checked vectors and
/// owns them: the spans that it gives live as long as it does. Every reader throws Error{kBadInput}
/// naming the tensor that is missing, has another shape or dtype than it may have, or holds a
/// float that is not finite. Not thread-safe.
class TensorVectors {
 public:
  /// `model_dtype`: of the model's float tensors, by which scheme tensors are stored. The
  /// checkpoint must outlive this object.
  TensorVectors(const formats::Checkpoint& checkpoint, formats::DType model_dtype)
      : checkpoint_(checkpoint), model_dtype_(model_dtype) {}

  /// A tensor of F32, F16 or BF16, widened to float32.
  std::span<const float> floats(const std::string& name, const formats::Shape& shape);

  /// The same, of scales: each above zero.
  std::span<const float> scales(const std::string& name, const formats::Shape& shape);

  /// Offsets of codes, stored as floats or int8: whole numbers from −128 to 127.
  std::span<const float> offsets(const std::string& name, const formats::Shape& shape);

  /// A tensor of a scheme, in a dtype that its rule accepts.
  std::span<const float> scheme_floats(const std::string& name, const formats::TensorRule& rule,
                                       const formats::Shape& shape);

  /// deq_scale of static W8A8: floats, or the bits of float32 widened to int64.
  std::span<const float> deq_scale(const std::string& name, const formats::Shape& shape);

  /// A tensor of I32.
  std::span<const int32_t> integers(const std::string& name, const formats::Shape& shape);

  /// Bytes of all vectors so far.
  [[nodiscard]] uint64_t size_bytes() const { return size_bytes_; }

 private:
  std::span<const float> keep(const std::string& name, std::vector<float> values);

  const formats::Checkpoint& checkpoint_;
  formats::DType model_dtype_;
  std::vector<std::vector<float>> floats_;
  std::vector<std::vector<int32_t>> integers_;
  uint64_t size_bytes_ = 0;
};

}  // namespace llmq::runtime

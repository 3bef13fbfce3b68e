#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/runtime/model/linear_inputs.h"
#include "tests/runtime/model/quantized_model.h"

namespace llmq::testing {

/// The codes of w8a8_folder stored as another scheme with int8 activations: `tag` is W8A8_DYNAMIC,
/// W8A8_MIX or W8A8S, and decides which tensors there are.
W8A8Folder int8_folder(const std::string& golden_name, const std::string& tag);

/// y [x.n_rows, n] of a linear whose activations have a scale per row, max(max |x| / 127, 2^−23):
/// exact sums of codes, float64 quotients and products, rounded to float32 where the formula is.
/// `x` is finite.
std::vector<float> dynamic_product(const W8A8Linear& linear, const Values& x);

/// How weight_only_folder quantizes.
struct WeightOnlyFormat {
  std::string tag;  ///< "W8A16" or "W4A16"
  int64_t group_size = 0;
  bool is_asymmetric = false;
  bool is_packed = true;  ///< W4A16: two codes a byte
};

/// A weight-only model folder in memory.
struct WeightOnlyFolder {
  formats::Json config;
  NewTensors tensors;
  formats::Json description;
  /// The same model in float32 with the values of the codes, (q − offset)·scale.
  NewTensors dequantized;

  void write(const std::filesystem::path& path) const;
};

/// Quantizes all linears of a golden model (not the embedding) by the formulas of the format, and
/// packs them by its rules, not by the library's functions. group_size must divide all inputs.
WeightOnlyFolder weight_only_folder(const std::string& golden_name, const WeightOnlyFormat& format);

}  // namespace llmq::testing

#include "runtime/model/embed.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "formats/error.h"

namespace llmq::runtime {
namespace {

using quant::ConstMatrixF32;

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

void check_texts(const Model& model, std::span<const std::vector<int32_t>> texts) {
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].empty()) {
      throw formats::usage_error(
          fmt::format("text {} has no tokens, so it has no last one to take a vector from", i + 1));
    }
    try {
      model.check_tokens(texts[i], 0);
    } catch (const formats::Error& error) {
      throw error.with_context(fmt::format("text {}", i + 1));
    }
  }
}

void normalize(std::vector<float>& vector, size_t text) {
  const double length = std::sqrt(dot(vector, vector));
  if (!(length > 0) || !std::isfinite(length)) {
    throw formats::bad_input(
        fmt::format("the last hidden state of text {} has length {}, so it has no direction; the "
                    "weights are damaged",
                    text + 1, length));
  }
  for (float& value : vector) value = static_cast<float>(value / length);
}

/// Final hidden states of the last tokens of texts [first, first + n) into `vectors`.
void run_batch(Model& model, std::span<const std::vector<int32_t>> texts,
               std::span<std::vector<float>> vectors) {
  std::vector<Sequence> sequences;
  std::vector<BatchItem> items;
  sequences.reserve(texts.size());
  for (const std::vector<int32_t>& text : texts) {
    sequences.push_back(model.new_sequence());
    items.push_back({&sequences.back(), text});
  }
  model.forward(items, [&](const ConstMatrixF32& hidden, std::span<const RowOrigin> rows) {
    for (size_t row = 0; row < rows.size(); ++row) {
      const auto item = static_cast<size_t>(rows[row].item);
      if (rows[row].token + 1 != static_cast<int64_t>(texts[item].size())) continue;
      const float* from = hidden.data + static_cast<int64_t>(row) * hidden.row_stride;
      vectors[item].assign(from, from + hidden.n_cols);
    }
  });
}

}  // namespace

std::vector<std::vector<float>> embed(Model& model, std::span<const std::vector<int32_t>> texts,
                                      int64_t max_batch_size,
                                      const std::function<void(int64_t text)>& on_text) {
  if (max_batch_size < 1) {
    throw formats::usage_error(
        fmt::format("max_batch_size is {}; it must be at least 1", max_batch_size));
  }
  check_texts(model, texts);
  std::vector<std::vector<float>> vectors(texts.size());
  const auto step = static_cast<size_t>(max_batch_size);
  for (size_t first = 0; first < texts.size(); first += step) {
    const size_t n = std::min(step, texts.size() - first);
    run_batch(model, texts.subspan(first, n), std::span(vectors).subspan(first, n));
    for (size_t i = first; i < first + n; ++i) {
      normalize(vectors[i], i);
      if (on_text) on_text(static_cast<int64_t>(i));
    }
  }
  return vectors;
}

double cosine_similarity(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) {
    throw formats::Error(
        formats::ErrorCode::kInternal,
        fmt::format("vectors of {} and {} values have no angle", a.size(), b.size()));
  }
  return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
}

}  // namespace llmq::runtime

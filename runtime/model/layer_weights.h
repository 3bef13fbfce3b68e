#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "formats/architecture.h"
#include "formats/checkpoint.h"
#include "formats/description.h"
#include "formats/model_config.h"
#include "quant/kernels/gemm_w4a16/packed_int4.h"
#include "quant/kernels/thread_team.h"
#include "runtime/attention/kv_codes.h"
#include "runtime/model/compressed_weights.h"
#include "runtime/model/emulation.h"
#include "runtime/model/linear.h"
#include "runtime/model/rank_part.h"
#include "runtime/model/tensor_vectors.h"

namespace llmq::runtime {

/// An RMSNorm (arXiv 1910.07467): x / √(mean(x²) + ε) · weight (+ bias, which quantizers that shift
/// activations add; empty for none).
struct NormWeights {
  std::span<const float> weight;
  std::span<const float> bias;
};

/// A SwiGLU MLP (arXiv 2002.05202): down(SiLU(gate(x)) · up(x)).
struct MlpWeights {
  LinearWeights gate;  ///< [intermediate, hidden]
  LinearWeights up;    ///< [intermediate, hidden]
  LinearWeights down;  ///< [hidden, intermediate]
};

/// The weights of one decoder layer, as views. What a family or a layer does not have is empty:
/// norms of heads, the fused q, k, v or the three of their own, the one MLP or the experts.
struct LayerWeights {
  NormWeights input_norm;           ///< [hidden]
  LinearWeights q;                  ///< [n_heads·head_dim, hidden]
  LinearWeights k;                  ///< [n_kv_heads·head_dim, hidden]
  LinearWeights v;                  ///< [n_kv_heads·head_dim, hidden]
  LinearWeights qkv;                ///< instead of q, k, v: their rows one after the other
  std::span<const float> q_norm;    ///< [head_dim], applied to each head before RoPE
  std::span<const float> k_norm;    ///< [head_dim]
  LinearWeights o;                  ///< [hidden, n_heads·head_dim]
  NormWeights post_attention_norm;  ///< [hidden]
  LinearWeights gate;               ///< [intermediate, hidden]
  LinearWeights up;                 ///< [intermediate, hidden]
  LinearWeights down;               ///< [hidden, intermediate]
  KvScales kv;                      ///< of an int8 KV cache (C8)
  FaScales fa;                      ///< of quantized attention (FAQuant)

  LinearWeights router;             ///< [n_experts, hidden]
  std::vector<MlpWeights> experts;  ///< [n_experts], each of moe_intermediate_size
  MlpWeights shared_expert;         ///< of shared_expert_intermediate_size; every token passes it
  LinearWeights shared_switch;      ///< [1, hidden]; its sigmoid scales the shared expert
};

/// What a model has outside its layers.
struct OuterWeights {
  LinearWeights embedding;  ///< [vocab, hidden]; rows are looked up
  NormWeights final_norm;   ///< [hidden]
  LinearWeights head;       ///< [vocab, hidden]; the embedding's matrix where it is tied
};

/// Where a WeightLoader takes weights from. Everything pointed to must outlive the loader's views.
struct WeightSource {
  const formats::Checkpoint* checkpoint = nullptr;
  const formats::ModelConfig* config = nullptr;
  /// Null for a folder without a description file, whose weights are all float then.
  const formats::Description* description = nullptr;
  /// Arithmetic of linears with quantized activations.
  Emulation emulation = Emulation::kSpec;
  /// Of a checkpoint with one rank's part of a model, whose configuration is then that of
  /// formats::rank_config; null for a whole model.
  Communicator* ranks = nullptr;
  Reduction reduction = Reduction::kInt32;  ///< of linears whose inputs are cut
  formats::EmbeddingCut embedding = formats::EmbeddingCut::kVocabulary;
  /// Compressed linears that share a stored matrix; null: none do.
  const std::map<std::string, CompressedPlace, std::less<>>* compressed = nullptr;
};

/// Makes views of a checkpoint's tensors by the architecture and scheme tables, in all the
/// spellings of formats/dialect.h. Large matrices stay where the file is mapped, except those that
/// a kernel reads in an order of its own (int8 ones with int8 activations, int4), which are packed
/// once (sparse ones to about half their size; compressed ones without ever being expanded). Norms,
/// biases, scales and offsets are converted to float32 once. Both live as long as this
/// object. Not thread-safe.
class WeightLoader {
 public:
  /// Throws Error{kBadInput} for an architecture that is unknown or cannot be executed (an
  /// activation other than SiLU, attention to later tokens), and for a description with an unknown
  /// kind of quantized KV cache or attention, or with both. Packing is divided over `team`, which
  /// must outlive the loader.
  WeightLoader(const WeightSource& source, quant::ThreadTeam& team);

  /// Throws Error{kBadInput} naming the tensor that is missing, has another shape or dtype than the
  /// tables say, contradicts the description, or holds a scale that is not finite (of static W8A8:
  /// not above zero either) or an offset of activations that is no whole number.
  [[nodiscard]] LayerWeights layer(int64_t layer_index);

  /// Embedding, final norm and head. Where config.json ties them, one stored matrix serves for
  /// both: the embedding's, or the head's when that alone is there. A quantizer may have changed
  /// the copy it made of a tied head, so a folder with a description uses a stored head. Errors as
  /// layer().
  [[nodiscard]] OuterWeights outer();

  /// Bytes of the float32 and packed copies made so far.
  [[nodiscard]] uint64_t converted_size_bytes() const {
    return converted_size_bytes_ + vectors_.size_bytes();
  }

 private:
  KvScales kv_scales(int64_t layer_index);
  FaScales fa_scales(int64_t layer_index);
  [[nodiscard]] bool has_module(formats::Role role, int64_t layer_index) const;
  LinearWeights linear(formats::Role role, int64_t layer_index, int64_t expert = -1);
  void add_experts(int64_t layer_index, LayerWeights& weights);
  void add_scheme_tensor(const std::string& name, const formats::TensorRule& rule,
                         LinearWeights& linear);
  void set_codes(const std::string& module, const formats::StoredTensor& tensor,
                 LinearWeights& linear);
  [[nodiscard]] int64_t group_size_of(const formats::StoredTensor& scale, int64_t n_in) const;
  void add_scheme_tensors(const std::string& module, LinearWeights& linear);
  void pack_codes(const std::string& module, LinearWeights& linear);
  void check_row_scales(const std::string& name, std::span<const float> values) const;
  void set_input_scale(const std::string& name, float scale, LinearWeights& linear) const;
  NormWeights norm(formats::Role role, int64_t layer_index);
  std::span<const float> head_norm(formats::Role role, int64_t layer_index);
  std::span<const float> optional_bias(const formats::ModuleRow& row, const std::string& module);
  void set_cut_columns(const formats::StoredTensor& tensor, LinearWeights& linear) const;
  [[nodiscard]] CompressedRows compressed_rows(const std::string& module,
                                               const LinearWeights& linear) const;
  void join_ranks(const formats::ModuleRow& row, LinearWeights& linear);
  [[nodiscard]] formats::Scheme scheme_of(const formats::StoredTensor& tensor) const;

  const formats::Checkpoint& checkpoint_;
  const formats::ModelConfig& config_;
  const formats::Description* description_;
  const EmulationRow& emulation_;
  Communicator* ranks_;
  Reduction reduction_;
  formats::EmbeddingCut embedding_;
  const std::map<std::string, CompressedPlace, std::less<>>* compressed_;
  const formats::Architecture& architecture_;
  quant::ThreadTeam& team_;
  TensorVectors vectors_;
  std::deque<quant::PackedInt4> packed_int4_;
  std::deque<quant::PackedInt8> packed_;
  std::deque<quant::PackedW8A8sc> packed_sc_;
  std::deque<std::vector<float>> whole_biases_;  // of linears that add up integers over ranks
  uint64_t converted_size_bytes_ = 0;
};

}  // namespace llmq::runtime

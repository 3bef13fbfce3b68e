#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "formats/architecture.h"
#include "formats/model_config.h"
#include "quant/fa_scales.h"
#include "quant/gram.h"
#include "quant/kernels/thread_team.h"
#include "quant/kv_scales.h"
#include "quant/observer/range_observer.h"
#include "runtime/model/decoder.h"

namespace llmq::runtime {

/// Linears of a layer (or the head) that read the same activations.
struct ObservedGroup {
  formats::FusedGroup group = formats::FusedGroup::kNone;
  int64_t expert = -1;  ///< of an expert's linears; -1 for all others

  // NOLINTNEXTLINE(modernize-use-nullptr): the 0 that an ordering is compared with is no pointer.
  auto operator<=>(const ObservedGroup&) const = default;
};

/// What the linears of each fused group of a layer read. Experts that no token was routed to are
/// not there.
using GroupStatistics = std::map<ObservedGroup, quant::RangeStatistics>;

/// What the attention of a layer uses; each where CalibratorOptions asks for it.
struct AttentionStatistics {
  std::optional<quant::KvStatistics> kv;
  std::optional<quant::FaStatistics> fa;
};

/// Which statistics of a layer are gathered.
struct LayerWants {
  bool ranges = false;
  bool histograms = false;  ///< with ranges
  /// Groups whose inputs' second moments are wanted; empty for none.
  std::function<bool(const ObservedGroup&)> gram = {};
  bool kv_cache = false;   ///< bounds of keys and values (C8)
  bool attention = false;  ///< windows of queries, keys and values (FAQuant)
};

/// Sufficient statistics of one layer.
struct LayerStatistics {
  std::map<ObservedGroup, int64_t> n_rows;  ///< tokens that each group read
  GroupStatistics ranges;
  std::map<ObservedGroup, quant::Gram> grams;
  AttentionStatistics attention;
};

/// Gathers the statistics of one layer from what a pass shows. Not thread-safe; work is divided
/// over the team. The result does not depend on threads or instruction set.
class LayerStatisticsObserver {
 public:
  /// `place` names the layer in errors ("layer 3, "). `config` and `team` must outlive it.
  LayerStatisticsObserver(std::string place, const formats::ModelConfig& config, LayerWants wants,
                          quant::ThreadTeam& team);

  /// What a pass is to be shown to; refers to this object.
  [[nodiscard]] LayerObserver observer();

  /// The statistics of everything shown so far.
  [[nodiscard]] LayerStatistics statistics() const;

 private:
  void see_linear(const LinearInput& input);
  void see_attention(const AttentionInput& input);

  std::string place_;
  LayerWants wants_;
  quant::ThreadTeam& team_;
  std::map<ObservedGroup, int64_t> n_rows_;
  std::map<ObservedGroup, quant::RangeObserver> ranges_;
  std::map<ObservedGroup, quant::GramObserver> grams_;
  std::optional<quant::KvObserver> kv_cache_;
  std::optional<quant::FaObserver> attention_;
};

}  // namespace llmq::runtime

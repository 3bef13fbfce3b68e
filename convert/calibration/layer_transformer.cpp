#include "convert/calibration/layer_transformer.h"

#include "formats/error.h"

namespace llmq::convert {

struct LayerTransformer::State {
  const FolderPlan& plan;
  quant::ThreadTeam& team;
  formats::Json report = formats::Json::array();
};

LayerTransformer::LayerTransformer(const FolderPlan& plan, quant::ThreadTeam& team)
    : state_(new State{plan, team}) {}
LayerTransformer::~LayerTransformer() = default;

bool LayerTransformer::is_needed() const {
  return false;
}
void LayerTransformer::transform(const runtime::LayerWeights&, runtime::Calibrator&) {}
runtime::LayerWeights LayerTransformer::view() const {
  return {};
}
std::function<void(const quant::MatrixF32& hidden)> LayerTransformer::change_of_hidden() const {
  return {};
}
void LayerTransformer::prepare_entry(const LedgerEntry&, EntryPreparation&) {}
const formats::Json& LayerTransformer::report() const {
  return state_->report;
}

}  // namespace llmq::convert

#include "convert/pipeline/ledger.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/convert/pipeline/ledger_fixture.h"

namespace llmq::convert {
namespace {

using formats::DType;
using formats::ErrorCode;
using formats::Scheme;
using formats::Shape;
using test::error_message;
using test::tensor_named;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::string kEmbedding = "model.embed_tokens.weight";
const std::string kHead = "lm_head.weight";
const std::string kLayer = "model.layers.1.";

class LedgerTest : public test::LedgerFixture {
 protected:
  void tie() {
    config_["tie_word_embeddings"] = true;
    reset_tensors();
  }
  void add(const std::string& name, const std::string& dtype, std::vector<int64_t> shape) {
    tensors_.push_back({name, dtype, std::move(shape), {}});
  }
  void remove(const std::string& name) {
    std::erase_if(tensors_, [&](const auto& tensor) { return tensor.name == name; });
  }
  std::string refusal(ErrorCode code = ErrorCode::kBadInput) {
    return error_message(code, [&] { (void)make(); });
  }
  static Scheme scheme_of(const Ledger& ledger, const std::string& module) {
    return entry(ledger, module + ".weight").outputs.back().rule.scheme;
  }
};

TEST_F(LedgerTest, EverySourceTensorEndsExactlyOnce) {
  add("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {8});
  add("something.else", "I64", {3});
  const Ledger ledger = make();
  std::set<std::string> names;
  for (const LedgerEntry& one : ledger.entries) {
    EXPECT_TRUE(names.insert(one.source->name).second) << one.source->name;
  }
  EXPECT_EQ(names.size(), source_->tensors().size());
  EXPECT_EQ(ledger.source_bytes(), source_->size_bytes());
}

TEST_F(LedgerTest, ALinearBecomesCodesScalesAndOffsetsWithShapes) {
  const Ledger ledger = make();
  const LedgerEntry& q = entry(ledger, kLayer + "self_attn.q_proj.weight");
  EXPECT_EQ(q.fate, Fate::kQuantized);
  EXPECT_EQ(q.module, kLayer + "self_attn.q_proj");
  EXPECT_EQ(q.layer, 1);
  EXPECT_EQ(q.role, "q");
  ASSERT_EQ(q.outputs.size(), 1U);
  const auto& tensors = q.outputs[0].tensors;
  ASSERT_EQ(tensors.size(), 3U);
  EXPECT_EQ(tensors[0].name, kLayer + "self_attn.q_proj.weight");
  EXPECT_EQ(tensors[0].dtype, DType::kI8);
  EXPECT_EQ(tensors[0].shape, (Shape{64, 64}));
  EXPECT_EQ(tensors[1].name, kLayer + "self_attn.q_proj.weight_scale");
  EXPECT_EQ(tensors[1].dtype, DType::kF32);
  EXPECT_EQ(tensors[1].shape, (Shape{64, 1}));
  EXPECT_EQ(tensors[2].name, kLayer + "self_attn.q_proj.weight_offset");
}

TEST_F(LedgerTest, BiasesNormsAndEmbeddingAreCopiedWithAReason) {
  const Ledger ledger = make();
  for (const std::string& name :
       {kLayer + "self_attn.q_proj.bias", kEmbedding, kLayer + "input_layernorm.weight",
        std::string("model.norm.weight")}) {
    EXPECT_EQ(entry(ledger, name).fate, Fate::kCopied) << name;
    EXPECT_FALSE(entry(ledger, name).reason.empty()) << name;
    EXPECT_THAT(written(ledger, name), ElementsAre(name));
  }
  EXPECT_THAT(entry(ledger, kHead).reason, HasSubstr("kept float by \"lm_head\""));
}

TEST_F(LedgerTest, OutputBytesAreThoseOfTheTensorsWritten) {
  config_["num_hidden_layers"] = 1;
  reset_tensors();
  const Ledger ledger = make();
  uint64_t expected =
      2 * (2 * 96 * 64 + 3 * 64 + 64 + 32 + 32);  // float: two matrices, norms, biases
  for (const auto& [n, k] :
       {std::pair{64, 64}, {32, 64}, {32, 64}, {64, 64}, {128, 64}, {128, 64}, {64, 128}}) {
    expected += static_cast<uint64_t>(n) * k + 2 * 4 * static_cast<uint64_t>(n);
  }
  EXPECT_EQ(ledger.output_bytes(), expected);
}

TEST_F(LedgerTest, EntriesStandInTheOrderOfTheTableWhateverTheFileHas) {
  const std::vector<std::string> expected = written_in_order(make());
  std::reverse(tensors_.begin(), tensors_.end());
  EXPECT_EQ(written_in_order(make()), expected);
  EXPECT_EQ(expected.front(), kEmbedding);
  EXPECT_EQ(expected.back(), kHead);
}

TEST_F(LedgerTest, UnitsAreLayersAndSingleTensorsOutside) {
  add("something.else", "BF16", {4});
  const Ledger ledger = make();
  const std::vector<size_t> begins = ledger.unit_begins();
  ASSERT_EQ(begins.size(), 7U);  // embedding, two layers, norm, head, the unknown one; the end
  EXPECT_EQ(begins.front(), 0U);
  EXPECT_EQ(begins.back(), ledger.entries.size());
  for (size_t unit = 0; unit + 1 < begins.size(); ++unit) {
    ASSERT_LT(begins[unit], begins[unit + 1]);
    for (size_t i = begins[unit]; i < begins[unit + 1]; ++i) {
      EXPECT_EQ(ledger.entries[i].layer, ledger.entries[begins[unit]].layer);
    }
  }
  EXPECT_EQ(begins[2] - begins[1], 12U);
}

TEST_F(LedgerTest, MissingTensorIsNamed) {
  for (const std::string& name :
       {kEmbedding, kHead, kLayer + "self_attn.k_proj.bias", kLayer + "mlp.down_proj.weight"}) {
    reset_tensors();
    remove(name);
    EXPECT_THAT(refusal(), HasSubstr("tensor " + name + " is missing"));
  }
}

TEST_F(LedgerTest, ShapeThatIsNotThatOfTheConfigIsNamedWithBoth) {
  tensor_named(tensors_, kLayer + "self_attn.k_proj.weight").shape = {64, 64};
  EXPECT_THAT(refusal(), AllOf(HasSubstr("model.safetensors"), HasSubstr("k_proj.weight"),
                               HasSubstr("[64, 64]"), HasSubstr("[32, 64]")));
}

TEST_F(LedgerTest, WeightsThatAreNoFloatsAreRefusedWithARemedy) {
  tensor_named(tensors_, kLayer + "mlp.up_proj.weight").dtype = "I8";
  EXPECT_THAT(refusal(), AllOf(HasSubstr("is I8"), HasSubstr("take the float version")));
  tensor_named(tensors_, kLayer + "mlp.up_proj.weight").dtype = "F8_E4M3";
  EXPECT_THAT(refusal(), AllOf(HasSubstr("is F8_E4M3"), HasSubstr("BF16 version")));
  reset_tensors();
  add("something.else", "F8_E5M2", {4});
  EXPECT_THAT(refusal(), HasSubstr("something.else is F8_E5M2"));
}

TEST_F(LedgerTest, UnknownTensorsAreCopiedWithAWarningAndInvFreqIsDropped) {
  add("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {8});
  add("visual.ids", "I64", {3});
  add("visual.weight", "F32", {3, 2, 1});
  const Ledger ledger = make();
  EXPECT_EQ(entry(ledger, "model.layers.0.self_attn.rotary_emb.inv_freq").fate, Fate::kDropped);
  EXPECT_THAT(written(ledger, "model.layers.0.self_attn.rotary_emb.inv_freq"), IsEmpty());
  EXPECT_EQ(entry(ledger, "visual.ids").outputs[0].tensors[0].dtype, DType::kI64);
  EXPECT_EQ(entry(ledger, "visual.weight").outputs[0].tensors[0].dtype, DType::kBF16);
  EXPECT_EQ(entry(ledger, "visual.weight").outputs[0].tensors[0].shape, (Shape{3, 2, 1}));
  EXPECT_THAT(ledger.warnings, ElementsAre(HasSubstr("visual.ids"), HasSubstr("visual.weight")));
}

// Two tensors of one name would make a file that nobody can read.
TEST_F(LedgerTest, SourceTensorWithTheNameOfOneThatIsWrittenIsRefused) {
  add(kLayer + "mlp.up_proj.weight_scale", "F32", {128, 1});
  EXPECT_THAT(refusal(), HasSubstr(kLayer + "mlp.up_proj.weight_scale"));
}

TEST_F(LedgerTest, ATiedMatrixStoredOnceIsWrittenUnderBothNames) {
  tie();
  for (const std::string& stored : {kEmbedding, kHead}) {
    tensor_named(tensors_, stored == kHead ? kEmbedding : stored).name = stored;
    const Ledger ledger = make();
    EXPECT_EQ(entry(ledger, stored).fate, Fate::kCloned);
    EXPECT_THAT(written(ledger, stored), ElementsAre(kEmbedding, kHead));
    EXPECT_THAT(entry(ledger, stored).reason, HasSubstr("tied; written once more"));
    const auto order = written_in_order(ledger);
    EXPECT_EQ(order.front(), kEmbedding);
    EXPECT_EQ(order.back(), kHead);
  }
}

TEST_F(LedgerTest, KeepTiedWritesTheMatrixUnderItsOneName) {
  tie();
  EXPECT_THAT(written_in_order(make({{}, true})), testing::Not(Contains(kHead)));
  tensor_named(tensors_, kEmbedding).name = kHead;
  EXPECT_THAT(written_in_order(make({{}, true})), testing::Not(Contains(kEmbedding)));
}

TEST_F(LedgerTest, ATiedMatrixStoredTwiceIsWrittenTwiceUnlessKeptTied) {
  tie();
  add(kHead, "BF16", {96, 64});
  EXPECT_THAT(written_in_order(make()), AllOf(Contains(kHead), Contains(kEmbedding)));
  EXPECT_THAT(make().warnings, IsEmpty());
  const Ledger ledger = make({{}, true});
  EXPECT_EQ(entry(ledger, kHead).fate, Fate::kTied);
  EXPECT_THAT(entry(ledger, kHead).reason, HasSubstr("equal to " + kEmbedding));
  EXPECT_THAT(written(ledger, kHead), IsEmpty());
  EXPECT_THAT(written(ledger, kEmbedding), ElementsAre(kEmbedding));
}

TEST_F(LedgerTest, TiedMatricesThatDifferAreBothWrittenWithAWarning) {
  tie();
  add(kHead, "F16", {96, 64});
  for (const bool keep_tied : {false, true}) {
    const Ledger ledger = make({{}, keep_tied});
    EXPECT_THAT(written_in_order(ledger), AllOf(Contains(kHead), Contains(kEmbedding)));
    EXPECT_THAT(ledger.warnings, ElementsAre(HasSubstr("are tied, but their values differ")));
  }
}

TEST_F(LedgerTest, ATiedModelWithNeitherNameIsIncomplete) {
  tie();
  remove(kEmbedding);
  EXPECT_THAT(refusal(), HasSubstr("tensor model.embed_tokens.weight is missing"));
}

TEST_F(LedgerTest, ATiedHeadCanBeQuantizedWhileTheEmbeddingStaysFloat) {
  tie();
  recipe_.keep_float.clear();
  const Ledger ledger = make();
  EXPECT_THAT(written(ledger, kEmbedding),
              ElementsAre(kEmbedding, kHead, "lm_head.weight_scale", "lm_head.weight_offset"));
}

TEST_F(LedgerTest, OneMemberKeptFloatKeepsItsFusedGroupFloat) {
  recipe_.keep_float = {"lm_head", kLayer + "self_attn.k_proj", "*.mlp.gate_proj"};
  const Ledger ledger = make();
  for (const char* member : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                             "mlp.gate_proj", "mlp.up_proj"}) {
    EXPECT_EQ(scheme_of(ledger, kLayer + member), Scheme::kFloat) << member;
  }
  EXPECT_THAT(entry(ledger, kLayer + "self_attn.q_proj.weight").reason,
              HasSubstr("kept float with " + kLayer + "self_attn.k_proj"));
  EXPECT_EQ(scheme_of(ledger, kLayer + "self_attn.o_proj"), Scheme::kW8A16);
  EXPECT_EQ(scheme_of(ledger, kLayer + "mlp.down_proj"), Scheme::kW8A16);
  EXPECT_EQ(scheme_of(ledger, "model.layers.0.self_attn.q_proj"), Scheme::kW8A16);
}

TEST_F(LedgerTest, AFusedGroupOfTwoSchemesIsRefusedWithBoth) {
  recipe_.rules = {{"*.q_proj", Scheme::kW8A8Dynamic}, {"*", Scheme::kW8A16}};
  EXPECT_THAT(refusal(ErrorCode::kUsage),
              AllOf(HasSubstr("q_proj W8A8_DYNAMIC"), HasSubstr("k_proj W8A16")));
}

TEST_F(LedgerTest, AFusedGroupOfTwoGroupSizesIsRefused) {
  recipe_.rules = {{"*.q_proj", Scheme::kW8A16, true, 32}, {"*", Scheme::kW8A16}};
  EXPECT_THAT(refusal(ErrorCode::kUsage),
              AllOf(HasSubstr("q_proj the group_size 32"), HasSubstr("k_proj 0")));
}

// The description of a checkpoint holds one group size.
TEST_F(LedgerTest, TwoGroupSizesInOneRecipeAreRefused) {
  recipe_.rules = {{"*.down_proj", Scheme::kW8A16, true, 32}, {"*", Scheme::kW8A16, true, 64}};
  EXPECT_THAT(refusal(ErrorCode::kUsage), HasSubstr("the group sizes 32 and 64"));
}

TEST_F(LedgerTest, GroupSizeThatDoesNotDivideNamesTheLinear) {
  recipe_.rules = {{"*", Scheme::kW8A16, true, 48}};
  EXPECT_THAT(refusal(), AllOf(HasSubstr("model.layers.0.self_attn.q_proj"),
                               HasSubstr("group_size 48 does not divide the 64")));
}

// Codes of other schemes would be written wrongly or not at all.
TEST_F(LedgerTest, SchemesThatCannotBeWrittenAreRefusedBeforeTheWork) {
  for (const Scheme scheme : {Scheme::kW8A8SC, Scheme::kC8, Scheme::kFaQuant}) {
    recipe_.rules = {{"*", scheme}};
    EXPECT_THAT(refusal(ErrorCode::kUsage),
                HasSubstr(std::string(formats::scheme_row(scheme).tag)));
  }
}

TEST_F(LedgerTest, WeightsBesideInt8ActivationsMustBeSymmetricPerChannel) {
  for (const Scheme scheme : {Scheme::kW8A8, Scheme::kW8A8Dynamic}) {
    const std::string tag(formats::scheme_row(scheme).tag);
    recipe_.rules = {{"*", scheme, false}};
    EXPECT_THAT(refusal(ErrorCode::kUsage), AllOf(HasSubstr(tag), HasSubstr("symmetric")));
    recipe_.rules = {{"*", scheme, true, 32}};
    EXPECT_THAT(refusal(ErrorCode::kUsage), AllOf(HasSubstr(tag), HasSubstr("per channel")));
  }
}

struct StaticTensor {
  std::string suffix;
  DType dtype;
  Shape shape;
};

TEST_F(LedgerTest, StaticLinearsHaveSevenTensorsOfTheModelsDtype) {
  recipe_ = builtin_recipe("w8a8");
  for (const DType model_dtype : {DType::kBF16, DType::kF16}) {
    reset_tensors(model_dtype == DType::kBF16 ? "BF16" : "F16");
    const Ledger ledger = make();
    EXPECT_EQ(ledger.model_dtype, model_dtype);
    const DType deq_dtype = model_dtype == DType::kBF16 ? DType::kF32 : DType::kI64;
    const std::vector<StaticTensor> expected = {
        {".weight", DType::kI8, {32, 64}},        {".weight_scale", DType::kF32, {32, 1}},
        {".weight_offset", DType::kF32, {32, 1}}, {".input_scale", model_dtype, {1}},
        {".input_offset", model_dtype, {1}},      {".quant_bias", DType::kI32, {32}},
        {".deq_scale", deq_dtype, {32}}};
    const std::string module = kLayer + "self_attn.k_proj";
    const auto& tensors = entry(ledger, module + ".weight").outputs.at(0).tensors;
    EXPECT_EQ(tensors.size(), expected.size());
    for (const StaticTensor& one : expected) {
      const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const auto& tensor) {
        return tensor.name == module + one.suffix;
      });
      ASSERT_NE(found, tensors.end()) << one.suffix;
      EXPECT_EQ(found->dtype, one.dtype) << one.suffix;
      EXPECT_EQ(found->shape, one.shape) << one.suffix;
      EXPECT_EQ(found->scheme, Scheme::kW8A8) << one.suffix;
    }
    EXPECT_EQ(scheme_of(ledger, kLayer + "mlp.down_proj"), Scheme::kFloat);
    EXPECT_EQ(entry(ledger, kLayer + "input_layernorm.weight").fate, Fate::kCopied);
  }
}

TEST_F(LedgerTest, LinearsKnowWhoseActivationsTheyRead) {
  const Ledger ledger = make();
  const auto group_of = [&](const std::string& module) {
    return entry(ledger, module + ".weight").group;
  };
  for (const char* member : {"q_proj", "k_proj", "v_proj"})
    EXPECT_EQ(group_of(kLayer + "self_attn." + member), formats::FusedGroup::kQkv) << member;
  EXPECT_EQ(group_of(kLayer + "self_attn.o_proj"), formats::FusedGroup::kAttentionOut);
  EXPECT_EQ(group_of(kLayer + "mlp.gate_proj"), formats::FusedGroup::kGateUp);
  EXPECT_EQ(group_of(kLayer + "mlp.up_proj"), formats::FusedGroup::kGateUp);
  EXPECT_EQ(group_of(kLayer + "mlp.down_proj"), formats::FusedGroup::kDown);
  EXPECT_EQ(group_of("lm_head"), formats::FusedGroup::kHead);
  EXPECT_EQ(group_of("model.norm"), formats::FusedGroup::kNone);
}

// One observer, and so one input_scale and input_offset, per group.
TEST_F(LedgerTest, AFusedGroupOfSymmetricAndAsymmetricActivationsIsRefused) {
  recipe_.rules = {{"*.k_proj", Scheme::kW8A8, true, 0, true}, {"*", Scheme::kW8A8}};
  EXPECT_THAT(refusal(ErrorCode::kUsage),
              AllOf(HasSubstr("q_proj"), HasSubstr("k_proj"), HasSubstr("activation_symmetric")));
  recipe_.rules = {{"*.o_proj", Scheme::kW8A8, true, 0, true}, {"*", Scheme::kW8A8}};
  EXPECT_TRUE(
      entry(make(), kLayer + "self_attn.o_proj.weight").outputs[0].rule.activation_symmetric);
}

TEST_F(LedgerTest, ExpertsAreQuantizedAndTheRouterStaysFloat) {
  config_["model_type"] = "qwen3_moe";
  config_["num_experts"] = 3;
  config_["num_experts_per_tok"] = 2;
  config_["moe_intermediate_size"] = 32;
  reset_tensors();
  const Ledger ledger = make();
  EXPECT_EQ(scheme_of(ledger, kLayer + "mlp.experts.2.down_proj"), Scheme::kW8A16);
  EXPECT_EQ(scheme_of(ledger, kLayer + "mlp.gate"), Scheme::kFloat);
  recipe_.keep_float = {kLayer + "mlp.experts.1.up_proj"};
  const Ledger kept = make();
  EXPECT_EQ(scheme_of(kept, kLayer + "mlp.experts.1.gate_proj"), Scheme::kFloat);
  EXPECT_EQ(scheme_of(kept, kLayer + "mlp.experts.0.gate_proj"), Scheme::kW8A16);
}

TEST_F(LedgerTest, DtypeFollowsTheSourceAndFloat32BecomesFloat16) {
  EXPECT_EQ(make().model_dtype, DType::kBF16);
  reset_tensors("F16");
  EXPECT_EQ(make().model_dtype, DType::kF16);
  EXPECT_EQ(make({DType::kBF16, false}).model_dtype, DType::kBF16);
  reset_tensors("F32");
  config_["torch_dtype"] = "float32";
  EXPECT_EQ(make().model_dtype, DType::kF16);
  EXPECT_EQ(entry(make(), "model.norm.weight").outputs[0].tensors[0].dtype, DType::kF16);
}

TEST_F(LedgerTest, RecipeOfAnotherFamilyIsUsedOnlyWhereEveryPatternMatches) {
  config_["model_type"] = "llama";
  reset_tensors();
  recipe_ = builtin_recipe("qwen_w8a16");
  EXPECT_THAT(make().warnings, ElementsAre(HasSubstr("was made for qwen, qwen2")));
  recipe_ = builtin_recipe("llama3_70b_w8a16");
  EXPECT_THAT(make().warnings, IsEmpty());
  config_["model_type"] = "qwen2";
  reset_tensors();
  EXPECT_THAT(refusal(ErrorCode::kUsage),
              AllOf(HasSubstr("was made for llama"), HasSubstr("model.layers.2.*")));
}

TEST_F(LedgerTest, RecipeWithoutRulesKeepsEverythingFloat) {
  recipe_ = Recipe{};
  const Ledger ledger = make();
  for (const LedgerEntry& one : ledger.entries) EXPECT_EQ(one.fate, Fate::kCopied);
  EXPECT_THAT(entry(ledger, kLayer + "mlp.up_proj.weight").reason, HasSubstr("no rule"));
  EXPECT_EQ(ledger.output_bytes(), ledger.source_bytes());
}

TEST(FateName, EveryFateHasItsWord) {
  EXPECT_EQ(fate_name(Fate::kQuantized), "quantized");
  EXPECT_EQ(fate_name(Fate::kCopied), "copied");
  EXPECT_EQ(fate_name(Fate::kCloned), "cloned");
  EXPECT_EQ(fate_name(Fate::kTied), "tied");
  EXPECT_EQ(fate_name(Fate::kDropped), "dropped");
  EXPECT_EQ(fate_name(Fate::kAdded), "added");
}

}  // namespace
}  // namespace llmq::convert

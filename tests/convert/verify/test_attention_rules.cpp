#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "convert/verify/conformance.h"
#include "formats/attention_tensors.h"
#include "formats/model_config.h"
#include "tests/convert/verify/static_folder.h"

namespace llmq::convert {
namespace {

using formats::Scheme;
using test::StaticFolder;
using testing::HasSubstr;

class AttentionRules : public testing::Test {
 protected:
  static StaticFolder folder_with(Scheme scheme) {
    StaticFolder folder;
    const auto config =
        formats::parse_model_config(formats::Json::parse(folder.config.dump()), "config.json");
    for (int64_t layer = 0; layer < config.n_layers; ++layer) {
      for (const auto& tensor :
           formats::attention_tensors(config, scheme, layer, formats::DType::kBF16)) {
        const std::vector<float> ones(static_cast<size_t>(formats::shape_elements(tensor.shape)),
                                      1.0F);
        const std::vector<std::byte> bytes = formats::encode_attention_tensor(
            tensor, tensor.is_scale ? std::span<const float>(ones) : std::span<const float>{});
        folder.add({tensor.name, std::string(formats::dtype_name(tensor.dtype)), tensor.shape,
                    std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())},
                   std::string(tensor.tag));
      }
    }
    if (scheme == Scheme::kC8) {
      folder.description["kv_cache_type"] = folder.description["kv_quant_type"] = "C8";
    } else {
      folder.description["fa_quant_type"] = "FAQuant";
    }
    return folder;
  }

  /// What the rule says, or "" where it is obeyed.
  std::string broken(const StaticFolder& contents) {
    contents.write(place_ / "out");
    for (const RuleResult& rule : check_conformance(place_ / "out", std::nullopt, team_)) {
      if (rule.name == "attention-scales") return rule.ok ? "" : rule.detail;
    }
    return "the rule is not there";
  }

  test::TemporaryFolder place_;
  quant::ThreadTeam team_{1};
};

TEST_F(AttentionRules, AcceptsEitherSchemeAndNone) {
  EXPECT_EQ(broken(StaticFolder()), "");
  EXPECT_EQ(broken(folder_with(Scheme::kC8)), "");
  EXPECT_EQ(broken(folder_with(Scheme::kFaQuant)), "");
}

TEST_F(AttentionRules, NamesEachDamage) {
  const std::string scale = "model.layers.1.self_attn.k_proj.kv_cache_scale";
  const std::string offset = "model.layers.0.self_attn.v_proj.kv_cache_offset";
  StaticFolder folder = folder_with(Scheme::kC8);
  folder.remove(scale);
  EXPECT_THAT(broken(folder), HasSubstr(scale + " of C8 is missing"));
  folder = folder_with(Scheme::kC8);
  folder.set<uint16_t>(scale, 1, 0);
  EXPECT_THAT(broken(folder), HasSubstr(scale));
  folder = folder_with(Scheme::kC8);
  folder.set<uint16_t>(offset, 0, 0x3f00);  // 0.5
  EXPECT_THAT(broken(folder), HasSubstr(offset));
  folder = folder_with(Scheme::kC8);
  folder.description.erase("kv_cache_type");
  EXPECT_THAT(broken(folder), HasSubstr("kv_cache_type"));
  folder = folder_with(Scheme::kC8);
  folder.description["fa_quant_type"] = "FAQuant";
  EXPECT_THAT(broken(folder), HasSubstr("exclude each other"));
  folder = folder_with(Scheme::kFaQuant);
  folder.description.erase("fa_quant_type");
  EXPECT_THAT(broken(folder), HasSubstr("fa_quant_type"));
}

}  // namespace
}  // namespace llmq::convert

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/convert/sparse_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

constexpr int kBadInput = 3;
constexpr int kGate = 6;

/// What becomes of a compressed folder that something happened to on its way.
class CliSparseDamage : public SparseFixture {
 protected:
  void SetUp() override {
    SparseFixture::SetUp();
    whole_ = compress("whole", 2);
  }

  /// A copy of the compressed folder to be damaged.
  [[nodiscard]] fs::path copy() const {
    const fs::path broken = folder_ / "broken";
    fs::remove_all(broken);
    fs::copy(whole_, broken, fs::copy_options::recursive);
    return broken;
  }

  /// Both commands find it: decompression refuses, verify names the rule.
  void expect_found(const fs::path& broken, const testing::Matcher<std::string>& words,
                    const std::string& rule) const {
    const CommandResult result = decompress(broken, folder_ / "refused");
    EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
    EXPECT_THAT(result.err, words);
    EXPECT_FALSE(fs::exists(folder_ / "refused"));
    const CommandResult verified = run_llmq({"verify", broken});
    EXPECT_EQ(verified.exit_code, kGate) << verified.summary();
    EXPECT_THAT(verified.err, AllOf(HasSubstr(rule), words));
  }

  template <typename Fn>
  void expect_damage_found(const std::string& tensor, Fn&& damage,
                           const testing::Matcher<std::string>& words,
                           const std::string& rule) const {
    SCOPED_TRACE(tensor);
    const fs::path broken = copy();
    const fs::path file = part(broken, 1) / kWeightFile;
    std::vector<RawTensor> tensors = read_safetensors(file);
    damage(tensor_named(tensors, tensor));
    write_file(file, safetensors_file(tensors));
    expect_found(broken, words, rule);
  }

  void rewrite_json(const fs::path& file, const std::string& key, const OrderedJson& value) const {
    OrderedJson document = OrderedJson::parse(read_file(file));
    document[key] = value;
    write_file(file, document.dump());
  }

  fs::path whole_;
  static constexpr const char* kLinear = "model.layers.1.mlp.up_proj";
};

TEST_F(CliSparseDamage, AFlippedBitIsFoundInTensorAndTile) {
  // [160, 64] on each rank: tile 1 has the rows from 128.
  expect_damage_found(
      std::string(kLinear) + ".weight", [](RawTensor& tensor) { tensor.bytes.back() ^= 1; },
      HasSubstr("up_proj.weight: tile 1 (rows 128 to 159, columns 0 to 63): the checksum differs"),
      "tile-checksums");
}

TEST_F(CliSparseDamage, AHeaderOfALaterVersionIsRefused) {
  expect_damage_found(
      std::string(kLinear) + ".weight", [](RawTensor& tensor) { tensor.bytes[4] = 2; },
      AllOf(HasSubstr("up_proj.weight"), HasSubstr("version")), "compressed-container");
}

TEST_F(CliSparseDamage, AnIndexThatLeadsOutOfTheWeightIsRefused) {
  expect_damage_found(
      std::string(kLinear) + ".index",
      [](RawTensor& tensor) { tensor.bytes[tensor.bytes.size() - 1] = 0x40; },
      AllOf(HasSubstr("up_proj.weight"), HasSubstr("tile 1")), "compressed-container");
}

TEST_F(CliSparseDamage, AWrongNumberOfTilesIsRefused) {
  expect_damage_found(
      std::string(kLinear) + ".index",
      [](RawTensor& tensor) {
        tensor.bytes.resize(8);
        tensor.shape = {8};
      },
      AllOf(HasSubstr("up_proj.weight"), HasSubstr("tiles")), "compressed-container");
  expect_damage_found(
      std::string(kLinear) + ".info",
      [](RawTensor& tensor) {
        tensor.bytes.resize(32);
        tensor.shape = {4};
      },
      HasSubstr("up_proj.weight"), "compressed-container");
}

TEST_F(CliSparseDamage, AnUnknownCodecIsRefused) {
  const fs::path broken = copy();
  rewrite_json(broken / "llmq_w8a8sc.json", "codec", "rans-2");
  const CommandResult result = decompress(broken, folder_ / "refused");
  EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
  EXPECT_THAT(result.err,
              HasSubstr("coded by \"rans-2\"; this program reads rans-1 and deflate-1"));
  const fs::path marked = copy();
  rewrite_json(part(marked, 0) / kDescription, "w8a8sc_codec", "rans-2");
  const CommandResult verified = run_llmq({"verify", part(marked, 0)});
  EXPECT_EQ(verified.exit_code, kGate) << verified.summary();
  EXPECT_THAT(verified.err, AllOf(HasSubstr("codec-marked"), HasSubstr("rans-2")));
}

TEST_F(CliSparseDamage, AMissingPartIsNamed) {
  const fs::path broken = copy();
  fs::remove_all(part(broken, 1));
  expect_found(broken, HasSubstr("the folder of rank 1 is missing"), "shards-of-one-run");
}

TEST_F(CliSparseDamage, APartOfAnotherRunIsNamed) {
  make_source(2);
  sparse_ = quantize("other", sparse_options_);
  const fs::path other = compress("other-compressed", 2);
  const fs::path broken = copy();
  fs::remove_all(part(broken, 1));
  fs::copy(part(other, 1), part(broken, 1), fs::copy_options::recursive);
  expect_found(broken, AllOf(HasSubstr("its fingerprint is"), HasSubstr("rank-1")),
               "shards-of-one-run");
  const fs::path mixed = copy();
  fs::copy_file(other / "llmq_w8a8sc.json", mixed / "llmq_w8a8sc.json",
                fs::copy_options::overwrite_existing);
  const CommandResult result = decompress(mixed, folder_ / "refused");
  EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
  EXPECT_THAT(result.err, HasSubstr("not of one run"));
}

TEST_F(CliSparseDamage, ANoteLeadsToNoPlaceOutsideTheFolder) {
  for (const std::string path : {"../evil.json", "/evil.json", "a/../../evil.json"}) {
    const fs::path broken = copy();
    OrderedJson note = OrderedJson::parse(read_file(broken / "llmq_w8a8sc.json"));
    note["replaced"][0]["split"] = path;
    write_file(broken / "llmq_w8a8sc.json", note.dump());
    const CommandResult result = decompress(broken, folder_ / "refused");
    EXPECT_EQ(result.exit_code, kBadInput) << result.summary();
    EXPECT_THAT(result.err, HasSubstr("outside the folder"));
    EXPECT_FALSE(fs::exists(folder_ / "evil.json"));
  }
}

TEST_F(CliSparseDamage, ADescriptionThatLacksATensorIsFound) {
  const fs::path broken = copy();
  OrderedJson description = OrderedJson::parse(read_file(part(broken, 0) / kDescription));
  description.erase(std::string(kLinear) + ".index");
  write_file(part(broken, 0) / kDescription, description.dump());
  const CommandResult verified = run_llmq({"verify", broken});
  EXPECT_EQ(verified.exit_code, kGate) << verified.summary();
  EXPECT_THAT(verified.err, AllOf(HasSubstr("description-covers-tensors"),
                                  HasSubstr("up_proj.index is not in the description")));
}

}  // namespace
}  // namespace llmq::test

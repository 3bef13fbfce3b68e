// --fast-calibration: another arithmetic, which the report names, and the same bytes for every
// number of threads and every instruction set without tiles.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "quant/kernels/cpu.h"
#include "quant/kernels/gemm_bf16/gemm_bf16.h"
#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {
namespace {

class CliFastCalibration : public CalibratedFixture {
 protected:
  /// quant_... files of a run; its statistics go to NAME.json.
  std::map<std::string, std::string> run(const std::string& name,
                                         std::vector<std::string> options = {},
                                         const std::map<std::string, std::string>& env = {}) {
    options.insert(options.end(), {"--save-stats", folder_ / (name + ".json")});
    return result_files(calibrate(name, options, env));
  }
  [[nodiscard]] OrderedJson statistics(const std::string& name) const {
    return OrderedJson::parse(read_file(folder_ / (name + ".json")));
  }
};

TEST_F(CliFastCalibration, DefaultIsTheFloat32ArithmeticAndItsReportSaysNothingElse) {
  const auto before = run("before");
  EXPECT_FALSE(run("fast", {"--fast-calibration"}).empty());
  EXPECT_TRUE(run("after") == before);
  EXPECT_EQ(read_file(folder_ / "before.json"), read_file(folder_ / "after.json"));
  EXPECT_FALSE(report_of(folder_ / "before").at("calibration").contains("fast_calibration"));
  EXPECT_FALSE(statistics("before").contains("fast_calibration"));
}

TEST_F(CliFastCalibration, ReportAndStatisticsNameTheOrderOfSums) {
  run("fast", {"--fast-calibration"});
  const bool has_tiles = quant::gemm_bf16_implementation(quant::active_isa()) == quant::Isa::kAmx;
  const std::string order = has_tiles ? "tiles" : "lanes";
  EXPECT_EQ(report_of(folder_ / "fast").at("calibration").at("fast_calibration"), order);
  EXPECT_EQ(statistics("fast").at("fast_calibration"), order);
  // Statistics that are loaded keep saying where they come from, and give the same bytes.
  const auto again =
      result_files(quantize("again", {"-type", "w8a8", "--stats", folder_ / "fast.json"}));
  EXPECT_TRUE(again == result_files(folder_ / "fast"));
  EXPECT_EQ(report_of(folder_ / "again").at("calibration").at("fast_calibration"), order);
}

// What calibration decides on are ranges of 256 codes: an arithmetic that moved one by more than a
// code would cost as much as the codes themselves. The first linears read what nothing has rounded.
TEST_F(CliFastCalibration, RangesMoveByLessThanACode) {
  run("exact");
  run("fast", {"--fast-calibration"});
  const OrderedJson exact = statistics("exact").at("groups");
  const OrderedJson fast = statistics("fast").at("groups");
  ASSERT_EQ(exact.size(), fast.size());
  EXPECT_NE(exact, fast) << "nothing was rounded";
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(exact[i].at("group"), fast[i].at("group"));
    const double min = exact[i].at("min").get<double>();
    const double max = exact[i].at("max").get<double>();
    const double code = (max - min) / 255;
    EXPECT_NEAR(fast[i].at("min").get<double>(), min, code) << exact[i];
    EXPECT_NEAR(fast[i].at("max").get<double>(), max, code) << exact[i];
    if (exact[i].at("group") == "qkv" && exact[i].at("layer") == 0) {
      EXPECT_EQ(exact[i], fast[i]);
    }
  }
}

TEST_F(CliFastCalibration, BytesDependOnNeitherThreadsNorSetsWithoutTiles) {
  const auto expected = run("one", {"--fast-calibration", "--threads", "1"});
  for (const std::string threads : {"2", "3", "4"})
    EXPECT_TRUE(run("t" + threads, {"--fast-calibration", "--threads", threads}) == expected);
  const auto scalar = run("scalar", {"--fast-calibration"}, {{"LLMQ_ISA", "scalar"}});
  for (const quant::Isa isa : quant::supported_isas()) {
    if (isa == quant::Isa::kAmx) continue;
    const std::string name(quant::isa_name(isa));
    EXPECT_TRUE(run("isa_" + name, {"--fast-calibration"}, {{"LLMQ_ISA", name}}) == scalar) << name;
    EXPECT_EQ(read_file(folder_ / ("isa_" + name + ".json")), read_file(folder_ / "scalar.json"));
  }
}

TEST_F(CliFastCalibration, Float16WeightsAreRoundedToo) {
  store_as("F16", "float16");
  run("exact");
  run("fast", {"--fast-calibration"});
  EXPECT_NE(statistics("exact").at("groups"), statistics("fast").at("groups"));
}

TEST_F(CliFastCalibration, StatisticsOfAnUnknownOrderAreRefused) {
  run("fast", {"--fast-calibration"});
  OrderedJson document = statistics("fast");
  document["fast_calibration"] = "sideways";
  write_file(folder_ / "damaged.json", document.dump());
  expect_refusal({"-type", "w8a8", "--stats", folder_ / "damaged.json"}, 3, "neither");
}

TEST_F(CliFastCalibration, SavedStatisticsRefuseIt) {
  run("exact");
  expect_refusal({"-type", "w8a8", "--stats", folder_ / "exact.json", "--fast-calibration"}, 2,
                 "excludes");
}

}  // namespace
}  // namespace llmq::test

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "convert/pipeline/quantize_folder.h"
#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::convert {
namespace {

namespace fs = std::filesystem;
using formats::Scheme;
using test::OrderedJson;
using test::read_file;
using test::write_file;
using testing::ElementsAre;

class FolderJobTest : public testing::Test {
 protected:
  void SetUp() override { write_source(); }

  void write_source() const {
    fs::remove_all(folder_ / "source");
    test::write_checkpoint(folder_ / "source", config_, test::tiny_qwen2_tensors());
  }
  formats::Json run() {
    Console console(true, LogLevel::kQuiet);
    return run_folder_job(job_, console);
  }
  [[nodiscard]] OrderedJson written(const std::string& name) const {
    return OrderedJson::parse(read_file(job_.destination / name));
  }

  test::TemporaryFolder folder_;
  OrderedJson config_ = test::tiny_qwen2_config();
  FolderJob job_ = [this] {
    FolderJob job;
    job.source = folder_ / "source";
    job.destination = folder_ / "out";
    job.recipe = builtin_recipe("w8a16");
    return job;
  }();
};

TEST_F(FolderJobTest, LeftoversOfAnotherInterruptedRunDoNotComeAlong) {
  fs::create_directory(folder_ / ".out.llmq-partial");
  for (const char* name : {"model-00001-of-00002.safetensors", "stale.json"}) {
    write_file(folder_ / ".out.llmq-partial" / name, "left by a run with other options");
  }
  run();
  EXPECT_THAT(test::folder_entries(job_.destination),
              ElementsAre("config.json", "llmq_report.json", "quant_model_description.json",
                          "quant_model_weight_w8a16.safetensors"));
}

TEST_F(FolderJobTest, GroupSizeIsTheSameInDescriptionAndConfig) {
  job_.recipe->rules = {{"*", Scheme::kW8A16, true, 64}};
  run();
  EXPECT_EQ(written("quant_model_description.json").at("group_size"), 64);
  EXPECT_EQ(written("config.json").at("quantization_config").at("group_size"), 64);
}

TEST_F(FolderJobTest, DynamicWeightsAreWrittenAsTheirOwnScheme) {
  job_.recipe->rules = {{"*", Scheme::kW8A8Dynamic}};
  run();
  EXPECT_EQ(written("config.json").at("quantize"), "w8a8_dynamic");
  EXPECT_EQ(written("quant_model_description.json").at("model_quant_type"), "W8A8_DYNAMIC");
}

TEST_F(FolderJobTest, SourceOfLinksIsQuantizedAsTheFilesBehindThem) {
  run();
  const auto reference = test::folder_contents(job_.destination);
  const fs::path snapshot = folder_ / "snapshot";
  fs::create_directory(snapshot);
  for (const std::string& name : test::folder_entries(job_.source)) {
    fs::create_symlink(job_.source / name, snapshot / name);
  }
  job_.source = snapshot;
  job_.destination = folder_ / "from-links";
  run();
  auto contents = test::folder_contents(job_.destination);
  ASSERT_EQ(contents.size(), reference.size());
  for (const auto& [name, bytes] : reference) {
    if (name != "llmq_report.json") {
      EXPECT_TRUE(contents[name] == bytes) << name;
    }
  }
}

// A left-over `dtype` would contradict the torch_dtype that the files have.
TEST_F(FolderJobTest, BothSpellingsOfTheDtypeSayWhatWasWritten) {
  config_["dtype"] = "bfloat16";
  write_source();
  job_.ledger.dtype = formats::DType::kF16;
  run();
  const OrderedJson config = written("config.json");
  EXPECT_EQ(config.at("torch_dtype"), "float16");
  EXPECT_EQ(config.value("dtype", "float16"), "float16");
}

}  // namespace
}  // namespace llmq::convert

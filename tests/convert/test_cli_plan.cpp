#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

fs::path data_folder() {
  const char* folder = std::getenv("LLMQ_TEST_DATA");
  return folder != nullptr ? fs::path(folder)
                           : fs::path(LLMQ_TEST_SOURCE_DIR) / "../../shared/data";
}

// config.json files of real models: folders with one, and files of their own.
std::vector<fs::path> real_configs() {
  std::vector<fs::path> paths;
  const fs::path folder = data_folder() / "configs";
  if (fs::is_directory(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (fs::exists(entry.path() / "config.json")) {
        paths.push_back(entry.path() / "config.json");
      } else if (entry.path().extension() == ".json") {
        paths.push_back(entry.path());
      }
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::set<std::string> planned_names(const OrderedJson& plan) {
  std::set<std::string> names;
  for (const auto& tensor : plan.at("tensors")) {
    EXPECT_TRUE(names.insert(tensor.at("name")).second) << tensor.at("name") << " twice";
  }
  return names;
}

std::set<std::string> names_of(const std::vector<RawTensor>& tensors) {
  std::set<std::string> names;
  for (const RawTensor& tensor : tensors) {
    names.insert(tensor.name);
  }
  return names;
}

TEST(CliPlan, ListsEveryTensorOfEveryRealConfiguration) {
  const auto configs = real_configs();
  if (configs.empty()) {
    GTEST_SKIP() << "no configurations in " << data_folder() << "; set LLMQ_TEST_DATA";
  }
  TemporaryFolder folder;
  for (const fs::path& path : configs) {
    SCOPED_TRACE(path.string());
    auto config = OrderedJson::parse(read_file(path));
    config["num_hidden_layers"] = 1;
    const auto tensors = tensors_of_config(config, "BF16");
    const fs::path source = folder / "source";
    fs::remove_all(source);
    write_hollow_checkpoint(source, config, tensors);
    const CommandResult result = run_llmq({"plan", "-src", source, "-type", "w8a16", "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.summary();
    const auto plan = json_output(result);
    const auto planned = planned_names(plan);
    for (const std::string& name : names_of(tensors)) {
      EXPECT_TRUE(planned.contains(name)) << name;
    }
    EXPECT_GT(plan.at("output_bytes").get<uint64_t>(), 0U);
    EXPECT_GT(plan.at("peak_memory_bytes").get<uint64_t>(), 0U);
    EXPECT_THAT(plan.at("legal_tp").get<std::vector<int>>(), testing::Contains(1));
  }
}

// All 80 layers, 145 GB: possible only when nothing but headers is read.
TEST(CliPlan, PlansAModelLargerThanMemoryFromItsHeaders) {
  const fs::path path = data_folder() / "configs/Qwen2.5-72B/config.json";
  if (!fs::exists(path)) {
    GTEST_SKIP() << path << " is absent; set LLMQ_TEST_DATA";
  }
  TemporaryFolder folder;
  const auto config = OrderedJson::parse(read_file(path));
  const auto tensors = tensors_of_config(config, "BF16");
  try {
    write_hollow_checkpoint(folder / "source", config, tensors);
  } catch (const fs::filesystem_error& error) {
    GTEST_SKIP() << "this file system has no files with holes of that size: " << error.what();
  }
  Command command = llmq_command({"plan", "-src", folder / "source", "-type", "w8a16", "--json"});
  command.timeout = std::chrono::seconds(30);
  const CommandResult result = run_command(command);
  ASSERT_EQ(result.exit_code, 0) << result.summary().substr(0, 2000);
  const auto plan = json_output(result);
  EXPECT_GE(planned_names(plan).size(), tensors.size());
  EXPECT_THAT(plan.at("legal_tp").get<std::vector<int>>(), testing::IsSupersetOf({1, 2, 4, 8}));
  // Eight bits of most weights: between half of the source and all of it.
  EXPECT_GT(plan.at("output_bytes").get<uint64_t>(), 72'000'000'000U);
  EXPECT_LT(plan.at("output_bytes").get<uint64_t>(), 130'000'000'000U);
}

TEST(CliPlan, OutputSizeIsThatOfTheWeightFilesThatQuantWrites) {
  TemporaryFolder folder;
  write_checkpoint(folder / "source", tiny_qwen2_config(), tiny_qwen2_tensors());
  for (const std::string type : {"w8a16", "qwen_w8a16"}) {
    SCOPED_TRACE(type);
    const CommandResult planned =
        run_llmq({"plan", "-src", folder / "source", "-type", type, "--json"});
    ASSERT_EQ(planned.exit_code, 0) << planned.summary();
    const CommandResult written =
        run_llmq({"quant", "-src", folder / "source", "-dst", folder / type, "-type", type});
    ASSERT_EQ(written.exit_code, 0) << written.summary();
    uint64_t weight_file_bytes = 0;
    for (const auto& [name, content] : folder_contents(folder / type)) {
      weight_file_bytes += name.ends_with(".safetensors") ? content.size() : 0;
    }
    EXPECT_EQ(json_output(planned).at("output_bytes"), weight_file_bytes);
  }
}

TEST(CliPlan, WritesNothing) {
  TemporaryFolder folder;
  write_checkpoint(folder / "source", tiny_qwen2_config(), tiny_qwen2_tensors());
  const auto before = folder_contents(folder.path());
  EXPECT_EQ(run_llmq({"plan", "-src", folder / "source", "-type", "w8a16"}).exit_code, 0);
  EXPECT_EQ(folder_contents(folder.path()), before);
}

// --- usage
// ------------------------------------------------------------------------------------------

void expect_usage_error(const std::vector<std::string>& arguments,
                        const std::vector<std::string>& words) {
  const CommandResult plain = run_llmq(arguments);
  EXPECT_EQ(plain.exit_code, 2) << plain.summary();
  EXPECT_EQ(plain.out, "");
  for (const std::string& word : words) {
    EXPECT_THAT(plain.err, HasSubstr(word));
  }
  auto with_json = arguments;
  with_json.emplace_back("--json");
  const CommandResult json = run_llmq(with_json);
  EXPECT_EQ(json.exit_code, 2) << json.summary();
  const auto document = json_output(json);
  ASSERT_TRUE(document.is_object() && document.contains("error")) << json.summary();
  EXPECT_EQ(document.at("error").at("code"), "usage");
  EXPECT_THAT(document.at("error").at("message").get<std::string>(), HasSubstr(words.at(0)));
}

TEST(CliUsage, UnknownTypeListsTheTypes) {
  TemporaryFolder folder;
  write_checkpoint(folder / "source", tiny_qwen2_config(), tiny_qwen2_tensors());
  for (const std::string command : {"quant", "plan"}) {
    std::vector<std::string> arguments = {command, "-src", folder / "source", "-type", "w3a5"};
    if (command == "quant") {
      arguments.insert(arguments.end(), {"-dst", folder / "out"});
    }
    expect_usage_error(arguments, {"w3a5", "qwen_w8a16", "llama3_70b_w8a16", "w8a16"});
  }
  EXPECT_THAT(folder_entries(folder.path()), testing::ElementsAre("source"));
}

TEST(CliUsage, UnknownOptionIsNamed) {
  TemporaryFolder folder;
  write_checkpoint(folder / "source", tiny_qwen2_config(), tiny_qwen2_tensors());
  expect_usage_error({"quant", "-src", folder / "source", "-dst", folder / "out", "-type", "w8a16",
                      "--frobnicate", "1"},
                     {"frobnicate"});
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST(CliUsage, UnknownSubcommandIsNamed) {
  expect_usage_error({"quantise"}, {"quantise"});
}

TEST(CliUsage, MissingRequiredOptionIsNamed) {
  expect_usage_error({"quant", "-dst", "/nonexistent/out", "-type", "w8a16"}, {"src"});
}

TEST(CliUsage, ValueOfTheWrongKindIsRefused) {
  TemporaryFolder folder;
  write_checkpoint(folder / "source", tiny_qwen2_config(), tiny_qwen2_tensors());
  expect_usage_error({"quant", "-src", folder / "source", "-dst", folder / "out", "-type", "w8a16",
                      "--threads", "many"},
                     {"threads"});
}

TEST(CliUsage, HelpOfEverySubcommandHasAnExample) {
  for (const std::string command : {"quant", "plan", "verify", "inspect", "info"}) {
    const CommandResult result = run_llmq({command, "--help"});
    EXPECT_EQ(result.exit_code, 0) << command << ": " << result.summary();
    EXPECT_THAT(result.out, HasSubstr("llmq " + command)) << "an example of " << command;
    EXPECT_THAT(result.out, HasSubstr("--json"));
  }
}

TEST(CliUsage, InfoNamesVersionAndInstructionSets) {
  const CommandResult result = run_llmq({"info", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  EXPECT_TRUE(json_output(result).is_object());
  EXPECT_THAT(result.out, HasSubstr("scalar"));
}

}  // namespace
}  // namespace llmq::test

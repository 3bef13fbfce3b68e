#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/convert/cli_runner.h"
#include "tests/convert/verify/static_folder.h"

namespace llmq::test {
namespace {

using testing::HasSubstr;

OrderedJson document_of(const std::vector<std::string>& arguments) {
  const CommandResult result = run_llmq(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  return json_output(result);
}

TEST(CliPhase, RunTakesEveryTokenInThePhaseThatIsGiven) {
  const TemporaryFolder place;
  StaticFolder folder;
  folder.description["model_quant_type"] = "W8A8_MIX";
  for (const RawTensor& tensor : folder.tensors) {
    if (folder.description[tensor.name] == "W8A8") folder.description[tensor.name] = "W8A8_MIX";
  }
  folder.write(place / "mix");
  const std::vector<std::string> run{"run",   "--model_path",        place / "mix", "--input_ids",
                                     "1,2,3", "--max_output_length", "4",           "--json"};
  const auto with = [&](const std::string& phase) {
    std::vector<std::string> arguments = run;
    arguments.insert(arguments.end(), {"--phase", phase});
    return arguments;
  };
  EXPECT_FALSE(document_of(run).contains("phase"));
  for (const char* phase : {"prefill", "decode"}) {
    const OrderedJson document = document_of(with(phase));
    EXPECT_EQ(document["phase"], phase);
    EXPECT_EQ(document["ids"].size(), 4U);
  }
  const CommandResult refused = run_llmq(with("both"));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.summary(), HasSubstr("--phase"));
}

TEST(CliPhase, EvalOfAFloatModelIsTheSameInBothAndNamesThePhase) {
  const std::string pico = std::string(LLMQ_TEST_SOURCE_DIR) + "/../samples/pico";
  const std::vector<std::string> eval{
      "eval", "--model_path", pico, "--text", pico + "/story.txt", "--max-tokens", "40", "--json"};
  const OrderedJson as_fed = document_of(eval);
  EXPECT_FALSE(as_fed.contains("phase"));
  for (const char* phase : {"prefill", "decode"}) {
    std::vector<std::string> arguments = eval;
    arguments.insert(arguments.end(), {"--phase", phase});
    const OrderedJson document = document_of(arguments);
    EXPECT_EQ(document["phase"], phase);
    EXPECT_EQ(document["mean_nll"], as_fed["mean_nll"]);
  }
}

}  // namespace
}  // namespace llmq::test

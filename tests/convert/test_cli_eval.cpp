#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

constexpr int kUsage = 2;
constexpr int kBadInput = 3;
constexpr int kGate = 6;

fs::path data_folder() {
  const char* folder = std::getenv("LLMQ_TEST_DATA");
  return folder != nullptr ? fs::path(folder)
                           : fs::path(LLMQ_TEST_SOURCE_DIR) / "../../shared/data";
}

std::vector<std::string> joined(std::vector<std::string> first,
                                const std::vector<std::string>& more) {
  first.insert(first.end(), more.begin(), more.end());
  return first;
}

// A real trained model and the text it was trained on.
class CliEval : public testing::Test {
 protected:
  [[nodiscard]] virtual std::string model_name() const { return "stories260k"; }

  void SetUp() override {
    model_ = data_folder() / "models" / model_name();
    sample_ = data_folder() / "texts/tinystories_sample.txt";
    if (!fs::exists(model_) || !fs::exists(sample_)) {
      GTEST_SKIP() << model_ << " or " << sample_ << " is absent; set LLMQ_TEST_DATA";
    }
  }

  [[nodiscard]] std::vector<std::string> on_sample(
      const std::vector<std::string>& more = {}) const {
    return joined({"eval", "--model_path", model_, "--text", sample_, "--split", "<|endoftext|>",
                   "--context", "512", "--json"},
                  more);
  }

  [[nodiscard]] CommandResult eval(const std::vector<std::string>& more) const {
    return run_llmq(joined({"eval", "--model_path", model_, "--json"}, more));
  }

  // A run that must succeed; its document.
  static OrderedJson document_of(const Command& command) {
    const CommandResult result = run_command(command);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    return json_output(result);
  }
  static OrderedJson document_of(const std::vector<std::string>& arguments) {
    return document_of(llmq_command(arguments));
  }

  // A refusal in one sentence with these words.
  static void expect_refusal(const CommandResult& result, int exit_code,
                             const std::vector<std::string>& words) {
    EXPECT_EQ(result.exit_code, exit_code) << result.summary();
    const OrderedJson document = json_output(result);
    ASSERT_TRUE(document.is_object() && document.contains("error")) << result.summary();
    const auto message = document["error"]["message"].get<std::string>();
    for (const std::string& word : words) EXPECT_THAT(message, HasSubstr(word));
    EXPECT_THAT(message, Not(HasSubstr("\n")));
  }

  [[nodiscard]] fs::path file(const std::string& name, const std::string& content) const {
    write_file(folder_ / name, content);
    return folder_ / name;
  }

  // A copy of the model's folder that can be changed.
  [[nodiscard]] fs::path copy_of_model(const std::string& name) const {
    fs::copy(model_, folder_ / name, fs::copy_options::recursive);
    for (const auto& entry : fs::directory_iterator(folder_ / name))
      fs::permissions(entry.path(), fs::perms::owner_write, fs::perm_options::add);
    fs::permissions(folder_ / name, fs::perms::owner_write, fs::perm_options::add);
    return folder_ / name;
  }

  TemporaryFolder folder_;
  fs::path model_;
  fs::path sample_;
};

class CliEvalGolden : public CliEval, public testing::WithParamInterface<std::string> {
 protected:
  [[nodiscard]] std::string model_name() const override { return GetParam(); }
};

TEST_P(CliEvalGolden, MeanNllIsThatOfTheIndependentFloat64Pass) {
  const auto golden =
      OrderedJson::parse(read_file(data_folder() / "models/stories260k-golden.json"));
  int n_checked = 0;
  for (const auto& item : golden.at("nll")) {
    if (item.at("how").get<std::string>().find("split at") == std::string::npos) continue;
    const auto n_tokens = item.at("predicted_tokens").get<int64_t>();
    const OrderedJson document =
        document_of({"eval", "--model_path", model_, "--text",
                     data_folder() / item.at("file").get<std::string>(), "--split", "<|endoftext|>",
                     "--context", "512", "--max-tokens", std::to_string(n_tokens), "--json"});
    EXPECT_NEAR(document.at("mean_nll").get<double>(), item.at("mean_nll").get<double>(), 1e-5);
    EXPECT_NEAR(document.at("perplexity").get<double>(), item.at("perplexity").get<double>(), 1e-4);
    EXPECT_EQ(document.at("n_tokens"), n_tokens);
    ++n_checked;
  }
  EXPECT_EQ(n_checked, 2);
}

TEST_P(CliEvalGolden, BitsDependOnNeitherThreadsNorChunkNorPagesNorInstructionSet) {
  const OrderedJson want = document_of(on_sample());
  EXPECT_EQ(want.at("n_tokens"), 1804);
  const std::vector<std::vector<std::string>> variants{
      {"--threads", "1"},
      {"--threads", "2"},
      {"--prefill-chunk", "1"},
      {"--prefill-chunk", "7"},
      {"--prefill-chunk", "512", "--page-size", "3"}};
  for (const auto& variant : variants)
    EXPECT_EQ(document_of(on_sample(variant)), want) << variant[0] << " " << variant[1];
  // Named, because a range over a part of a temporary outlives it.
  const OrderedJson info = document_of({"info", "--json"});
  const auto& sets = info.at("instruction_sets");
  EXPECT_EQ(info.at("amx_refused_because").is_null(),
            std::find(sets.begin(), sets.end(), "amx") != sets.end())
      << "amx is offered, or it is said why not";
  for (const auto& isa : sets) {
    Command command = llmq_command(on_sample());
    command.environment = {{"LLMQ_ISA", isa}};
    EXPECT_EQ(document_of(command), want) << isa;
  }
}

TEST_P(CliEvalGolden, AModelAgainstItselfHasNoDistance) {
  const OrderedJson document =
      document_of(on_sample({"--reference", model_, "--max-kl", "0", "--max-tokens", "600"}));
  EXPECT_EQ(document.at("kl"), 0.0);
  EXPECT_EQ(document.at("kl_p99"), 0.0);
  EXPECT_EQ(document.at("top1_agreement"), 1.0);
  ASSERT_EQ(document.at("layers").size(), 5U);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(document.at("layers")[i].at("layer"), i);
    EXPECT_EQ(document.at("layers")[i].at("relative_rms"), 0.0);
  }
}

TEST_P(CliEvalGolden, EightBitWeightsCostAlmostNothing) {
  const fs::path quantized = folder_ / "w8a16";
  const CommandResult made =
      run_llmq({"quant", "-src", model_, "-dst", quantized, "-type", "w8a16"});
  ASSERT_EQ(made.exit_code, 0) << made.summary();
  const OrderedJson document =
      document_of({"eval", "--model_path", quantized, "--text", sample_, "--split", "<|endoftext|>",
                   "--context", "512", "--reference", model_, "--json"});
  const double rise =
      document.at("mean_nll").get<double>() - document.at("reference_mean_nll").get<double>();
  EXPECT_LT(rise, 0.002);
  EXPECT_NEAR(document.at("reference_mean_nll").get<double>(), 1.26644, 1e-4);
  EXPECT_GT(document.at("kl").get<double>(), 0.0);
  EXPECT_LT(document.at("kl").get<double>(), 0.002);
  EXPECT_GE(document.at("kl_p99").get<double>(), document.at("kl").get<double>());
  EXPECT_GT(document.at("top1_agreement").get<double>(), 0.97);
  for (const auto& layer : document.at("layers")) {
    EXPECT_GT(layer.at("relative_rms").get<double>(), 0.0);
    EXPECT_LT(layer.at("relative_rms").get<double>(), 0.05);
  }
}

INSTANTIATE_TEST_SUITE_P(, CliEvalGolden, testing::Values("stories260k", "stories260k-qwen2"),
                         [](const auto& test) {
                           return test.param == "stories260k" ? "Llama" : "Qwen2";
                         });

TEST_F(CliEval, WindowsOfAWholeTextStartWithBosAndCoverEveryToken) {
  const fs::path text = file("text.txt", read_file(sample_).substr(0, 1500));
  const OrderedJson whole =
      document_of({"eval", "--model_path", model_, "--text", text, "--context", "512", "--json"});
  const OrderedJson windows =
      document_of({"eval", "--model_path", model_, "--text", text, "--context", "101", "--json"});
  // Each token but BOS is scored, whatever the window.
  EXPECT_EQ(windows.at("n_tokens"), whole.at("n_tokens"));
  EXPECT_EQ(windows.at("n_pieces"), (whole.at("n_tokens").get<int>() + 99) / 100);
  EXPECT_GT(windows.at("mean_nll"), whole.at("mean_nll"));
}

TEST_F(CliEval, GatesDecideTheExitCode) {
  const auto exit_code = [&](const std::vector<std::string>& more) {
    return run_llmq(on_sample(joined({"--max-tokens", "50"}, more))).exit_code;
  };
  EXPECT_EQ(exit_code({"--max-nll", "3"}), 0);
  EXPECT_EQ(exit_code({"--max-nll", "0.5"}), kGate);
  const CommandResult failed = run_llmq(on_sample({"--max-tokens", "50", "--max-nll", "0.5"}));
  EXPECT_THAT(failed.err, HasSubstr("--max-nll"));
  const OrderedJson gates = json_output(failed).at("gates");
  ASSERT_EQ(gates.size(), 1U);
  EXPECT_EQ(gates[0].at("ok"), false);
  EXPECT_EQ(gates[0].at("limit"), 0.5);
  // This model is far too small to find anything.
  const CommandResult passkey = eval({"--passkey", "300", "--depths", "2", "--min-passkey", "0.9"});
  EXPECT_EQ(passkey.exit_code, kGate) << passkey.summary();
}

TEST_F(CliEval, RetrievalListsEveryLengthAndDepth) {
  const OrderedJson document =
      document_of({"eval", "--model_path", model_, "--passkey", "300,512", "--kv-retrieval", "1k",
                   "--depths", "3", "--seeds", "2", "--allow-extrapolation", "--json"});
  ASSERT_EQ(document.at("passkey").size(), 6U);
  ASSERT_EQ(document.at("kv_retrieval").size(), 3U);
  for (size_t i = 0; i < 6; ++i) {
    const auto& cell = document.at("passkey")[i];
    EXPECT_EQ(cell.at("length"), i < 3 ? 300 : 512);
    EXPECT_EQ(cell.at("depth"), 0.5 * static_cast<double>(i % 3));
    EXPECT_EQ(cell.at("n"), 2);
    EXPECT_EQ(cell.at("accuracy"), 0.0) << "a model of stories that finds numbers";
  }
  EXPECT_EQ(document.at("kv_retrieval")[2].at("length"), 1024);
  EXPECT_FALSE(document.contains("mean_nll"));
}

TEST_F(CliEval, TaskAnswersAreCounted) {
  const fs::path task = data_folder() / "tasks/boolq.jsonl";
  if (!fs::exists(task)) GTEST_SKIP() << task << " is absent; set LLMQ_TEST_DATA";
  const std::vector<std::string> arguments{"eval", "--model_path", model_, "--task",
                                           task,   "--max-items",  "12",   "--json"};
  const OrderedJson document = document_of(arguments);
  EXPECT_EQ(document.at("task").at("n"), 12);
  const auto accuracy = document.at("task").at("accuracy").get<double>();
  EXPECT_EQ(accuracy * 12, std::round(accuracy * 12));
  EXPECT_EQ(document_of(joined(arguments, {"--threads", "1", "--prefill-chunk", "9"})), document);
}

TEST_F(CliEval, WithoutJsonTheResultIsATable) {
  const CommandResult result = run_llmq({"eval", "--model_path", model_, "--text", sample_,
                                         "--max-tokens", "30", "--reference", model_});
  ASSERT_EQ(result.exit_code, 0) << result.summary();
  EXPECT_THAT(result.out, HasSubstr("perplexity"));
  EXPECT_THAT(result.out, HasSubstr("top-1 agreement"));
  EXPECT_THAT(result.out, HasSubstr("layer"));
}

TEST_F(CliEval, InvalidBytesAreScoredAsReplacementCharacters) {
  const fs::path invalid = file("invalid.txt", "Once upon\xFF a time \xE3\x80");
  const fs::path replaced = file("replaced.txt", "Once upon\xEF\xBF\xBD a time \xEF\xBF\xBD");
  const auto mean_nll = [&](const fs::path& path) {
    return document_of({"eval", "--model_path", model_, "--text", path, "--json"}).at("mean_nll");
  };
  EXPECT_EQ(mean_nll(invalid), mean_nll(replaced));
}

TEST_F(CliEval, LineEndsOfEveryWriterAreTheSame) {
  const fs::path unix_ends = file("unix.txt", "Once upon a time\nthere was a dog.\n");
  const auto mean_nll = [&](const fs::path& path) {
    return document_of({"eval", "--model_path", model_, "--text", path, "--json"}).at("mean_nll");
  };
  for (const char* text :
       {"Once upon a time\r\nthere was a dog.\r\n", "Once upon a time\rthere was a dog.\r"}) {
    EXPECT_EQ(mean_nll(file("other.txt", text)), mean_nll(unix_ends));
  }
}

TEST_F(CliEval, TextsThatCannotBeScoredAreRefused) {
  expect_refusal(eval({"--text", folder_ / "none.txt"}), kBadInput, {"none.txt", "no such file"});
  expect_refusal(eval({"--text", file("empty.txt", "")}), kBadInput, {"empty.txt", "empty"});
  expect_refusal(eval({"--text", file("blank.txt", " \n "), "--split", "x"}), kBadInput,
                 {"blank.txt", "nothing to score"});
  expect_refusal(eval({"--text", folder_.path()}), kBadInput, {"not a regular file"});
}

TEST_F(CliEval, TasksThatCannotBeAskedAreRefusedWithTheirLine) {
  const std::string good = R"({"question":"q","passage":"p","answer":true})";
  expect_refusal(eval({"--task", folder_ / "none.jsonl"}), kBadInput, {"none.jsonl"});
  expect_refusal(eval({"--task", file("empty.jsonl", "")}), kBadInput, {"empty.jsonl"});
  expect_refusal(eval({"--task", file("text.jsonl", good + "\nplain text\n")}), kBadInput,
                 {"text.jsonl line 2"});
  expect_refusal(eval({"--task", file("keys.jsonl", good + "\n\n{\"a\": 1}\n")}), kBadInput,
                 {"keys.jsonl line 3", "question"});
}

TEST_F(CliEval, LengthsThatTheModelCannotTakeAreRefused) {
  expect_refusal(eval({"--text", sample_, "--context", "1"}), kUsage, {"context"});
  expect_refusal(eval({"--text", sample_, "--context", "513"}), kBadInput, {"513", "512"});
  expect_refusal(eval({"--passkey", "1k"}), kBadInput, {"1024", "512"});
  expect_refusal(eval({"--passkey", "10"}), kBadInput, {"10", "at least"});
  expect_refusal(eval({"--kv-retrieval", "40"}), kBadInput, {"40", "at least"});
  for (const char* lengths : {"", "12x", "k", "5,,6", "0", "-3", "99999999999999999999", "17m"})
    EXPECT_EQ(eval({std::string("--passkey=") + lengths}).exit_code, kUsage) << lengths;
}

TEST_F(CliEval, OptionsThatDoNotGoTogetherAreRefused) {
  expect_refusal(eval({}), kUsage, {"nothing to evaluate"});
  expect_refusal(eval({"--passkey", "300", "--reference", model_}), kUsage, {"--reference"});
  expect_refusal(eval({"--text", sample_, "--max-kl", "1"}), kUsage, {"--max-kl", "--reference"});
  expect_refusal(eval({"--text", sample_, "--min-passkey", "1"}), kUsage, {"--min-passkey"});
  expect_refusal(eval({"--passkey", "300", "--min-passkey", "1.5"}), kUsage, {"1.5"});
  expect_refusal(eval({"--text", sample_, "--max-nll", "nan"}), kUsage, {"--max-nll"});
  expect_refusal(eval({"--text", sample_, "--html", folder_ / "none" / "page.html"}), kUsage,
                 {"--html"});
}

TEST_F(CliEval, AFolderWithoutTokenizerIsRefused) {
  const fs::path bare = copy_of_model("bare");
  fs::remove(bare / "tokenizer.json");
  expect_refusal(run_llmq({"eval", "--model_path", bare, "--text", sample_, "--json"}), kBadInput,
                 {"no tokenizer", "bare"});
}

TEST_F(CliEval, AReferenceWithAnotherTokenizerIsRefused) {
  const fs::path other = copy_of_model("other");
  OrderedJson tokenizer = OrderedJson::parse(read_file(other / "tokenizer.json"));
  auto& vocabulary = tokenizer["model"]["vocab"];
  std::swap(vocabulary["ed"], vocabulary["in"]);
  write_file(other / "tokenizer.json", tokenizer.dump());
  expect_refusal(run_llmq(on_sample({"--reference", other})), kBadInput,
                 {"tokenizers differ", "\"ed\"", "\"in\""});
}

TEST_F(CliEval, AReferenceWithAnotherVocabularySizeIsRefused) {
  const fs::path other = folder_ / "other";
  const OrderedJson config = tiny_qwen2_config();
  write_checkpoint(other, config, tiny_qwen2_tensors());
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    write_file(other / name, read_file(model_ / name));
  ASSERT_NE(config.at("vocab_size"), 512);
  expect_refusal(run_llmq(on_sample({"--reference", other})), kBadInput,
                 {"vocabulary", "512", config.at("vocab_size").dump()});
}

TEST_F(CliEval, PageIsSelfContainedAndEscaped) {
  const fs::path odd = copy_of_model("a<b>&\"c");
  const fs::path page = folder_ / "page.html";
  const OrderedJson document =
      document_of({"eval", "--model_path", odd, "--reference", model_, "--text", sample_,
                   "--max-tokens", "40", "--html", page, "--max-nll", "9", "--json"});
  const std::string html = read_file(page);
  EXPECT_THAT(html, HasSubstr("a&lt;b&gt;&amp;&quot;c"));
  EXPECT_THAT(html, Not(HasSubstr("a<b>")));
  for (const char* loads : {"src=", "href=", "url(", "@import", "<script"})
    EXPECT_THAT(html, Not(HasSubstr(loads)));
  size_t n_bars = 0;
  for (size_t at = html.find("<rect"); at != std::string::npos; at = html.find("<rect", at + 1))
    ++n_bars;
  EXPECT_EQ(n_bars, document.at("layers").size());
  std::array<char, 32> perplexity{};
  std::snprintf(perplexity.data(), perplexity.size(), "%.4f",
                document.at("perplexity").get<double>());
  EXPECT_THAT(html, HasSubstr(perplexity.data()));
}

}  // namespace
}  // namespace llmq::test

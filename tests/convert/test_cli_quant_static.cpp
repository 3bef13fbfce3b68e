#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "tests/convert/calibrated_fixture.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kWeights = "quant_model_weight_w8a8.safetensors";
const std::vector<std::string> kQuantized = {"self_attn.q_proj", "self_attn.k_proj",
                                             "self_attn.v_proj", "self_attn.o_proj",
                                             "mlp.gate_proj",    "mlp.up_proj"};

std::string layer_module(int layer, const std::string& module) {
  return "model.layers." + std::to_string(layer) + "." + module;
}

struct SourceDtype {
  std::string stored;
  std::string torch;
  std::string written;        ///< torch_dtype of the result
  std::string written_dtype;  ///< the same in safetensors spelling
};

// NOLINTNEXTLINE(readability-identifier-naming): the name is GoogleTest's.
void PrintTo(const SourceDtype& dtype, std::ostream* stream) {
  *stream << dtype.torch;
}

class CliQuantStatic : public CalibratedFixture {};

class CliQuantStaticDtypes : public CliQuantStatic,
                             public testing::WithParamInterface<SourceDtype> {
 protected:
  void SetUp() override {
    CalibratedFixture::SetUp();
    if (GetParam().stored != "BF16") store_as(GetParam().stored, GetParam().torch);
    out_ = calibrate("out");
    written_ = read_all_tensors(out_);
  }

  RawTensor& written(const std::string& name) { return tensor_named(written_, name); }

  void expect_layout(const std::string& module) {
    SCOPED_TRACE(module);
    const RawTensor& weight = written(module + ".weight");
    EXPECT_EQ(weight.dtype, "I8");
    const int64_t n = weight.shape.at(0);
    const std::string deq_dtype = GetParam().written_dtype == "BF16" ? "F32" : "I64";
    const std::vector<std::tuple<std::string, std::string, std::vector<int64_t>>> expected = {
        {".weight_scale", "F32", {n, 1}},
        {".weight_offset", "F32", {n, 1}},
        {".input_scale", GetParam().written_dtype, {1}},
        {".input_offset", GetParam().written_dtype, {1}},
        {".quant_bias", "I32", {n}},
        {".deq_scale", deq_dtype, {n}}};
    for (const auto& [suffix, dtype, shape] : expected) {
      EXPECT_EQ(written(module + suffix).dtype, dtype) << suffix;
      EXPECT_EQ(written(module + suffix).shape, shape) << suffix;
    }
  }

  std::vector<float> deq_scales(const std::string& module) {
    const RawTensor& tensor = written(module + ".deq_scale");
    if (tensor.dtype == "F32") return float_values(tensor);
    std::vector<float> scales;
    for (const uint64_t bits : elements_of<uint64_t>(tensor)) {
      EXPECT_EQ(bits >> 32, 0U) << module;
      scales.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
    }
    return scales;
  }

  // The formulas of docs/numerics.md, anew.
  void expect_derived_tensors(const std::string& module) {
    SCOPED_TRACE(module);
    const float input_scale = float_values(written(module + ".input_scale")).at(0);
    const float input_offset = float_values(written(module + ".input_offset")).at(0);
    const auto weight_scales = float_values(written(module + ".weight_scale"));
    const auto codes = elements_of<int8_t>(written(module + ".weight"));
    const auto quant_bias = elements_of<int32_t>(written(module + ".quant_bias"));
    const auto deq = deq_scales(module);
    ASSERT_EQ(deq.size(), weight_scales.size());
    std::vector<float> bias(deq.size(), 0.0F);
    const auto has_bias = [&](const RawTensor& tensor) { return tensor.name == module + ".bias"; };
    const auto stored = std::find_if(written_.begin(), written_.end(), has_bias);
    if (stored != written_.end()) bias = float_values(*stored);
    const size_t k = codes.size() / deq.size();
    for (size_t row = 0; row < deq.size(); ++row) {
      EXPECT_EQ(deq[row], input_scale * weight_scales[row]) << "row " << row;
      const auto begin = codes.begin() + static_cast<std::ptrdiff_t>(row * k);
      const auto sum = std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(k), int64_t{0});
      const double exact =
          double{bias[row]} / deq[row] - double{input_offset} * static_cast<double>(sum);
      EXPECT_EQ(quant_bias[row], std::nearbyint(exact)) << "row " << row;
    }
  }

  // input_scale is one of four values upwards of the exact one, the offset follows from it.
  void expect_input_parameters(const std::string& module) {
    SCOPED_TRACE(module);
    const OrderedJson entry = reported(out_, module + ".weight");
    const float low = std::min(entry.at("input_min").get<float>(), 0.0F);
    const float high = std::max(entry.at("input_max").get<float>(), 0.0F);
    ASSERT_LT(low, high);
    const float scale = float_values(written(module + ".input_scale")).at(0);
    const float offset = float_values(written(module + ".input_offset")).at(0);
    EXPECT_EQ(entry.at("input_scale").get<float>(), scale);
    EXPECT_EQ(entry.at("input_offset").get<float>(), offset);
    // Ranks share the input channels of o_proj; its codes are symmetric.
    const bool is_symmetric = module.ends_with("o_proj");
    const float exact = is_symmetric ? std::max(-low, high) / 127.0F : high / 255.0F - low / 255.0F;
    const float step = GetParam().written_dtype == "BF16" ? 0x1p-7F : 0x1p-10F;
    EXPECT_GE(scale, exact);
    EXPECT_LE(scale, exact * (1 + 4 * step));
    EXPECT_EQ(offset, is_symmetric ? 0.0F : std::nearbyint(-low / scale) - 128);
  }

  fs::path out_;
  std::vector<RawTensor> written_;
};

TEST_P(CliQuantStaticDtypes, EveryRuleHoldsAlsoAgainstTheSource) {
  for (const bool with_source : {false, true}) {
    Command verify = llmq_command({"verify", out_, "--json"});
    if (with_source) verify.argv.insert(verify.argv.end(), {"--source", source_});
    const CommandResult result = run_command(verify);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    EXPECT_EQ(json_output(result).at("rules").size(), with_source ? 13U : 11U);
  }
}

TEST_P(CliQuantStaticDtypes, LinearsAreW8A8AndAllElseIsFloat) {
  EXPECT_TRUE(fs::exists(out_ / kWeights));
  const auto description = written_json(out_, "quant_model_description.json");
  EXPECT_EQ(description.at("model_quant_type"), "W8A8");
  EXPECT_EQ(description.at("version"), "1.0.0");
  std::vector<std::string> expected_w8a8;
  for (const int layer : {0, 1}) {
    for (const std::string& module : kQuantized) {
      expect_layout(layer_module(layer, module));
      for (const char* suffix : {".weight", ".weight_scale", ".weight_offset", ".input_scale",
                                 ".input_offset", ".quant_bias", ".deq_scale"})
        expected_w8a8.push_back(layer_module(layer, module) + suffix);
    }
  }
  std::vector<std::string> w8a8;
  for (const RawTensor& tensor : written_) {
    const std::string tag = description.at(tensor.name);
    if (tag == "W8A8") w8a8.push_back(tensor.name);
    if (tag == "FLOAT") {
      EXPECT_EQ(tensor.dtype, GetParam().written_dtype) << tensor.name;
    }
  }
  // A bias belongs to its linear; which tag it has is the description's matter.
  std::erase_if(w8a8, [](const std::string& name) { return name.ends_with(".bias"); });
  EXPECT_THAT(w8a8, testing::UnorderedElementsAreArray(expected_w8a8));
  for (const std::string name :
       {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight",
        "model.layers.0.mlp.down_proj.weight", "model.layers.1.input_layernorm.weight"})
    EXPECT_EQ(description.at(name), "FLOAT") << name;
}

TEST_P(CliQuantStaticDtypes, ConfigTellsEnginesTypeAndDtype) {
  const auto config = written_json(out_, "config.json");
  EXPECT_EQ(config.at("torch_dtype"), GetParam().written);
  EXPECT_EQ(config.at("quantize"), "w8a8");
  EXPECT_EQ(config.at("quantization_config").at("group_size"), 0);
  EXPECT_FALSE(config.contains("quantization")) << "which is W8A16's";
}

TEST_P(CliQuantStaticDtypes, MembersOfAFusedGroupShareTheirInputParameters) {
  for (const int layer : {0, 1}) {
    for (const std::string suffix : {".input_scale", ".input_offset"}) {
      const std::string q = written(layer_module(layer, "self_attn.q_proj") + suffix).bytes;
      EXPECT_EQ(written(layer_module(layer, "self_attn.k_proj") + suffix).bytes, q);
      EXPECT_EQ(written(layer_module(layer, "self_attn.v_proj") + suffix).bytes, q);
      EXPECT_EQ(written(layer_module(layer, "mlp.gate_proj") + suffix).bytes,
                written(layer_module(layer, "mlp.up_proj") + suffix).bytes);
    }
  }
}

TEST_P(CliQuantStaticDtypes, ParametersFollowFromRangesCodesAndBias) {
  for (const int layer : {0, 1}) {
    for (const std::string& module : kQuantized) {
      expect_input_parameters(layer_module(layer, module));
      expect_derived_tensors(layer_module(layer, module));
    }
  }
}

TEST_P(CliQuantStaticDtypes, WeightsAreTheNearestSymmetricCodes) {
  for (const RawTensor& source : tensors_) {
    if (written(source.name).dtype != "I8") continue;
    const auto weights = float_values(source);
    const auto codes = elements_of<int8_t>(written(source.name));
    const std::string module = source.name.substr(0, source.name.rfind('.'));
    const auto scales = float_values(written(module + ".weight_scale"));
    const auto k = static_cast<size_t>(source.shape.at(1));
    for (size_t row = 0; row < scales.size(); ++row) {
      float absmax = 0;
      for (size_t i = row * k; i < (row + 1) * k; ++i)
        absmax = std::max(absmax, std::abs(weights[i]));
      EXPECT_EQ(scales[row], absmax / 127.0F) << module << " row " << row;
      for (size_t i = row * k; i < (row + 1) * k; ++i)
        ASSERT_EQ(codes[i], std::nearbyint(weights[i] / scales[row])) << module << " row " << row;
    }
  }
}

TEST_P(CliQuantStaticDtypes, ModelRunsWithEveryArithmetic) {
  for (const std::string emulation : {"spec", "mindie", "vllm-ascend"}) {
    const CommandResult result =
        run_llmq({"run", "--model_path", out_, "--input_ids", "[[65,66,67]]", "--max_output_length",
                  "4", "--emulate", emulation, "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    EXPECT_THAT(json_output(result).at("ids").size(),
                testing::AllOf(testing::Ge(1U), testing::Le(4U)));
  }
}

INSTANTIATE_TEST_SUITE_P(Cli, CliQuantStaticDtypes,
                         testing::Values(SourceDtype{"BF16", "bfloat16", "bfloat16", "BF16"},
                                         SourceDtype{"F16", "float16", "float16", "F16"},
                                         SourceDtype{"F32", "float32", "float16", "F16"}),
                         [](const auto& instance) { return instance.param.torch; });

TEST_F(CliQuantStatic, DtypeOfTheResultCanBeChosen) {
  const fs::path out = calibrate("out", {"--dtype", "float16"});
  auto written = read_all_tensors(out);
  EXPECT_EQ(tensor_named(written, "model.layers.0.self_attn.q_proj.deq_scale").dtype, "I64");
  EXPECT_EQ(tensor_named(written, "model.layers.0.self_attn.q_proj.input_scale").dtype, "F16");
  EXPECT_EQ(written_json(out, "config.json").at("torch_dtype"), "float16");
}

TEST_F(CliQuantStatic, EmptyDisableNamesQuantizesHeadAndDownProjectionToo) {
  const fs::path out = calibrate("out", {"-disable_names", ""});
  const auto description = written_json(out, "quant_model_description.json");
  for (const std::string module :
       {"lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}) {
    EXPECT_EQ(description.at(module + ".weight"), "W8A8") << module;
    EXPECT_EQ(description.at(module + ".deq_scale"), "W8A8") << module;
    EXPECT_LT(reported(out, module + ".weight").at("input_min"), 0) << module;
  }
  const CommandResult verified = run_llmq({"verify", out, "--source", source_});
  EXPECT_EQ(verified.exit_code, 0) << verified.summary();
}

// What q, k and v of the first layer read is the normalized embedding of the tokens, known here.
TEST_F(CliQuantStatic, RangesAreThoseOfTheActivations) {
  write_file(texts_, "[\"zzzz\", \"Z\\tZ\\tZ\"]");
  const auto tokenizer = OrderedJson::parse(read_file(golden_tokenizer()));
  const auto& vocabulary = tokenizer.at("model").at("vocab");
  const fs::path json = folder_ / "texts.json";
  fs::rename(texts_, json);
  const fs::path out = quantize("out", {"-type", "w8a8", "-calib", json});
  const auto embedding = tensor_values(tensor_named(tensors_, "model.embed_tokens.weight"));
  const auto gain = tensor_values(tensor_named(tensors_, "model.layers.0.input_layernorm.weight"));
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (const std::string token : {"z", "Z", "\u0109"}) {  // a tab stands as U+0109
    const size_t row = vocabulary.at(token).get<size_t>() * 64;
    double squares = 0;
    for (size_t i = 0; i < 64; ++i) squares += double{embedding[row + i]} * embedding[row + i];
    for (size_t i = 0; i < 64; ++i) {
      const double x = embedding[row + i] / std::sqrt(squares / 64 + 1e-6) * gain[i];
      low = std::min(low, x);
      high = std::max(high, x);
    }
  }
  const OrderedJson entry = reported(out, "model.layers.0.self_attn.q_proj.weight");
  // A float32 sum of 64 squares, a root, a division and a product round at most 70 times.
  EXPECT_NEAR(entry.at("input_min").get<double>(), low, std::abs(low) * 70 * 0x1p-24);
  EXPECT_NEAR(entry.at("input_max").get<double>(), high, std::abs(high) * 70 * 0x1p-24);
  EXPECT_EQ(report_of(out).at("calibration").at("samples"), 2);
}

TEST_F(CliQuantStatic, HistogramStaysWithinTheMinimumAndMaximum) {
  const fs::path everything = calibrate("everything");
  const fs::path histogram = calibrate("histogram", {"-act_method", "2"});
  const fs::path automatic = calibrate("automatic", {"-act_method", "3"});
  size_t n_clipped = 0;
  for (const int layer : {0, 1}) {
    for (const std::string& module : kQuantized) {
      const std::string name = layer_module(layer, module) + ".weight";
      SCOPED_TRACE(name);
      const OrderedJson all = reported(everything, name);
      const OrderedJson window = reported(histogram, name);
      const OrderedJson chosen = reported(automatic, name);
      EXPECT_EQ(all.at("act_method"), 1);
      EXPECT_EQ(window.at("act_method"), 2);
      EXPECT_EQ(chosen.at("act_method"), 2) << "normal values stay within 50 deviations";
      EXPECT_GE(window.at("input_min"), all.at("input_min"));
      EXPECT_LE(window.at("input_max"), all.at("input_max"));
      EXPECT_EQ(chosen.at("input_min"), window.at("input_min"));
      EXPECT_EQ(chosen.at("input_max"), window.at("input_max"));
      n_clipped += window.at("input_max") < all.at("input_max") ? 1 : 0;
    }
  }
  EXPECT_GT(n_clipped, 0U);
}

TEST_F(CliQuantStatic, SymmetricActivationsHaveOffsetZero) {
  const CommandResult printed = run_llmq({"plan", "-type", "w8a8", "--print-recipe"});
  ASSERT_EQ(printed.exit_code, 0) << printed.summary();
  OrderedJson recipe = OrderedJson::parse(printed.out);
  recipe.at("rules").at(0)["activation_symmetric"] = true;
  write_file(folder_ / "recipe.json", recipe.dump());
  const fs::path out = quantize("out", {"--recipe", folder_ / "recipe.json", "-calib", texts_});
  auto written = read_all_tensors(out);
  for (const std::string& module : kQuantized) {
    const std::string name = layer_module(1, module);
    EXPECT_EQ(float_values(tensor_named(written, name + ".input_offset")).at(0), 0) << name;
    const OrderedJson entry = reported(out, name + ".weight");
    EXPECT_EQ(entry.at("input_min").get<double>(), -entry.at("input_max").get<double>());
    // max / 127, and at most four bfloat16 values more.
    const double exact = entry.at("input_max").get<double>() / 127;
    EXPECT_GE(entry.at("input_scale").get<double>(), exact * (1 - 0x1p-24));
    EXPECT_LE(entry.at("input_scale").get<double>(), exact * (1 + 4 * 0x1p-7));
  }
  const CommandResult verified = run_llmq({"verify", out, "--source", source_});
  EXPECT_EQ(verified.exit_code, 0) << verified.summary();
}

TEST_F(CliQuantStatic, BytesDoNotDependOnThreads) {
  for (const std::string method : {"1", "2"}) {
    const auto one =
        result_files(calibrate("one" + method, {"-act_method", method, "--threads", "1"}));
    EXPECT_TRUE(one.contains(kWeights));
    for (const std::string threads : {"2", "3"}) {
      const std::string name = "out" + method + threads;
      const fs::path out = calibrate(name, {"-act_method", method, "--threads", threads});
      EXPECT_TRUE(result_files(out) == one) << threads << " threads, act_method " << method;
    }
  }
}

TEST_F(CliQuantStatic, BytesDoNotDependOnInstructionSet) {
  const fs::path scalar_stats = folder_ / "scalar.json";
  const auto scalar = result_files(calibrate(
      "scalar", {"-act_method", "2", "--save-stats", scalar_stats}, {{"LLMQ_ISA", "scalar"}}));
  for (const std::string isa : {"avx2", "avxvnni", "avx512vnni", "amx"}) {
    const fs::path destination = folder_ / isa;
    const fs::path stats = folder_ / (isa + ".json");
    Command command = llmq_command({"quant", "-src", source_, "-dst", destination, "-type", "w8a8",
                                    "-calib", texts_, "-act_method", "2", "--save-stats", stats});
    command.environment = {{"LLMQ_ISA", isa}};
    const CommandResult result = run_command(command);
    if (result.exit_code == 0) {
      EXPECT_TRUE(result_files(destination) == scalar) << isa;
      EXPECT_TRUE(read_file(stats) == read_file(scalar_stats)) << isa;
      continue;
    }
    EXPECT_EQ(result.exit_code, 2) << result.summary();
    EXPECT_THAT(result.err, HasSubstr(isa)) << "a refusal names the instruction set";
    EXPECT_FALSE(isa == "avx2" && __builtin_cpu_supports("avx2")) << result.summary();
  }
}

TEST_F(CliQuantStatic, UnknownArithmeticIsRefusedByRunAndEval) {
  const fs::path out = calibrate("out");
  write_file(folder_ / "text.txt", "What is the number of weights in the model?");
  for (const std::string emulation : {"spec", "mindie"}) {
    const CommandResult scored =
        run_llmq({"eval", "--model_path", out, "--text", folder_ / "text.txt", "--context", "32",
                  "--emulate", emulation, "--json"});
    EXPECT_EQ(scored.exit_code, 0) << scored.summary();
    EXPECT_GT(json_output(scored).at("n_tokens"), 0);
  }
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"run", "--input_ids", "[[65]]"},
        std::vector<std::string>{"eval", "--text", folder_ / "text.txt", "--context", "32"}}) {
    std::vector<std::string> arguments = command;
    arguments.insert(arguments.end(), {"--model_path", out, "--emulate", "nonsense"});
    const CommandResult result = run_llmq(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.summary();
    EXPECT_THAT(result.err, HasSubstr("nonsense"));
    EXPECT_THAT(result.err, HasSubstr("vllm-ascend")) << "what is known is listed";
  }
}

class CliQuantStaticLlama : public CalibratedFixture {
 protected:
  void SetUp() override {
    CalibratedFixture::SetUp();
    config_["model_type"] = "llama";
    config_["architectures"] = OrderedJson::array({"LlamaForCausalLM"});
    std::erase_if(tensors_, [](const RawTensor& tensor) { return tensor.name.ends_with(".bias"); });
    write_source();
  }
};

TEST_F(CliQuantStaticLlama, RecipeOfAnotherFamilyWarns) {
  const CommandResult result = try_quant({"-type", "qwen_w8a8", "-calib", texts_});
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  EXPECT_THAT(result.err, HasSubstr("was made for qwen, qwen2"));
  auto written = read_all_tensors(folder_ / "refused");
  const auto bias =
      elements_of<int32_t>(tensor_named(written, "model.layers.0.self_attn.o_proj.quant_bias"));
  EXPECT_EQ(bias.size(), 64U) << "also where the linear has no bias";
}

TEST_F(CliQuantStaticLlama, SmoothedTypeSaysWhatItDidPerLayer) {
  const CommandResult result = try_quant({"-type", "llama3.1_8b_w8a8", "-calib", texts_});
  EXPECT_EQ(result.exit_code, 0) << result.summary();
  EXPECT_THAT(result.err, testing::Not(HasSubstr("was made for")));
  const OrderedJson done = report_of(folder_ / "refused").at("calibration").at("transformations");
  ASSERT_EQ(done.size(), 4U) << "both norms of two layers";
  EXPECT_EQ(done[0].at("subgraph"), "norm_qkv");
  EXPECT_EQ(done[3].at("subgraph"), "norm_gate_up");
  EXPECT_EQ(done[3].at("layer"), 1);
  EXPECT_EQ(done[3].at("alpha"), 0.5);
}

}  // namespace
}  // namespace llmq::test

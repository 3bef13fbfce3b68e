#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/convert/calibrated_fixture.h"
#include "tests/convert/verify/static_folder.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kDescription = "quant_model_description.json";
constexpr const char* kLinear = "model.layers.0.self_attn.q_proj";

/// Folders that the program made, damaged by hand, and what --repair makes of them.
class CliRepair : public CalibratedFixture {
 protected:
  /// Repairs into a folder of that name, expects success and that verify agrees; returns the JSON
  /// document.
  OrderedJson repair(const fs::path& from, const std::string& name,
                     const std::vector<std::string>& options = {}) const {
    Command command = llmq_command({"convert", "--repair", from, folder_ / name, "--json"});
    command.argv.insert(command.argv.end(), options.begin(), options.end());
    const auto before = folder_contents(from);
    const CommandResult result = run_command(command);
    EXPECT_EQ(result.exit_code, 0) << result.summary();
    EXPECT_EQ(folder_contents(from), before) << "the source is only read";
    const CommandResult verified = run_llmq({"verify", folder_ / name});
    EXPECT_EQ(verified.exit_code, 0) << verified.summary();
    return json_output(result);
  }

  /// The tensors and keys where repairs of that name were made.
  static std::vector<std::string> places(const OrderedJson& report, const std::string& name) {
    std::vector<std::string> all;
    for (const OrderedJson& repair : report.at("repairs")) {
      if (repair.at("name") != name) continue;
      for (const OrderedJson& place : repair.at("where")) all.push_back(place);
    }
    return all;
  }

  /// Changes one of a folder's JSON files.
  template <typename Change>
  static void edit_json(const fs::path& folder, const std::string& name, const Change& change) {
    OrderedJson document = written_json(folder, name);
    change(document);
    write_file(folder / name, document.dump(2));
  }

  /// Changes the tensors of a folder of one weight file.
  template <typename Change>
  static void edit_tensors(const fs::path& folder, const Change& change) {
    const fs::path file = weight_file(folder);
    std::vector<RawTensor> tensors = read_safetensors(file);
    change(tensors);
    write_file(file, safetensors_file(tensors));
  }

  static fs::path weight_file(const fs::path& folder) {
    for (const std::string& name : folder_entries(folder)) {
      if (name.ends_with(".safetensors")) return folder / name;
    }
    throw std::runtime_error("no weight file");
  }

  static int verified(const fs::path& folder) { return run_llmq({"verify", folder}).exit_code; }
};

TEST_F(CliRepair, AWholeFolderIsCopiedAndNothingIsSaidToBeRepaired) {
  const fs::path folder = calibrate("whole");
  EXPECT_EQ(repair(folder, "copy").at("repairs"), OrderedJson::array());
  EXPECT_EQ(result_files(folder_ / "copy"), result_files(folder));
  const CommandResult text = run_llmq({"convert", "--repair", folder, folder_ / "again"});
  EXPECT_THAT(text.out, HasSubstr("nothing to repair"));
}

TEST_F(CliRepair, DeqScaleInTheOtherModelsEncodingIsWrittenAnew) {
  const fs::path folder = calibrate("folder");
  const std::vector<RawTensor> whole = read_all_tensors(folder);
  edit_tensors(folder, [](std::vector<RawTensor>& tensors) {
    for (RawTensor& tensor : tensors) {
      if (!tensor.name.ends_with(".deq_scale")) continue;
      std::vector<int64_t> wide;
      for (const uint32_t bits : elements_of<uint32_t>(tensor)) wide.push_back(bits);
      tensor.dtype = "I64";
      tensor.bytes = bytes_of(wide);
    }
  });
  EXPECT_EQ(verified(folder), 6);
  const OrderedJson report = repair(folder, "repaired");
  EXPECT_THAT(places(report, "deq-scale"), Contains(std::string(kLinear) + ".deq_scale"));
  EXPECT_EQ(read_all_tensors(folder_ / "repaired"), whole);
}

TEST_F(CliRepair, AnotherDtypeCastsFloatsAndEncodesDeqScale) {
  const fs::path folder = calibrate("folder");
  const OrderedJson report = repair(folder, "half", {"--dtype", "float16"});
  std::vector<RawTensor> before = read_all_tensors(folder);
  std::vector<RawTensor> after = read_all_tensors(folder_ / "half");
  for (const char* name : {"model.norm.weight", "model.layers.0.self_attn.q_proj.input_scale"}) {
    EXPECT_EQ(tensor_named(after, name).dtype, "F16");
    EXPECT_EQ(float_values(tensor_named(after, name)), float_values(tensor_named(before, name)));
  }
  const std::string deq_scale = std::string(kLinear) + ".deq_scale";
  EXPECT_EQ(tensor_named(after, deq_scale).dtype, "I64");
  const auto narrow = elements_of<uint32_t>(tensor_named(before, deq_scale));
  EXPECT_EQ(elements_of<uint64_t>(tensor_named(after, deq_scale)),
            std::vector<uint64_t>(narrow.begin(), narrow.end()));
  EXPECT_EQ(written_json(folder_ / "half", "config.json").at("torch_dtype"), "float16");
  EXPECT_THAT(places(report, "config"), Contains("torch_dtype"));

  repair(folder_ / "half", "back", {"--dtype", "bfloat16"});
  std::vector<RawTensor> back = read_all_tensors(folder_ / "back");
  for (const std::string name : {"weight", "input_scale", "input_offset", "deq_scale"}) {
    const std::string tensor = std::string(kLinear) + "." + name;
    EXPECT_EQ(tensor_named(back, tensor), tensor_named(before, tensor));
  }
}

// A cast to bfloat16 moves input_scale, so that what was derived from it must follow.
TEST_F(CliRepair, ACastThatMovesInputScaleDerivesTheOthersAgain) {
  store_as("F16", "float16");
  const fs::path folder = calibrate("folder", {"--dtype", "float16"});
  const OrderedJson report = repair(folder, "brain", {"--dtype", "bfloat16"});
  EXPECT_THAT(places(report, "derived"), Contains(kLinear));
  std::vector<RawTensor> before = read_all_tensors(folder);
  std::vector<RawTensor> after = read_all_tensors(folder_ / "brain");
  const std::string name = kLinear;
  const float scale = float_values(tensor_named(after, name + ".input_scale")).at(0);
  EXPECT_NE(scale, float_values(tensor_named(before, name + ".input_scale")).at(0));
  const auto weight_scale = float_values(tensor_named(after, name + ".weight_scale"));
  const auto deq_scale = float_values(tensor_named(after, name + ".deq_scale"));
  ASSERT_EQ(deq_scale.size(), weight_scale.size());
  for (size_t i = 0; i < deq_scale.size(); ++i) EXPECT_EQ(deq_scale[i], scale * weight_scale[i]);
}

// Newer tools leave weight_scale out of static folders.
TEST_F(CliRepair, WithoutWeightScaleTheScaleIsTakenFromDeqScale) {
  store_as("F16", "float16");
  const fs::path folder = calibrate("folder", {"--dtype", "float16"});
  const auto is_weight_parameter = [](const std::string& name) {
    return name.ends_with(".weight_scale") || name.ends_with(".weight_offset");
  };
  edit_tensors(folder, [&](std::vector<RawTensor>& tensors) {
    std::erase_if(tensors,
                  [&](const RawTensor& tensor) { return is_weight_parameter(tensor.name); });
  });
  const OrderedJson report = repair(folder, "brain", {"--dtype", "bfloat16"});
  EXPECT_THAT(places(report, "derived"), Contains(kLinear));
  EXPECT_THAT(places(report, "description"), Contains(std::string(kLinear) + ".weight_scale"))
      << "a key without a tensor is taken out";
}

TEST_F(CliRepair, MissingKeysOfTheDescriptionAreAddedWithTheirTags) {
  const fs::path folder = quantize("folder", {"-type", "w8a8_mix", "-calib", texts_});
  const OrderedJson whole = written_json(folder, kDescription);
  const std::string name = kLinear;
  const std::vector<std::string> lost{
      "model.embed_tokens.weight", "model.norm.weight",    name + ".weight",
      name + ".deq_scale",         name + ".weight_scale", name + ".bias"};
  edit_json(folder, kDescription, [&](OrderedJson& document) {
    for (const std::string& key : lost) document.erase(key);
    // The whole linear: only its tensors tell what it is.
    for (const char* suffix : {"weight", "weight_scale", "weight_offset", "input_scale",
                               "input_offset", "quant_bias", "deq_scale"})
      document.erase(std::string("model.layers.1.mlp.up_proj.") + suffix);
  });
  EXPECT_EQ(verified(folder), 6);
  const OrderedJson report = repair(folder, "repaired");
  EXPECT_EQ(places(report, "description").size(), lost.size() + 7);
  const OrderedJson repaired = written_json(folder_ / "repaired", kDescription);
  for (const auto& [key, tag] : whole.items()) EXPECT_EQ(repaired.value(key, OrderedJson()), tag);
}

TEST_F(CliRepair, ALostDescriptionIsWrittenFromConfigAndTensors) {
  const fs::path folder = calibrate("folder");
  const OrderedJson whole = written_json(folder, kDescription);
  fs::remove(folder / kDescription);
  repair(folder, "repaired");
  const OrderedJson repaired = written_json(folder_ / "repaired", kDescription);
  for (const auto& [key, tag] : whole.items()) EXPECT_EQ(repaired.value(key, OrderedJson()), tag);
}

TEST_F(CliRepair, MixBecomesStaticWithEveryTensorKept) {
  const fs::path mix = quantize("mix", {"-type", "w8a8_mix", "-calib", texts_});
  repair(mix, "static", {"--to", "w8a8"});
  EXPECT_EQ(read_all_tensors(folder_ / "static"), read_all_tensors(mix));
  EXPECT_THAT(folder_entries(folder_ / "static"), Contains("quant_model_weight_w8a8.safetensors"));
  const OrderedJson description = written_json(folder_ / "static", kDescription);
  EXPECT_EQ(description.at("model_quant_type"), "W8A8");
  EXPECT_EQ(description.at(std::string(kLinear) + ".weight"), "W8A8");
  EXPECT_EQ(written_json(folder_ / "static", "config.json").at("quantize"), "w8a8");
}

TEST_F(CliRepair, MixBecomesDynamicWithoutStaticParameters) {
  const fs::path mix =
      quantize("mix", {"-type", "w8a8_mix", "-calib", texts_, "--part_file_size", "0.00005"});
  repair(mix, "dynamic", {"--to", "w8a8_dynamic"});
  std::vector<RawTensor> expected = read_all_tensors(mix);
  std::erase_if(expected, [](const RawTensor& tensor) {
    return tensor.name.ends_with("put_scale") || tensor.name.ends_with("put_offset") ||
           tensor.name.ends_with("quant_bias") || tensor.name.ends_with("deq_scale");
  });
  EXPECT_EQ(read_all_tensors(folder_ / "dynamic"), expected);
  for (const std::string& name : folder_entries(folder_ / "dynamic"))
    EXPECT_THAT(name, Not(HasSubstr("w8a8_mix")));
  const OrderedJson description = written_json(folder_ / "dynamic", kDescription);
  EXPECT_EQ(description.at(std::string(kLinear) + ".weight"), "W8A8_DYNAMIC");
  EXPECT_EQ(written_json(folder_ / "dynamic", "config.json").at("quantize"), "w8a8_dynamic");
}

TEST_F(CliRepair, OtherTypesAreNotTurnedIntoEachOther) {
  const fs::path folder = calibrate("static");
  const CommandResult refused =
      run_llmq({"convert", "--repair", folder, folder_ / "refused", "--to", "w8a8_dynamic"});
  EXPECT_EQ(refused.exit_code, 2) << refused.summary();
  EXPECT_THAT(refused.err, HasSubstr("W8A8_MIX"));
  EXPECT_FALSE(fs::exists(folder_ / "refused"));
  repair(folder, "same", {"--to", "w8a8"});
}

TEST_F(CliRepair, VllmAscendGetsTheOneFileNameThatItReads) {
  const fs::path folder = calibrate("folder");
  fs::rename(folder / kDescription, folder / "quant_model_description_w8a8.json");
  const OrderedJson mindie = repair(folder, "mindie", {"--engine", "mindie"});
  EXPECT_EQ(mindie.at("repairs"), OrderedJson::array()) << "MindIE reads the older name";
  const OrderedJson report = repair(folder, "vllm", {"--engine", "vllm-ascend"});
  EXPECT_THAT(places(report, "file"), Contains(kDescription));
  EXPECT_THAT(folder_entries(folder_ / "vllm"), Contains(kDescription));
  EXPECT_THAT(folder_entries(folder_ / "vllm"), Not(Contains("quant_model_description_w8a8.json")));
}

// vllm-ascend looks up lm_head.weight also where the head shares the embedding's matrix.
TEST_F(CliRepair, VllmAscendGetsTheKeyOfATiedHead) {
  std::erase_if(tensors_, [](const RawTensor& tensor) { return tensor.name == "lm_head.weight"; });
  config_["tie_word_embeddings"] = true;
  write_source();
  const fs::path folder = calibrate("folder", {"--keep-tied"});
  EXPECT_FALSE(written_json(folder, kDescription).contains("lm_head.weight"));
  repair(folder, "vllm", {"--engine", "vllm-ascend"});
  EXPECT_EQ(written_json(folder_ / "vllm", kDescription).at("lm_head.weight"), "FLOAT");
}

TEST_F(CliRepair, TheCacheOfEightBitsStandsUnderBothOfItsKeys) {
  const fs::path folder = calibrate("folder", {"-use_kvcache_quant", "true"});
  const OrderedJson whole = written_json(folder, kDescription);
  const std::string scale = "model.layers.0.self_attn.k_proj.kv_cache_scale";
  edit_json(folder, kDescription, [&](OrderedJson& document) {
    document.erase("kv_cache_type");
    document.erase(scale);
  });
  const OrderedJson report = repair(folder, "repaired");
  EXPECT_THAT(places(report, "description"), testing::UnorderedElementsAre(scale, "kv_cache_type"));
  const OrderedJson repaired = written_json(folder_ / "repaired", kDescription);
  for (const auto& [key, tag] : whole.items()) EXPECT_EQ(repaired.value(key, OrderedJson()), tag);
}

TEST_F(CliRepair, GroupSizeIsThatOfTheScales) {
  const fs::path folder = quantize("folder", {"-type", "w4a16", "--group-size", "32"});
  edit_json(folder, kDescription, [](OrderedJson& document) { document["group_size"] = 64; });
  EXPECT_EQ(verified(folder), 6);
  EXPECT_THAT(places(repair(folder, "repaired"), "description"), Contains("group_size"));
  EXPECT_EQ(written_json(folder_ / "repaired", kDescription).at("group_size"), 32);
}

// Engines round scales of weights to the model's dtype: half's do not stay in bfloat16.
TEST_F(CliRepair, CodesThatFitAnotherDtypeBetterAreToldOfWithAFigure) {
  store_as("F16", "float16");
  const fs::path folder = quantize("folder", {"-type", "w8a8_dynamic", "--dtype", "float16"});
  const CommandResult moved =
      run_llmq({"convert", "--repair", folder, folder_ / "moved", "--dtype", "bfloat16"});
  EXPECT_THAT(moved.err, HasSubstr("engines round the scales of weights to bfloat16"));
  const CommandResult kept = run_llmq({"convert", "--repair", folder, folder_ / "kept"});
  EXPECT_THAT(kept.err, Not(HasSubstr("engines round")));
}

TEST_F(CliRepair, ASecondDescriptionIsLeftOut) {
  const fs::path folder = calibrate("folder");
  fs::copy_file(folder / kDescription, folder / "quant_model_description_w8a8.json");
  repair(folder, "repaired");
  EXPECT_THAT(folder_entries(folder_ / "repaired"),
              Not(Contains("quant_model_description_w8a8.json")));
}

TEST_F(CliRepair, ScalesAsVectorsBecomeColumns) {
  const fs::path folder = quantize("folder", {"-type", "w8a8_dynamic"});
  const std::vector<RawTensor> whole = read_all_tensors(folder);
  edit_tensors(folder, [](std::vector<RawTensor>& tensors) {
    for (RawTensor& tensor : tensors) {
      if (tensor.name.ends_with("weight_scale") || tensor.name.ends_with("weight_offset"))
        tensor.shape.pop_back();
    }
  });
  const OrderedJson report = repair(folder, "repaired");
  EXPECT_THAT(places(report, "shape"), Contains(std::string(kLinear) + ".weight_scale"));
  EXPECT_EQ(read_all_tensors(folder_ / "repaired"), whole);
}

TEST_F(CliRepair, ConfigSaysAgainWhatEnginesAskFor) {
  const fs::path folder = calibrate("folder");
  const OrderedJson whole = written_json(folder, "config.json");
  edit_json(folder, "config.json", [](OrderedJson& config) {
    config.erase("torch_dtype");
    config["quantize"] = "w8a16";
    config["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}};
  });
  EXPECT_EQ(verified(folder), 6);
  repair(folder, "repaired");
  const OrderedJson repaired = written_json(folder_ / "repaired", "config.json");
  for (const auto& [key, value] : whole.items())
    EXPECT_EQ(repaired.value(key, OrderedJson()), value);
}

TEST_F(CliRepair, WhatNeedsTheFloatModelIsToldWithExitCodeSix) {
  const fs::path folder = calibrate("folder");
  edit_tensors(folder, [](std::vector<RawTensor>& tensors) {
    tensor_named(tensors, std::string(kLinear) + ".quant_bias").bytes[2] ^= 0x40;
  });
  const CommandResult result = run_llmq({"convert", "--repair", folder, folder_ / "out", "--json"});
  EXPECT_EQ(result.exit_code, 6) << result.summary();
  EXPECT_FALSE(json_output(result).at("conformance").at("ok"));
  EXPECT_TRUE(fs::exists(folder_ / "out" / kDescription));
}

TEST_F(CliRepair, FloatFoldersAndFullDestinationsAreRefused) {
  const CommandResult unquantized = run_llmq({"convert", "--repair", source_, folder_ / "out"});
  EXPECT_EQ(unquantized.exit_code, 3) << unquantized.summary();
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  const fs::path folder = calibrate("folder");
  fs::create_directory(folder_ / "full");
  write_file(folder_ / "full" / "note.txt", "kept");
  const CommandResult full = run_llmq({"convert", "--repair", folder, folder_ / "full"});
  EXPECT_EQ(full.exit_code, 3) << full.summary();
  EXPECT_EQ(read_file(folder_ / "full" / "note.txt"), "kept");
  repair(folder, "full", {"--force"});
}

TEST_F(CliRepair, ValuesBeyondHalfAreRefusedByName) {
  const fs::path folder = calibrate("folder");
  edit_tensors(folder, [](std::vector<RawTensor>& tensors) {
    const uint16_t bits = formats::float_to_bf16(131072.0F);
    std::memcpy(tensor_named(tensors, "model.norm.weight").bytes.data(), &bits, sizeof bits);
  });
  const CommandResult result =
      run_llmq({"convert", "--repair", folder, folder_ / "out", "--dtype", "float16"});
  EXPECT_EQ(result.exit_code, 3) << result.summary();
  EXPECT_THAT(result.err, HasSubstr("model.norm.weight"));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(CliRepair, ParametersOfAnotherExtentAreRefusedOrTold) {
  store_as("F16", "float16");
  const std::string linear = kLinear;
  const fs::path folder = calibrate("folder", {"--dtype", "float16"});
  edit_tensors(folder, [&](std::vector<RawTensor>& tensors) {
    RawTensor& scale = tensor_named(tensors, linear + ".weight_scale");
    scale.shape = {1, 1};
    scale.bytes.resize(4);
  });
  const std::vector<std::string> command{"convert",           "--repair", folder,
                                         folder_ / "refused", "--dtype",  "bfloat16"};
  const CommandResult refused = run_llmq(command);
  EXPECT_EQ(refused.exit_code, 3) << refused.summary();
  EXPECT_THAT(refused.err, HasSubstr(linear + ".weight_scale"));

  const fs::path empty = calibrate("empty", {"--dtype", "float16"});
  edit_tensors(empty, [&](std::vector<RawTensor>& tensors) {
    RawTensor& scale = tensor_named(tensors, linear + ".input_scale");
    scale.shape = {0};
    scale.bytes.clear();
  });
  const CommandResult told =
      run_llmq({"convert", "--repair", empty, folder_ / "told", "--dtype", "bfloat16"});
  EXPECT_EQ(told.exit_code, 6) << told.summary();
}

TEST_F(CliRepair, ToAndEngineBelongToRepair) {
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{"--to", "w8a8"}, {"--engine", "mindie"}}) {
    Command command = llmq_command({"convert", source_, folder_ / "out"});
    command.argv.insert(command.argv.end(), options.begin(), options.end());
    EXPECT_EQ(run_command(command).exit_code, 2);
  }
}

}  // namespace
}  // namespace llmq::test

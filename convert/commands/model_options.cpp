#include "convert/commands/model_options.h"

#include "convert/commands/folder_options.h"

namespace llmq::convert {

void add_model_options(CLI::App& command, ModelCommandOptions& options) {
  command.add_option("--model-path", options.folder, "Folder of the model, float or quantized")
      ->required();
  command
      .add_option(
          "--kv", options.kv,
          "Numbers that the KV cache holds: f32, bf16, or int8 for a model with C8 scales, which "
          "always keeps int8")
      ->check(CLI::IsMember({"f32", "bf16", "int8"}));
  command
      .add_option("--prefill-chunk", options.prefill_chunk,
                  "Tokens of a prompt that go through a layer at once")
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--page-size", options.page_size, "Tokens in a page of the KV cache")
      ->check(CLI::Range(1, 1 << 20));
  add_switch(command, "--deterministic", options.is_deterministic,
             "Accepted; results never depend on threads, instruction set, batch or prefill chunk");
  command.add_flag("--allow-extrapolation", options.allow_extrapolation,
                   "Permit more positions than the model has");
  command.add_option("--emulate", options.emulate,
                     "Arithmetic of quantized activations: spec (published formulas), mindie or "
                     "vllm-ascend (the engines' own)");
  command
      .add_option("--phase", options.phase,
                  "Run every token as in prefill or as in decode (default: as it is fed); differs "
                  "for W8A8_MIX only")
      ->check(CLI::IsMember({"prefill", "decode"}));
  command
      .add_option("--tp", options.tp,
                  "Ranks that run a folder made by llmq shard, as threads or, under mpirun, as "
                  "processes (default: as many as it was cut for)")
      ->check(CLI::Range(1, 1024));
  command
      .add_option("--reduce", options.reduce,
                  "How ranks add up partial products: int32 (the bits of the uncut model; default) "
                  "or float32 (as engines do; default with --emulate)")
      ->check(CLI::IsMember({"int32", "float32"}));
}

runtime::ModelOptions model_options(const ModelCommandOptions& options,
                                    const CommonOptions& common) {
  runtime::ModelOptions result;
  result.n_threads = thread_count(common);
  if (options.kv == "bf16") result.kv_dtype = formats::DType::kBF16;
  if (options.kv == "int8") result.kv_dtype = formats::DType::kI8;
  result.page_size = options.page_size;
  result.prefill_chunk = options.prefill_chunk;
  result.allow_extrapolation = options.allow_extrapolation;
  result.emulation = runtime::parse_emulation(options.emulate);
  result.reduction = result.emulation == runtime::Emulation::kSpec ? runtime::Reduction::kInt32
                                                                   : runtime::Reduction::kFloat32;
  if (!options.reduce.empty()) result.reduction = runtime::parse_reduction(options.reduce);
  if (!options.phase.empty()) result.phase = runtime::parse_phase(options.phase);
  return result;
}

}  // namespace llmq::convert

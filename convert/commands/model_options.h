#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "convert/commands/commands.h"
#include "runtime/model/model.h"

namespace llmq::convert {

/// Options of the commands that execute a model.
struct ModelCommandOptions {
  std::string folder;
  std::string kv = "f32";
  int64_t prefill_chunk = 512;
  int64_t page_size = 128;
  bool allow_extrapolation = false;
  bool is_deterministic = true;  ///< as every run is, whatever stands here
  std::string emulate = "spec";
  std::string phase;   ///< empty: as tokens are fed
  int64_t tp = 0;      ///< ranks; 0: as many as the folder was cut for
  std::string reduce;  ///< empty: int32, or float32 where an engine is emulated
};

/// Adds --model_path, --kv, --prefill-chunk, --page-size, --deterministic, --allow-extrapolation,
/// --emulate, --phase, --tp and --reduce.
void add_model_options(CLI::App& command, ModelCommandOptions& options);

/// The runtime's options for them. Throws Error{kUsage} for an unknown --emulate.
runtime::ModelOptions model_options(const ModelCommandOptions& options,
                                    const CommonOptions& common);

}  // namespace llmq::convert

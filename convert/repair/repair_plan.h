#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/description.h"
#include "formats/dtype.h"
#include "formats/json.h"
#include "formats/scheme.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

/// The engines whose expectations a folder can be repaired for.
enum class Engine : uint8_t { kMindIe, kVllmAscend };

/// What a repair is asked for.
struct RepairRequest {
  std::filesystem::path source;
  /// dtype that engines run the float tensors in (F16 or BF16); config.json's torch_dtype where
  /// absent.
  std::optional<formats::DType> dtype;
  /// W8A8 or W8A8_DYNAMIC: what tensors of W8A8_MIX become.
  std::optional<formats::Scheme> to;
  std::optional<Engine> engine;
};

/// One kind of repair, and where it was made.
struct Repair {
  std::string name;                ///< "deq-scale", "description", "config", ...
  std::string detail;              ///< what was wrong and what became of it
  std::vector<std::string> where;  ///< tensors or keys, in the order of the files
};

/// A tensor to be written.
struct RepairedTensor {
  const formats::StoredTensor* source = nullptr;
  formats::DType dtype = formats::DType::kF32;
  formats::Shape shape;
  /// Its data where they are computed. Otherwise those of the source, cast where dtype differs.
  std::optional<std::vector<std::byte>> bytes;
};

/// A folder as it will be after repair; nothing is written yet.
struct RepairPlan {
  formats::Checkpoint checkpoint;  ///< of the source
  formats::Json config;            ///< config.json to be written
  formats::Description description;
  std::string description_file;
  formats::DType model_dtype = formats::DType::kF16;
  std::vector<RepairedTensor> tensors;  ///< in the order of the source's files
  /// Names of the weight files, by StoredTensor::file_index.
  std::vector<std::string> files;
  std::optional<std::string> index_file;
  std::vector<Repair> repairs;
  std::vector<std::string> warnings;  ///< sentences

  /// Notes a repair; those of the same name and detail become one.
  void note(const std::string& name, const std::string& detail, const std::string& place);
};

/// Decides all repairs of a quantized folder. Throws Error{kBadInput} where the folder is not a
/// quantized one or holds something that cannot be repaired without the float model (the sentence
/// names the tensor), Error{kUsage} where `to` asks for a change that the folder's scheme does not
/// allow.
RepairPlan make_repair_plan(const RepairRequest& request, quant::ThreadTeam& team);

}  // namespace llmq::convert

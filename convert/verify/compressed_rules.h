#pragma once

#include <filesystem>
#include <vector>

#include "convert/verify/conformance.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

/// True for a folder that llmq sparse-compress wrote, or the part of a rank in one.
bool is_compressed_folder(const std::filesystem::path& folder);

/// Checks such a folder, or a part alone:
///   description-covers-tensors  every tensor of a part is a key of its description, and every key
///                               a tensor
///   scheme-tensors              each W8A8SC weight has its tensors, with dtype and shape
///   codec-marked                the description marks a known codec, and the weights are coded so
///   compressed-container        info, header and index of each weight fit together
///   tile-checksums              each tile has its checksum and decodes
///   config-coherent             quantize w8a8sc, torch_dtype float16
///   shards-of-one-run           every part is there and belongs to the manifest
/// Reads every compressed byte once. Throws Error only where the folder cannot be read at all.
std::vector<RuleResult> check_compressed(const std::filesystem::path& folder,
                                         quant::ThreadTeam& team);

}  // namespace llmq::convert

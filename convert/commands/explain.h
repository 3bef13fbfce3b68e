#pragma once

#include <string>

#include "formats/json.h"
#include "runtime/model/model.h"

namespace llmq::convert {

/// What runs where: linears by kind with scheme, kernel and instruction set, the KV cache, memory.
formats::Json explain_json(const runtime::Model& model);
/// The same for people.
std::string explain_text(const formats::Json& document);

/// Instruction sets: those of the machine, the one in use and whether LLMQ_ISA forces it, and the
/// one that each kernel family runs.
formats::Json kernels_json();
/// The kernel families of kernels_json() as a table.
std::string kernels_text(const formats::Json& document);

}  // namespace llmq::convert

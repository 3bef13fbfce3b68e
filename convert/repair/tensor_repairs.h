#pragma once

#include "convert/repair/repair_plan.h"

namespace llmq::convert {

/// Adds the keys that the description lacks: "FLOAT" for float tensors, the tag of the module's
/// other tensors for those of a scheme. Takes out keys of parameters that no file holds. Throws
/// Error{kBadInput} where a scheme cannot be told from the tensors.
void repair_tags(RepairPlan& plan);

/// Turns W8A8_MIX into `to` (kW8A8 or kW8A8Dynamic): tags, and for W8A8_DYNAMIC takes out
/// input_scale, input_offset, quant_bias and deq_scale. Throws Error{kUsage} where the folder holds
/// no W8A8_MIX and is not of the type `to` already.
void repair_scheme(RepairPlan& plan, formats::Scheme to);

/// Brings parameters to the shapes that engines expect: weight_scale and weight_offset [n] to
/// [n, 1], deq_scale and quant_bias [n, 1] to [n], input_scale and input_offset to [1].
void repair_shapes(RepairPlan& plan);

/// Casts 16-bit floats to the plan's model_dtype (float32 tensors tagged FLOAT as well where
/// `cast_float32`), writes deq_scale in the encoding of that dtype, and derives deq_scale and
/// quant_bias anew where a cast changes input_scale or bias. The result does not depend on the
/// team. Throws Error{kBadInput} naming the tensor where a value leaves the dtype's range.
void repair_dtypes(RepairPlan& plan, bool cast_float32, quant::ThreadTeam& team);

}  // namespace llmq::convert

#pragma once

namespace llmq::quant {

/// Whether small int8 and bfloat16 products through this processor's tiles equal those of plain
/// C++. Ends the process with SIGILL where tiles may not be used: call it through amx_refusal. Safe
/// between fork and exec: it allocates nothing and takes no lock.
bool hardware_tiles_agree();

}  // namespace llmq::quant

#pragma once

#include "runtime/tokenizer/normalizer.h"

namespace llmq::runtime {

/// Unicode normalization form C, streamed: text is held back from the last character before which
/// it can be cut. Linear in the text, also for long runs of combining marks.
std::unique_ptr<NormalizerStep> new_nfc_step();

}  // namespace llmq::runtime

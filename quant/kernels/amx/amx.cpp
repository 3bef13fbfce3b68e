#include "quant/kernels/amx/hardware_trial.h"
#include "quant/kernels/amx/self_test.h"

namespace llmq::quant {

bool hardware_tiles_agree() {
  return tiles_agree<HardwareTiles>();
}

}  // namespace llmq::quant

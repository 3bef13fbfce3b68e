#include "quant/kernels/families.h"

#include <array>
#include <string>

#include "formats/error.h"
#include "quant/kernels/attention/code_sums.h"
#include "quant/kernels/elementwise/elementwise.h"
#include "quant/kernels/gemm_bf16/gemm_bf16.h"
#include "quant/kernels/gemm_f16/gemm_f16.h"
#include "quant/kernels/gemm_f32/gemm_f32.h"
#include "quant/kernels/gemm_w4a16/gemm_w4a16.h"
#include "quant/kernels/gemm_w8a16/gemm_w8a16.h"
#include "quant/kernels/gemm_w8a8/gemm_w8a8.h"
#include "quant/kernels/gemm_w8a8/quantize_rows.h"
#include "quant/kernels/gemm_w8a8sc/gemm_w8a8sc.h"
#include "quant/kernels/rans/rans.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {
namespace {

constexpr std::array kFamilies{
    KernelFamily{"gemm_w8a8", "int8 weights, int8 activations", gemm_w8a8_implementation},
    KernelFamily{"gemm_w8a8sc", "sparse int8 weights as nibbles, int8 activations",
                 [](Isa isa) { return gemm_w8a8sc_implementation(isa).multiplies; }},
    KernelFamily{"gemm_w8a16", "int8 weights, float activations", gemm_w8a16_implementation},
    KernelFamily{"gemm_w4a16", "int4 weights, float activations", gemm_w4a16_implementation},
    KernelFamily{"gemm_f16", "bf16 and fp16 weights, float activations", gemm_f16_implementation},
    KernelFamily{"gemm_bf16", "bf16 weights, bf16 activations (--fast-calibration)",
                 gemm_bf16_implementation},
    KernelFamily{"gemm_f32", "float32 weights and activations", gemm_f32_implementation},
    KernelFamily{"quantize_rows", "activations to int8 codes", quantize_rows_implementation},
    KernelFamily{"attention", "attention's products with int8 keys and values",
                 [](Isa isa) { return code_sums_kernels(isa).isa; }},
    KernelFamily{"elementwise", "norms, RoPE, softmax, SiLU, attention's products with float ones",
                 [](Isa isa) { return elementwise_kernels(isa).isa; }},
    KernelFamily{"rounding", "weights to codes, and casts",
                 [](Isa isa) { return rounding_kernels(isa).isa; }},
    KernelFamily{"rans", "entropy decoding of W8A8SC",
                 [](Isa isa) { return rans_kernels(isa).isa; }},
};

}  // namespace

std::span<const KernelFamily> kernel_families() {
  return kFamilies;
}

const KernelFamily& kernel_family(std::string_view name) {
  for (const KernelFamily& family : kFamilies) {
    if (family.name == name) return family;
  }
  throw formats::Error(formats::ErrorCode::kInternal,
                       "no kernel family is called " + std::string(name));
}

}  // namespace llmq::quant

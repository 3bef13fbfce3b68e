#include "quant/kernels/cpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>

#include "formats/error.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::quant {
namespace {

std::string refusal(const char* forced) {
  try {
    choose_isa(forced);
  } catch (const formats::Error& error) {
    EXPECT_EQ(error.code(), formats::ErrorCode::kUsage);
    return error.what();
  }
  return "";
}

TEST(IsaChoice, NamesAreTheSpellingsOfTheEnvironmentVariable) {
  std::vector<std::string_view> names;
  names.reserve(kAllIsas.size());
  for (Isa isa : kAllIsas) names.push_back(isa_name(isa));
  EXPECT_THAT(names, testing::ElementsAre("scalar", "avx2", "avxvnni", "avx512vnni", "amx"));
}

TEST(IsaChoice, SupportedOnesAscendAndBeginWithScalar) {
  const std::vector<Isa> isas = supported_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::kScalar);
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
  for (Isa isa : kAllIsas) {
    EXPECT_EQ(isa_supported(isa), std::count(isas.begin(), isas.end(), isa) == 1) << isa_name(isa);
  }
}

TEST(IsaChoice, DetectionAgreesWithTheKernelsListOfCpuFlags) {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  while (std::getline(cpuinfo, line) && !line.starts_with("flags")) {
  }
  if (!line.starts_with("flags")) GTEST_SKIP() << "/proc/cpuinfo lists no flags";
  line += ' ';
  const auto has = [&](const char* flag) {
    return line.find(" " + std::string(flag) + " ") != std::string::npos;
  };
  const bool avx2 = has("avx2") && has("fma") && has("f16c");
  const bool avx512 = avx2 && has("avx512f") && has("avx512bw") && has("avx512dq") &&
                      has("avx512vl") && has("avx512_vnni");
  EXPECT_EQ(isa_supported(Isa::kAvx2), avx2);
  EXPECT_EQ(isa_supported(Isa::kAvxVnni), avx2 && has("avx_vnni"));
  EXPECT_EQ(isa_supported(Isa::kAvx512Vnni), avx512);
  // The permission for tiles may be refused where the CPU has them, so this holds one way only.
  if (isa_supported(Isa::kAmx)) {
    EXPECT_TRUE(avx512 && has("avx512_bf16") && has("amx_tile") && has("amx_int8") &&
                has("amx_bf16"));
  }
}

TEST(IsaChoice, WithoutAForcedOneTheBestIsChosen) {
  EXPECT_EQ(choose_isa(nullptr), supported_isas().back());
  EXPECT_EQ(choose_isa(""), supported_isas().back());
}

TEST(IsaChoice, AForcedOneIsChosenOrRefusedButNeverLowered) {
  for (Isa isa : kAllIsas) {
    const std::string name(isa_name(isa));
    if (isa_supported(isa)) {
      EXPECT_EQ(choose_isa(name.c_str()), isa);
    } else {
      EXPECT_THAT(refusal(name.c_str()),
                  testing::AllOf(testing::HasSubstr("LLMQ_ISA=" + name),
                                 testing::HasSubstr("does not offer"),
                                 testing::HasSubstr("set it to one of scalar")));
    }
  }
}

TEST(IsaChoice, AnUnknownNameIsRefusedWithTheKnownOnes) {
  for (const char* name : {"bogus", "AVX2", "avx512", " avx2", "avx2 "}) {
    EXPECT_THAT(refusal(name), testing::AllOf(testing::HasSubstr("LLMQ_ISA=" + std::string(name)),
                                              testing::HasSubstr("set it to one of scalar")));
  }
}

TEST(IsaChoice, TheProcessUsesWhatItsEnvironmentAsksFor) {
  EXPECT_EQ(active_isa(), choose_isa(std::getenv("LLMQ_ISA")));
  EXPECT_EQ(&rounding_kernels(), &rounding_kernels(active_isa()));
}

TEST(IsaChoice, RoundingTablesAreTheirOwnOrThatOfTheBestLowerSet) {
  for (Isa isa : kAllIsas) {
    if (!isa_supported(isa)) {
      EXPECT_THROW(static_cast<void>(rounding_kernels(isa)), formats::Error);
      continue;
    }
    const Isa expected = isa >= Isa::kAvx512Vnni ? Isa::kAvx512Vnni
                         : isa >= Isa::kAvx2     ? Isa::kAvx2
                                                 : Isa::kScalar;
    EXPECT_EQ(rounding_kernels(isa).isa, expected) << isa_name(isa);
  }
}

}  // namespace
}  // namespace llmq::quant

#pragma once

namespace llmq::quant {

/// exp(x) = 2^n · p(r) with n = round(x · log2 e) and r = x − n · ln 2 in two parts, of which the
/// first has so few bits that n · kLn2High is exact. p(r) = 1 + (r + r² · h(r)), h of degree 4 by
/// minimax of the relative error on |r| <= ln 2 / 2, where it is 3.1e-9 (0.05 ulp); the rest of the
/// error is rounding.
inline constexpr float kLog2E = 0x1.715476p+0F;
inline constexpr float kRoundMagic = 0x1.8p+23F;  ///< adding it rounds to integer, half to even
inline constexpr float kLn2High = 0x1.62e4p-1F;
inline constexpr float kLn2Low = 0x1.7f7d1cp-20F;
inline constexpr float kExpH0 = 0x1.fffffcp-2F;
inline constexpr float kExpH1 = 0x1.555492p-3F;
inline constexpr float kExpH2 = 0x1.5558f2p-5F;
inline constexpr float kExpH3 = 0x1.123a2p-7F;
inline constexpr float kExpH4 = 0x1.6a23dp-10F;
inline constexpr float kExpMin = -0x1.5d589ep+6F;  ///< smallest x with exp(x) >= 2^-126
inline constexpr float kExpMax = 0x1.62e42ep+6F;   ///< largest x with a finite exp(x)

}  // namespace llmq::quant

// A probability's numerator in units that add up to the same in any order.
#pragma once

#include "formats.h"

namespace outrider {

// exp(x) for -80 <= x <= 0 in units of 2^-34, so that sums are exact in any order. Plain arithmetic, which
// compilers do on whole vectors: Cephes' expf, then an addition after which the units are the last bits.
OUTRIDER_INLINE int64_t mass_of(float x) {
  constexpr float kRound = 0x1.8p23f;
  constexpr double kUnits = 0x1.8p18;
  const float n = (x * 1.44269504088896341f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const float e = p * __builtin_bit_cast(float, (static_cast<int32_t>(n) + 127) << 23);
  return __builtin_bit_cast(int64_t, static_cast<double>(e) + kUnits) - __builtin_bit_cast(int64_t, kUnits);
}

}  // namespace outrider

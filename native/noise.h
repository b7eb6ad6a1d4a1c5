// SplitMix64, as in outrider/ops/noise.py.
#pragma once

#include <cstdint>

#include "inline.h"

namespace outrider {

constexpr uint64_t kNoiseStep = 0x9E3779B97F4A7C15u;

// Its finaliser.
OUTRIDER_INLINE uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace outrider

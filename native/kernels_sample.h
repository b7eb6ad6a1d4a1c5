// What choosing a token does to all of a vocabulary. Plain loops, which compilers do on whole vectors.
#pragma once

#include "mass.h"
#include "noise.h"

namespace outrider::OUTRIDER_ISA {
namespace {

float maximum(const float* values, size_t count) {
  F32 best = set1(-__builtin_inff());
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) best = max(load(values + i), best);
  float result = reduce_max(best);
  for (; i < count; ++i) result = values[i] > result ? values[i] : result;
  return result;
}

bool scale(const float* x, float top, float by, size_t count, float* y) {
  int nan = 0;
  for (size_t i = 0; i < count; ++i) {
    y[i] = (x[i] - top) / by;
    nan |= y[i] != y[i];
  }
  return nan;
}

bool mass(const float* x, float top, size_t count, int64_t* total) {
  constexpr size_t kBlock = 64;  // of one size: compilers make vectors of nothing else here
  float below[kBlock];
  int nan = 0;
  int64_t sum = 0;
  for (size_t first = 0; first < count; first += kBlock) {
    const size_t some = count - first < kBlock ? count - first : kBlock;
    for (size_t i = 0; i < some; ++i) {
      nan |= x[first + i] != x[first + i];
      below[i] = x[first + i] - top > -80.0f ? x[first + i] - top : -80.0f;
    }
    for (size_t i = some; i < kBlock; ++i) below[i] = -80.0f;
    for (size_t i = 0; i < kBlock; ++i) sum += mass_of(below[i]);
  }
  *total = sum;
  return nan;
}

// The upper 52 bits of SplitMix64.
inline uint64_t noise_of(uint64_t key, int64_t token) {
  return mix(key + (static_cast<uint64_t>(token) + 1) * kNoiseStep) >> 12;
}

uint64_t noise(uint64_t key, int token, const int64_t* ids, int count, uint64_t* bits) {
  if (ids != nullptr) {
    for (int i = 0; i < count; ++i) bits[i] = noise_of(key, ids[i]);
  } else {
    for (int i = 0; i < count; ++i) bits[i] = noise_of(key, int64_t{token} + i);
  }
  uint64_t least = ~uint64_t{0};
  for (int i = 0; i < count; ++i) least = bits[i] < least ? bits[i] : least;
  return least;
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

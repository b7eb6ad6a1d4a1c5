// Layers that keep a state of what came before: one row at a time.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

// Calls f(i, lanes) for every 16 numbers of `count`, and for the rest, with how many there are.
template <typename F>
inline void each_lanes(int count, F f) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) f(i, kLanes);
  if (i < count) f(i, count - i);
}

inline F32 some(const float* p, int lanes) { return lanes == kLanes ? load(p) : load_n(p, lanes); }

inline void put(float* p, F32 x, int lanes) { lanes == kLanes ? store(p, x) : store_n(p, x, lanes); }

void convolve(const float* const* seen, const float* weight, size_t stride, int taps, const float* bias, bool silu_too,
              int count, float* y) {
  each_lanes(count, [&](int i, int lanes) {
    F32 sum = bias == nullptr ? set1(0) : some(bias + i, lanes);
    for (int tap = 0; tap < taps; ++tap)
      sum = fma(some(seen[tap] + i, lanes), some(weight + stride * static_cast<size_t>(tap) + i, lanes), sum);
    put(y + i, silu_too ? silu(sum) : sum, lanes);
  });
}

void delta(float* state, const float* q, const float* k, const float* v, float kept, float written, int key_dim,
           int value_dim, float* y) {
  each_lanes(value_dim, [&](int i, int lanes) {
    F32 found = set1(0), out = set1(0);
    for (int d = 0; d < key_dim; ++d) {
      float* cell = state + static_cast<size_t>(d) * static_cast<size_t>(value_dim) + i;
      const F32 decayed = mul(some(cell, lanes), set1(kept));
      put(cell, decayed, lanes);
      found = fma(decayed, set1(k[d]), found);
    }
    const F32 change = mul(sub(some(v + i, lanes), found), set1(written));
    for (int d = 0; d < key_dim; ++d) {
      float* cell = state + static_cast<size_t>(d) * static_cast<size_t>(value_dim) + i;
      const F32 changed = fma(set1(k[d]), change, some(cell, lanes));
      put(cell, changed, lanes);
      out = fma(changed, set1(q[d]), out);
    }
    put(y + i, out, lanes);
  });
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

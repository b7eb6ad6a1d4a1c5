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

// `kStrips` times 16 values of a head, or fewer at its end. The state is read from memory once: the second walk
// finds it in the cache, and so the decay is computed twice and stored once.
template <int kStrips>
inline void delta_strips(const float* before, float* after, const float* q, const float* k, const float* v,
                         float kept, float written, int key_dim, size_t stride, int lanes, float* y) {
  const F32 decay = set1(kept);
  F32 found[kStrips], change[kStrips], out[kStrips];
  for (int s = 0; s < kStrips; ++s) found[s] = out[s] = set1(0);
  for (int d = 0; d < key_dim; ++d) {
    const float* row = before + stride * static_cast<size_t>(d);
    for (int s = 0; s < kStrips; ++s)
      found[s] = fma(mul(some(row + s * kLanes, lanes), decay), set1(k[d]), found[s]);
  }
  for (int s = 0; s < kStrips; ++s)
    change[s] = mul(sub(some(v + s * kLanes, lanes), found[s]), set1(written));
  for (int d = 0; d < key_dim; ++d) {
    const float* row = before + stride * static_cast<size_t>(d);
    float* to = after + stride * static_cast<size_t>(d);
    for (int s = 0; s < kStrips; ++s) {
      const F32 changed = fma(set1(k[d]), change[s], mul(some(row + s * kLanes, lanes), decay));
      put(to + s * kLanes, changed, lanes);
      out[s] = fma(changed, set1(q[d]), out[s]);
    }
  }
  for (int s = 0; s < kStrips; ++s) put(y + s * kLanes, out[s], lanes);
}

void delta(const float* before, float* after, const float* q, const float* k, const float* v, float kept,
           float written, int key_dim, int value_dim, float* y) {
  constexpr int kStrips = 4, kWide = kStrips * kLanes;
  const auto stride = static_cast<size_t>(value_dim);
  int i = 0;
  for (; i + kWide <= value_dim; i += kWide)
    delta_strips<kStrips>(before + i, after + i, q, k, v + i, kept, written, key_dim, stride, kLanes, y + i);
  for (; i < value_dim; i += kLanes)
    delta_strips<1>(before + i, after + i, q, k, v + i, kept, written, key_dim, stride,
                    value_dim - i < kLanes ? value_dim - i : kLanes, y + i);
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

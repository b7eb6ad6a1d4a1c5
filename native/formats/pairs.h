// Dot products of integer codes by instructions that multiply two rows by two outputs (ARM's i8mm). What is computed of
// a row and an output, and in which order, is what `Integer` does; only where the sums lie differs.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {
namespace pairs {

// The slices of rows 2 i and 2 i + 1 of a strip of M. Without the second, the first is taken twice.
template <int M>
class SlicePair {
 public:
  OUTRIDER_HOT SlicePair(const uint32_t* x, int i) : a_(x, 2 * i), b_(x, 2 * i + 1 < M ? 2 * i + 1 : 2 * i) {}

  OUTRIDER_HOT void codes(PairCodes* to) const {  // of eight inputs each
    interleave(a_.codes(0), b_.codes(0), to);
    interleave(a_.codes(1), b_.codes(1), to + 2);
  }
  OUTRIDER_HOT F32Part unit(int at) const { return pair_of_floats(a_.units + at, b_.units + at); }

  // What sums begin with under scale s of a group.
  template <class T>
  OUTRIDER_HOT I32Part begin(int s) const {
    if constexpr (T::kMins || T::kZero == 128) return repeat<I32Part>(0);
    else if constexpr (T::kScales == 1) return pair_of(a_.template zero<T::kZero>(), b_.template zero<T::kZero>());
    else return pair_of(a_.template zero_of_half<T::kZero>(s), b_.template zero_of_half<T::kZero>(s));
  }

 private:
  Slice a_, b_;
};

// Inputs 8 t .. 8 t + 7 of outputs 2 h and 2 h + 1 of four.
template <class C>
OUTRIDER_HOT I32Part codes_of(const C& codes, int t, int h) {
  if constexpr (requires { codes.pair(t, h); }) return codes.pair(t, h);
  else return zip(codes.line(2 * t), codes.line(2 * t + 1), h);
}

template <class T, int M>
struct PairSums {
  static constexpr int kPairs = (M + 1) / 2;
  F32Part of[kParts][kPairs][2];

  // Outputs of register p.
  OUTRIDER_HOT void add_part(const typename T::Scales& scales, int g, const uint8_t* group, const PairCodes (*codes)[4],
                             const uint32_t* x, int p) {
    const typename T::template Codes<I32Part> some(group, p);
    F32Part both[kPairs][2];
    OUTRIDER_UNROLL(2)
    for (int s = 0; s < T::kScales; ++s) {
      I32Part sum[kPairs][2];
      OUTRIDER_UNROLL(8)
      for (int i = 0; i < kPairs; ++i)
        sum[i][0] = sum[i][1] = SlicePair<M>(x, i).template begin<T>(s);
      OUTRIDER_UNROLL(4)
      for (int t = s * 2; t < (T::kScales == 1 ? 4 : s * 2 + 2); ++t)
        OUTRIDER_UNROLL(2)
        for (int h = 0; h < 2; ++h) {
          const I32Part w = codes_of(some, t, h);
          OUTRIDER_UNROLL(8)
          for (int i = 0; i < kPairs; ++i) sum[i][h] = multiply_pairs(sum[i][h], w, codes[i][t]);
        }
      OUTRIDER_UNROLL(8)
      for (int i = 0; i < kPairs; ++i)
        OUTRIDER_UNROLL(2)
        for (int h = 0; h < 2; ++h) {
          const F32Part y = to_float(sum[i][h]), scale = SlicePair<M>(x, i).unit(kScale);
          F32Part& to = of[p][i][h];
          if constexpr (T::kRowScales) {
            to = fma(y, scale, to);
          } else {
            const F32Part own = twice(part_of(scales.scale(g * T::kScales + s), p), h);
            if constexpr (T::kScales == 1) {
              to = fma(y, mul(own, scale), to);
            } else {
              both[i][h] = s == 0 ? mul(y, own) : fma(y, own, both[i][h]);
              if (s == 1) to = fma(both[i][h], scale, to);
            }
          }
        }
    }
    if constexpr (T::kMins) {
      OUTRIDER_UNROLL(2)
      for (int s = 0; s < T::kScales; ++s)
        OUTRIDER_UNROLL(8)
        for (int i = 0; i < kPairs; ++i)
          OUTRIDER_UNROLL(2)
          for (int h = 0; h < 2; ++h)
            of[p][i][h] = fma(twice(part_of(scales.least(g * T::kScales + s), p), h),
                              SlicePair<M>(x, i).unit(T::kScales == 1 ? kScaledSum : kScaledHalves + s), of[p][i][h]);
    }
  }

  static F32Part part_of(F32 x, int p) { return part(x, p); }
};

template <class T, int M>
Sums<M> dot(const Panel& panel, const uint32_t* x) {
  constexpr int kPairs = PairSums<T, M>::kPairs;
  PairSums<T, M> total;
  for (auto& pairs : total.of)
    for (auto& pair : pairs) pair[0] = pair[1] = to_float(repeat<I32Part>(0));
  const uint8_t* block = panel.blocks;
  for (int b = 0; b < panel.count; ++b, block += T::kLayout.block_bytes()) {
    prefetch_all<M, T::kCodesAt>(block);
    const typename T::Scales scales(block);
    const uint8_t* group = block + T::kCodesAt;
    OUTRIDER_UNROLL(1)
    for (int g = 0; g < T::kGroups; ++g, group += T::kGroupBytes, x += M * kInt8Units) {
      prefetch_all<M, T::kGroupBytes>(group);
      keep_in_memory(total);
      PairCodes codes[kPairs][4];
      OUTRIDER_UNROLL(8)
      for (int i = 0; i < kPairs; ++i) SlicePair<M>(x, i).codes(codes[i]);
      OUTRIDER_UNROLL(4)
      for (int p = 0; p < kParts; ++p) total.add_part(scales, g, group, codes, x, p);
    }
  }
  Sums<M> sums;
  for (int m = 0; m < M; ++m)
    for (int p = 0; p < kParts; ++p)
      part(sums.of[m], p) = row_of(total.of[p][m / 2][0], total.of[p][m / 2][1], m % 2);
  if constexpr (T::kRowScales) {
    const F32 scale = load_floats(panel.heads);
    for (int m = 0; m < M; ++m) sums.of[m] = mul(sums.of[m], scale);
  }
  return sums;
}

}  // namespace pairs
}  // namespace
}  // namespace outrider::OUTRIDER_ISA

// Dot products of a panel of 16 outputs with the rows of a block, in vector registers.
//
// Each weight is loaded once for all rows of a block. The accumulators of a row see the inputs in one fixed
// order, whatever the number of rows: the kernel for M rows is M times the kernel for one.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

constexpr int kLine = 64;

// Lines to come, into the second-level cache and from there into the first: what a core can have under way to
// memory at the first level alone is not enough for the memory's bandwidth.
inline void prefetch(const void* line) {
  prefetch_far(static_cast<const uint8_t*>(line) + 8192);
  prefetch_near(static_cast<const uint8_t*>(line) + 1024);
}

template <int M>
struct Sums {
  F32 of[M];
};

inline F32 unit_as_float(const uint32_t* unit) {
  float value;
  __builtin_memcpy(&value, unit, sizeof value);
  return set1(value);
}

// One row's record of quantised activations.
struct Record {
  const uint32_t* units;

  int32_t codes(int j) const { return static_cast<int32_t>(units[j]); }
  F32 scale() const { return unit_as_float(units + kCodeUnits); }
  int32_t zero_of_nibbles() const { return static_cast<int32_t>(units[kCodeUnits + 1]); }
  int32_t zero_of_bytes() const { return static_cast<int32_t>(units[kCodeUnits + 3]); }
  F32 scaled_sum() const { return unit_as_float(units + kCodeUnits + 2); }
};

inline Record record(const uint32_t* x, int m) { return {x + m * record_units(Form::kInt8)}; }

namespace registers {

// What the dot products of M rows need set up before them: nothing.
template <int M>
struct Setup {
  explicit Setup(Form) {}
};

// Two sums a row, over even and odd inputs, so that the additions do not wait for each other.
template <int M>
Sums<M> dot_float32(const MatrixView& w, const uint8_t* panel, const uint32_t* x) {
  constexpr int units = record_units(Form::kFloat32);
  const float* codes = reinterpret_cast<const float*>(panel);
  Sums<M> even, odd;
  for (int m = 0; m < M; ++m) even.of[m] = odd.of[m] = set1(0);
  for (int g = 0; g < w.inputs / kGroup; ++g, x += M * units) {
#pragma GCC unroll 2
    for (int j = 0; j < kGroup; j += 2, codes += 2 * kLanes) {
      prefetch(codes);
      prefetch(codes + kLanes);
      const F32 first = load(codes), second = load(codes + kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) even.of[m] = fma(first, unit_as_float(x + m * units + j), even.of[m]);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) odd.of[m] = fma(second, unit_as_float(x + m * units + j + 1), odd.of[m]);
    }
  }
  for (int m = 0; m < M; ++m) even.of[m] = add(even.of[m], odd.of[m]);
  return even;
}

template <int M>
Sums<M> dot_bfloat16(const MatrixView& w, const uint8_t* panel, const uint32_t* x) {
  constexpr int units = record_units(Form::kBfloat16);
  const uint16_t* codes = reinterpret_cast<const uint16_t*>(panel);
  Sums<M> even, odd;
  for (int m = 0; m < M; ++m) even.of[m] = odd.of[m] = set1(0);
  for (int g = 0; g < w.inputs / kGroup; ++g, x += M * units) {
#pragma GCC unroll 2
    for (int j = 0; j < units; j += 2, codes += 4 * kLanes) {
      prefetch(codes);
      prefetch(codes + 2 * kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) even.of[m] = dot2(even.of[m], codes, x[m * units + j]);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) odd.of[m] = dot2(odd.of[m], codes + 2 * kLanes, x[m * units + j + 1]);
    }
  }
  for (int m = 0; m < M; ++m) even.of[m] = add(even.of[m], odd.of[m]);
  return even;
}

template <int M, bool kGroupScales>
Sums<M> dot_int8(const MatrixView& w, const uint8_t* panel, const uint32_t* x) {
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(panel);
  const uint8_t* codes = panel + w.codes_offset;
  Sums<M> total;
  for (int m = 0; m < M; ++m) total.of[m] = set1(0);
  for (int g = 0; g < w.inputs / kGroup; ++g, x += M * record_units(Form::kInt8)) {
    I32 sum[M];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) sum[m] = begin8(record(x, m).zero_of_bytes());
#pragma GCC unroll 8
    for (int j = 0; j < kCodeUnits; ++j, codes += kLine) {
      prefetch(codes);
      const Codes c = load_codes(codes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) sum[m] = dot4_centred(sum[m], c, record(x, m).codes(j));
    }
    if constexpr (kGroupScales) {
      const F32 scale = load_f16(scales + g * kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m)
        total.of[m] = fma(to_float(sum[m]), mul(scale, record(x, m).scale()), total.of[m]);
    } else {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) total.of[m] = fma(to_float(sum[m]), record(x, m).scale(), total.of[m]);
    }
  }
  if constexpr (!kGroupScales) {
    const F32 scale = load(reinterpret_cast<const float*>(panel));
    for (int m = 0; m < M; ++m) total.of[m] = mul(total.of[m], scale);
  }
  return total;
}

// A line of codes holds inputs 4 j .. 4 j + 3 of a group in the low and 16 + 4 j .. in the high nibbles.
template <int M, bool kMins>
Sums<M> dot_int4(const MatrixView& w, const uint8_t* panel, const uint32_t* x) {
  const int groups = w.inputs / kGroup;
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(panel);
  const uint16_t* mins = scales + groups * kLanes;
  const uint8_t* codes = panel + w.codes_offset;
  Sums<M> total;
  for (int m = 0; m < M; ++m) total.of[m] = set1(0);
  for (int g = 0; g < groups; ++g, x += M * record_units(Form::kInt8)) {
    I32 sum[M];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) sum[m] = set1_i32(kMins ? 0 : record(x, m).zero_of_nibbles());
#pragma GCC unroll 4
    for (int j = 0; j < kCodeUnits / 2; ++j, codes += kLine) {
      prefetch(codes);
      const Codes both = load_codes(codes);
      const Codes low = low_nibbles(both), high = high_nibbles(both);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) sum[m] = dot4(sum[m], low, record(x, m).codes(j));
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) sum[m] = dot4(sum[m], high, record(x, m).codes(j + kCodeUnits / 2));
    }
    const F32 scale = load_f16(scales + g * kLanes);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
      total.of[m] = fma(to_float(sum[m]), mul(scale, record(x, m).scale()), total.of[m]);
    if constexpr (kMins) {
      const F32 least = load_f16(mins + g * kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) total.of[m] = fma(least, record(x, m).scaled_sum(), total.of[m]);
    }
  }
  return total;
}

}  // namespace registers
}  // namespace
}  // namespace outrider::OUTRIDER_ISA

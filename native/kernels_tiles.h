// Dot products of a panel of 16 outputs with the rows of a block, in AMX tiles.
//
// A tile of weights, 16 outputs by one group of inputs, is loaded once for all rows, and the time it takes does
// not depend on how many there are. The rows of a tile are computed independently of each other.
#pragma once

#include "kernels_dot.h"

namespace outrider::OUTRIDER_ISA {
namespace {
namespace tiles {

using registers::dot_float32;

constexpr int kTileRows = 16;

// Tiles 0 to 3 are sums [M, 16], 4 and 5 activations [M, bytes], 6 and 7 weights [bytes / 4, 64 bytes].
template <int M>
class Tiles {
 public:
  explicit Tiles(int bytes) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t column_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int t = 0; t < 8; ++t) {
      config.column_bytes[t] = static_cast<uint16_t>(t == 4 || t == 5 ? bytes : 64);
      config.rows[t] = static_cast<uint8_t>(t < 6 ? M : bytes / 4);
    }
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

template <int kLines>
inline void prefetch_lines(const uint8_t* first) {
#pragma GCC unroll 16
  for (int i = 0; i < kLines; ++i) prefetch(first + i * kLine);
}

// Even groups of inputs are summed in one tile, odd ones in another, so that neither waits for the other.
template <int M>
Sums<M> dot_bfloat16(const MatrixView& w, const uint8_t* codes, const uint32_t* x) {
  constexpr int units = M * record_units(Form::kBfloat16), bytes = 16 * kLine;
  const int groups = w.inputs / kGroup;
  const Tiles<M> tiles(64);
  _tile_zero(0);
  _tile_zero(1);
  for (int g = 0; g < groups; ++g, codes += bytes, x += units) {
    prefetch_lines<16>(codes);
    _tile_loadd(4, x, 64);
    _tile_loadd(6, codes, kLine);
    _tile_dpbf16ps(0, 4, 6);
    if (++g == groups) break;
    codes += bytes, x += units;
    prefetch_lines<16>(codes);
    _tile_loadd(5, x, 64);
    _tile_loadd(7, codes, kLine);
    _tile_dpbf16ps(1, 5, 7);
  }
  Sums<M> even, odd;
  _tile_stored(0, even.of, 64);
  _tile_stored(1, odd.of, 64);
  for (int m = 0; m < M; ++m) even.of[m] = add(even.of[m], odd.of[m]);
  return even;
}

// Sums of integers are exact in any order: few rows are left to vector registers, which are faster for them.
constexpr int kFewestRows = 6;

template <int M>
struct Integers {
  I32 of[M];
};

// The sums of two groups' codes, with the weights of each in 8 lines of bytes. Tiles have to be named by digits.
template <int M>
inline void multiply_groups(const uint32_t* x, const uint8_t* lines, Integers<M> (&sums)[2]) {
  constexpr int units = record_units(Form::kInt8);
  _tile_zero(0);
  _tile_zero(1);
  _tile_loadd(4, x, units * 4);
  _tile_loadd(6, lines, kLine);
  _tile_dpbsud(0, 4, 6);
  _tile_loadd(5, x + M * units, units * 4);
  _tile_loadd(7, lines + 8 * kLine, kLine);
  _tile_dpbsud(1, 5, 7);
  _tile_stored(0, sums[0].of, kLine);
  _tile_stored(1, sums[1].of, kLine);
}

template <int M>
inline void multiply_group(const uint32_t* x, const uint8_t* lines, Integers<M>& sum) {
  _tile_zero(0);
  _tile_loadd(4, x, record_units(Form::kInt8) * 4);
  _tile_loadd(6, lines, kLine);
  _tile_dpbsud(0, 4, 6);
  _tile_stored(0, sum.of, kLine);
}

inline F32 to_float_from(I32 sum, int32_t zero) { return to_float(add_i32(sum, begin8(zero))); }

template <int M, bool kGroupScales>
Sums<M> dot_int8(const MatrixView& w, const uint8_t* panel, const uint32_t* x) {
  if constexpr (M < kFewestRows) return registers::dot_int8<M, kGroupScales>(w, panel, x);
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(panel);
  const uint8_t* codes = panel + w.codes_offset;
  const Tiles<M> tiles(kGroup);
  Sums<M> total;
  for (int m = 0; m < M; ++m) total.of[m] = set1(0);
  const int groups = w.inputs / kGroup;
  alignas(64) Integers<M> sums[2];
  const auto finish = [&](int g, const Integers<M>& sum, const uint32_t* x) {
    if constexpr (kGroupScales) {
      const F32 scale = load_f16(scales + g * kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const Record r = record(x, m);
        total.of[m] = fma(to_float_from(sum.of[m], r.zero()), mul(scale, r.scale()), total.of[m]);
      }
    } else {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const Record r = record(x, m);
        total.of[m] = fma(to_float_from(sum.of[m], r.zero()), r.scale(), total.of[m]);
      }
    }
  };
  constexpr int units = M * record_units(Form::kInt8), bytes = 8 * kLine;
  int g = 0;
  for (; g + 2 <= groups; g += 2, x += 2 * units, codes += 2 * bytes) {
    prefetch_lines<16>(codes);
    multiply_groups<M>(x, codes, sums);
    finish(g, sums[0], x);
    finish(g + 1, sums[1], x + units);
  }
  if (g < groups) {
    multiply_group<M>(x, codes, sums[0]);
    finish(g, sums[0], x);
  }
  if constexpr (!kGroupScales) {
    const F32 scale = load(reinterpret_cast<const float*>(panel));
    for (int m = 0; m < M; ++m) total.of[m] = mul(total.of[m], scale);
  }
  return total;
}

template <int M, bool kMins>
Sums<M> dot_int4(const MatrixView& w, const uint8_t* panel, const uint32_t* x) {
  return registers::dot_int4<M, kMins>(w, panel, x);
}

}  // namespace tiles
}  // namespace
}  // namespace outrider::OUTRIDER_ISA

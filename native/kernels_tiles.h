// Dot products of a panel of 16 outputs with the rows of a strip, in AMX tiles. For bfloat16 alone: integers
// gained nothing, since each group's sums would have to leave their tile to be scaled.
//
// A tile of weights, 16 outputs by one group of inputs, is loaded once for all rows, and the time it takes
// does not depend on how many there are. The rows of a tile are computed independently of each other.
#pragma once

#include "kernels_dot.h"

namespace outrider::OUTRIDER_ISA {
namespace {
namespace tiles {

constexpr int kTileRows = 16;

// Tiles 0 and 1 are sums [M, 16], 2 and 3 activations [M, 32], 4 and 5 weights [16 pairs of inputs, 16].
// To say so takes as long as a good part of a panel, so it is done once for many.
template <int M>
class Setup {
 public:
  explicit Setup(Form form) : used_(form == Form::kBfloat16) {
    if (!used_) return;
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t column_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int t = 0; t < 6; ++t) {
      config.column_bytes[t] = kLine;
      config.rows[t] = t < 4 ? M : 16;
    }
    asm volatile("" : : "r"(&config) : "memory");  // GCC 12 believes that only 8 bytes of it are read
    _tile_loadconfig(&config);
  }
  ~Setup() {
    if (used_) _tile_release();
  }
  Setup(const Setup&) = delete;
  Setup& operator=(const Setup&) = delete;

 private:
  const bool used_;
};

// Further ahead than for vector registers: a tile takes sixteen lines at a time.
inline void prefetch_weights(const uint8_t* first) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    prefetch_far(first + i * kLine + 16384);
    prefetch_near(first + i * kLine + 2048);
  }
}

// Even groups of inputs are summed in one tile, odd ones in another, so that neither waits for the other.
template <int M>
Sums<M> dot_bfloat16(const Panel& panel, const uint32_t* x) {
  constexpr int units = M * slice_units(Form::kBfloat16), bytes = 16 * kLine;
  const uint8_t* codes = panel.blocks;
  const int groups = panel.count;
  _tile_zero(0);
  _tile_zero(1);
  for (int g = 0; g < groups; ++g, codes += bytes, x += units) {
    prefetch_weights(codes);
    _tile_loadd(2, x, kLine);
    _tile_loadd(4, codes, kLine);
    _tile_dpbf16ps(0, 2, 4);
    if (++g == groups) break;
    codes += bytes, x += units;
    prefetch_weights(codes);
    _tile_loadd(3, x, kLine);
    _tile_loadd(5, codes, kLine);
    _tile_dpbf16ps(1, 3, 5);
  }
  Sums<M> even, odd;
  _tile_stored(0, even.of, kLine);
  _tile_stored(1, odd.of, kLine);
  for (int m = 0; m < M; ++m) even.of[m] = add(even.of[m], odd.of[m]);
  return even;
}

}  // namespace tiles
}  // namespace
}  // namespace outrider::OUTRIDER_ISA

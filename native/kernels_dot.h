// Dot products of a panel of 16 outputs with the rows of a strip, in vector registers.
//
// Each weight is loaded once for all rows of a strip. The accumulators of a row see the inputs in one fixed
// order, whatever the number of rows: the kernel for M rows is M times the kernel for one.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

constexpr int kLine = 64;

// Lines to come. One row or two compute so little a line that a core waits for memory alone, and has most lines
// under way when they go straight to the first-level cache. With more rows two steps are faster, by the second
// level, which holds more of what is ahead.
template <int M>
OUTRIDER_HOT void prefetch(const uint8_t* line) {
  if constexpr (M <= 2) {
    prefetch_near(line + 4096);
  } else {
    prefetch_far(line + 8192);
    prefetch_near(line + 2048);
  }
}

template <int M, int kBytes>
OUTRIDER_HOT void prefetch_all(const uint8_t* first) {
#pragma GCC unroll 16
  for (int at = 0; at < kBytes; at += kLine) prefetch<M>(first + at);
}

template <int M>
struct Sums {
  F32 of[M];
};

template <int M>
OUTRIDER_HOT void clear(Sums<M>& sums) {
  for (int m = 0; m < M; ++m) sums.of[m] = set1(0);
}

inline F32 unit_as_float(const uint32_t* unit) {
  float value;
  __builtin_memcpy(&value, unit, sizeof value);
  return set1(value);
}

inline F32 load_floats(const uint8_t* p) { return load(reinterpret_cast<const float*>(p)); }
inline F32 load_halves(const uint8_t* p) { return load_f16(reinterpret_cast<const uint16_t*>(p)); }

// One panel: the heads of its rows and its blocks (see `Layout`).
struct Panel {
  const uint8_t* heads;
  const uint8_t* blocks;
  int count;  // of blocks

  OUTRIDER_HOT Panel(const MatrixView& w, const Layout& layout, int index)
      : heads(w.data + w.panel_bytes * static_cast<size_t>(index)), blocks(heads + layout.head_bytes()),
        count(layout.blocks(w.inputs)) {}
  const uint8_t* block(const Layout& layout, int index) const {
    return blocks + static_cast<size_t>(index) * layout.block_bytes();
  }
};

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

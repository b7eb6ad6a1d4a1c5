// What becomes of a linear layer's results as they are stored.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

inline F32 load_up_to(const float* p, int count) { return count >= kLanes ? load(p) : load_n(p, count); }

// Sixteen outputs of row `row` from `column` on, of which `count` exist.
inline void write(F32 y, size_t row, int column, int count, const Output& out) {
  const size_t at = row * out.stride + static_cast<size_t>(column);
  y = mul(y, set1(out.scale));
  if (out.residual != nullptr) y = add(load_up_to(out.residual + at, count), y);
  if (count >= kLanes) {
    store(out.values + at, y);
  } else {
    store_n(out.values + at, y, count);
  }
}

// The same where the values that are there are the gate. Not inlined: a call among the sums of a plain layer would
// keep them out of registers. Nor analysed by GCC 12, which takes `y` to be unread in the portable build and leaves
// it unwritten.
#ifdef __clang__
__attribute__((noinline))
#else
__attribute__((noipa))
#endif
void write_gated(const F32* y, int rows, size_t first, int column, int count, const Output& out) {
  for (size_t row = first; row < first + static_cast<size_t>(rows); ++row, ++y) {
    const float* gate = out.values + row * out.stride + static_cast<size_t>(column);
    write(gated(out.activation, load_up_to(gate, count), *y), row, column, count, out);
  }
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

// Weights that are floating-point numbers by themselves. A block is 32 inputs of 16 outputs, input by input;
// of bfloat16, pair by pair.
#pragma once

#ifdef __AMX_TILE__
#include "../kernels_tiles.h"
#endif

namespace outrider::OUTRIDER_ISA {
namespace {

// Adds the products of 32 inputs of M rows: two sums a row, of even and odd inputs, so that the additions do not
// wait for each other. `T::load` makes floats of `kStep` inputs of 16 outputs, which are `kStepBytes`.
template <class T, int M>
OUTRIDER_HOT void add_inputs(Sums<M>& even, Sums<M>& odd, const uint8_t* codes, const uint32_t* x) {
#pragma GCC unroll 2
  for (int j = 0; j < kGroup; j += T::kStep, codes += T::kStepBytes) {
    prefetch_all<M, T::kStepBytes>(codes);
    F32 inputs[T::kStep];
    T::load(codes, inputs);
#pragma GCC unroll 4
    for (int i = 0; i < T::kStep; i += 2) {
      const uint32_t* units = x + j + i;
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) even.of[m] = fma(inputs[i], unit_as_float(units + m * kGroup), even.of[m]);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m)
        odd.of[m] = fma(inputs[i + 1], unit_as_float(units + m * kGroup + 1), odd.of[m]);
    }
  }
}

template <class T, int M>
Sums<M> dot_inputs(const Panel& panel, const uint32_t* x) {
  Sums<M> even, odd;
  clear(even);
  clear(odd);
  for (int b = 0; b < panel.count; ++b, x += M * kGroup)
    add_inputs<T, M>(even, odd, panel.block(T::kLayout, b), x);
  for (int m = 0; m < M; ++m) even.of[m] = add(even.of[m], odd.of[m]);
  return even;
}

// Output `lane` of 32 inputs.
template <class T>
void decode_inputs(const uint8_t* codes, F32 scale, int lane, float* y) {
  for (int k = 0; k < kGroup; k += T::kStep, codes += T::kStepBytes) {
    F32 inputs[T::kStep];
    T::load(codes, inputs);
    for (int i = 0; i < T::kStep; ++i) {
      float values[kLanes];
      store(values, mul(scale, inputs[i]));
      y[k + i] = values[lane];
    }
  }
}

template <class T, Format kFormat>
struct FloatFormat {
  static constexpr Layout kLayout = layout_of(kFormat);
  static constexpr int kStep = 2, kStepBytes = kStep * kLanes * kLayout.size;

  template <int M>
  static Sums<M> dot(const Panel& panel, const uint32_t* x) {
    return dot_inputs<T, M>(panel, x);
  }
  static void decode(const Panel& panel, int b, int lane, float* y) {
    const uint8_t* codes = panel.block(kLayout, b);
    decode_inputs<T>(codes, set1(1), lane, y);
  }
};

struct F32Weights : FloatFormat<F32Weights, Format::kF32> {
  OUTRIDER_HOT static void load(const uint8_t* p, F32* inputs) {
    inputs[0] = load_floats(p);
    inputs[1] = load_floats(p + kLine);
  }
  static void pack(Rows rows, Place to) {
    Line lines[kGroup];
    load_lines<kGroup>(rows, 0, lines);
    for (int k = 0; k < kGroup; ++k) put_line(to.block + k * kLine, lines[k]);
  }
};

struct F16Weights : FloatFormat<F16Weights, Format::kF16> {
  OUTRIDER_HOT static void load(const uint8_t* p, F32* inputs) {
    inputs[0] = load_halves(p);
    inputs[1] = load_halves(p + kLine / 2);
  }
  static void pack(Rows rows, Place to) {
    Line lines[kGroup / 2];  // of pairs of inputs
    load_lines<kGroup / 2>(rows, 0, lines);
    for (int k = 0; k < kGroup; k += 2, to.block += kLine) {
      uint16_t inputs[2][kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        inputs[0][lane] = static_cast<uint16_t>(lines[k / 2].of[lane]);
        inputs[1][lane] = static_cast<uint16_t>(lines[k / 2].of[lane] >> 16);
      }
      __builtin_memcpy(to.block, inputs, sizeof inputs);
    }
  }
};

// A line holds two inputs of each output, which is what instructions for bfloat16 multiply.
struct BF16Weights {
  static constexpr Layout kLayout = layout_of(Format::kBF16);

  template <int M>
  static Sums<M> dot(const Panel& panel, const uint32_t* x) {
#ifdef __AMX_TILE__
    return tiles::dot_bfloat16<M>(panel, x);
#else
    constexpr int kUnits = slice_units(Form::kBfloat16);
    const auto* codes = reinterpret_cast<const uint16_t*>(panel.blocks);
    Sums<M> even, odd;
    clear(even);
    clear(odd);
    for (int b = 0; b < panel.count; ++b, x += M * kUnits) {
#pragma GCC unroll 2
      for (int j = 0; j < kUnits; j += 2, codes += 4 * kLanes) {
        prefetch_all<M, 2 * kLine>(reinterpret_cast<const uint8_t*>(codes));
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) even.of[m] = dot2(even.of[m], codes, x[m * kUnits + j]);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) odd.of[m] = dot2(odd.of[m], codes + 2 * kLanes, x[m * kUnits + j + 1]);
      }
    }
    for (int m = 0; m < M; ++m) even.of[m] = add(even.of[m], odd.of[m]);
    return even;
#endif
  }

  static void pack(Rows rows, Place to) {
    Line lines[kGroup / 2];
    load_lines<kGroup / 2>(rows, 0, lines);
    for (int j = 0; j < kGroup / 2; ++j) put_line(to.block + j * kLine, lines[j]);
  }

  static void decode(const Panel& panel, int b, int lane, float* y) {
    const uint8_t* codes = panel.block(kLayout, b);
    for (int k = 0; k < kGroup; ++k) {
      uint16_t half;
      __builtin_memcpy(&half, codes + k / 2 * kLine + 4 * lane + k % 2 * 2, sizeof half);
      const uint32_t bits = static_cast<uint32_t>(half) << 16;
      __builtin_memcpy(&y[k], &bits, sizeof bits);
    }
  }
};

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

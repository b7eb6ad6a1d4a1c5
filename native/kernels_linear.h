// Linear layers: one panel of 16 outputs against any number of rows, in blocks.
#pragma once

#include "kernels_dot.h"
#ifdef __AMX_TILE__
#include "kernels_tiles.h"
#endif

namespace outrider::OUTRIDER_ISA {
namespace {

#ifdef __AMX_TILE__
namespace dots = tiles;
constexpr int max_rows(Form form) { return form == Form::kBfloat16 ? tiles::kTileRows : kMaxRows; }
constexpr int kMostRows = tiles::kTileRows;
#else
namespace dots = registers;
constexpr int max_rows(Form) { return kMaxRows; }
constexpr int kMostRows = kMaxRows;
#endif

template <int M>
Sums<M> dot(const MatrixView& w, int index, const uint32_t* x) {
  const uint8_t* panel = w.panel(index);
  Sums<M> sums;
  switch (w.format) {
    case Format::kFloat32: sums = dots::dot_float32<M>(w, panel, x); break;
    case Format::kBfloat16: sums = dots::dot_bfloat16<M>(w, panel, x); break;
    case Format::kInt8: sums = dots::dot_int8<M, true>(w, panel, x); break;
    case Format::kInt8Channel: sums = dots::dot_int8<M, false>(w, panel, x); break;
    case Format::kInt4: sums = dots::dot_int4<M, false>(w, panel, x); break;
    case Format::kInt4Min: sums = dots::dot_int4<M, true>(w, panel, x); break;
  }
  if (w.bias != nullptr) {
    const F32 bias = load(w.bias + index * kLanes);
    for (int m = 0; m < M; ++m) sums.of[m] = add(sums.of[m], bias);
  }
  return sums;
}

inline F32 silu(F32 x) { return div(x, add(set1(1), exp(sub(set1(0), x)))); }

struct Task {
  const MatrixView& weight;
  const MatrixView* gate;  // null: a plain linear layer
};

template <int M>
void one_panel(const Task& task, int panel, const uint32_t* x, int first, const Output& out) {
  Sums<M> sums = dot<M>(task.weight, panel, x);
  if (task.gate != nullptr) {
    const Sums<M> gates = dot<M>(*task.gate, panel, x);
    for (int m = 0; m < M; ++m) sums.of[m] = mul(silu(gates.of[m]), sums.of[m]);
  }
  const int column = panel * kLanes, left = task.weight.outputs - column;
  for (int m = 0; m < M; ++m) {
    const size_t row = static_cast<size_t>(first + m);
    float* y = out.values + row * out.stride + column;
    const float* residual = out.residual ? out.residual + row * out.residual_stride + column : nullptr;
    if (left >= kLanes) {
      store(y, residual ? add(load(residual), sums.of[m]) : sums.of[m]);
    } else {
      store_n(y, residual ? add(load_n(residual, left), sums.of[m]) : sums.of[m], left);
    }
  }
}

template <int M>
void block(const Task& task, Panels panels, const uint32_t* x, int first, const Output& out) {
  const dots::Setup<M> setup(form_of(task.weight.format));
  for (int panel = panels.first; panel < panels.last; ++panel) one_panel<M>(task, panel, x, first, out);
}

using Block = void (*)(const Task&, Panels, const uint32_t*, int, const Output&);

template <int... M>
constexpr auto blocks_of(std::integer_sequence<int, M...>) {
  struct Table { Block of[sizeof...(M)]; };
  return Table{{block<M + 1>...}};
}

constexpr auto kBlocks = blocks_of(std::make_integer_sequence<int, kMostRows>());

void all_rows(const Task& task, Panels panels, const uint32_t* x, int rows, const Output& out) {
  const Form form = form_of(task.weight.format);
  const RowBlocks blocks(rows, max_rows(form));
  const size_t units = static_cast<size_t>(units_of(form, task.weight.inputs));
  for (int b = 0; b < blocks.count; ++b) {
    const int first = blocks.first(b);
    kBlocks.of[blocks.size(b) - 1](task, panels, x + units * static_cast<size_t>(first), first, out);
  }
}

void linear(const MatrixView& weight, Panels panels, const uint32_t* x, int rows, const Output& out) {
  all_rows({weight, nullptr}, panels, x, rows, out);
}

void gated(const MatrixView& gate, const MatrixView& up, Panels panels, const uint32_t* x, int rows,
           const Output& out) {
  all_rows({up, &gate}, panels, x, rows, out);
}

void weight_row(const MatrixView& w, int output, float* y) {
  const uint8_t* panel = w.panel(output / kLanes);
  const int lane = output % kLanes, groups = w.inputs / kGroup;
  const auto* halves = reinterpret_cast<const uint16_t*>(panel);
  const uint8_t* codes = panel + w.codes_offset;
  alignas(64) float scales[kLanes], mins[kLanes];
  for (int k = 0; k < w.inputs; ++k) {
    const int g = k / kGroup, in = k % kGroup;
    if (in == 0 && w.format != Format::kFloat32 && w.format != Format::kBfloat16) {
      store(scales, w.format == Format::kInt8Channel ? load(reinterpret_cast<const float*>(panel))
                                                     : load_f16(halves + g * kLanes));
      if (w.format == Format::kInt4Min) store(mins, load_f16(halves + (groups + g) * kLanes));
    }
    const auto nibble = [&] {
      const int byte = codes[g * kGroup / 2 * kLanes + in % 16 / 4 * kLine + 4 * lane + in % 4];
      return in < 16 ? byte & 15 : byte >> 4;
    };
    switch (w.format) {
      case Format::kFloat32: y[k] = reinterpret_cast<const float*>(panel)[k * kLanes + lane]; break;
      case Format::kBfloat16: {
        const uint32_t bits = static_cast<uint32_t>(halves[k / 2 * 2 * kLanes + 2 * lane + k % 2]) << 16;
        __builtin_memcpy(&y[k], &bits, sizeof bits);
        break;
      }
      case Format::kInt8:
      case Format::kInt8Channel:
        y[k] = scales[lane] * static_cast<float>(codes[k / 4 * kLine + 4 * lane + k % 4] - 128);
        break;
      case Format::kInt4: y[k] = scales[lane] * static_cast<float>(nibble() - 8); break;
      case Format::kInt4Min: y[k] = scales[lane] * static_cast<float>(nibble()) + mins[lane]; break;
    }
  }
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

// Linear layers: panels of 16 outputs against any number of rows, in strips.
#pragma once

#include <utility>

#include "formats/dispatch.h"
#include "kernels_store.h"

namespace outrider::OUTRIDER_ISA {
namespace {

#ifdef __AMX_TILE__
using tiles::Setup;
constexpr int max_rows(Form form) { return form == Form::kBfloat16 ? tiles::kTileRows : kMaxRows; }
constexpr int kMostRows = tiles::kTileRows;
#else
// What the dot products of M rows need set up before them: nothing.
template <int M>
struct Setup {
  explicit Setup(Form) {}
};
constexpr int max_rows(Form form) { return form == Form::kInt8 ? kMaxRows : kMaxFloatRows; }
constexpr int kMostRows = kMaxRows;
#endif

template <class T, int M>
void panels_of(const MatrixView& w, Panels panels, const uint32_t* x, int first, const Output& out) {
  const Setup<M> setup(T::kLayout.form);
  for (int index = panels.first; index < panels.last; ++index) {
    const Panel panel(w, T::kLayout, index);
    Sums<M> sums = T::template dot<M>(panel, x);
    const int column = index * kLanes;
    if (w.bias != nullptr) {
      const F32 bias = load(w.bias + column);
      for (int m = 0; m < M; ++m) sums.of[m] = add(sums.of[m], bias);
    }
    const int count = w.outputs - column;
    if (out.activation != Activation::kNone) {
      const Sums<M> copy = sums;
      write_gated(copy.of, M, static_cast<size_t>(first), column, count, out);
      continue;
    }
    for (int m = 0; m < M; ++m) write(sums.of[m], static_cast<size_t>(first + m), column, count, out);
  }
}

template <int M>
void strip(const MatrixView& w, Panels panels, const uint32_t* x, int first, const Output& out) {
  with_traits(w.format, [&]<class T>(T) {
    if constexpr (M <= max_rows(T::kLayout.form)) panels_of<T, M>(w, panels, x, first, out);
  });
}

using Strip = void (*)(const MatrixView&, Panels, const uint32_t*, int, const Output&);

template <int... M>
constexpr auto strips_of(std::integer_sequence<int, M...>) {
  struct Table { Strip of[sizeof...(M)]; };
  return Table{{strip<M + 1>...}};
}

constexpr auto kStrips = strips_of(std::make_integer_sequence<int, kMostRows>());

void linear(const MatrixView& weight, Panels panels, const uint32_t* x, int rows, const Output& out) {
  const Form form = weight.layout().form;
  const RowStrips strips(rows, max_rows(form));
  const size_t units = static_cast<size_t>(units_of(form, weight.inputs));
  for (int s = 0; s < strips.count; ++s) {
    const int first = strips.first(s);
    kStrips.of[strips.size(s) - 1](weight, panels, x + units * static_cast<size_t>(first), first, out);
  }
}

void weight_row(const MatrixView& w, int output, float* y) {
  with_traits(w.format, [&]<class T>(T) {
    constexpr int kBlock = T::kLayout.block();
    const Panel panel(w, T::kLayout, output / kLanes);
    for (int b = 0; b < panel.count; ++b) {
      float values[kBlock];
      T::decode(panel, b, output % kLanes, values);
      for (int k = b * kBlock; k < w.inputs && k < (b + 1) * kBlock; ++k)
        y[w.columns ? w.columns[k] : k] = values[k - b * kBlock];
    }
  });
}

void pack(Format format, const uint8_t* const* rows, int inputs, uint8_t* panel) {
  with_traits(format, [&]<class T>(T) { pack_panel<T>(rows, inputs, panel); });
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

// Linear layers: one panel of 16 outputs against a block of up to kMaxRows rows.
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

// One row's record of quantised activations.
struct Record {
  const uint32_t* units;

  int32_t codes(int j) const { return static_cast<int32_t>(units[j]); }
  F32 scale() const { return unit_as_float(units + kCodeUnits); }
  int32_t zero() const { return static_cast<int32_t>(units[kCodeUnits + 1]); }
  F32 scaled_sum() const { return unit_as_float(units + kCodeUnits + 2); }
};

inline Record record(const uint32_t* x, int m) { return {x + m * record_units(Form::kInt8)}; }

template <int M, bool kGroupScales>
Sums<M> dot_int8(const MatrixView& w, const uint8_t* panel, const uint32_t* x) {
  const uint16_t* scales = reinterpret_cast<const uint16_t*>(panel);
  const uint8_t* codes = panel + w.codes_offset;
  Sums<M> total;
  for (int m = 0; m < M; ++m) total.of[m] = set1(0);
  for (int g = 0; g < w.inputs / kGroup; ++g, x += M * record_units(Form::kInt8)) {
    I32 sum[M];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) sum[m] = begin8(record(x, m).zero());
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
    for (int m = 0; m < M; ++m) sum[m] = set1_i32(kMins ? 0 : record(x, m).zero());
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

template <int M>
Sums<M> dot(const MatrixView& w, int index, const uint32_t* x) {
  const uint8_t* panel = w.panel(index);
  Sums<M> sums;
  switch (w.format) {
    case Format::kFloat32: sums = dot_float32<M>(w, panel, x); break;
    case Format::kBfloat16: sums = dot_bfloat16<M>(w, panel, x); break;
    case Format::kInt8: sums = dot_int8<M, true>(w, panel, x); break;
    case Format::kInt8Channel: sums = dot_int8<M, false>(w, panel, x); break;
    case Format::kInt4: sums = dot_int4<M, false>(w, panel, x); break;
    case Format::kInt4Min: sums = dot_int4<M, true>(w, panel, x); break;
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
  int panel;
};

template <int M>
void block(const Task& task, const uint32_t* x, int first, const Output& out) {
  Sums<M> sums = dot<M>(task.weight, task.panel, x);
  if (task.gate != nullptr) {
    const Sums<M> gates = dot<M>(*task.gate, task.panel, x);
    for (int m = 0; m < M; ++m) sums.of[m] = mul(silu(gates.of[m]), sums.of[m]);
  }
  const int column = task.panel * kLanes, left = task.weight.outputs - column;
  for (int m = 0; m < M; ++m) {
    const size_t row = static_cast<size_t>(first + m);
    float* y = out.values + row * out.stride + column;
    const float* residual = out.residual + row * out.residual_stride + column;
    if (left >= kLanes) {
      store(y, out.residual ? add(load(residual), sums.of[m]) : sums.of[m]);
    } else {
      store_n(y, out.residual ? add(load_n(residual, left), sums.of[m]) : sums.of[m], left);
    }
  }
}

using Block = void (*)(const Task&, const uint32_t*, int, const Output&);

template <int... M>
constexpr auto blocks_of(std::integer_sequence<int, M...>) {
  struct Table { Block of[sizeof...(M)]; };
  return Table{{block<M + 1>...}};
}

constexpr auto kBlocks = blocks_of(std::make_integer_sequence<int, kMaxRows>());

void all_rows(const Task& task, const uint32_t* x, int rows, const Output& out) {
  const RowBlocks blocks(rows, kMaxRows);
  const size_t units = static_cast<size_t>(units_of(form_of(task.weight.format), task.weight.inputs));
  for (int b = 0; b < blocks.count; ++b) {
    const int first = blocks.first(b);
    kBlocks.of[blocks.size(b) - 1](task, x + units * static_cast<size_t>(first), first, out);
  }
}

void linear(const MatrixView& weight, int panel, const uint32_t* x, int rows, const Output& out) {
  all_rows({weight, nullptr, panel}, x, rows, out);
}

void gated(const MatrixView& gate, const MatrixView& up, int panel, const uint32_t* x, int rows,
           const Output& out) {
  all_rows({up, &gate, panel}, x, rows, out);
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

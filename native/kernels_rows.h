// What works on one row at a time: norms, conversions, rotation, and sums over a vocabulary.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

// Of an integer, or of NaN, which becomes 0.
inline int32_t to_int(float x) { return x > -0x1p30f && x < 0x1p30f ? static_cast<int32_t>(x) : 0; }

// 1 / root mean square. Lanes are summed in one order; the row's last lanes alone.
inline float inverse_rms(const float* x, float eps, int width) {
  F32 squares = set1(0);
  int i = 0;
  for (; i + kLanes <= width; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
  if (i < width) {
    const F32 rest = load_n(x + i, width - i);
    squares = fma(rest, rest, squares);
  }
  return 1.0f / __builtin_sqrtf(reduce_add(squares) / static_cast<float>(width) + eps);
}

void rms_norm(const float* x, const float* norm, float eps, int width, float* y) {
  const F32 factor = set1(inverse_rms(x, eps, width));
  int i = 0;
  for (; i + kLanes <= width; i += kLanes) store(y + i, mul(mul(load(x + i), factor), load(norm + i)));
  if (i < width) {
    const int rest = width - i;
    store_n(y + i, mul(mul(load_n(x + i, rest), factor), load_n(norm + i, rest)), rest);
  }
}

// Symmetric int8 of one group. The sum of the codes comes along for formats with a zero point or a minimum.
// A group that holds NaN or an infinity gets the scale NaN, and so does the layer's row. One whose values are
// too small for 127 / largest to be finite is zero.
inline void quantise(const float* x, uint32_t* record) {
  const F32 low = load(x), high = load(x + kLanes);
  const float largest = reduce_max(max(abs(low), abs(high)));
  const float not_finite = reduce_add(fma(low, set1(0), mul(high, set1(0))));  // NaN, or else 0
  const bool is_zero = !(largest >= 0x1p-121f);
  const float scale = (is_zero ? 0.0f : largest / 127.0f) + not_finite;
  const float inverse = is_zero ? 0.0f : 127.0f / largest;
  const F32 a = round(mul(low, set1(inverse))), b = round(mul(high, set1(inverse)));
  auto* codes = reinterpret_cast<int8_t*>(record);
  store_i8(codes, a);
  store_i8(codes + kLanes, b);
  const float sum = reduce_add(add(a, b));  // exact: of integers
  const int32_t zero = to_int(-8 * sum);
  const float scaled = scale * sum;
  __builtin_memcpy(&record[kCodeUnits], &scale, sizeof scale);
  __builtin_memcpy(&record[kCodeUnits + 1], &zero, sizeof zero);
  __builtin_memcpy(&record[kCodeUnits + 2], &scaled, sizeof scaled);
  const int32_t zero_of_bytes = 16 * zero;
  __builtin_memcpy(&record[kCodeUnits + 3], &zero_of_bytes, sizeof zero_of_bytes);
}

void prepare(Form form, const float* x, const float* norm, float eps, int width, int inputs, int rows,
             int row, uint32_t* block, float* scratch) {
  if (norm != nullptr) {
    rms_norm(x, norm, eps, width, scratch);
    x = scratch;
  } else if (width < inputs) {
    __builtin_memcpy(scratch, x, sizeof(float) * static_cast<size_t>(width));
    x = scratch;
  }
  for (int i = width; i < inputs; ++i) scratch[i] = 0;
  const int units = record_units(form);
  uint32_t* record = block + row * units;
  for (int i = 0; i < inputs; i += kGroup, record += rows * units) {
    switch (form) {
      case Form::kFloat32: __builtin_memcpy(record, x + i, kGroup * sizeof(float)); break;
      case Form::kBfloat16:
        store_bf16(reinterpret_cast<uint16_t*>(record), load(x + i));
        store_bf16(reinterpret_cast<uint16_t*>(record) + kLanes, load(x + i + kLanes));
        break;
      case Form::kInt8: quantise(x + i, record); break;
    }
  }
}

// Half-split layout: dimension i turns with i + head_dim / 2.
void rotate(const float* x, const float* cos, const float* sin, int heads, int head_dim, float* y) {
  const int half = head_dim / 2;
  for (int h = 0; h < heads; ++h, x += head_dim, y += head_dim) {
    for (int i = 0; i < half; ++i) {
      const float low = x[i], high = x[i + half];
      y[i] = low * cos[i] - high * sin[i];
      y[i + half] = high * cos[i] + low * sin[i];
    }
  }
}

inline uint16_t bfloat16_of(float x) {
  uint16_t lanes[kLanes];
  store_bf16(lanes, set1(x));
  return lanes[0];
}

// One row's K and V (each [kv_heads, head_dim]) into one position of one block.
void store_kv(const CacheView& c, int block, int offset, const float* k, const float* v) {
  const size_t dim = static_cast<size_t>(c.head_dim), size = static_cast<size_t>(c.block_size);
  for (int h = 0; h < c.kv_heads; ++h, k += dim, v += dim) {
    const size_t base = (static_cast<size_t>(block) * c.kv_heads + h) * dim * size;
    const size_t value = base + static_cast<size_t>(offset) * dim;
    if (c.bfloat16) {
      auto* keys = static_cast<uint16_t*>(c.keys) + base + offset;
      auto* values = static_cast<uint16_t*>(c.values) + value;
      size_t d = 0;
      for (; d + kLanes <= dim; d += kLanes) {
        uint16_t lanes[kLanes];
        store_bf16(lanes, load(k + d));
        for (int i = 0; i < kLanes; ++i) keys[(d + i) * size] = lanes[i];
        store_bf16(values + d, load(v + d));
      }
      for (; d < dim; ++d) {
        keys[d * size] = bfloat16_of(k[d]);
        values[d] = bfloat16_of(v[d]);
      }
    } else {
      float* keys = static_cast<float*>(c.keys) + base + offset;
      for (size_t d = 0; d < dim; ++d) keys[d * size] = k[d];
      __builtin_memcpy(static_cast<float*>(c.values) + value, v, sizeof(float) * dim);
    }
  }
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

// Conversions of a row to what linear layers read.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

// Of an integer, or of NaN, which becomes 0.
inline int32_t to_int(float x) { return x > -0x1p30f && x < 0x1p30f ? static_cast<int32_t>(x) : 0; }

inline void put_unit(uint32_t* unit, float value) { __builtin_memcpy(unit, &value, sizeof value); }
inline void put_unit(uint32_t* unit, int32_t value) { __builtin_memcpy(unit, &value, sizeof value); }

// Symmetric int8 of one group. The sums of the codes come along for formats with a zero point or a minimum.
// A group that holds NaN or an infinity gets the scale NaN, and so does the layer's row: one of its codes is NaN
// before it is stored, and so is their sum. One whose values are too small for 127 / largest to be finite is zero.
inline void quantise(const float* x, uint32_t* slice) {
  const F32 low = load(x), high = load(x + kLanes);
  const float largest = reduce_max(max(abs(low), abs(high)));
  const bool is_zero = !(largest >= 0x1p-121f);
  const F32 inverse = set1(is_zero ? 0.0f : 127.0f / largest);
  const F32 a = round(mul(low, inverse)), b = round(mul(high, inverse));
  auto* codes = reinterpret_cast<int8_t*>(slice + kCodes);
  store_i8(codes, a);
  store_i8(codes + kLanes, b);
  const float sums[2] = {reduce_add(a), reduce_add(b)};  // exact: of integers
  const float sum = sums[0] + sums[1], not_finite = 0 * sum;
  const float scale = (is_zero ? 0.0f : largest / 127.0f) + not_finite;
  const int32_t whole[2] = {to_int(sums[0]), to_int(sums[1])};
  put_unit(slice + kScale, scale);
  put_unit(slice + kScaledSum, scale * sum);
  put_unit(slice + kZero8, -8 * (whole[0] + whole[1]));
  put_unit(slice + kZero128, -128 * (whole[0] + whole[1]));
  for (int half = 0; half < 2; ++half) {
    put_unit(slice + kScaledHalves + half, scale * sums[half]);
    put_unit(slice + kZero32Halves + half, -32 * whole[half]);
  }
}

void prepare(Form form, const Source& source, float* scratch, Slices slices) {
  const float* x = source.x;
  if (source.norm != nullptr) {
    rms_norm(x, source.norm, source.eps, source.width, nullptr, scratch);
    x = scratch;
  }
  const int units = slice_units(form);
  uint32_t* slice = slices.strip + slices.row * units;
  for (int first = 0; first < padded(source.width); first += kGroup, slice += slices.rows * units) {
    const int count = source.width - first < kGroup ? source.width - first : kGroup;
    const float* group = x + first;
    float gathered[kGroup] = {};
    if (source.columns != nullptr || count < kGroup) {
      for (int i = 0; i < count; ++i) gathered[i] = x[source.columns ? source.columns[first + i] : first + i];
      group = gathered;
    }
    switch (form) {
      case Form::kFloat32: __builtin_memcpy(slice, group, kGroup * sizeof(float)); break;
      case Form::kBfloat16:
        store_bf16(reinterpret_cast<uint16_t*>(slice), load(group));
        store_bf16(reinterpret_cast<uint16_t*>(slice) + kLanes, load(group + kLanes));
        break;
      case Form::kInt8: quantise(group, slice); break;
    }
  }
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

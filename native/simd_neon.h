// Sixteen lanes as four NEON registers, with dot products of bytes and of bfloat16 where the machine has them.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

// Loops over rows and lines become straight code, whose accumulators are registers.
#define OUTRIDER_UNROLL(n) OUTRIDER_PRAGMA(GCC unroll n)
#define OUTRIDER_PRAGMA(x) _Pragma(#x)
#define OUTRIDER_HOT __attribute__((always_inline)) inline

namespace outrider::OUTRIDER_ISA {

inline constexpr int kMaxRows = 4;  // 32 registers: an integer sum of four registers for every row, and a line

struct F32 { float32x4_t a, b, c, d; };
struct I32 { uint32x4_t a, b, c, d; };

// `f` of each register.
template <class T, class F, class... X>
OUTRIDER_HOT T each(F f, X... x) {
  return {f(x.a...), f(x.b...), f(x.c...), f(x.d...)};
}

inline F32 load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
inline void store(float* p, F32 x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
  vst1q_f32(p + 8, x.c);
  vst1q_f32(p + 12, x.d);
}
inline F32 load_n(const float* p, int n) {
  float buffer[16] = {};
  std::memcpy(buffer, p, sizeof(float) * static_cast<size_t>(n));
  return load(buffer);
}
inline void store_n(float* p, F32 x, int n) {
  float buffer[16];
  store(buffer, x);
  std::memcpy(p, buffer, sizeof(float) * static_cast<size_t>(n));
}
inline F32 set1(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}; }
inline F32 add(F32 x, F32 y) { return each<F32>([](float32x4_t x, float32x4_t y) { return vaddq_f32(x, y); }, x, y); }
inline F32 sub(F32 x, F32 y) { return each<F32>([](float32x4_t x, float32x4_t y) { return vsubq_f32(x, y); }, x, y); }
inline F32 mul(F32 x, F32 y) { return each<F32>([](float32x4_t x, float32x4_t y) { return vmulq_f32(x, y); }, x, y); }
inline F32 div(F32 x, F32 y) { return each<F32>([](float32x4_t x, float32x4_t y) { return vdivq_f32(x, y); }, x, y); }
// Not vmaxq and vminq, which keep a NaN of either side.
inline F32 max(F32 x, F32 y) {
  return each<F32>([](float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }, x, y);
}
inline F32 min(F32 x, F32 y) {
  return each<F32>([](float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }, x, y);
}
inline F32 abs(F32 x) { return each<F32>([](float32x4_t x) { return vabsq_f32(x); }, x); }
inline F32 fma(F32 x, F32 y, F32 z) {
  return each<F32>([](float32x4_t x, float32x4_t y, float32x4_t z) { return vfmaq_f32(z, x, y); }, x, y, z);
}

inline F32 load_bf16(const uint16_t* p) {
  const uint16x8_t low = vld1q_u16(p), high = vld1q_u16(p + 8);
  return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)),
          vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(low), 16)),
          vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)),
          vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(high), 16))};
}
inline uint16x4_t round_bf16(float32x4_t x) {  // not BFCVT, whose NaN has no payload
  const uint32x4_t u = vreinterpretq_u32_f32(x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
  const uint32x4_t up = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), up, vorrq_u32(u, vdupq_n_u32(0x400000))), 16);
}
inline void store_bf16(uint16_t* p, F32 x) {
  vst1q_u16(p, vcombine_u16(round_bf16(x.a), round_bf16(x.b)));
  vst1q_u16(p + 8, vcombine_u16(round_bf16(x.c), round_bf16(x.d)));
}
inline float32x4_t float_of_half(uint16x4_t x) { return vcvt_f32_f16(vreinterpret_f16_u16(x)); }
inline F32 float_of_half(uint16x8_t low, uint16x8_t high) {
  return {float_of_half(vget_low_u16(low)), float_of_half(vget_high_u16(low)), float_of_half(vget_low_u16(high)),
          float_of_half(vget_high_u16(high))};
}
inline F32 load_f16(const uint16_t* p) { return float_of_half(vld1q_u16(p), vld1q_u16(p + 8)); }

inline I32 set1_i32(int32_t x) {
  const uint32x4_t all = vdupq_n_u32(static_cast<uint32_t>(x));
  return {all, all, all, all};
}
inline F32 to_float(I32 x) {
  return each<F32>([](uint32x4_t x) { return vcvtq_f32_s32(vreinterpretq_s32_u32(x)); }, x);
}
inline void store_i8(int8_t* p, F32 x) {  // saturates, and NaN becomes 0
  const int16x8_t low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.a)), vqmovn_s32(vcvtnq_s32_f32(x.b)));
  const int16x8_t high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.c)), vqmovn_s32(vcvtnq_s32_f32(x.d)));
  vst1q_s8(p, vmaxq_s8(vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)), vdupq_n_s8(-127)));
}
inline F32 round(F32 x) { return each<F32>([](float32x4_t x) { return vrndnq_f32(x); }, x); }
inline F32 power_of_two(F32 n) {
  return each<F32>([](float32x4_t n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23)); }, n);
}
// y where x > bound, 0 elsewhere; NaN stays.
inline float32x4_t zero_below(float32x4_t x, float32x4_t bound, float32x4_t y) {
  const uint32x4_t kept = vandq_u32(vreinterpretq_u32_f32(y), vcgtq_f32(x, bound));
  return vbslq_f32(vceqq_f32(x, x), vreinterpretq_f32_u32(kept), x);
}
inline F32 zero_below(F32 x, F32 bound, F32 y) {
  return each<F32>([](float32x4_t x, float32x4_t bound, float32x4_t y) { return zero_below(x, bound, y); }, x, bound, y);
}
inline uint32x4_t in_range(int32x4_t lane, int first, int last) {
  return vandq_u32(vcgeq_s32(lane, vdupq_n_s32(first)), vcltq_s32(lane, vdupq_n_s32(last)));
}
inline F32 select_range(F32 x, int first, int last, F32 other) {
  static constexpr int32_t kCount[4] = {0, 1, 2, 3};
  const int32x4_t lane = vld1q_s32(kCount);
  return {vbslq_f32(in_range(lane, first, last), x.a, other.a),
          vbslq_f32(in_range(lane, first - 4, last - 4), x.b, other.b),
          vbslq_f32(in_range(lane, first - 8, last - 8), x.c, other.c),
          vbslq_f32(in_range(lane, first - 12, last - 12), x.d, other.d)};
}
inline float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
inline float reduce_max(F32 x) {
  const float32x4_t all = larger(larger(x.a, x.c), larger(x.b, x.d));
  const float32x4_t half = larger(all, vextq_f32(all, all, 2));
  return vgetq_lane_f32(larger(half, vextq_f32(half, half, 1)), 0);
}
inline float reduce_add(F32 x) {
  const float32x4_t all = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  const float32x4_t half = vaddq_f32(all, vextq_f32(all, all, 2));
  return vgetq_lane_f32(vaddq_f32(half, vextq_f32(half, half, 1)), 0);
}

inline I32 load_line(const void* p) {
  const auto* q = static_cast<const uint8_t*>(p);  // at any address
  return {vreinterpretq_u32_u8(vld1q_u8(q)), vreinterpretq_u32_u8(vld1q_u8(q + 16)),
          vreinterpretq_u32_u8(vld1q_u8(q + 32)), vreinterpretq_u32_u8(vld1q_u8(q + 48))};
}
inline void store_line(void* p, I32 x) {
  auto* q = static_cast<uint8_t*>(p);
  vst1q_u8(q, vreinterpretq_u8_u32(x.a));
  vst1q_u8(q + 16, vreinterpretq_u8_u32(x.b));
  vst1q_u8(q + 32, vreinterpretq_u8_u32(x.c));
  vst1q_u8(q + 48, vreinterpretq_u8_u32(x.d));
}
inline I32 widen(uint16x8_t low, uint16x8_t high) {
  return {vmovl_u16(vget_low_u16(low)), vmovl_u16(vget_high_u16(low)), vmovl_u16(vget_low_u16(high)),
          vmovl_u16(vget_high_u16(high))};
}
inline I32 load_u8(const uint8_t* p) {
  const uint8x16_t x = vld1q_u8(p);
  return widen(vmovl_u8(vget_low_u8(x)), vmovl_u8(vget_high_u8(x)));
}
inline I32 load_i8(const uint8_t* p) {
  const int8x16_t x = vreinterpretq_s8_u8(vld1q_u8(p));
  const int16x8_t low = vmovl_s8(vget_low_s8(x)), high = vmovl_s8(vget_high_s8(x));
  return {vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(low))), vreinterpretq_u32_s32(vmovl_s16(vget_high_s16(low))),
          vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(high))), vreinterpretq_u32_s32(vmovl_s16(vget_high_s16(high)))};
}
inline I32 load_u16(const uint8_t* p) {
  return widen(vreinterpretq_u16_u8(vld1q_u8(p)), vreinterpretq_u16_u8(vld1q_u8(p + 16)));
}
inline I32 shift_left(I32 x, int n) {
  return each<I32>([n](uint32x4_t x) { return (x << static_cast<unsigned>(n)); }, x);
}
inline I32 shift_right(I32 x, int n) {
  return each<I32>([n](uint32x4_t x) { return (x >> static_cast<unsigned>(n)); }, x);
}
inline I32 operator&(I32 x, I32 y) {
  return each<I32>([](uint32x4_t x, uint32x4_t y) { return vandq_u32(x, y); }, x, y);
}
inline I32 operator|(I32 x, I32 y) {
  return each<I32>([](uint32x4_t x, uint32x4_t y) { return vorrq_u32(x, y); }, x, y);
}
inline I32 operator+(I32 x, I32 y) {
  return each<I32>([](uint32x4_t x, uint32x4_t y) { return vaddq_u32(x, y); }, x, y);
}
inline I32 high_nibbles(I32 x) {
  return each<I32>([](uint32x4_t x) { return vreinterpretq_u32_u8(vshrq_n_u8(vreinterpretq_u8_u32(x), 4)); }, x);
}
inline F32 as_float(I32 x) { return each<F32>([](uint32x4_t x) { return vreinterpretq_f32_u32(x); }, x); }
// Half 0 or 1 of a line, as float16.
template <int kHalf>
inline F32 float_of_halves(I32 x) {
  return float_of_half(vreinterpretq_u16_u32(kHalf ? x.c : x.a), vreinterpretq_u16_u32(kHalf ? x.d : x.b));
}
// table[byte] of each byte, which is 0 to 15
inline I32 look_up(const uint8_t* table, I32 x) {
  const uint8x16_t line = vld1q_u8(table);
  return each<I32>([line](uint32x4_t x) { return vreinterpretq_u32_u8(vqtbl1q_u8(line, vreinterpretq_u8_u32(x))); }, x);
}

// acc[i] += sum over j < 4 of w[4 i + j] * x[j], of signed bytes
inline uint32x4_t dot4(uint32x4_t acc, int8x16_t w, int8x16_t x) {
  const int32x4_t sum = vreinterpretq_s32_u32(acc);
#ifdef __ARM_FEATURE_DOTPROD
  return vreinterpretq_u32_s32(vdotq_s32(sum, w, x));
#else
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
  const int32x4_t high = vpaddlq_s16(vmull_high_s8(w, x));
  return vreinterpretq_u32_s32(vaddq_s32(sum, vpaddq_s32(low, high)));
#endif
}
inline int8x16_t repeated(int32_t x) { return vreinterpretq_s8_s32(vdupq_n_s32(x)); }
inline I32 dot4(I32 acc, I32 w, int32_t x) {
  const int8x16_t codes = repeated(x);
  const auto add = [codes](uint32x4_t acc, uint32x4_t w) { return dot4(acc, vreinterpretq_s8_u32(w), codes); };
  return each<I32>(add, acc, w);
}
// Codes around 128.
#ifdef __ARM_FEATURE_MATMUL_INT8
inline I32 begin_centred(int32_t zero) { return set1_i32(zero); }
inline I32 dot4_centred(I32 acc, I32 w, int32_t x) {
  const int8x16_t codes = repeated(x);
  const auto add = [codes](uint32x4_t acc, uint32x4_t w) {
    return vreinterpretq_u32_s32(vusdotq_s32(vreinterpretq_s32_u32(acc), vreinterpretq_u8_u32(w), codes));
  };
  return each<I32>(add, acc, w);
}
#else
inline I32 begin_centred(int32_t) { return set1_i32(0); }
inline I32 dot4_centred(I32 acc, I32 w, int32_t x) {
  const int8x16_t codes = repeated(x);
  const auto add = [codes](uint32x4_t acc, uint32x4_t w) {
    return dot4(acc, vreinterpretq_s8_u32(veorq_u32(w, vdupq_n_u32(0x80808080))), codes);
  };
  return each<I32>(add, acc, w);
}
#endif
// acc[i] += sum over j < 2 of w[2 i + j] * x[j], both bfloat16
inline F32 dot2(F32 acc, const uint16_t* w, uint32_t x) {
#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
  const bfloat16x8_t pair = vreinterpretq_bf16_u32(vdupq_n_u32(x));
  const auto line = [&](int at) { return vreinterpretq_bf16_u16(vld1q_u16(w + at)); };
  return {vbfdotq_f32(acc.a, line(0), pair), vbfdotq_f32(acc.b, line(8), pair), vbfdotq_f32(acc.c, line(16), pair),
          vbfdotq_f32(acc.d, line(24), pair)};
#else
  const float32x4_t even = vreinterpretq_f32_u32(vdupq_n_u32(x << 16));
  const float32x4_t odd = vreinterpretq_f32_u32(vdupq_n_u32(x & 0xffff0000u));
  const auto add_pairs = [&](float32x4_t sum, int at) {
    const uint32x4_t pairs = vreinterpretq_u32_u16(vld1q_u16(w + at));
    sum = vfmaq_f32(sum, vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)), even);
    return vfmaq_f32(sum, vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000u))), odd);
  };
  return {add_pairs(acc.a, 0), add_pairs(acc.b, 8), add_pairs(acc.c, 16), add_pairs(acc.d, 24)};
#endif
}
inline void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 3); }
inline void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace outrider::OUTRIDER_ISA

// Sixteen lanes as four NEON registers, with dot products of bytes and of bfloat16, and products of two rows by two
// outputs (i8mm), where the machine has them.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

// Loops over rows and lines become straight code, whose accumulators are registers.
#define OUTRIDER_UNROLL(n) OUTRIDER_PRAGMA(GCC unroll n)
#define OUTRIDER_PRAGMA(x) _Pragma(#x)
#define OUTRIDER_HOT __attribute__((always_inline)) inline

namespace outrider::OUTRIDER_ISA {

// An integer sum is one register at a time, beside two of each row's codes; float sums take eight for each row.
inline constexpr int kMaxRows = 4, kMaxFloatRows = 3;
inline constexpr int kFloatSums = 6;  // of 16 lanes that registers hold beside what is added to them

// A register of four lanes, of floats and of 32 bits.
struct F32Part { float32x4_t v; };
struct I32Part { uint32x4_t v; };
inline constexpr int kParts = 4;
struct F32 { F32Part of[kParts]; };
struct I32 { I32Part of[kParts]; };
inline F32Part& part(F32& x, int i) { return x.of[i]; }

// `f` of each register.
template <class T, class F, class... X>
OUTRIDER_HOT T each(F f, X... x) {
  return {{{f(x.of[0].v...)}, {f(x.of[1].v...)}, {f(x.of[2].v...)}, {f(x.of[3].v...)}}};
}

inline F32 floats(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) { return {{{a}, {b}, {c}, {d}}}; }
inline F32 load(const float* p) { return floats(vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)); }
inline void store(float* p, F32 x) {
  for (int i = 0; i < kParts; ++i) vst1q_f32(p + 4 * i, x.of[i].v);
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
inline F32 set1(float x) {
  const float32x4_t all = vdupq_n_f32(x);
  return floats(all, all, all, all);
}
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
inline F32Part mul(F32Part x, F32Part y) { return {vmulq_f32(x.v, y.v)}; }
inline F32Part fma(F32Part x, F32Part y, F32Part z) { return {vfmaq_f32(z.v, x.v, y.v)}; }
inline F32 fma(F32 x, F32 y, F32 z) {
  return each<F32>([](float32x4_t x, float32x4_t y, float32x4_t z) { return vfmaq_f32(z, x, y); }, x, y, z);
}

inline F32 load_bf16(const uint16_t* p) {
  const uint16x8_t low = vld1q_u16(p), high = vld1q_u16(p + 8);
  const auto widened = [](uint16x4_t x) { return vreinterpretq_f32_u32(vshll_n_u16(x, 16)); };
  return floats(widened(vget_low_u16(low)), widened(vget_high_u16(low)), widened(vget_low_u16(high)),
                widened(vget_high_u16(high)));
}
inline F32 load_bf16_mixed(const uint16_t* p) { return load_bf16(p); }
inline F32 bf16_in_order(F32 x) { return x; }
inline uint16x4_t round_bf16(float32x4_t x) {  // not BFCVT, whose NaN has no payload
  const uint32x4_t u = vreinterpretq_u32_f32(x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
  const uint32x4_t up = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), up, vorrq_u32(u, vdupq_n_u32(0x400000))), 16);
}
inline void store_bf16(uint16_t* p, F32 x) {
  vst1q_u16(p, vcombine_u16(round_bf16(x.of[0].v), round_bf16(x.of[1].v)));
  vst1q_u16(p + 8, vcombine_u16(round_bf16(x.of[2].v), round_bf16(x.of[3].v)));
}
inline float32x4_t float_of_half(uint16x4_t x) { return vcvt_f32_f16(vreinterpret_f16_u16(x)); }
inline float32x4_t float_of_upper(uint16x8_t x) { return vcvt_high_f32_f16(vreinterpretq_f16_u16(x)); }
inline F32 float_of_half(uint16x8_t low, uint16x8_t high) {
  return floats(float_of_half(vget_low_u16(low)), float_of_upper(low), float_of_half(vget_low_u16(high)),
                float_of_upper(high));
}
inline F32 load_f16(const uint16_t* p) { return float_of_half(vld1q_u16(p), vld1q_u16(p + 8)); }

inline I32 words(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) { return {{{a}, {b}, {c}, {d}}}; }
template <class V>
V repeat(int32_t x);
template <>
inline I32Part repeat(int32_t x) { return {vdupq_n_u32(static_cast<uint32_t>(x))}; }
template <>
inline I32 repeat(int32_t x) {
  const uint32x4_t all = repeat<I32Part>(x).v;
  return words(all, all, all, all);
}
inline I32 set1_i32(int32_t x) { return repeat<I32>(x); }
inline F32Part to_float(I32Part x) { return {vcvtq_f32_s32(vreinterpretq_s32_u32(x.v))}; }
inline F32 to_float(I32 x) {
  return each<F32>([](uint32x4_t x) { return vcvtq_f32_s32(vreinterpretq_s32_u32(x)); }, x);
}
inline void store_i8(int8_t* p, F32 x) {  // saturates, and NaN becomes 0
  const int16x8_t low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.of[0].v)), vqmovn_s32(vcvtnq_s32_f32(x.of[1].v)));
  const int16x8_t high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.of[2].v)), vqmovn_s32(vcvtnq_s32_f32(x.of[3].v)));
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
  for (int i = 0; i < kParts; ++i) {
    const uint32x4_t kept = in_range(lane, first - 4 * i, last - 4 * i);
    x.of[i].v = vbslq_f32(kept, x.of[i].v, other.of[i].v);
  }
  return x;
}
inline float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
inline float reduce_max(F32 x) {
  const float32x4_t all = larger(larger(x.of[0].v, x.of[2].v), larger(x.of[1].v, x.of[3].v));
  const float32x4_t half = larger(all, vextq_f32(all, all, 2));
  return vgetq_lane_f32(larger(half, vextq_f32(half, half, 1)), 0);
}
inline float reduce_add(F32 x) {
  const float32x4_t all = vaddq_f32(vaddq_f32(x.of[0].v, x.of[2].v), vaddq_f32(x.of[1].v, x.of[3].v));
  const float32x4_t half = vaddq_f32(all, vextq_f32(all, all, 2));
  return vgetq_lane_f32(vaddq_f32(half, vextq_f32(half, half, 1)), 0);
}

// 64 bytes, or 16 of them.
template <class V>
V load_as(const void* p);
template <>
inline I32Part load_as(const void* p) { return {vreinterpretq_u32_u8(vld1q_u8(static_cast<const uint8_t*>(p)))}; }
template <>
inline I32 load_as(const void* p) {
  const auto* q = static_cast<const uint8_t*>(p);
  return {{load_as<I32Part>(q), load_as<I32Part>(q + 16), load_as<I32Part>(q + 32), load_as<I32Part>(q + 48)}};
}
inline I32 load_line(const void* p) { return load_as<I32>(p); }
// Words 0, 2, 4 and 6 from p on, or 1, 3, 5 and 7.
template <class V>
V load_every_other(const uint8_t* p, int first) {
  return {vld2q_u32(reinterpret_cast<const uint32_t*>(p)).val[first]};
}
inline I32 widen(uint16x8_t low, uint16x8_t high) {
  return words(vmovl_u16(vget_low_u16(low)), vmovl_u16(vget_high_u16(low)), vmovl_u16(vget_low_u16(high)),
               vmovl_u16(vget_high_u16(high)));
}
inline I32 load_u8(const uint8_t* p) {
  const uint8x16_t x = vld1q_u8(p);
  return widen(vmovl_u8(vget_low_u8(x)), vmovl_u8(vget_high_u8(x)));
}
inline I32 load_i8(const uint8_t* p) {
  const int8x16_t x = vreinterpretq_s8_u8(vld1q_u8(p));
  const int16x8_t low = vmovl_s8(vget_low_s8(x)), high = vmovl_s8(vget_high_s8(x));
  const auto widened = [](int16x4_t x) { return vreinterpretq_u32_s32(vmovl_s16(x)); };
  return words(widened(vget_low_s16(low)), widened(vget_high_s16(low)), widened(vget_low_s16(high)),
               widened(vget_high_s16(high)));
}
inline I32 load_u16(const uint8_t* p) {
  return widen(vreinterpretq_u16_u8(vld1q_u8(p)), vreinterpretq_u16_u8(vld1q_u8(p + 16)));
}
inline I32Part shift_left(I32Part x, int n) { return {x.v << static_cast<unsigned>(n)}; }
inline I32Part shift_right(I32Part x, int n) { return {x.v >> static_cast<unsigned>(n)}; }
inline I32Part operator&(I32Part x, I32Part y) { return {vandq_u32(x.v, y.v)}; }
inline I32Part operator|(I32Part x, I32Part y) { return {vorrq_u32(x.v, y.v)}; }
inline I32Part high_nibbles(I32Part x) { return {vreinterpretq_u32_u8(vshrq_n_u8(vreinterpretq_u8_u32(x.v), 4))}; }
inline I32 shift_left(I32 x, int n) {
  return each<I32>([n](uint32x4_t x) { return x << static_cast<unsigned>(n); }, x);
}
inline I32 shift_right(I32 x, int n) {
  return each<I32>([n](uint32x4_t x) { return x >> static_cast<unsigned>(n); }, x);
}
inline I32 operator&(I32 x, I32 y) { return each<I32>([](uint32x4_t x, uint32x4_t y) { return vandq_u32(x, y); }, x, y); }
inline I32 operator|(I32 x, I32 y) { return each<I32>([](uint32x4_t x, uint32x4_t y) { return vorrq_u32(x, y); }, x, y); }
inline I32 operator+(I32 x, I32 y) { return each<I32>([](uint32x4_t x, uint32x4_t y) { return vaddq_u32(x, y); }, x, y); }
inline I32 high_nibbles(I32 x) { return each<I32>([](uint32x4_t x) { return high_nibbles(I32Part{x}).v; }, x); }
inline F32 as_float(I32 x) { return each<F32>([](uint32x4_t x) { return vreinterpretq_f32_u32(x); }, x); }
// Half 0 or 1 of a line, as float16.
template <int kHalf>
inline F32 float_of_halves(I32 x) {
  return float_of_half(vreinterpretq_u16_u32(x.of[2 * kHalf].v), vreinterpretq_u16_u32(x.of[2 * kHalf + 1].v));
}
// table[byte] of each byte, which is 0 to 15
inline I32Part look_up(const uint8_t* table, I32Part x) {
  return {vreinterpretq_u32_u8(vqtbl1q_u8(vld1q_u8(table), vreinterpretq_u8_u32(x.v)))};
}
inline I32 look_up(const uint8_t* table, I32 x) {
  return each<I32>([table](uint32x4_t x) { return look_up(table, I32Part{x}).v; }, x);
}

// Codes of 16 inputs of a row: those of four in each word.
struct Codes16 { int8x16_t v; };
inline Codes16 load_codes(const uint32_t* p) { return {vreinterpretq_s8_u32(vld1q_u32(p))}; }

// What a dot product with word j is to the compiler: an instruction for each j, which is known where loops are straight.
#define OUTRIDER_WORD(j, f) ((j) == 0 ? f(0) : (j) == 1 ? f(1) : (j) == 2 ? f(2) : f(3))

// acc[i] += sum over k < 4 of w[4 i + k] * x[k] of word j, of signed bytes
inline I32Part dot4(I32Part acc, I32Part w, Codes16 x, int j) {
  const int32x4_t sum = vreinterpretq_s32_u32(acc.v);
  const int8x16_t codes = vreinterpretq_s8_u32(w.v);
#ifdef __ARM_FEATURE_DOTPROD
#define OUTRIDER_DOT(j) vdotq_laneq_s32(sum, codes, x.v, j)
  return {vreinterpretq_u32_s32(OUTRIDER_WORD(j, OUTRIDER_DOT))};
#undef OUTRIDER_DOT
#else
#define OUTRIDER_REPEATED(j) vdupq_laneq_s32(vreinterpretq_s32_s8(x.v), j)
  const int8x16_t word = vreinterpretq_s8_s32(OUTRIDER_WORD(j, OUTRIDER_REPEATED));
#undef OUTRIDER_REPEATED
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(codes), vget_low_s8(word)));
  const int32x4_t high = vpaddlq_s16(vmull_high_s8(codes, word));
  return {vreinterpretq_u32_s32(vaddq_s32(sum, vpaddq_s32(low, high)))};
#endif
}
// Signed codes.
static_assert(kCentre == 0);
inline I32Part begin_centred(int32_t) { return repeat<I32Part>(0); }
inline I32Part dot4_centred(I32Part acc, I32Part w, Codes16 x, int j) { return dot4(acc, w, x, j); }
#undef OUTRIDER_WORD

#ifdef __ARM_FEATURE_MATMUL_INT8
// Two rows, a and b, by two outputs: a register has (a, 0), (a, 1), (b, 0), (b, 1) of (row, output).

// Codes of eight inputs of each row.
struct PairCodes { int8x16_t v; };
// Those of 16 inputs: the first eight, and the others.
inline void interleave(Codes16 a, Codes16 b, PairCodes* to) {
  const int64x2_t x = vreinterpretq_s64_s8(a.v), y = vreinterpretq_s64_s8(b.v);
  to[0] = {vreinterpretq_s8_s64(vzip1q_s64(x, y))};
  to[1] = {vreinterpretq_s8_s64(vzip2q_s64(x, y))};
}
inline F32Part pair_of_floats(const uint32_t* a, const uint32_t* b) {
  return {vreinterpretq_f32_u32(vcombine_u32(vld1_dup_u32(a), vld1_dup_u32(b)))};
}
inline I32Part pair_of(int32_t a, int32_t b) {
  return {vreinterpretq_u32_s32(vcombine_s32(vdup_n_s32(a), vdup_n_s32(b)))};
}
// Outputs 2 h and 2 h + 1 of four, for both rows.
inline F32Part twice(F32Part x, int h) {
  const float64x2_t both = vreinterpretq_f64_f32(x.v);
  return {vreinterpretq_f32_f64(h == 0 ? vdupq_laneq_f64(both, 0) : vdupq_laneq_f64(both, 1))};
}
// Words 2 h and 2 h + 1 of x and of y, in turn.
inline I32Part zip(I32Part x, I32Part y, int h) { return {h == 0 ? vzip1q_u32(x.v, y.v) : vzip2q_u32(x.v, y.v)}; }
// One row of four outputs, from those of two and two.
inline F32Part row_of(F32Part x, F32Part y, int row) {
  return {row == 0 ? vcombine_f32(vget_low_f32(x.v), vget_low_f32(y.v))
                   : vcombine_f32(vget_high_f32(x.v), vget_high_f32(y.v))};
}
// acc += the products of eight inputs; w: of each output, signed.
inline I32Part multiply_pairs(I32Part acc, I32Part w, PairCodes x) {
  return {vreinterpretq_u32_s32(vmmlaq_s32(vreinterpretq_s32_u32(acc.v), x.v, vreinterpretq_s8_u32(w.v)))};
}
#endif

// acc[i] += sum over j < 2 of w[2 i + j] * x[j], both bfloat16
inline float32x4_t dot2(float32x4_t acc, uint32x4_t pairs, uint32x4_t x) {
#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
  return vbfdotq_f32(acc, vreinterpretq_bf16_u32(pairs), vreinterpretq_bf16_u32(x));
#else
  const uint32x4_t high = vdupq_n_u32(0xffff0000u);
  acc = vfmaq_f32(acc, vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)), vreinterpretq_f32_u32(vshlq_n_u32(x, 16)));
  return vfmaq_f32(acc, vreinterpretq_f32_u32(vandq_u32(pairs, high)), vreinterpretq_f32_u32(vandq_u32(x, high)));
#endif
}
inline F32 dot2(F32 acc, const uint16_t* w, uint32_t x) {
  const I32 pairs = load_line(w);
  const uint32x4_t all = vdupq_n_u32(x);
  for (int i = 0; i < kParts; ++i) acc.of[i].v = dot2(acc.of[i].v, pairs.of[i].v, all);
  return acc;
}
// Sums of many rows, which are rarely touched: left to itself GCC has them in registers, and the busy ones in memory.
template <class T>
OUTRIDER_HOT void keep_in_memory(T& sums) {
  if constexpr (sizeof(T) > 2 * sizeof(F32)) asm volatile("" : "+m"(sums));
}
// One step: these machines' own prefetchers follow a stream from memory.
inline void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 3); }
inline void prefetch_far(const void*) {}

OUTRIDER_HOT void load_again() {}

}  // namespace outrider::OUTRIDER_ISA

// Sixteen lanes in one AVX-512 register, with VNNI and, where the machine has it, BF16.
#pragma once

#include <immintrin.h>

#include <cstdint>

// Loops over rows and lines become straight code, whose accumulators are registers.
#define OUTRIDER_UNROLL(n) OUTRIDER_PRAGMA(GCC unroll n)
#define OUTRIDER_PRAGMA(x) _Pragma(#x)
#define OUTRIDER_HOT __attribute__((always_inline)) inline

namespace outrider::OUTRIDER_ISA {

inline constexpr int kMaxRows = 12;  // 32 registers: an integer and a float sum for every row
inline constexpr int kFloatSums = 24;  // of 16 lanes that registers hold beside what is added to them

struct F32 { __m512 v; };
struct I32 { __m512i v; };
// Registers of 16 lanes are one part.
using F32Part = F32;
using I32Part = I32;
inline constexpr int kParts = 1, kMaxFloatRows = kMaxRows;
inline F32& part(F32& x, int) { return x; }

inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }

inline F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F32 load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
inline void store(float* p, F32 x) { _mm512_storeu_ps(p, x.v); }
inline void store_n(float* p, F32 x, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), x.v); }
inline F32 set1(float x) { return {_mm512_set1_ps(x)}; }
inline F32 add(F32 x, F32 y) { return {_mm512_add_ps(x.v, y.v)}; }
inline F32 sub(F32 x, F32 y) { return {_mm512_sub_ps(x.v, y.v)}; }
inline F32 mul(F32 x, F32 y) { return {_mm512_mul_ps(x.v, y.v)}; }
inline F32 div(F32 x, F32 y) { return {_mm512_div_ps(x.v, y.v)}; }
inline F32 max(F32 x, F32 y) { return {_mm512_max_ps(x.v, y.v)}; }
inline F32 min(F32 x, F32 y) { return {_mm512_min_ps(x.v, y.v)}; }
inline F32 abs(F32 x) { return {_mm512_abs_ps(x.v)}; }
inline F32 fma(F32 x, F32 y, F32 z) { return {_mm512_fmadd_ps(x.v, y.v, z.v)}; }
inline F32 load_bf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
inline F32 load_bf16_mixed(const uint16_t* p) { return load_bf16(p); }
inline F32 bf16_in_order(F32 x) { return x; }
inline void store_bf16(uint16_t* p, F32 x) {  // not vcvtneps2bf16, which flushes subnormals
  const __m512i u = _mm512_castps_si512(x.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q);
  const __m512i rounded = _mm512_mask_or_epi32(up, nan, u, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}
inline F32 load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}

inline I32 set1_i32(int32_t x) { return {_mm512_set1_epi32(x)}; }
template <class>
I32 repeat(int32_t x) { return set1_i32(x); }
inline F32 to_float(I32 x) { return {_mm512_cvtepi32_ps(x.v)}; }
inline void store_i8(int8_t* p, F32 x) {
  const __m512i codes = _mm512_max_epi32(_mm512_cvtps_epi32(x.v), _mm512_set1_epi32(-127));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(codes));
}
inline F32 round(F32 x) {
  return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline F32 power_of_two(F32 n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
// y where x > bound, 0 elsewhere; NaN stays.
inline F32 zero_below(F32 x, F32 bound, F32 y) {
  const __m512 kept = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, bound.v, _CMP_GT_OQ), y.v);
  return {_mm512_mask_mov_ps(kept, _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q), x.v)};
}
inline F32 select_range(F32 x, int first, int last, F32 other) {
  const int from = first < 0 ? 0 : first > 16 ? 16 : first, to = last < 0 ? 0 : last > 16 ? 16 : last;
  const auto keep = static_cast<__mmask16>(first_lanes(to) & ~first_lanes(from));
  return {_mm512_mask_blend_ps(keep, other.v, x.v)};
}
inline float reduce_max(F32 x) { return _mm512_reduce_max_ps(x.v); }
inline float reduce_add(F32 x) { return _mm512_reduce_add_ps(x.v); }

// A line of 64 bytes: 16 lanes of 32 bits, or of four codes each.
inline I32 load_line(const void* p) { return {_mm512_loadu_si512(p)}; }
template <class>
I32 load_as(const void* p) { return load_line(p); }
inline I32 load_u8(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline I32 load_i8(const uint8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline I32 load_u16(const uint8_t* p) {
  return {_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline I32 shift_left(I32 x, int n) { return {(__m512i)((__v16su)x.v << static_cast<unsigned>(n))}; }
inline I32 shift_right(I32 x, int n) { return {(__m512i)((__v16su)x.v >> static_cast<unsigned>(n))}; }
inline I32 operator&(I32 x, I32 y) { return {_mm512_and_si512(x.v, y.v)}; }
inline I32 operator|(I32 x, I32 y) { return {_mm512_or_si512(x.v, y.v)}; }
inline I32 operator+(I32 x, I32 y) { return {_mm512_add_epi32(x.v, y.v)}; }
inline I32 high_nibbles(I32 x) { return shift_right(x, 4) & set1_i32(0x0f0f0f0f); }
inline F32 as_float(I32 x) { return {_mm512_castsi512_ps(x.v)}; }
// Half 0 or 1 of a line, as float16.
template <int kHalf>
inline F32 float_of_halves(I32 x) { return {_mm512_cvtph_ps(_mm512_extracti64x4_epi64(x.v, kHalf))}; }
// table[byte] of each byte, which is 0 to 15
inline I32 look_up(const uint8_t* table, I32 x) {
  const __m128i line = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(line), x.v)};
}
// Codes of 16 inputs of a row: those of four in each word.
struct Codes16 { const uint32_t* words; };
inline Codes16 load_codes(const uint32_t* p) { return {p}; }
inline I32 dot4(I32 acc, I32 w, Codes16 x, int j) {
  return {_mm512_dpbusd_epi32(acc.v, w.v, _mm512_set1_epi32(static_cast<int>(x.words[j])))};
}
inline I32 begin_centred(int32_t zero) { return set1_i32(zero); }
inline I32 dot4_centred(I32 acc, I32 w, Codes16 x, int j) { return dot4(acc, w, x, j); }
inline F32 dot2(F32 acc, const uint16_t* w, uint32_t x) {
  const __m512i codes = _mm512_load_si512(w);
#ifdef __AVX512BF16__
  const __m512i pair = _mm512_set1_epi32(static_cast<int>(x));
  return {_mm512_dpbf16_ps(acc.v, reinterpret_cast<__m512bh>(codes), reinterpret_cast<__m512bh>(pair))};
#else
  const __m512 even = _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(x << 16)));
  const __m512 odd = _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(x & 0xffff0000u)));
  const __m512i high = _mm512_and_si512(codes, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
  acc.v = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(codes, 16)), even, acc.v);
  return {_mm512_fmadd_ps(_mm512_castsi512_ps(high), odd, acc.v)};
#endif
}
template <class T>
OUTRIDER_HOT void keep_in_memory(T&) {}
inline void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 3); }
inline void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }

OUTRIDER_HOT void load_again() {}

}  // namespace outrider::OUTRIDER_ISA

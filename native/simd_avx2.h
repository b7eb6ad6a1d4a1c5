// Sixteen lanes as two AVX2 registers, with dot products of bytes where the machine has AVX-VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

// Loops over rows and lines become straight code, whose accumulators are registers.
#define OUTRIDER_UNROLL(n) OUTRIDER_PRAGMA(GCC unroll n)
#define OUTRIDER_PRAGMA(x) _Pragma(#x)
#define OUTRIDER_HOT __attribute__((always_inline)) inline

namespace outrider::OUTRIDER_ISA {

inline constexpr int kMaxRows = 3;  // 16 registers: two sums of two registers each for every row
inline constexpr int kFloatSums = 6;  // of 16 lanes that registers hold beside what is added to them

struct F32 { __m256 a, b; };
struct I32 { __m256i a, b; };
// Registers of 16 lanes are one part.
using F32Part = F32;
using I32Part = I32;
inline constexpr int kParts = 1, kMaxFloatRows = kMaxRows;
inline F32& part(F32& x, int) { return x; }

inline F32 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F32 x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
inline F32 load_n(const float* p, int n) {
  alignas(32) float buffer[16] = {};
  std::memcpy(buffer, p, sizeof(float) * static_cast<size_t>(n));
  return load(buffer);
}
inline void store_n(float* p, F32 x, int n) {
  alignas(32) float buffer[16];
  store(buffer, x);
  std::memcpy(p, buffer, sizeof(float) * static_cast<size_t>(n));
}
inline F32 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F32 add(F32 x, F32 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F32 sub(F32 x, F32 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F32 mul(F32 x, F32 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F32 div(F32 x, F32 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F32 max(F32 x, F32 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F32 min(F32 x, F32 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F32 abs(F32 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline F32 fma(F32 x, F32 y, F32 z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline __m256 widen_bf16(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
inline F32 load_bf16(const uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {widen_bf16(_mm_loadu_si128(q)), widen_bf16(_mm_loadu_si128(q + 1))};
}
// The same, the even numbers and then the odd ones, with half of the instructions; and from there in order.
inline F32 load_bf16_mixed(const uint16_t* p) {
  const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i odd = _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(odd)};
}
inline F32 bf16_in_order(F32 x) {
  const __m256 low = _mm256_unpacklo_ps(x.a, x.b), high = _mm256_unpackhi_ps(x.a, x.b);
  return {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
}
inline __m256i round_bf16(__m256 x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  return _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
}
inline void store_bf16(uint16_t* p, F32 x) {
  const __m256i packed = _mm256_packus_epi32(round_bf16(x.a), round_bf16(x.b));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
inline F32 load_f16(const uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}

inline I32 set1_i32(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
template <class>
I32 repeat(int32_t x) { return set1_i32(x); }
inline F32 to_float(I32 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline void store_i8(int8_t* p, F32 x) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
  const __m256i order = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes =
      _mm_packs_epi16(_mm256_castsi256_si128(order), _mm256_extracti128_si256(order, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_max_epi8(bytes, _mm_set1_epi8(-127)));
}
inline F32 round(F32 x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
inline __m256 power_of_two(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline F32 power_of_two(F32 n) { return {power_of_two(n.a), power_of_two(n.b)}; }
// y where x > bound, 0 elsewhere; NaN stays.
inline __m256 zero_below(__m256 x, __m256 bound, __m256 y) {
  const __m256 kept = _mm256_and_ps(y, _mm256_cmp_ps(x, bound, _CMP_GT_OQ));
  return _mm256_blendv_ps(kept, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}
inline F32 zero_below(F32 x, F32 bound, F32 y) {
  return {zero_below(x.a, bound.a, y.a), zero_below(x.b, bound.b, y.b)};
}
inline __m256 in_range(__m256i lane, int first, int last) {
  const __m256i from = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(first - 1));
  const __m256i to = _mm256_cmpgt_epi32(_mm256_set1_epi32(last), lane);
  return _mm256_castsi256_ps(_mm256_and_si256(from, to));
}
inline F32 select_range(F32 x, int first, int last, F32 other) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_blendv_ps(other.a, x.a, in_range(lane, first, last)),
          _mm256_blendv_ps(other.b, x.b, in_range(lane, first - 8, last - 8))};
}
inline float reduce_max(F32 x) {
  const __m256 y = _mm256_max_ps(x.a, x.b);
  __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = _mm_max_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
}
inline float reduce_add(F32 x) {
  const __m256 y = _mm256_add_ps(x.a, x.b);
  __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = _mm_add_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}

// A line of 64 bytes: 16 lanes of 32 bits, or of four codes each.
inline I32 load_line(const void* p) {
  const auto* q = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
template <class>
I32 load_as(const void* p) { return load_line(p); }
inline __m128i load_8(const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
inline I32 load_u8(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(load_8(p)), _mm256_cvtepu8_epi32(load_8(p + 8))};
}
inline I32 load_i8(const uint8_t* p) {
  return {_mm256_cvtepi8_epi32(load_8(p)), _mm256_cvtepi8_epi32(load_8(p + 8))};
}
inline I32 load_u16(const uint8_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128(q)), _mm256_cvtepu16_epi32(_mm_loadu_si128(q + 1))};
}
inline __m256i shift_left(__m256i x, int n) { return (__m256i)((__v8su)x << static_cast<unsigned>(n)); }
inline __m256i shift_right(__m256i x, int n) { return (__m256i)((__v8su)x >> static_cast<unsigned>(n)); }
inline I32 shift_left(I32 x, int n) { return {shift_left(x.a, n), shift_left(x.b, n)}; }
inline I32 shift_right(I32 x, int n) { return {shift_right(x.a, n), shift_right(x.b, n)}; }
inline I32 operator&(I32 x, I32 y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
inline I32 operator|(I32 x, I32 y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
inline I32 operator+(I32 x, I32 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline I32 high_nibbles(I32 x) { return shift_right(x, 4) & set1_i32(0x0f0f0f0f); }
inline F32 as_float(I32 x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
// Half 0 or 1 of a line, as float16.
template <int kHalf>
inline F32 float_of_halves(I32 x) {
  const __m256i half = kHalf ? x.b : x.a;
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(half)), _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1))};
}
// table[byte] of each byte, which is 0 to 15
inline I32 look_up(const uint8_t* table, I32 x) {
  const __m256i line = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  return {_mm256_shuffle_epi8(line, x.a), _mm256_shuffle_epi8(line, x.b)};
}
// Codes of 16 inputs of a row: those of four in each word.
struct Codes16 { const uint32_t* words; };
inline Codes16 load_codes(const uint32_t* p) { return {p}; }
inline __m256i repeated(Codes16 x, int j) { return _mm256_set1_epi32(static_cast<int>(x.words[j])); }
#if defined(OUTRIDER_AVX_VNNI)
inline __m256i add_products(__m256i acc, __m256i w, __m256i x) {
#ifdef __AVXVNNI__
  return _mm256_dpbusd_avx_epi32(acc, w, x);
#else
  return _mm256_dpbusd_epi32(acc, w, x);  // the same in another encoding, for checks on machines with AVX-512
#endif
}
inline I32 dot4(I32 acc, I32 w, Codes16 x, int j) {
  const __m256i b = repeated(x, j);
  return {add_products(acc.a, w.a, b), add_products(acc.b, w.b, b)};
}
inline I32 begin_centred(int32_t zero) { return set1_i32(zero); }
inline I32 dot4_centred(I32 acc, I32 w, Codes16 x, int j) { return dot4(acc, w, x, j); }
#else
inline __m256i add_pairs(__m256i acc, __m256i products) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
}
// Codes up to 127 only: the sum of two products has to fit 16 bits.
inline I32 dot4(I32 acc, I32 w, Codes16 x, int j) {
  const __m256i b = repeated(x, j);
  return {add_pairs(acc.a, _mm256_maddubs_epi16(w.a, b)), add_pairs(acc.b, _mm256_maddubs_epi16(w.b, b))};
}
// Signed codes to which 128 was added, centred here: |code - 128| <= 128 and |x| <= 127 keep two products within 16 bits.
inline I32 begin_centred(int32_t) { return set1_i32(0); }
inline __m256i dot4_centred(__m256i acc, __m256i w, __m256i x) {
  const __m256i centred = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
  return add_pairs(acc, _mm256_maddubs_epi16(_mm256_abs_epi8(centred), _mm256_sign_epi8(x, centred)));
}
inline I32 dot4_centred(I32 acc, I32 w, Codes16 x, int j) {
  const __m256i b = repeated(x, j);
  return {dot4_centred(acc.a, w.a, b), dot4_centred(acc.b, w.b, b)};
}
#endif
inline __m256 dot2(__m256 acc, __m256i w, __m256 even, __m256 odd) {
  acc = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(w, 16)), even, acc);
  const __m256i high = _mm256_and_si256(w, _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
  return _mm256_fmadd_ps(_mm256_castsi256_ps(high), odd, acc);
}
inline F32 dot2(F32 acc, const uint16_t* w, uint32_t x) {
  const auto* q = reinterpret_cast<const __m256i*>(w);
  const __m256 even = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(x << 16)));
  const __m256 odd = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(x & 0xffff0000u)));
  return {dot2(acc.a, _mm256_load_si256(q), even, odd), dot2(acc.b, _mm256_load_si256(q + 1), even, odd)};
}
template <class T>
OUTRIDER_HOT void keep_in_memory(T&) {}
inline void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 3); }
inline void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }

// What was loaded before is loaded again: 16 registers hold few numbers beside sums, and compilers would keep more of the
// one and put the others in memory.
OUTRIDER_HOT void load_again() { asm volatile("" ::: "memory"); }

}  // namespace outrider::OUTRIDER_ISA

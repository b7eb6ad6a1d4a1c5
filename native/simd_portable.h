// Sixteen lanes in plain C++: any machine, and what the other two are read against.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define OUTRIDER_UNROLL(n)  // the code would be too long to compile in reasonable time
#define OUTRIDER_HOT inline

namespace outrider::OUTRIDER_ISA {

inline constexpr int kMaxRows = 4;
inline constexpr int kFloatSums = 8;  // of 16 lanes that registers hold beside what is added to them

struct F32 { float v[16]; };
struct I32 { int32_t v[16]; };
// Registers of 16 lanes are one part.
using F32Part = F32;
using I32Part = I32;
inline constexpr int kParts = 1, kMaxFloatRows = kMaxRows;
inline F32& part(F32& x, int) { return x; }

#define OUTRIDER_EACH for (int i = 0; i < 16; ++i)

inline F32 load(const float* p) { F32 r; std::memcpy(r.v, p, 64); return r; }
inline F32 load_n(const float* p, int n) { F32 r{}; std::memcpy(r.v, p, sizeof(float) * n); return r; }
inline void store(float* p, F32 a) { std::memcpy(p, a.v, 64); }
inline void store_n(float* p, F32 a, int n) { std::memcpy(p, a.v, sizeof(float) * n); }
inline F32 set1(float x) { F32 r; OUTRIDER_EACH r.v[i] = x; return r; }
inline F32 add(F32 a, F32 b) { OUTRIDER_EACH a.v[i] += b.v[i]; return a; }
inline F32 sub(F32 a, F32 b) { OUTRIDER_EACH a.v[i] -= b.v[i]; return a; }
inline F32 mul(F32 a, F32 b) { OUTRIDER_EACH a.v[i] *= b.v[i]; return a; }
inline F32 div(F32 a, F32 b) { OUTRIDER_EACH a.v[i] /= b.v[i]; return a; }
inline F32 max(F32 a, F32 b) { OUTRIDER_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
inline F32 min(F32 a, F32 b) { OUTRIDER_EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
inline F32 abs(F32 a) { OUTRIDER_EACH a.v[i] = std::fabs(a.v[i]); return a; }
inline F32 fma(F32 a, F32 b, F32 c) { OUTRIDER_EACH c.v[i] += a.v[i] * b.v[i]; return c; }
inline float bits_to_float(uint32_t u) { float f; std::memcpy(&f, &u, 4); return f; }
inline uint32_t float_to_bits(float f) { uint32_t u; std::memcpy(&u, &f, 4); return u; }

inline F32 load_bf16(const uint16_t* p) {
  F32 r;
  OUTRIDER_EACH r.v[i] = bits_to_float(uint32_t{p[i]} << 16);
  return r;
}
inline F32 load_bf16_mixed(const uint16_t* p) { return load_bf16(p); }
inline F32 bf16_in_order(F32 x) { return x; }
inline uint16_t to_bf16(float f) {
  const uint32_t u = float_to_bits(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(u >> 16 | 0x40);  // NaN stays NaN
  return static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
inline void store_bf16(uint16_t* p, F32 a) { OUTRIDER_EACH p[i] = to_bf16(a.v[i]); }
inline F32 load_f16(const uint16_t* p) {
  F32 r;
  OUTRIDER_EACH {
    const uint32_t h = p[i], sign = (h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u) {
      r.v[i] = bits_to_float(sign | 0x7f800000u | magnitude << 13);
    } else {  // 2^112 moves the exponent, subnormals too
      r.v[i] = bits_to_float(sign | float_to_bits(bits_to_float(magnitude << 13) * 0x1p112f));
    }
  }
  return r;
}

inline I32 set1_i32(int32_t x) { I32 r; OUTRIDER_EACH r.v[i] = x; return r; }
template <class>
I32 repeat(int32_t x) { return set1_i32(x); }
inline F32 to_float(I32 a) { F32 r; OUTRIDER_EACH r.v[i] = static_cast<float>(a.v[i]); return r; }
// Codes of float integers within int8; NaN becomes 0.
inline void store_i8(int8_t* p, F32 a) {
  OUTRIDER_EACH {
    const float x = a.v[i] > -127 ? (a.v[i] < 127 ? a.v[i] : 127) : -127;
    p[i] = static_cast<int8_t>(x == x ? std::nearbyintf(x) : 0);
  }
}
inline F32 round(F32 a) { OUTRIDER_EACH a.v[i] = std::nearbyintf(a.v[i]); return a; }
// 2^n for integral n in -127..127.
inline F32 power_of_two(F32 n) {
  OUTRIDER_EACH n.v[i] = bits_to_float(static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23);
  return n;
}
// y where x > bound, 0 elsewhere.
inline F32 zero_below(F32 x, F32 bound, F32 y) {
  OUTRIDER_EACH if (!(x.v[i] > bound.v[i])) y.v[i] = x.v[i] == x.v[i] ? 0 : x.v[i];
  return y;
}
// Lanes first <= i < last of a, `other` elsewhere.
inline F32 select_range(F32 a, int first, int last, F32 other) {
  OUTRIDER_EACH if (i < first || i >= last) a.v[i] = other.v[i];
  return a;
}
inline float reduce_max(F32 a) {
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
  return a.v[0];
}
inline float reduce_add(F32 a) {
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; ++i) a.v[i] += a.v[i + width];
  return a.v[0];
}

// A line of 64 bytes: 16 lanes of 32 bits, or of four codes each.
inline I32 load_line(const void* p) { I32 r; std::memcpy(r.v, p, 64); return r; }
template <class>
I32 load_as(const void* p) { return load_line(p); }
inline I32 load_u8(const uint8_t* p) { I32 r; OUTRIDER_EACH r.v[i] = p[i]; return r; }
inline I32 load_i8(const uint8_t* p) { I32 r; OUTRIDER_EACH r.v[i] = static_cast<int8_t>(p[i]); return r; }
inline I32 load_u16(const uint8_t* p) { I32 r; OUTRIDER_EACH r.v[i] = p[2 * i] | p[2 * i + 1] << 8; return r; }
inline uint32_t bits_of(int32_t x) { return static_cast<uint32_t>(x); }
inline I32 shift_left(I32 a, int n) { OUTRIDER_EACH a.v[i] = static_cast<int32_t>(bits_of(a.v[i]) << n); return a; }
inline I32 shift_right(I32 a, int n) { OUTRIDER_EACH a.v[i] = static_cast<int32_t>(bits_of(a.v[i]) >> n); return a; }
inline I32 operator&(I32 a, I32 b) { OUTRIDER_EACH a.v[i] &= b.v[i]; return a; }
inline I32 operator|(I32 a, I32 b) { OUTRIDER_EACH a.v[i] |= b.v[i]; return a; }
inline I32 operator+(I32 a, I32 b) { OUTRIDER_EACH a.v[i] += b.v[i]; return a; }
inline I32 high_nibbles(I32 a) { return shift_right(a, 4) & set1_i32(0x0f0f0f0f); }
inline F32 as_float(I32 a) { F32 r; std::memcpy(r.v, a.v, 64); return r; }
// NaN where all bits are set, x where none is.
// Half 0 or 1 of a line, as float16.
template <int kHalf>
inline F32 float_of_halves(I32 a) {
  uint16_t halves[32];
  std::memcpy(halves, a.v, 64);
  return load_f16(halves + 16 * kHalf);
}
// table[byte] of each byte, which is 0 to 15
inline I32 look_up(const uint8_t* table, I32 a) {
  uint8_t bytes[64];
  std::memcpy(bytes, a.v, 64);
  for (uint8_t& byte : bytes) byte = table[byte];
  return load_line(bytes);
}
// Codes of 16 inputs of a row: those of four in each word.
struct Codes16 { const uint32_t* words; };
inline Codes16 load_codes(const uint32_t* p) { return {p}; }
// acc[i] += sum over k < 4 of a[4 i + k] * x[k] of word j, codes of 0 to 127
inline I32 dot4(I32 acc, I32 a, Codes16 x, int j) {
  uint8_t codes[64];
  int8_t b[4];
  std::memcpy(codes, a.v, 64);
  std::memcpy(b, x.words + j, 4);
  OUTRIDER_EACH for (int k = 0; k < 4; ++k) acc.v[i] += int32_t{codes[4 * i + k]} * b[k];
  return acc;
}
// Signed codes, to which `kCentre` was added.
inline I32 begin_centred(int32_t) { return set1_i32(0); }
inline I32 dot4_centred(I32 acc, I32 a, Codes16 x, int j) {
  uint8_t codes[64];
  int8_t b[4];
  std::memcpy(codes, a.v, 64);
  std::memcpy(b, x.words + j, 4);
  OUTRIDER_EACH for (int k = 0; k < 4; ++k)
    acc.v[i] += int32_t{static_cast<int8_t>(codes[4 * i + k] ^ kCentre)} * b[k];
  return acc;
}
// acc[i] += sum over j < 2 of w[2 i + j] * x[j], both bfloat16
inline F32 dot2(F32 acc, const uint16_t* w, uint32_t x) {
  const float even = bits_to_float(x << 16), odd = bits_to_float(x & 0xffff0000u);
  OUTRIDER_EACH {
    acc.v[i] += bits_to_float(uint32_t{w[2 * i]} << 16) * even;
    acc.v[i] += bits_to_float(uint32_t{w[2 * i + 1]} << 16) * odd;
  }
  return acc;
}
template <class T>
OUTRIDER_HOT void keep_in_memory(T&) {}
inline void prefetch_near(const void* p) { __builtin_prefetch(p, 0, 3); }
inline void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }

#undef OUTRIDER_EACH

OUTRIDER_HOT void load_again() {}

}  // namespace outrider::OUTRIDER_ISA

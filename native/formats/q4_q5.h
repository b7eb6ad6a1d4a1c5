// Codes of 4 and 5 bits with a scale for 32 to 128 inputs, and a minimum or the code that means 0.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

struct HalfScalesAndMins {
  F32 scale_, least_;
  OUTRIDER_HOT explicit HalfScalesAndMins(const uint8_t* block)
      : scale_(load_halves(block)), least_(load_halves(block + kLine / 2)) {}
  F32 scale(int) const { return scale_; }
  F32 least(int) const { return least_; }
};

inline void pack_scales_and_mins(Rows rows, uint8_t* block) {
  copy_halves(rows, 0, block);
  copy_halves(rows, 2, block + kLine / 2);
}

// The nibbles of 32 inputs, which a file has in the order that lines have.
inline void pack_nibbles(Rows rows, size_t at, uint8_t* block) {
  Line lines[4];
  load_lines<4>(rows, at, lines);
  fill_codes<4>(block, [&](int j, int lane) { return lines[j].of[lane]; });
}

// Bit j of byte i of a line is the fifth bit of input 4 j + i; nibbles follow.
template <class V>
struct FiveBitCodes {
  NibbleCodes<V> low;
  V high;
  OUTRIDER_HOT FiveBitCodes(const uint8_t* codes, int p) : low(codes + kLine, p), high(load_part<V>(codes, p)) {}
  OUTRIDER_HOT V line(int j) const {
    const V bit = j < 4 ? shift_left(high, 4 - j) : shift_right(high, j - 4);
    return low.line(j) | (bit & every_byte<V>(16));
  }
};

// Bits 0, 4, 8 .. of x side by side.
inline Lane every_fourth_bit(Lane x) {
  x &= 0x11111111;
  x = (x | x >> 3) & 0x03030303;
  x = (x | x >> 6) & 0x000f000f;
  return (x | x >> 12) & 0xff;
}

// Five-bit codes of 32 inputs from a word of fifth bits, in the order of inputs, and 16 bytes of nibbles.
inline void pack_five_bits(Rows rows, size_t at, uint8_t* block) {
  const Line bits = gather_line(rows, at);
  fill_line(block, [&](int lane) {
    Lane x = 0;
    for (int i = 0; i < 4; ++i) x |= every_fourth_bit(bits.of[lane] >> i) << 8 * i;
    return x;
  });
  pack_nibbles(rows, at + sizeof(Lane), block + kLine);
}

// A block: scales; nibbles.
struct Q4_0 : IntegerFormat<Format::kQ4_0> {
  static constexpr int kZero = 8, kGroupBytes = 4 * kLine;
  using Scales = HalfScales;
  template <class V>
  using Codes = NibbleCodes<V>;
  static void pack(Rows rows, Place to) {
    copy_halves(rows, 0, to.block);
    pack_nibbles(rows, 2, to.block + kCodesAt);
  }
};

// A block: a line of scales and mins; nibbles.
struct Q4_1 : IntegerFormat<Format::kQ4_1> {
  static constexpr int kZero = 0, kCodesAt = kLine, kGroupBytes = 4 * kLine;
  static constexpr bool kMins = true;
  using Scales = HalfScalesAndMins;
  template <class V>
  using Codes = NibbleCodes<V>;
  static void pack(Rows rows, Place to) {
    pack_scales_and_mins(rows, to.block);
    pack_nibbles(rows, 4, to.block + kCodesAt);
  }
};

// A block: scales; a line of fifth bits; nibbles.
struct Q5_0 : IntegerFormat<Format::kQ5_0> {
  static constexpr int kZero = 16, kGroupBytes = 5 * kLine;
  using Scales = HalfScales;
  template <class V>
  using Codes = FiveBitCodes<V>;
  static void pack(Rows rows, Place to) {
    copy_halves(rows, 0, to.block);
    pack_five_bits(rows, 2, to.block + kCodesAt);
  }
};

// A block: a line of scales and mins; a line of fifth bits; nibbles.
struct Q5_1 : IntegerFormat<Format::kQ5_1> {
  static constexpr int kZero = 0, kCodesAt = kLine, kGroupBytes = 5 * kLine;
  static constexpr bool kMins = true;
  using Scales = HalfScalesAndMins;
  template <class V>
  using Codes = FiveBitCodes<V>;
  static void pack(Rows rows, Place to) {
    pack_scales_and_mins(rows, to.block);
    pack_five_bits(rows, 4, to.block + kCodesAt);
  }
};

// Scales, and the codes that mean 0, one a byte. Products of the two are exact.
struct HalfScalesAndZeros {
  F32 scale_, least_;
  OUTRIDER_HOT explicit HalfScalesAndZeros(const uint8_t* block)
      : scale_(load_halves(block)),
        least_(mul(sub(set1(0), scale_), to_float(load_u8(block + 2 * kLanes)))) {}
  F32 scale(int) const { return scale_; }
  F32 least(int) const { return least_; }
};

// A block: scales, and zeros, a byte each; the nibbles of each group.
template <Format kFormat>
struct U4 : IntegerFormat<kFormat> {
  static constexpr int kZero = 0, kCodesAt = 3 * kLanes, kGroupBytes = 4 * kLine;
  static constexpr bool kMins = true;
  using Scales = HalfScalesAndZeros;
  template <class V>
  using Codes = NibbleCodes<V>;
  static void pack(Rows rows, Place to) {
    copy_halves(rows, 0, to.block);
    for (int lane = 0; lane < kLanes; ++lane) to.block[2 * kLanes + lane] = rows[lane][2];
    for (int g = 0; g < U4::kGroups; ++g) pack_nibbles(rows, 3 + size_t(g) * kGroup / 2, to.block + kCodesAt + g * kGroupBytes);
  }
};

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

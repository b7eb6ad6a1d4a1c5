// Nibbles that name one of 16 values, which are int8.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

struct Codebook {
  uint8_t codes[16];

  template <class... X>
  constexpr explicit Codebook(X... values) : codes{static_cast<uint8_t>(values + kCentre)...} {}
};
inline constexpr Codebook kNonLinear(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
// Twice the values of e2m1.
inline constexpr Codebook kTwiceE2M1(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);

template <class V, const Codebook& kTable>
struct NamedCodes {
  NibbleCodes<V> names;
  OUTRIDER_HOT NamedCodes(const uint8_t* codes, int p) : names(codes, p) {}
  OUTRIDER_HOT V line(int j) const { return look_up(kTable.codes, names.line(j)); }
  OUTRIDER_HOT V pair(int t, int h) const { return look_up(kTable.codes, names.pair(t, h)); }
};

template <Format kFormat, const Codebook& kTable>
struct CodebookFormat : IntegerFormat<kFormat> {
  static constexpr int kZero = 128, kGroupBytes = 4 * kLine;
  template <class V>
  using Codes = NamedCodes<V, kTable>;
};

// A block: scales; nibbles.
struct IQ4_NL : CodebookFormat<Format::kIQ4_NL, kNonLinear> {
  using Scales = HalfScales;
  static void pack(Rows rows, Place to) {
    copy_halves(rows, 0, to.block);
    pack_nibbles(rows, 2, to.block + kCodesAt);
  }
};

// A block: scales of the scales, two high bits of each scale, a line of their nibbles; the nibbles of each group.
struct IQ4_XS : CodebookFormat<Format::kIQ4_XS, kNonLinear> {
  static constexpr int kCodesAt = 2 * kLine;

  struct Scales {
    Unpacked<8> scales;
    OUTRIDER_HOT explicit Scales(const uint8_t* block) {
      const F32 scale = load_halves(block);
      const I32 high = load_u16(block + kLine / 2), low = load_line(block + kLine);
      OUTRIDER_UNROLL(8)
      for (int g = 0; g < 8; ++g) {
        const I32 nibble = shift_right(low, 4 * g) & set1_i32(15);
        const I32 bits = shift_left(shift_right(high, 2 * g) & set1_i32(3), 4);
        scales.set(g, mul(scale, to_float((nibble | bits) + set1_i32(-32))));
      }
    }
    OUTRIDER_HOT F32 scale(int g) const { return scales[g]; }
  };

  static void pack(Rows rows, Place to) {
    copy_halves(rows, 0, to.block);
    copy_halves(rows, 2, to.block + kLine / 2);
    put_line(to.block + kLine, gather_line(rows, 4));
    for (int g = 0; g < kGroups; ++g) pack_nibbles(rows, 8 + size_t(g) * 16, to.block + kCodesAt + g * kGroupBytes);
  }
};

// A block: exponents, a byte each; nibbles.
struct MXFP4 : CodebookFormat<Format::kMXFP4, kTwiceE2M1> {
  static constexpr int kCodesAt = kLanes;

  struct Scales {
    F32 of;
    // 2^(e - 128), as the product of two powers, since it may be subnormal.
    OUTRIDER_HOT explicit Scales(const uint8_t* block) {
      const I32 e = load_u8(block);
      of = mul(power(shift_right(e, 1)), power(shift_right(e + set1_i32(1), 1)));
    }
    static F32 power(I32 half) { return as_float(shift_left(half + set1_i32(63), 23)); }
    F32 scale(int) const { return of; }
  };
  static void pack(Rows rows, Place to) {
    for (int lane = 0; lane < kLanes; ++lane) to.block[lane] = rows[lane][0];
    pack_nibbles(rows, 1, to.block + kCodesAt);
  }
};

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

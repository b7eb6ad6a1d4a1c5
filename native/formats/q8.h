// Codes of 8 bits, which are signed in a file.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

template <Format kFormat>
struct ByteFormat : IntegerFormat<kFormat> {
  static constexpr int kZero = 128, kGroupBytes = 512;
  template <class V>
  using Codes = ByteCodes<V>;

  static void pack_codes(Rows rows, size_t at, uint8_t* block) {
    Line lines[8];
    load_lines<8>(rows, at, lines);
    fill_codes<8>(block, [&](int j, int lane) { return lines[j].of[lane] ^ kCentre * 0x01010101u; });
  }
};

// A block: scales; codes.
struct Q8_0 : ByteFormat<Format::kQ8_0> {
  using Scales = HalfScales;
  static void pack(Rows rows, Place to) {
    copy_halves(rows, 0, to.block);
    pack_codes(rows, 2, to.block + kCodesAt);
  }
};

// Heads: float32 scales. A block: codes.
struct Q8_CHANNEL : ByteFormat<Format::kQ8_CHANNEL> {
  static constexpr bool kRowScales = true;
  using Scales = NoScales;
  static void pack(Rows rows, Place to) { pack_codes(rows, 0, to.block); }
};

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

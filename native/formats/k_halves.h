// GGUF's K-quants whose scales cover 16 inputs, half a group: 256 inputs share a float16 scale of the 16 scales.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

// Field t of byte i of a line is two bits of input 4 t + i: one line for each half of a group.
template <class V>
struct Pairs {
  const uint8_t* lines;
  int p;
  // Two bits of inputs 4 j .. 4 j + 3, as bits `at` and `at` + 1.
  OUTRIDER_HOT V line(int j, int at) const {
    const V pairs = load_part<V>(lines + j / 4 * kLine, p);
    const int from = j % 4 * 2;
    return (from < at ? shift_left(pairs, at - from) : shift_right(pairs, from - at)) & every_byte<V>(3 << at);
  }
};

// The pairs of group g of a block. A file has those of four groups in a byte, input by input.
inline void pack_pairs(const Line* words, int g, uint8_t* lines) {
  const Line* four = words + g / 4 * 8;
  for (int half = 0; half < 2; ++half)
    fill_line(lines + half * kLine, [&](int lane) {
      Lane x = 0;
      for (int t = 0; t < 4; ++t) x |= (four[4 * half + t].of[lane] >> g % 4 * 2 & 0x03030303) << 2 * t;
      return x;
    });
}

// Sixteen bytes of each output from four words of each: byte i of all outputs, then byte i + 1.
inline void pack_scale_bytes(const Line* words, uint8_t* to) {
  for (int i = 0; i < 16; ++i, to += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) to[lane] = static_cast<uint8_t>(words[i / 4].of[lane] >> i % 4 * 8);
}

struct KHalfScales {
  Unpacked<16> scales;
  OUTRIDER_HOT F32 scale(int i) const { return scales[i]; }
};

// A block: four lines of int8 scales, and the scales of these; of each group two lines of high bits, and nibbles.
struct Q6_K : IntegerFormat<Format::kQ6_K> {
  static constexpr int kZero = 32, kScales = 2, kScaleAt = 4 * kLine, kCodesAt = kScaleAt + 2 * kLanes, kGroupBytes = 6 * kLine;

  struct Scales : KHalfScales {
    OUTRIDER_HOT explicit Scales(const uint8_t* block) {
      const F32 scale = load_halves(block + kScaleAt);
      OUTRIDER_UNROLL(16)
      for (int i = 0; i < 16; ++i) scales.set(i, mul(scale, to_float(load_i8(block + i * kLanes))));
    }
  };

  template <class V>
  struct Codes {
    Pairs<V> high;
    NibbleCodes<V> low;
    OUTRIDER_HOT Codes(const uint8_t* codes, int p) : high{codes, p}, low(codes + 2 * kLine, p) {}
    OUTRIDER_HOT V line(int j) const { return low.line(j) | high.line(j, 4); }
  };

  static void pack(Rows rows, Place to) {
    Line words[52];  // 32 of nibbles, 16 of high bits, 4 of scales
    load_lines<52>(rows, 0, words);
    copy_halves(rows, sizeof(Lane) * 52, to.block + kScaleAt);
    pack_scale_bytes(words + 48, to.block);
    for (int g = 0; g < kGroups; ++g) {
      uint8_t* codes = to.block + kCodesAt + g * kGroupBytes;
      pack_pairs(words + 32, g, codes);
      // Of 128 inputs the nibbles of groups 0 and 2 share bytes, and those of 1 and 3.
      const Line* nibbles = words + g / 4 * 16 + g % 2 * 8;
      const int shift = g % 4 / 2 * 4;
      fill_codes<4>(codes + 2 * kLine, [&](int j, int lane) {
        return (nibbles[j].of[lane] >> shift & 0x0f0f0f0f) | (nibbles[j + 4].of[lane] >> shift & 0x0f0f0f0f) << 4;
      });
    }
  }
};

// A block: scales of scales and of mins, four lines of scales in low and mins in high nibbles; the pairs of each
// group.
struct Q2_K : IntegerFormat<Format::kQ2_K> {
  static constexpr int kZero = 0, kScales = 2, kCodesAt = 5 * kLine, kGroupBytes = 2 * kLine;
  static constexpr bool kMins = true;

  struct Scales : KHalfScales {
    Unpacked<16> mins;
    OUTRIDER_HOT explicit Scales(const uint8_t* block) {
      const F32 scale = load_halves(block), least = sub(set1(0), load_halves(block + kLine / 2));
      OUTRIDER_UNROLL(16)
      for (int i = 0; i < 16; ++i) {
        const I32 both = load_u8(block + kLine + i * kLanes);
        scales.set(i, mul(scale, to_float(both & set1_i32(15))));
        mins.set(i, mul(least, to_float(shift_right(both, 4))));
      }
    }
    OUTRIDER_HOT F32 least(int i) const { return mins[i]; }
  };

  template <class V>
  struct Codes {
    Pairs<V> pairs;
    OUTRIDER_HOT Codes(const uint8_t* codes, int p) : pairs{codes, p} {}
    OUTRIDER_HOT V line(int j) const { return pairs.line(j, 0); }
  };

  static void pack(Rows rows, Place to) {
    Line words[20];  // 4 of scales, 16 of pairs
    load_lines<20>(rows, 0, words);
    copy_halves(rows, 80, to.block);
    copy_halves(rows, 82, to.block + kLine / 2);
    pack_scale_bytes(words, to.block + kLine);
    for (int g = 0; g < kGroups; ++g) pack_pairs(words + 4, g, to.block + kCodesAt + g * kGroupBytes);
  }
};

// A block: three lines of 6-bit scales, and the scales of these; of each group two lines of pairs, and third bits.
struct Q3_K : IntegerFormat<Format::kQ3_K> {
  static constexpr int kZero = 4, kScales = 2, kScaleAt = 3 * kLine, kCodesAt = kScaleAt + 2 * kLanes, kGroupBytes = 3 * kLine;

  struct Scales : KHalfScales {
    OUTRIDER_HOT explicit Scales(const uint8_t* block) {
      const F32 scale = load_halves(block + kScaleAt);
      const SixBits numbers(block);
      OUTRIDER_UNROLL(16)
      for (int i = 0; i < 16; ++i) scales.set(i, mul(scale, to_float(numbers.of(i) + set1_i32(-32))));
    }
  };

  template <class V>
  struct Codes {
    Pairs<V> pairs;
    V high;
    OUTRIDER_HOT Codes(const uint8_t* codes, int p) : pairs{codes, p}, high(load_part<V>(codes + 2 * kLine, p)) {}
    OUTRIDER_HOT V line(int j) const {
      const V bit = j < 2 ? shift_left(high, 2 - j) : shift_right(high, j - 2);
      return pairs.line(j, 0) | (bit & every_byte<V>(4));
    }
  };

  static void pack(Rows rows, Place to) {
    Line words[24];  // 8 of third bits, 16 of pairs
    load_lines<24>(rows, 0, words);
    copy_halves(rows, 108, to.block + kScaleAt);
    // Nibbles of 16 scales in 8 bytes, low ones first, then two high bits of four scales in a byte.
    const Line low[2] = {gather_line(rows, 96), gather_line(rows, 100)}, high = gather_line(rows, 104);
    SixBits::pack(to.block, [&](int i, int lane) {
      const int at = i % 4 * 8;
      return (low[i / 4 % 2].of[lane] >> (at + i / 8 * 4) & 15) | (high.of[lane] >> (at + i / 4 * 2) & 3) << 4;
    });
    for (int g = 0; g < kGroups; ++g) {
      uint8_t* codes = to.block + kCodesAt + g * kGroupBytes;
      pack_pairs(words + 8, g, codes);
      pack_k_bits(words, g, codes + 2 * kLine);
    }
  }
};

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

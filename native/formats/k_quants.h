// GGUF's K-quants whose scales cover 32 inputs: 256 inputs share a float16 scale of the scales of each 32,
// which have 6 bits, and one of their mins.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

// Sixteen numbers of 6 bits of each output in three lines: five in the low 30 bits of each line's lanes, and
// two bits of the last one above them.
struct SixBits {
  I32 words[3];

  OUTRIDER_HOT explicit SixBits(const uint8_t* lines)
      : words{load_line(lines), load_line(lines + kLine), load_line(lines + 2 * kLine)} {}
  OUTRIDER_HOT I32 of(int i) const {
    if (i < 15) return shift_right(words[i / 5], i % 5 * 6) & set1_i32(63);
    const I32 first = shift_right(words[0], 30), second = shift_right(words[1], 30) & set1_i32(3);
    return first | shift_left(second, 2) | shift_left(shift_right(words[2], 30), 4);
  }

  // number(i, lane)
  template <class F>
  static void pack(uint8_t* lines, F number) {
    for (int word = 0; word < 3; ++word)
      fill_line(lines + word * kLine, [&](int lane) {
        Lane x = (number(15, lane) >> 2 * word & 3) << 30;
        for (int i = 0; i < 5; ++i) x |= number(5 * word + i, lane) << 6 * i;
        return x;
      });
  }
};

// A block begins with a line of the scales and the mins' scales, and three lines of scales and mins.
struct KScalesAndMins {
  Unpacked<8> scales, mins;

  OUTRIDER_HOT explicit KScalesAndMins(const uint8_t* block) {
    const F32 scale = load_halves(block), least = sub(set1(0), load_halves(block + kLine / 2));
    const SixBits numbers(block + kLine);
    OUTRIDER_UNROLL(8)
    for (int g = 0; g < 8; ++g) {
      scales.set(g, mul(scale, to_float(numbers.of(g))));
      mins.set(g, mul(least, to_float(numbers.of(8 + g))));
    }
  }
  OUTRIDER_HOT F32 scale(int g) const { return scales[g]; }
  OUTRIDER_HOT F32 least(int g) const { return mins[g]; }

  // From the first four words of a file's block. Of its 12 bytes of scales and mins, 0 to 3 and 4 to 7 hold
  // the first four of each, with two high bits of the others above them, whose nibbles are in 8 to 11.
  static void pack(Rows rows, const Line* words, uint8_t* block) {
    copy_halves(rows, 0, block);
    copy_halves(rows, 2, block + kLine / 2);
    SixBits::pack(block + kLine, [&](int i, int lane) {
      const int is_min = i / 8, at = i % 4 * 8;
      const Lane own = words[1 + is_min].of[lane] >> at;
      if (i % 8 < 4) return own & 63;
      return (words[3].of[lane] >> (at + 4 * is_min) & 15) | (own >> 6 & 3) << 4;
    });
  }
};

// The nibbles of group g of a block. A file has those of two groups in a byte, input by input.
inline void pack_k_nibbles(const Line* words, int g, uint8_t* lines) {
  const Line* pair = words + g / 2 * 8;
  const int shift = g % 2 * 4;
  fill_codes<4>(lines, [&](int j, int lane) {
    return (pair[j].of[lane] >> shift & 0x0f0f0f0f) | (pair[j + 4].of[lane] >> shift & 0x0f0f0f0f) << 4;
  });
}

// Of bytes that hold one bit of each group, input by input: those of group g, bit j of byte i being that of
// input 4 j + i.
inline void pack_k_bits(const Line* words, int g, uint8_t* line) {
  fill_line(line, [&](int lane) {
    Lane x = 0;
    for (int j = 0; j < 8; ++j) x |= (words[j].of[lane] >> g & 0x01010101) << j;
    return x;
  });
}

// A block: four lines of scales and mins; the nibbles of each group.
struct Q4_K : IntegerFormat<Format::kQ4_K> {
  static constexpr int kZero = 0, kCodesAt = 4 * kLine, kGroupBytes = 4 * kLine;
  static constexpr bool kMins = true;
  using Scales = KScalesAndMins;
  template <class V>
  using Codes = NibbleCodes<V>;
  static void pack(Rows rows, Place to) {
    Line words[36];
    load_lines<36>(rows, 0, words);
    Scales::pack(rows, words, to.block);
    for (int g = 0; g < kGroups; ++g) pack_k_nibbles(words + 4, g, to.block + kCodesAt + g * kGroupBytes);
  }
};

// A block: four lines of scales and mins; of each group a line of fifth bits, and nibbles.
struct Q5_K : IntegerFormat<Format::kQ5_K> {
  static constexpr int kZero = 0, kCodesAt = 4 * kLine, kGroupBytes = 5 * kLine;
  static constexpr bool kMins = true;
  using Scales = KScalesAndMins;
  template <class V>
  using Codes = FiveBitCodes<V>;
  static void pack(Rows rows, Place to) {
    Line words[44];
    load_lines<44>(rows, 0, words);
    Scales::pack(rows, words, to.block);
    for (int g = 0; g < kGroups; ++g) {
      uint8_t* codes = to.block + kCodesAt + g * kGroupBytes;
      pack_k_bits(words + 4, g, codes);
      pack_k_nibbles(words + 12, g, codes + kLine);
    }
  }
};

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

// Weights of 8 bits, sign, 4 of exponent and 3 of mantissa (e4m3, without infinities), with a float32 scale.
//
// Two lanes of bits shifted into place are float16 numbers 2^-8 as large, the subnormal ones too, which the
// machine turns into float32; the scale makes up for the factor. The code of NaN would become a number: a
// weight that is NaN makes its scale NaN instead, and so every result that it has part in.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

// A line holds four inputs of each output: 16 pairs of the first two, then of the others.
struct E4M3 {
  static constexpr int kStep = 4, kStepBytes = kLine, kGroupBytes = kGroup * kLanes;

  OUTRIDER_HOT static void load(const uint8_t* p, F32* inputs) {
    const I32 line = load_line(p), even = halves(shift_left(line, 8)), odd = halves(line);
    inputs[0] = float_of_halves<0>(even);
    inputs[1] = float_of_halves<0>(odd);
    inputs[2] = float_of_halves<1>(even);
    inputs[3] = float_of_halves<1>(odd);
  }
  static F32 unit(F32 scale) { return mul(scale, set1(256)); }

  // Of the upper byte of every 16 bits.
  OUTRIDER_HOT static I32 halves(I32 x) {
    return (shift_right(x, 1) & set1_i32(0x3f803f80)) | (x & set1_i32(static_cast<int>(0x80008000)));
  }

  // 32 inputs from byte `at` of the rows on. scales: 16 floats.
  static void pack_group(Rows rows, size_t at, uint8_t* to, uint8_t* scales) {
    Line words[kGroup / 4];
    load_lines<kGroup / 4>(rows, at, words);
    Line nan{};
    for (const Line& word : words) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const Lane x = word.of[lane];
        nan.of[lane] |= ((x & 0x7f7f7f7f) + 0x01010101) & 0x80808080;
        const uint16_t pairs[2] = {static_cast<uint16_t>(x), static_cast<uint16_t>(x >> 16)};
        __builtin_memcpy(to + 2 * lane, &pairs[0], 2);
        __builtin_memcpy(to + kLine / 2 + 2 * lane, &pairs[1], 2);
      }
      to += kLine;
    }
    constexpr float kNan = __builtin_nanf("");
    for (int lane = 0; lane < kLanes; ++lane)
      if (nan.of[lane]) __builtin_memcpy(scales + sizeof kNan * lane, &kNan, sizeof kNan);
  }
};

// Heads: scales. A block: values.
struct F8_E4M3 : E4M3 {
  static constexpr Layout kLayout = layout_of(Format::kF8_E4M3);

  template <int M>
  static Sums<M> dot(const Panel& panel, const uint32_t* x) {
    Sums<M> sums = dot_inputs<F8_E4M3, M>(panel, x);
    const F32 scale = unit(load_floats(panel.heads));
    for (int m = 0; m < M; ++m) sums.of[m] = mul(sums.of[m], scale);
    return sums;
  }
  static void pack(Rows rows, Place to) { pack_group(rows, 0, to.block, to.heads); }
  static void decode(const Panel& panel, int b, int lane, float* y) {
    const uint8_t* codes = panel.block(kLayout, b);
    decode_inputs<E4M3>(codes, unit(load_floats(panel.heads)), lane, y);
  }
};

// A block: a line of scales; values.
struct F8_BLOCK : E4M3 {
  static constexpr Layout kLayout = layout_of(Format::kF8_BLOCK);
  static constexpr int kGroups = kLayout.block() / kGroup;

  template <int M>
  static Sums<M> dot(const Panel& panel, const uint32_t* x) {
    Sums<M> total;
    clear(total);
    const uint8_t* block = panel.blocks;
    for (int b = 0; b < panel.count; ++b, block += kLayout.block_bytes()) {
      prefetch<M>(block);
      const F32 scale = unit(load_floats(block));
      Sums<M> even, odd;
      clear(even);
      clear(odd);
      for (int g = 0; g < kGroups; ++g, x += M * kGroup)
        add_inputs<E4M3, M>(even, odd, block + kLine + g * kGroupBytes, x);
      for (int m = 0; m < M; ++m) total.of[m] = fma(scale, add(even.of[m], odd.of[m]), total.of[m]);
    }
    return total;
  }
  static void pack(Rows rows, Place to) {
    put_line(to.block, gather_line(rows, 0));
    for (int g = 0; g < kGroups; ++g)
      pack_group(rows, sizeof(float) + static_cast<size_t>(g) * kGroup, to.block + kLine + g * kGroupBytes, to.block);
  }
  static void decode(const Panel& panel, int b, int lane, float* y) {
    const uint8_t* block = panel.block(kLayout, b);
    for (int g = 0; g < kGroups; ++g)
      decode_inputs<E4M3>(block + kLine + g * kGroupBytes, unit(load_floats(block)), lane, y + g * kGroup);
  }
};

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

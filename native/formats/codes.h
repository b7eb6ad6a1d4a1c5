// What formats of integer codes have in common: codes of up to 8 bits, a float32 scale for 32 or 16 inputs of
// an output, and a code that means 0, or a minimum.
//
// Such a format says
//   kGroups      groups of 32 inputs of a block
//   kScales      scales of a group: one, or one for each half
//   kMins        whether there is a minimum beside each scale: w = scale * code + least
//   kZero        the code that means 0 where there is no minimum: w = scale * (code - kZero)
//   kCodesAt     where a block's codes begin; each group has kGroupBytes of them
//   Scales       reads the scales and mins of a block: `scale(i)`, `least(i)`
//   Codes        reads the codes of a group: `line(j)` is inputs 4 j .. 4 j + 3 of each output, a byte each
// and `Integer` adds `dot` and `decode`, which are the same for all.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

// The slice of row m.
struct Slice {
  const uint32_t* units;

  Slice(const uint32_t* x, int m) : units(x + m * kInt8Units) {}
  int32_t codes(int j) const { return static_cast<int32_t>(units[kCodes + j]); }
  F32 scale() const { return unit_as_float(units + kScale); }
  F32 scaled_sum() const { return unit_as_float(units + kScaledSum); }
  F32 scaled_half(int half) const { return unit_as_float(units + kScaledHalves + half); }

  // Minus `kZero` times the sum of the codes of the group, or of one of its halves.
  template <int kZero>
  int32_t zero() const {
    static_assert(kZero % 8 == 0);
    return static_cast<int32_t>(units[kZero8]) * (kZero / 8);
  }
  template <int kZero>
  int32_t zero_of_half(int half) const {
    static_assert(32 % kZero == 0);
    return static_cast<int32_t>(units[kZero32Halves + half]) / (32 / kZero);
  }
};
template <>
inline int32_t Slice::zero<128>() const { return static_cast<int32_t>(units[kZero128]); }

// Scales of a block, unpacked once for all rows. In plain memory: compilers would copy arrays of registers in
// pieces, which a load of the whole has to wait for.
template <int kCount>
struct Unpacked {
  alignas(64) float values[kCount * kLanes];
  OUTRIDER_HOT void set(int i, F32 value) { store(values + i * kLanes, value); }
  OUTRIDER_HOT F32 operator[](int i) const { return load(values + i * kLanes); }
};

// One scale, which is the same for the whole row: left to the end.
struct NoScales {
  OUTRIDER_HOT explicit NoScales(const uint8_t*) {}
};

// Float16, one for each output.
struct HalfScales {
  F32 of;
  OUTRIDER_HOT explicit HalfScales(const uint8_t* block) : of(load_halves(block)) {}
  F32 scale(int) const { return of; }
};

// The codes of one group are eight lines of bytes.
struct ByteCodes {
  const uint8_t* lines;
  OUTRIDER_HOT explicit ByteCodes(const uint8_t* codes) : lines(codes) {}
  OUTRIDER_HOT I32 line(int j) const { return load_line(lines + j * kLine); }
};

// Shifts go over 32 bits; what comes in from the next byte is masked away.
inline I32 every_byte(int mask) { return set1_i32(mask * 0x01010101); }
inline I32 low_nibbles(I32 x) { return x & every_byte(15); }

// Four lines: inputs 4 j .. 4 j + 3 in the low nibbles and 16 + 4 j .. in the high ones.
struct NibbleCodes {
  const uint8_t* lines;
  OUTRIDER_HOT explicit NibbleCodes(const uint8_t* codes) : lines(codes) {}
  OUTRIDER_HOT I32 line(int j) const {
    const I32 both = load_line(lines + j % 4 * kLine);
    return j < 4 ? low_nibbles(both) : high_nibbles(both);
  }
};

// What most of them say.
template <Format kFormat>
struct IntegerFormat {
  static constexpr Layout kLayout = layout_of(kFormat);
  static constexpr int kGroups = kLayout.block() / kGroup;
  static constexpr int kScales = 1;
  static constexpr bool kMins = false;
  static constexpr bool kRowScales = false;  // float32, in the heads of the rows
  static constexpr int kCodesAt = kLayout.head ? 0 : 2 * kLanes;  // after a float16 scale of each output
};

// What all of them do.
template <class T>
struct Integer : T {
  static constexpr Layout kLayout = T::kLayout;
  static_assert(kLayout.form == Form::kInt8);

  template <int M>
  static Sums<M> dot(const Panel& panel, const uint32_t* x) {
    Sums<M> total;
    clear(total);
    const uint8_t* block = panel.blocks;
    for (int b = 0; b < panel.count; ++b, block += kLayout.block_bytes()) {
      prefetch_all<M, T::kCodesAt>(block);
      const typename T::Scales scales(block);
      const uint8_t* codes = block + T::kCodesAt;
      OUTRIDER_UNROLL(1)
      for (int g = 0; g < T::kGroups; ++g, codes += T::kGroupBytes, x += M * kInt8Units) {
        prefetch_all<M, T::kGroupBytes>(codes);
        add_group<M>(total, scales, g, typename T::Codes(codes), x);
      }
    }
    if constexpr (T::kRowScales) {
      const F32 scale = load_floats(panel.heads);
      for (int m = 0; m < M; ++m) total.of[m] = mul(total.of[m], scale);
    }
    return total;
  }

  // Output `lane` of block b.
  static void decode(const Panel& panel, int b, int lane, float* y) {
    const uint8_t* block = panel.block(kLayout, b);
    const typename T::Scales scales(block);
    for (int g = 0; g < T::kGroups; ++g) {
      const typename T::Codes codes(block + T::kCodesAt + g * T::kGroupBytes);
      for (int j = 0; j < 8; ++j, y += 4) {
        alignas(64) uint8_t bytes[kLine];
        alignas(64) float scale[kLanes], least[kLanes];
        store_line(bytes, codes.line(j));
        const int s = g * T::kScales + j * T::kScales / 8;
        if constexpr (T::kRowScales) {
          store(scale, load_floats(panel.heads));
        } else {
          store(scale, scales.scale(s));
        }
        if constexpr (T::kMins) store(least, scales.least(s));
        for (int i = 0; i < 4; ++i) {
          const int code = bytes[4 * lane + i];
          if constexpr (T::kMins) {
            y[i] = scale[lane] * static_cast<float>(code) + least[lane];
          } else {
            y[i] = scale[lane] * static_cast<float>(code - T::kZero);
          }
        }
      }
    }
  }

 private:
  // Adds the products of lines first .. last to the integer sums of M rows.
  template <int M>
  OUTRIDER_HOT static void add_lines(I32* sum, const typename T::Codes& codes, int first, int last, const uint32_t* x) {
    OUTRIDER_UNROLL(8)
    for (int j = first; j < last; ++j) {
      const I32 line = codes.line(j);
      OUTRIDER_UNROLL(16)
      for (int m = 0; m < M; ++m)
        sum[m] = T::kZero == 128 ? dot4_centred(sum[m], line, Slice(x, m).codes(j))
                                 : dot4(sum[m], line, Slice(x, m).codes(j));
    }
  }

  template <int M>
  OUTRIDER_HOT static void add_group(Sums<M>& total, const typename T::Scales& scales, int g,
                        const typename T::Codes& codes, const uint32_t* x) {
    I32 sum[M];
    if constexpr (T::kScales == 1) {
      OUTRIDER_UNROLL(16)
      for (int m = 0; m < M; ++m) sum[m] = begin(Slice(x, m));
      OUTRIDER_UNROLL(4)
      for (int j = 0; j < 4; ++j) {  // lines that may share loads follow each other
        add_lines<M>(sum, codes, j, j + 1, x);
        add_lines<M>(sum, codes, j + 4, j + 5, x);
      }
      OUTRIDER_UNROLL(16)
      for (int m = 0; m < M; ++m) {
        F32 scale = Slice(x, m).scale();
        if constexpr (!T::kRowScales) scale = mul(scales.scale(g), scale);
        total.of[m] = fma(to_float(sum[m]), scale, total.of[m]);
      }
    } else {
      F32 part[M];
      OUTRIDER_UNROLL(2)
      for (int half = 0; half < 2; ++half) {
        OUTRIDER_UNROLL(16)
        for (int m = 0; m < M; ++m) sum[m] = begin_half(Slice(x, m), half);
        add_lines<M>(sum, codes, 4 * half, 4 * half + 4, x);
        const F32 scale = scales.scale(2 * g + half);
        OUTRIDER_UNROLL(16)
        for (int m = 0; m < M; ++m)
          part[m] = half == 0 ? mul(to_float(sum[m]), scale) : fma(to_float(sum[m]), scale, part[m]);
      }
      OUTRIDER_UNROLL(16)
      for (int m = 0; m < M; ++m) total.of[m] = fma(part[m], Slice(x, m).scale(), total.of[m]);
    }
    if constexpr (T::kMins) add_mins<M>(total, scales, g, x);
  }

  template <int M>
  OUTRIDER_HOT static void add_mins(Sums<M>& total, const typename T::Scales& scales, int g, const uint32_t* x) {
    OUTRIDER_UNROLL(16)
    for (int m = 0; m < M; ++m) {
      if constexpr (T::kScales == 1) {
        total.of[m] = fma(scales.least(g), Slice(x, m).scaled_sum(), total.of[m]);
      } else {
        total.of[m] = fma(scales.least(2 * g), Slice(x, m).scaled_half(0), total.of[m]);
        total.of[m] = fma(scales.least(2 * g + 1), Slice(x, m).scaled_half(1), total.of[m]);
      }
    }
  }

  OUTRIDER_HOT static I32 begin(const Slice& slice) {
    if constexpr (T::kMins) return set1_i32(0);
    else if constexpr (T::kZero == 128) return begin_centred(slice.zero<128>());
    else return set1_i32(slice.template zero<T::kZero>());
  }
  OUTRIDER_HOT static I32 begin_half(const Slice& slice, int half) {
    if constexpr (T::kMins) return set1_i32(0);
    else return set1_i32(slice.template zero_of_half<T::kZero>(half));
  }
};

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

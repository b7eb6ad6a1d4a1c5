// What formats of integer codes have in common: codes of up to 8 bits, a float32 scale for 32 or 16 inputs of
// an output, and a code that means 0, or a minimum.
//
// Such a format says
//   kGroups      groups of 32 inputs of a block
//   kScales      scales of a group: one, or one for each half
//   kMins        whether there is a minimum beside each scale: w = scale * code + least
//   kZero        the code that means 0 where there is no minimum: w = scale * (code - kZero); 128 stands for `kCentre`
//   kCodesAt     where a block's codes begin; each group has kGroupBytes of them
//   Scales       reads the scales and mins of a block: `scale(i)`, `least(i)`
//   Codes        reads the codes of a group for the outputs in register p of `kParts`: `line(j)` is inputs
//                4 j .. 4 j + 3 of each, a byte each; `pair(t, h)`, where there is one, is inputs 8 t .. 8 t + 7 of
//                outputs 2 h and 2 h + 1
// and `Integer` adds `dot` and `decode`, which are the same for all.
#pragma once

#include <algorithm>

namespace outrider::OUTRIDER_ISA {
namespace {

// The slice of row m.
struct Slice {
  const uint32_t* units;

  Slice(const uint32_t* x, int m) : units(x + m * kInt8Units) {}
  OUTRIDER_HOT Codes16 codes(int half) const { return load_codes(units + kCodes + 4 * half); }
  F32Part scale() const { return unit(kScale); }
  F32Part scaled_sum() const { return unit(kScaledSum); }
  F32Part scaled_half(int half) const { return unit(kScaledHalves + half); }

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

 private:
  OUTRIDER_HOT F32Part unit(int at) const {
    F32 of = unit_as_float(units + at);
    return part(of, 0);
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

// Register p of a line.
template <class V>
OUTRIDER_HOT V load_part(const uint8_t* line, int p) { return load_as<V>(line + p * (kLine / kParts)); }

// Lines of codes: see `code_word`.
template <class V, int kCount>
struct CodeLines {
  const uint8_t* codes;
  OUTRIDER_HOT CodeLines(const uint8_t* lines, int p) : codes(lines + p * (kCount * kLine / kParts)) {}
  OUTRIDER_HOT V line(int j) const {
    if constexpr (kWholeLines) {
      return load_as<V>(codes + j * kLine);
    } else if constexpr (kParts > 1) {
      return load_every_other<V>(codes + j / 2 * 2 * sizeof(V), j % 2);
    } else {
      Line line;
      for (int lane = 0; lane < kLanes; ++lane)
        __builtin_memcpy(&line.of[lane], codes + sizeof(Lane) * code_word(kCount, j, lane), sizeof(Lane));
      return load_as<V>(line.of);
    }
  }
  OUTRIDER_HOT V pair(int t, int h) const { return load_as<V>(codes + (2 * t + h) * sizeof(V)); }
};

// The codes of one group are eight lines of bytes.
template <class V>
using ByteCodes = CodeLines<V, 8>;

// Shifts go over 32 bits; what comes in from the next byte is masked away.
template <class V>
OUTRIDER_HOT V every_byte(int mask) { return repeat<V>(mask * 0x01010101); }

// Four lines: inputs 4 j .. 4 j + 3 in the low nibbles and 16 + 4 j .. in the high ones.
template <class V>
struct NibbleCodes {
  CodeLines<V, 4> both;
  OUTRIDER_HOT NibbleCodes(const uint8_t* codes, int p) : both(codes, p) {}
  OUTRIDER_HOT V line(int j) const { return nibbles(both.line(j % 4), j < 4); }
  OUTRIDER_HOT V pair(int t, int h) const { return nibbles(both.pair(t % 2, h), t < 2); }

 private:
  OUTRIDER_HOT static V nibbles(V both, bool low) { return low ? both & every_byte<V>(15) : high_nibbles(both); }
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

#ifdef __ARM_FEATURE_MATMUL_INT8
namespace pairs {
template <class T, int M>
Sums<M> dot(const Panel& panel, const uint32_t* x);
}
#endif

// What all of them do.
template <class T>
struct Integer : T {
  static constexpr Layout kLayout = T::kLayout;
  static_assert(kLayout.form == Form::kInt8);

  template <int M>
  static Sums<M> dot(const Panel& panel, const uint32_t* x) {
#ifdef __ARM_FEATURE_MATMUL_INT8
    if constexpr (M > 1) return pairs::dot<T, M>(panel, x);
#endif
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
        keep_in_memory(total);
        add_group<M>(total, scales, g, codes, x);
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
    constexpr int kWidth = kLanes / kParts;  // outputs of a register
    for (int g = 0; g < T::kGroups; ++g) {
      const typename T::template Codes<I32Part> codes(block + T::kCodesAt + g * T::kGroupBytes, lane / kWidth);
      for (int j = 0; j < 8; ++j, y += 4) {
        alignas(64) float scale[kLanes], least[kLanes];
        const I32Part line = codes.line(j);
        uint8_t bytes[sizeof line];
        __builtin_memcpy(bytes, &line, sizeof line);
        const int s = g * T::kScales + j * T::kScales / 8;
        if constexpr (T::kRowScales) {
          store(scale, load_floats(panel.heads));
        } else {
          store(scale, scales.scale(s));
        }
        if constexpr (T::kMins) store(least, scales.least(s));
        for (int i = 0; i < 4; ++i) {
          const uint8_t code = bytes[4 * (lane % kWidth) + i];
          if constexpr (T::kMins) {
            y[i] = scale[lane] * static_cast<float>(code) + least[lane];
          } else if constexpr (T::kZero == 128) {
            y[i] = scale[lane] * static_cast<float>(static_cast<int8_t>(code ^ kCentre));
          } else {
            y[i] = scale[lane] * static_cast<float>(code - T::kZero);
          }
        }
      }
    }
  }

 private:
  // The outputs of one register after the other: then few sums are under way, and many rows fit.
  template <int M>
  OUTRIDER_HOT static void add_group(Sums<M>& total, const typename T::Scales& scales, int g, const uint8_t* codes,
                                     const uint32_t* x) {
    Codes16 halves[2][M];
    OUTRIDER_UNROLL(16)
    for (int m = 0; m < M; ++m) {
      halves[0][m] = Slice(x, m).codes(0);
      halves[1][m] = Slice(x, m).codes(1);
    }
    OUTRIDER_UNROLL(4)
    for (int p = 0; p < kParts; ++p) {
      const typename T::template Codes<I32Part> some(codes, p);
      add_part<M>(total, scales, g, some, halves, x, p);
    }
  }

  template <int M>
  OUTRIDER_HOT static void add_part(Sums<M>& total, const typename T::Scales& scales, int g,
                                    const typename T::template Codes<I32Part>& codes, const Codes16 (*halves)[M],
                                    const uint32_t* x, int p) {
    I32Part sum[M];
    if constexpr (T::kScales == 1) {
      OUTRIDER_UNROLL(16)
      for (int m = 0; m < M; ++m) sum[m] = begin(Slice(x, m));
      // Lines that may share loads follow each other.
      add_lines<M, 8>(sum, codes, halves, [](int i) { return HalfLine{i % 2, i / 2}; });
      OUTRIDER_UNROLL(16)
      for (int m = 0; m < M; ++m) {
        F32Part scale = Slice(x, m).scale(), &to = part(total.of[m], p);
        if constexpr (!T::kRowScales) scale = mul(part_of(scales.scale(g), p), scale);
        to = fma(to_float(sum[m]), scale, to);
      }
    } else {
      F32Part both[M];
      OUTRIDER_UNROLL(2)
      for (int half = 0; half < 2; ++half) {
        OUTRIDER_UNROLL(16)
        for (int m = 0; m < M; ++m) sum[m] = begin_half(Slice(x, m), half);
        add_lines<M, 4>(sum, codes, halves, [half](int i) { return HalfLine{half, i}; });
        const F32Part scale = part_of(scales.scale(2 * g + half), p);
        OUTRIDER_UNROLL(16)
        for (int m = 0; m < M; ++m)
          both[m] = half == 0 ? mul(to_float(sum[m]), scale) : fma(to_float(sum[m]), scale, both[m]);
      }
      OUTRIDER_UNROLL(16)
      for (int m = 0; m < M; ++m) {
        F32Part& to = part(total.of[m], p);
        to = fma(both[m], Slice(x, m).scale(), to);
      }
    }
    if constexpr (T::kMins) add_mins<M>(total, scales, g, x, p);
  }

  // A line of a half group.
  struct HalfLine { int half, j; };

  // Adds the products of `kCount` lines to the integer sums of M rows. Instructions that add up products in 16 bits do so
  // over a run of `kRunLines` lines, as many as fit, before they go into sums of 32 bits.
  template <int M, int kCount, class F>
  OUTRIDER_HOT static void add_lines(I32Part* sum, const typename T::template Codes<I32Part>& codes,
                                     const Codes16 (*halves)[M], F line_of) {
    constexpr bool kCentred = T::kZero == 128;
    constexpr int kRun = std::min(kCount, kRunLines<kCentred ? 8 : T::kGroupBytes / kLine>);
    OUTRIDER_UNROLL(8)
    for (int first = 0; first < kCount; first += kRun) {
      Run run[M];
      OUTRIDER_UNROLL(16)
      for (int m = 0; m < M; ++m) run[m] = begin_run(sum[m]);
      OUTRIDER_UNROLL(8)
      for (int i = first; i < first + kRun; ++i) {
        const HalfLine at = line_of(i);
        I32Part line = codes.line(4 * at.half + at.j);
        begin_line(line);
        OUTRIDER_UNROLL(16)
        for (int m = 0; m < M; ++m) {
          const Codes16 x = halves[at.half][m];
          run[m] = kCentred ? dot4_centred(run[m], line, x, at.j) : dot4(run[m], line, x, at.j);
        }
      }
      OUTRIDER_UNROLL(16)
      for (int m = 0; m < M; ++m) sum[m] = end_run(sum[m], run[m]);
    }
  }

  template <int M>
  OUTRIDER_HOT static void add_mins(Sums<M>& total, const typename T::Scales& scales, int g, const uint32_t* x,
                                    int p) {
    OUTRIDER_UNROLL(16)
    for (int m = 0; m < M; ++m) {
      F32Part& to = part(total.of[m], p);
      if constexpr (T::kScales == 1) {
        to = fma(part_of(scales.least(g), p), Slice(x, m).scaled_sum(), to);
      } else {
        to = fma(part_of(scales.least(2 * g), p), Slice(x, m).scaled_half(0), to);
        to = fma(part_of(scales.least(2 * g + 1), p), Slice(x, m).scaled_half(1), to);
      }
    }
  }

  OUTRIDER_HOT static F32Part part_of(F32 x, int p) { return part(x, p); }

  OUTRIDER_HOT static I32Part begin(const Slice& slice) {
    if constexpr (T::kMins) return repeat<I32Part>(0);
    else if constexpr (T::kZero == 128) return begin_centred(slice.zero<128>());
    else return repeat<I32Part>(slice.template zero<T::kZero>());
  }
  OUTRIDER_HOT static I32Part begin_half(const Slice& slice, int half) {
    if constexpr (T::kMins) return repeat<I32Part>(0);
    else return repeat<I32Part>(slice.template zero_of_half<T::kZero>(half));
  }
};

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

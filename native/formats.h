// The formats of weights: how a row lies in a file, and how 16 of them lie in memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "activations.h"

namespace outrider {

inline constexpr int kLanes = 16;  // outputs of one panel: what one vector register holds
inline constexpr int kAlign = 64;  // bytes of a cache line

// What is added to a code of 8 bits that is signed, which is to flip a bit or none: products of bytes take the
// weight's as unsigned on x86, and as signed on ARM.
#ifdef __aarch64__
inline constexpr uint8_t kCentre = 0;
#else
inline constexpr uint8_t kCentre = 128;
#endif

// Codes of a group lie in lines of 64 bytes, four inputs of each output in a word: inputs 4 j .. 4 j + 3 are line j on
// x86. ARM's registers hold four outputs, so there the lines of four outputs follow each other; and two lines take
// turns word by word, so that a register holds eight inputs of two outputs, or with its neighbour in one load four
// inputs of four.
#ifdef __aarch64__
inline constexpr bool kWholeLines = false;
OUTRIDER_INLINE constexpr int code_word(int lines, int j, int lane) {
  return lane / 4 * 4 * lines + j / 2 * 8 + lane % 4 * 2 + j % 2;
}
#else
inline constexpr bool kWholeLines = true;
OUTRIDER_INLINE constexpr int code_word(int, int j, int lane) { return j * kLanes + lane; }
#endif

enum class Format : int {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ8_CHANNEL,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
  kU4_32,
  kU4_64,
  kU4_128,
  kF8_E4M3,
  kF8_BLOCK,
};
inline constexpr int kFormats = 22;

// A row in a file is `head` bytes, then `size` bytes for each block of `inputs` inputs. A panel in memory has the
// same bytes of 16 rows in another order, the heads and then block by block, so that a kernel reads one stream.
// Of formats that store each input by itself a block is 32 inputs here.
struct Layout {
  const char* name;
  Form form;
  int inputs;
  int size;
  int head = 0;

  OUTRIDER_INLINE constexpr int block() const { return inputs < kGroup ? kGroup : inputs; }
  OUTRIDER_INLINE constexpr int row_block_bytes() const { return size * (block() / inputs); }
  OUTRIDER_INLINE constexpr int block_bytes() const { return kLanes * row_block_bytes(); }  // of a panel

  OUTRIDER_INLINE constexpr int blocks(int width) const { return (width + block() - 1) / block(); }
  OUTRIDER_INLINE constexpr size_t row_bytes(int width) const {
    return static_cast<size_t>(head) + static_cast<size_t>((width + inputs - 1) / inputs) * size;
  }
  OUTRIDER_INLINE constexpr int head_bytes() const { return kLanes * head; }
  OUTRIDER_INLINE constexpr size_t panel_bytes(int width) const {
    return round_up(head_bytes() + static_cast<size_t>(blocks(width)) * block_bytes(), size_t{kAlign});
  }
};

// In the order of `Format`. Names are GGUF's, and ours for what GGUF does not have.
inline constexpr Layout kLayouts[kFormats] = {
    {"F32", Form::kFloat32, 1, 4},
    {"F16", Form::kFloat32, 1, 2},
    {"BF16", Form::kBfloat16, 1, 2},
    {"Q8_0", Form::kInt8, 32, 34},
    {"Q8_CHANNEL", Form::kInt8, 1, 1, 4},
    {"Q4_0", Form::kInt8, 32, 18},
    {"Q4_1", Form::kInt8, 32, 20},
    {"Q5_0", Form::kInt8, 32, 22},
    {"Q5_1", Form::kInt8, 32, 24},
    {"Q2_K", Form::kInt8, 256, 84},
    {"Q3_K", Form::kInt8, 256, 110},
    {"Q4_K", Form::kInt8, 256, 144},
    {"Q5_K", Form::kInt8, 256, 176},
    {"Q6_K", Form::kInt8, 256, 210},
    {"IQ4_NL", Form::kInt8, 32, 18},
    {"IQ4_XS", Form::kInt8, 256, 136},
    {"MXFP4", Form::kInt8, 32, 17},
    {"U4_32", Form::kInt8, 32, 19},
    {"U4_64", Form::kInt8, 64, 35},
    {"U4_128", Form::kInt8, 128, 67},
    {"F8_E4M3", Form::kFloat32, 1, 1, 4},
    {"F8_BLOCK", Form::kFloat32, 128, 132},
};

OUTRIDER_INLINE constexpr const Layout& layout_of(Format format) {
  return kLayouts[static_cast<int>(format)];
}

// Whether weights of other formats are turned into this one.
inline constexpr bool is_made(Format format) {
  return format == Format::kF32 || format == Format::kBF16 || format == Format::kQ8_CHANNEL || format == Format::kQ4_0;
}

// A packed weight.
struct MatrixView {
  Format format;
  int outputs;
  int inputs;
  const uint8_t* data;
  size_t panel_bytes;
  const float* bias;       // null, or padded to whole panels
  const int32_t* columns;  // null, or the input that each column is multiplied with

  OUTRIDER_INLINE int panels() const { return (outputs + kLanes - 1) / kLanes; }
  OUTRIDER_INLINE const Layout& layout() const { return layout_of(format); }
};

}  // namespace outrider

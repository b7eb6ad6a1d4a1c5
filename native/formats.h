// How weights and activations lie in memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace outrider {

inline constexpr int kLanes = 16;   // outputs of one panel: what one vector register holds
inline constexpr int kGroup = 32;   // inputs that share one scale in the integer formats
inline constexpr int kAlign = 64;   // bytes of a cache line

// Shared by files that are compiled for different machines: nothing here may be emitted out of line, or the
// linker would keep one machine's copy for all.
#define OUTRIDER_INLINE __attribute__((always_inline)) inline

template <typename T>
OUTRIDER_INLINE constexpr T round_up(T value, T to) {
  return (value + to - 1) / to * to;
}

// Formats of a weight. The integer ones take activations quantised to int8 a group at a time.
enum class Format : int {
  kFloat32,
  kBfloat16,
  kInt8,         // w = scale[group] * (code - 128)      GGUF Q8_0
  kInt8Channel,  // w = scale[output] * (code - 128)
  kInt4,         // w = scale[group] * (code - 8)        GGUF Q4_0
  kInt4Min,      // w = scale[group] * code + min[group] GGUF Q4_1, Q4_K
};
inline constexpr int kFormats = 6;

// What activations are turned into before a linear layer.
enum class Form : int { kFloat32, kBfloat16, kInt8 };
inline constexpr int kForms = 3;

OUTRIDER_INLINE constexpr Form form_of(Format format) {
  if (format == Format::kFloat32) return Form::kFloat32;
  if (format == Format::kBfloat16) return Form::kBfloat16;
  return Form::kInt8;
}

// Prepared activations are cut into records, one a row and group of 32 inputs. `record_units` is the size of
// one in units of 32 bits. After its codes, a record of int8 has four more: the scale; minus eight times the
// sum of the codes, which is what a zero point of 8 adds to a sum of products; scale times sum; and the same
// for a zero point of 128.
inline constexpr int kCodeUnits = kGroup / 4;

OUTRIDER_INLINE constexpr int record_units(Form form) {
  switch (form) {
    case Form::kFloat32: return kGroup;
    case Form::kBfloat16: return kGroup / 2;
    case Form::kInt8: return kCodeUnits + 4;
  }
  return 0;
}

OUTRIDER_INLINE constexpr int units_of(Form form, int inputs) { return inputs / kGroup * record_units(form); }

// The rows of one pass, cut into blocks of nearly equal size. The records of a block go group by group, row
// by row, so that a kernel walks one pointer for all rows.
struct RowBlocks {
  int rows;
  int count;

  OUTRIDER_INLINE RowBlocks(int rows, int most) : rows(rows), count((rows + most - 1) / most) {}
  OUTRIDER_INLINE int first(int block) const {
    return block * (rows / count) + (block < rows % count ? block : rows % count); }
  OUTRIDER_INLINE int of(int row) const {
    const int larger = (rows / count + 1) * (rows % count);  // rows in the larger blocks, which come first
    return row < larger ? row / (rows / count + 1) : rows % count + (row - larger) / (rows / count);
  }
  OUTRIDER_INLINE int size(int block) const { return rows / count + (block < rows % count ? 1 : 0); }
};

// A packed weight: `panels` panels of 16 outputs each, `panel_bytes` apart, each of which holds
// [scales][mins][codes]; scales and mins are float16, 16 a group.
struct MatrixView {
  Format format;
  int outputs;
  int inputs;         // padded to whole groups
  const uint8_t* data;
  size_t panel_bytes;
  size_t codes_offset;
  const float* bias;  // null, or padded like the outputs

  OUTRIDER_INLINE int panels() const { return round_up(outputs, kLanes) / kLanes; }
  OUTRIDER_INLINE const uint8_t* panel(int index) const {
    return data + panel_bytes * static_cast<size_t>(index);
  }
};

}  // namespace outrider

// How the inputs of linear layers lie in memory, once they are prepared.
#pragma once

#include <cstdint>

#include "inline.h"

namespace outrider {

// What activations are turned into before a linear layer.
enum class Form : int { kFloat32, kBfloat16, kInt8 };
inline constexpr int kForms = 3;

inline constexpr int kGroup = 32;    // inputs that share one scale when they are quantised to int8
inline constexpr int kPadded = 256;  // whole blocks of every weight format: rows are padded with zeros to them

OUTRIDER_INLINE constexpr int padded(int width) { return round_up(width, kPadded); }

// A prepared row is cut into slices, one a group of 32 inputs. One of int8 begins with its codes and goes on
// with what their products need besides. A weight whose code `zero` means 0 adds -zero times the sum of the
// codes to a sum of products: these units hold that for the zeros that are common, for the whole group or
// for each half of it. The scaled sums are for weights that have a minimum.
enum Unit : int {  // of 32 bits
  kCodes = 0,
  kScale = 8,          // float
  kScaledSum = 9,      // float: scale * sum
  kScaledHalves = 10,  // two floats
  kZero8 = 12,         // -8 * sum
  kZero128 = 13,       // -128 * sum
  kZero32Halves = 14,  // -32 * sum, of each half
  kInt8Units = 16,
};

OUTRIDER_INLINE constexpr int slice_units(Form form) {
  switch (form) {
    case Form::kFloat32: return kGroup;
    case Form::kBfloat16: return kGroup / 2;
    case Form::kInt8: return kInt8Units;
  }
  return 0;
}

// Of a whole row.
OUTRIDER_INLINE constexpr int units_of(Form form, int width) {
  return padded(width) / kGroup * slice_units(form);
}

// The rows of one pass, cut into strips of nearly equal size. The slices of a strip go group by group, row
// by row, so that a kernel walks one pointer for all rows.
struct RowStrips {
  int rows;
  int count;

  OUTRIDER_INLINE RowStrips(int rows, int most) : rows(rows), count((rows + most - 1) / most) {}
  OUTRIDER_INLINE int first(int strip) const {
    return strip * (rows / count) + (strip < rows % count ? strip : rows % count);
  }
  OUTRIDER_INLINE int of(int row) const {
    const int larger = (rows / count + 1) * (rows % count);  // rows in the larger strips, which come first
    return row < larger ? row / (rows / count + 1) : rows % count + (row - larger) / (rows / count);
  }
  OUTRIDER_INLINE int size(int strip) const { return rows / count + (strip < rows % count ? 1 : 0); }
};

}  // namespace outrider

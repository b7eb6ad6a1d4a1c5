// A packed weight and its memory.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "formats.h"

namespace outrider {

struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <typename T>
using Aligned = std::unique_ptr<T[], Free>;

// Whole cache lines, for `count` elements at least.
template <typename T>
Aligned<T> aligned(size_t count) {
  const size_t bytes = round_up(count * sizeof(T), static_cast<size_t>(kAlign));
  void* memory = std::aligned_alloc(kAlign, bytes ? bytes : kAlign);
  if (memory == nullptr) throw std::bad_alloc();
  return Aligned<T>(static_cast<T*>(memory));
}

// Memory for weights: parts of large mappings with huge pages, where the system has them. Streaming through
// small pages costs a page walk every 64 lines. Under AddressSanitizer each is alone, and reading beyond it a
// fault.
std::shared_ptr<uint8_t[]> weight_memory(size_t bytes);

const char* name_of(Format format);
Format format_named(const std::string& name);  // throws std::invalid_argument

// What a weight [outputs, inputs] is made of before packing. Which of the arrays a format has:
// float32 floats; bfloat16 halves; the integer ones codes and scales, one a group of 32 inputs, or an output
// (int8_channel: float32 in `floats`); int4_min mins too. Scales and mins are float16.
struct Parts {
  int outputs;
  int inputs;
  const float* floats = nullptr;
  const uint16_t* halves = nullptr;
  const uint8_t* codes = nullptr;
  const uint16_t* scales = nullptr;
  const uint16_t* mins = nullptr;
  const float* bias = nullptr;
};

class Matrix {
 public:
  Matrix(Format format, const Parts& parts);

  const MatrixView& view() const { return view_; }
  int inputs() const { return inputs_; }
  size_t bytes() const { return view_.panel_bytes * static_cast<size_t>(view_.panels()); }

 private:
  int inputs_;
  std::shared_ptr<uint8_t[]> data_;
  Aligned<float> bias_;
  MatrixView view_;
};

}  // namespace outrider

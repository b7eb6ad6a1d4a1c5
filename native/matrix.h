// A packed weight and its memory.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "formats.h"
#include "threads.h"

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

Format format_named(const std::string& name);  // throws std::invalid_argument

// Where the row of an output begins, which has `Layout::row_bytes(inputs)` bytes as a file has them.
struct Row {
  const uint8_t* bytes;
  Format format;
};

// What a matrix is made of. format: its own; rows of others are turned into it, which has to be one that `is_made`. rows:
// one an output; they are read while it is packed, and no longer. bias: empty, or one an output. columns: empty, or
// the input that each column of a row is multiplied with, each once.
struct Parts {
  Format format;
  int inputs;
  std::vector<Row> rows;
  std::vector<float> bias;
  std::vector<int32_t> columns;
};

class Matrix {
 public:
  // Packs on all `threads`, a panel at a time.
  Matrix(Threads& threads, Parts parts);

  const MatrixView& view() const { return view_; }
  size_t bytes() const { return bytes_of(view_.format, view_.outputs, view_.inputs); }
  static size_t bytes_of(Format format, int outputs, int inputs);

 private:
  std::shared_ptr<uint8_t[]> data_;
  std::vector<float> bias_;  // padded to whole panels
  std::vector<int32_t> columns_;
  MatrixView view_;
};

}  // namespace outrider

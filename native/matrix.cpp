#include "matrix.h"

#include <algorithm>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "instruction_sets.h"
#include "nodes.h"
#include "refuse.h"

namespace outrider {
namespace {

constexpr size_t kHugePage = size_t{1} << 21;
constexpr size_t kMapping = size_t{1} << 26;

// The rows of a panel as a file of the matrix's format would have them, by one thread.
class Turned {
 public:
  // columns: of the rows, or empty; zeros: as many as the longest row has bytes.
  Turned(const Kernels& kernels, const Parts& parts, const std::vector<int32_t>& columns,
         const std::vector<uint8_t>& zeros)
      : kernels_(kernels), parts_(parts), columns_(columns), zeros_(zeros),
        row_bytes_(layout_of(parts.format).row_bytes(parts.inputs)) {}

  // 16 rows, of zeros where there are no more; until the next call.
  const uint8_t* const* panel(size_t first) {
    const size_t count = std::min<size_t>(kLanes, parts_.rows.size() - first);
    std::fill_n(rows_, kLanes, zeros_.data());
    for (size_t i = 0; i < count;) {
      const Row* const run = &parts_.rows[first + i];
      size_t length = 1;
      while (i + length < count && run[length].format == run->format) ++length;
      if (run->format == parts_.format && columns_.empty())
        for (size_t r = 0; r < length; ++r) rows_[i + r] = run[r].bytes;
      else
        turn(run, i, length);
      i += length;
    }
    return rows_;
  }

 private:
  void turn(const Row* run, size_t at, size_t length) {
    const auto width = static_cast<size_t>(parts_.inputs);
    const Layout& layout = layout_of(run->format);
    values_.resize(kLanes * width);
    bytes_.resize(kLanes * row_bytes_);
    const uint8_t* stored[kLanes];
    std::fill_n(stored, kLanes, zeros_.data());
    for (size_t r = 0; r < length; ++r) stored[r] = run[r].bytes;
    const size_t panel_bytes = layout.panel_bytes(parts_.inputs);
    if (panel_bytes > packed_bytes_) packed_ = aligned<uint8_t>(packed_bytes_ = panel_bytes);
    kernels_.pack(run->format, stored, parts_.inputs, packed_.get());
    const MatrixView view{.format = run->format,
                          .outputs = kLanes,
                          .inputs = parts_.inputs,
                          .data = packed_.get(),
                          .panel_bytes = panel_bytes,
                          .bias = nullptr,
                          .columns = columns_.empty() ? nullptr : columns_.data()};
    for (size_t r = 0; r < length; ++r) kernels_.weight_row(view, static_cast<int>(r), values_.data() + width * r);
    kernels_.encode(parts_.format, values_.data(), static_cast<int>(length), parts_.inputs, bytes_.data() + row_bytes_ * at);
    for (size_t r = 0; r < length; ++r) rows_[at + r] = bytes_.data() + row_bytes_ * (at + r);
  }

  const Kernels& kernels_;
  const Parts& parts_;
  const std::vector<int32_t>& columns_;
  const std::vector<uint8_t>& zeros_;
  const size_t row_bytes_;
  std::vector<uint8_t> bytes_;
  std::vector<float> values_;
  Aligned<uint8_t> packed_;
  size_t packed_bytes_ = 0;
  const uint8_t* rows_[kLanes];
};

}  // namespace

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
std::shared_ptr<uint8_t[]> weight_memory(size_t bytes) {
  static std::mutex mutex;
  static std::weak_ptr<uint8_t[]> newest;  // whoever holds a part of a mapping holds it
  static size_t used = 0, size = 0;
  const std::lock_guard lock(mutex);
  const size_t wanted = round_up(bytes, size_t{kAlign});
  std::shared_ptr<uint8_t[]> mapping = newest.lock();
  if (mapping == nullptr || used + wanted > size) {
    used = 0;
    size = round_up(std::max(wanted, kMapping), kHugePage);
    mapping.reset(static_cast<uint8_t*>(std::aligned_alloc(kHugePage, size)), Free());
    if (mapping == nullptr) throw std::bad_alloc();
    madvise(mapping.get(), size, MADV_HUGEPAGE);  // advice: without it things are only slower
    spread(mapping.get(), size);
    newest = mapping;
  }
  uint8_t* part = mapping.get() + used;
  used += wanted;
  return {mapping, part};
}
#elif defined(__linux__)
// AddressSanitizer sees neither masked loads nor those of AMX tiles: here the weight ends where a page begins
// that nothing can read.
std::shared_ptr<uint8_t[]> weight_memory(size_t bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), size = round_up(bytes, page);
  void* mapping = mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  auto* const first = static_cast<uint8_t*>(mapping);
  mprotect(first + size, page, PROT_NONE);
  return {first + (size - bytes), [first, size, page](uint8_t*) { munmap(first, size + page); }};
}
#else
std::shared_ptr<uint8_t[]> weight_memory(size_t bytes) { return aligned<uint8_t>(bytes); }
#endif

Format format_named(const std::string& name) {
  std::string known;
  for (int i = 0; i < kFormats; ++i) {
    if (name == kLayouts[i].name) return static_cast<Format>(i);
    known += std::string(i ? ", " : "") + kLayouts[i].name;
  }
  refuse("format = '" + name + "' is not known; known are " + known);
}

size_t Matrix::bytes_of(Format format, int outputs, int inputs) {
  const size_t panels = (static_cast<size_t>(outputs) + kLanes - 1) / kLanes;
  return panels * layout_of(format).panel_bytes(inputs);
}

Matrix::Matrix(Threads& threads, Parts parts) : bias_(std::move(parts.bias)) {
  bool turns = false;
  size_t longest = layout_of(parts.format).row_bytes(parts.inputs);
  for (const Row& row : parts.rows) {
    turns = turns || row.format != parts.format;
    longest = std::max(longest, layout_of(row.format).row_bytes(parts.inputs));
  }
  // Rows that are turned into another format get their inputs in order by that.
  const std::vector<int32_t> stored_columns = turns ? std::move(parts.columns) : std::vector<int32_t>();
  if (!turns) columns_ = std::move(parts.columns);
  const Layout& layout = layout_of(parts.format);
  view_ = {.format = parts.format,
           .outputs = static_cast<int>(parts.rows.size()),
           .inputs = parts.inputs,
           .data = nullptr,
           .panel_bytes = layout.panel_bytes(parts.inputs),
           .bias = nullptr,
           .columns = columns_.empty() ? nullptr : columns_.data()};
  const size_t padded_outputs = static_cast<size_t>(view_.panels()) * kLanes;
  if (!bias_.empty()) {
    bias_.resize(padded_outputs);
    view_.bias = bias_.data();
  }
  data_ = weight_memory(bytes());
  view_.data = data_.get();
  const Kernels& kernels = kernels_named(supported().front());  // all pack the same bytes
  const std::vector<uint8_t> zeros(longest);
  std::vector<Turned> turned;
  for (int thread = 0; thread < threads.count(); ++thread) turned.emplace_back(kernels, parts, stored_columns, zeros);
  threads.run({view_.panels()}, [&](int, int first, int last, int thread) {
    for (int p = first; p < last; ++p) {
      const auto panel = static_cast<size_t>(p);
      const uint8_t* const* rows = turned[static_cast<size_t>(thread)].panel(panel * kLanes);
      kernels.pack(view_.format, rows, view_.inputs, data_.get() + panel * view_.panel_bytes);
    }
  });
}

}  // namespace outrider

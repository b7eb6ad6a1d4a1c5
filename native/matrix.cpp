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

Matrix::Matrix(Threads& threads, Parts parts) : bias_(std::move(parts.bias)), columns_(std::move(parts.columns)) {
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
  const std::vector<uint8_t> zeros(layout.row_bytes(parts.inputs));  // outputs that there are not
  parts.rows.resize(padded_outputs, zeros.data());
  const auto pack = kernels_named(supported().front()).pack;  // all pack the same bytes
  threads.run({view_.panels()}, [&](int, int first, int last, int) {
    for (int p = first; p < last; ++p) {
      const auto panel = static_cast<size_t>(p);
      pack(view_.format, parts.rows.data() + panel * kLanes, view_.inputs, data_.get() + panel * view_.panel_bytes);
    }
  });
}

}  // namespace outrider

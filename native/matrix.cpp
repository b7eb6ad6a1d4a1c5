#include "matrix.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <new>
#include <stdexcept>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace outrider {
namespace {

constexpr std::array<const char*, kFormats> kNames{"float32", "bfloat16",  "int8",
                                                   "int8_channel", "int4", "int4_min"};

size_t code_bytes(Format format, size_t weights) {
  switch (format) {
    case Format::kFloat32: return weights * 4;
    case Format::kBfloat16: return weights * 2;
    case Format::kInt8:
    case Format::kInt8Channel: return weights;
    case Format::kInt4:
    case Format::kInt4Min: return weights / 2;
  }
  return 0;
}

size_t scale_bytes(Format format, size_t groups) {
  switch (format) {
    case Format::kFloat32:
    case Format::kBfloat16: return 0;
    case Format::kInt8:
    case Format::kInt4: return groups * kLanes * sizeof(uint16_t);
    case Format::kInt4Min: return groups * kLanes * 2 * sizeof(uint16_t);
    case Format::kInt8Channel: return kLanes * sizeof(float);
  }
  return 0;
}

// Four bytes of the code that means zero, for outputs and inputs that the weight does not have. int4_min has
// no such code: its scales and mins are zero for such outputs, and activations for such inputs.
uint32_t zeros_of(Format format) {
  switch (format) {
    case Format::kInt8:
    case Format::kInt8Channel: return 0x80808080;
    case Format::kInt4: return 0x08080808;
    default: return 0;
  }
}

// Packs the 16 outputs of one panel, four bytes at a time: a line of 64 bytes holds four of each output,
// which are one float32, two bfloat16, four int8, or four int4 in low nibbles and four more in the high ones.
class Packer {
 public:
  Packer(Format format, const Parts& parts, const MatrixView& view, uint8_t* panel, int first)
      : format_(format), parts_(parts), view_(view), panel_(panel), first_(first), zeros_(zeros_of(format)) {}

  void pack() {
    if (format_ == Format::kInt8Channel) {
      auto* scales = reinterpret_cast<float*>(panel_);
      for (int lane = 0; lane < kLanes; ++lane) scales[lane] = real(lane) ? parts_.floats[first_ + lane] : 0;
    } else if (parts_.scales != nullptr) {
      pack_groups(parts_.scales, 0);
      if (format_ == Format::kInt4Min) pack_groups(parts_.mins, view_.inputs / kGroup * kLanes);
    }
    switch (format_) {
      case Format::kFloat32: pack_codes(parts_.floats); break;
      case Format::kBfloat16: pack_codes(parts_.halves); break;
      case Format::kInt8:
      case Format::kInt8Channel: pack_codes(parts_.codes); break;
      case Format::kInt4:
      case Format::kInt4Min: pack_nibbles(); break;
    }
  }

 private:
  bool real(int lane) const { return first_ + lane < parts_.outputs; }

  void pack_groups(const uint16_t* from, int offset) {
    auto* to = reinterpret_cast<uint16_t*>(panel_) + offset;
    const int groups = view_.inputs / kGroup;
    for (int g = 0; g < groups; ++g)
      for (int lane = 0; lane < kLanes; ++lane)
        to[g * kLanes + lane] = real(lane) ? from[static_cast<size_t>(first_ + lane) * groups + g] : 0;
  }

  // Bytes at.. of an output's codes.
  uint32_t four_bytes(const uint8_t* codes, size_t size, int lane, size_t at) const {
    uint32_t four = zeros_;
    if (!real(lane) || at >= size) return four;
    const uint8_t* from = codes + size * static_cast<size_t>(first_ + lane) + at;
    if (at + sizeof four <= size) {
      std::memcpy(&four, from, sizeof four);
    } else {
      std::memcpy(&four, from, size - at);
    }
    return four;
  }

  template <typename Code>
  void pack_codes(const Code* codes) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(codes);
    auto* to = reinterpret_cast<uint32_t*>(panel_ + view_.codes_offset);
    const size_t size = sizeof(Code) * static_cast<size_t>(parts_.inputs);
    for (size_t at = 0; at < sizeof(Code) * static_cast<size_t>(view_.inputs); at += sizeof *to)
      for (int lane = 0; lane < kLanes; ++lane) *to++ = four_bytes(bytes, size, lane, at);
  }

  void pack_nibbles() {
    auto* to = reinterpret_cast<uint32_t*>(panel_ + view_.codes_offset);
    const auto size = static_cast<size_t>(parts_.inputs);
    for (size_t group = 0; group < static_cast<size_t>(view_.inputs); group += kGroup)
      for (size_t at = group; at < group + kGroup / 2; at += sizeof *to)
        for (int lane = 0; lane < kLanes; ++lane) {
          const uint32_t low = four_bytes(parts_.codes, size, lane, at);
          const uint32_t high = four_bytes(parts_.codes, size, lane, at + kGroup / 2);
          *to++ = (low & 0x0f0f0f0f) | (high & 0x0f0f0f0f) << 4;
        }
  }

  Format format_;
  const Parts& parts_;
  const MatrixView& view_;
  uint8_t* panel_;
  int first_;
  uint32_t zeros_;
};

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

const char* name_of(Format format) { return kNames[static_cast<size_t>(format)]; }

Format format_named(const std::string& name) {
  for (int i = 0; i < kFormats; ++i)
    if (name == kNames[static_cast<size_t>(i)]) return static_cast<Format>(i);
  std::string known;
  for (const char* n : kNames) known += std::string(known.empty() ? "" : ", ") + n;
  throw std::invalid_argument("format = '" + name + "' is not known; known are " + known);
}

Matrix::Matrix(Format format, const Parts& parts) : inputs_(parts.inputs) {
  view_.format = format;
  view_.outputs = parts.outputs;
  view_.inputs = round_up(parts.inputs, kGroup);
  const auto inputs = static_cast<size_t>(view_.inputs);
  view_.codes_offset = round_up(scale_bytes(format, inputs / kGroup), static_cast<size_t>(kAlign));
  view_.panel_bytes = view_.codes_offset + code_bytes(format, inputs * kLanes);
  data_ = weight_memory(bytes());
  view_.data = data_.get();
  for (int p = 0; p < view_.panels(); ++p)
    Packer(format, parts, view_, data_.get() + view_.panel_bytes * static_cast<size_t>(p), p * kLanes).pack();
  view_.bias = nullptr;
  if (parts.bias != nullptr) {
    const auto padded = static_cast<size_t>(view_.panels() * kLanes);
    bias_ = aligned<float>(padded);
    std::memset(bias_.get(), 0, padded * sizeof(float));
    std::memcpy(bias_.get(), parts.bias, sizeof(float) * static_cast<size_t>(parts.outputs));
    view_.bias = bias_.get();
  }
}

}  // namespace outrider

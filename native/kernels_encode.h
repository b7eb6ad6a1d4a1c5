// Turning floats into the bytes of a format, as a file has them: the nearest ones.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace outrider::OUTRIDER_ISA {
namespace {

constexpr float kRounding = 12582912.0f;  // 3 * 2^22: what is added to it is rounded to even, and taken off again

inline float rounded(float x, float least, float most) {
  return std::min(std::max((x + kRounding) - kRounding, least), most);
}

// A scale to divide by: where all weights are zero any codes will do.
inline float divisor(float scale) { return scale == 0 ? 1 : scale; }

inline uint16_t half_of(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  constexpr uint32_t kInfinity = 0x7f800000, kTooLarge = 0x47800000, kLeastNormal = 0x38800000, kOneHalf = 0x3f000000;
  if (size >= kTooLarge) return static_cast<uint16_t>(sign | (size > kInfinity ? 0x7e00 : 0x7c00));
  if (size < kLeastNormal) {  // one half has the same last place as the least half
    const float sum = std::bit_cast<float>(size) + std::bit_cast<float>(kOneHalf);
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - kOneHalf));
  }
  return static_cast<uint16_t>(sign | (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13);
}

inline float of_half(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, size = bits & 0x7fff;
  if (size >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | size << 13);
  const float magnitude = std::bit_cast<float>(size << 13) * std::bit_cast<float>(0x77800000);  // 2^112
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

void encode_channel(const float* x, int inputs, uint8_t* row) {
  float largest = 0;
  for (int k = 0; k < inputs; ++k) largest = std::max(largest, std::abs(x[k]));
  const float scale = largest / 127, by = divisor(scale);
  std::memcpy(row, &scale, sizeof scale);
  for (int k = 0; k < inputs; ++k)
    row[sizeof scale + static_cast<size_t>(k)] = static_cast<uint8_t>(static_cast<int8_t>(rounded(x[k] / by, -127, 127)));
}

// Shares of a group's range for which codes are tried, as in outrider/formats/encode.py.
constexpr float kShares[] = {0.8f, 0.85f, 0.9f, 0.95f, 1.0f, 1.05f};

// A group of 32 inputs of 16 rows: x[input][row]. Codes q of values x lose least with the scale qx / qq.
void encode_group(const float (&x)[kGroup][kLanes], uint16_t (&scales)[kLanes], uint8_t (&codes)[kGroup][kLanes]) {
  float largest[kLanes], gain[kLanes] = {}, scale[kLanes] = {};
  for (int r = 0; r < kLanes; ++r) {
    float least = x[0][r], most = x[0][r];
    for (int k = 1; k < kGroup; ++k) least = std::min(least, x[k][r]), most = std::max(most, x[k][r]);
    largest[r] = -least > most ? least : most;
  }
  for (const float share : kShares) {
    float by[kLanes], qq[kLanes] = {}, qx[kLanes] = {};
    for (int r = 0; r < kLanes; ++r) by[r] = divisor(largest[r] * (share / -8));
    for (int k = 0; k < kGroup; ++k)
      for (int r = 0; r < kLanes; ++r) {
        const float q = rounded(x[k][r] / by[r], -8, 7);
        qq[r] += q * q;
        qx[r] += q * x[k][r];
      }
    for (int r = 0; r < kLanes; ++r) {
      const float all = divisor(qq[r]), tried = qx[r] * qx[r] / all;
      const bool better = tried > gain[r];
      gain[r] = better ? tried : gain[r];
      scale[r] = better ? qx[r] / all : scale[r];
    }
  }
  for (int r = 0; r < kLanes; ++r) {
    scales[r] = half_of(scale[r]);
    scale[r] = divisor(of_half(scales[r]));
  }
  for (int k = 0; k < kGroup; ++k)
    for (int r = 0; r < kLanes; ++r) codes[k][r] = static_cast<uint8_t>(static_cast<int>(rounded(x[k][r] / scale[r], -8, 7)) + 8);
}

void encode_nibbles(const float* x, int rows, int inputs, uint8_t* out) {
  constexpr int kHalf = kGroup / 2;
  const Layout& layout = layout_of(Format::kQ4_0);
  for (int first = 0, g = 0; first < inputs; first += kGroup, ++g) {
    float values[kGroup][kLanes] = {};
    for (int r = 0; r < rows; ++r)
      for (int k = 0; k < std::min(kGroup, inputs - first); ++k)
        values[k][r] = x[static_cast<size_t>(r) * static_cast<size_t>(inputs) + static_cast<size_t>(first + k)];
    uint16_t scales[kLanes];
    uint8_t codes[kGroup][kLanes];
    encode_group(values, scales, codes);
    for (int r = 0; r < rows; ++r) {
      uint8_t* block = out + layout.row_bytes(inputs) * static_cast<size_t>(r) + static_cast<size_t>(g * layout.size);
      std::memcpy(block, &scales[r], sizeof scales[r]);
      for (int k = 0; k < kHalf; ++k)
        block[sizeof scales[r] + static_cast<size_t>(k)] = static_cast<uint8_t>(codes[k][r] | codes[k + kHalf][r] << 4);
    }
  }
}

void encode(Format to, const float* x, int rows, int inputs, uint8_t* out) {
  if (to == Format::kQ4_0) return encode_nibbles(x, rows, inputs, out);
  const size_t width = static_cast<size_t>(inputs), bytes = layout_of(to).row_bytes(inputs);
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    const float* values = x + width * r;
    uint8_t* row = out + bytes * r;
    if (to == Format::kQ8_CHANNEL) {
      encode_channel(values, inputs, row);
    } else if (to == Format::kBF16) {
      for (size_t k = 0; k < width; ++k) {
        const uint16_t bits = bfloat16_of(values[k]);
        std::memcpy(row + sizeof bits * k, &bits, sizeof bits);
      }
    } else {
      std::memcpy(row, values, bytes);  // F32
    }
  }
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

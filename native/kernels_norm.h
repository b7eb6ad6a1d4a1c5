// Norms and rotations of one row.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

// 1 / root mean square. Lanes are summed in one order; the row's last lanes alone.
inline float inverse_rms(const float* x, float eps, int width) {
  F32 squares = set1(0);
  int i = 0;
  for (; i + kLanes <= width; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
  if (i < width) {
    const F32 rest = load_n(x + i, width - i);
    squares = fma(rest, rest, squares);
  }
  return 1.0f / __builtin_sqrtf(reduce_add(squares) / static_cast<float>(width) + eps);
}

void rms_norm(const float* x, const float* norm, float eps, int width, const float* residual, float* y) {
  const F32 factor = set1(inverse_rms(x, eps, width));
  int i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    const F32 normed = mul(mul(load(x + i), factor), load(norm + i));
    store(y + i, residual == nullptr ? normed : add(load(residual + i), normed));
  }
  if (i < width) {
    const int rest = width - i;
    const F32 normed = mul(mul(load_n(x + i, rest), factor), load_n(norm + i, rest));
    store_n(y + i, residual == nullptr ? normed : add(load_n(residual + i, rest), normed), rest);
  }
}

// Two dimensions that turn by one angle: `apart` from each other, or neighbours.
void rotate(float* x, const float* cos, const float* sin, int pairs, bool interleaved, int heads,
            int head_dim) {
  const int step = interleaved ? 2 : 1, apart = interleaved ? 1 : pairs;
  for (int h = 0; h < heads; ++h, x += head_dim) {
    for (int i = 0; i < pairs; ++i) {
      float *low = x + i * step, *high = low + apart;
      const float a = *low, b = *high;
      *low = a * cos[i] - b * sin[i];
      *high = b * cos[i] + a * sin[i];
    }
  }
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

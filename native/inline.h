// For headers that are compiled for different machines.
#pragma once

namespace outrider {

// Nothing that such files share may be emitted out of line, or the linker would keep one machine's copy for
// all.
#define OUTRIDER_INLINE __attribute__((always_inline)) inline

template <typename T>
OUTRIDER_INLINE constexpr T round_up(T value, T to) {
  return (value + to - 1) / to * to;
}

}  // namespace outrider

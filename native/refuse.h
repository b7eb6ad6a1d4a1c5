// How native code refuses what cannot be right: as a ValueError that names the thing and its value.
#pragma once

#include <cmath>
#include <stdexcept>
#include <string>

namespace outrider {

[[noreturn]] inline void refuse(const std::string& what) { throw std::invalid_argument(what); }

// "name = value", as errors have it.
template <typename T>
std::string named(const char* name, T value) {
  return std::string(name) + " = " + std::to_string(value);
}

inline void check_finite(const char* name, float value) {
  if (!std::isfinite(value)) refuse(named(name, value) + " has to be finite");
}

}  // namespace outrider

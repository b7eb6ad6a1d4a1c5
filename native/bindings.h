// What the bindings share: everything that comes from outside is checked, and errors name the argument.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <initializer_list>
#include <string>

#include "refuse.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace outrider {

void bind_draft(nb::module_& m);
void bind_matrix(nb::module_& m);
void bind_program(nb::module_& m);
void bind_sample(nb::module_& m);
void bind_suffix(nb::module_& m);

using Array = nb::ndarray<nb::device::cpu>;
using Input = nb::ndarray<nb::ro, nb::device::cpu>;

inline constexpr nb::dlpack::dtype kBf16{static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat), 16, 1};
inline constexpr nb::dlpack::dtype kF16{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};

inline std::string name_of(nb::dlpack::dtype t) {
  if (t == nb::dtype<float>()) return "float32";
  if (t == kF16) return "float16";
  if (t == kBf16) return "bfloat16";
  if (t == nb::dtype<int8_t>()) return "int8";
  if (t == nb::dtype<uint8_t>()) return "uint8";
  if (t == nb::dtype<int32_t>()) return "int32";
  if (t == nb::dtype<uint16_t>()) return "uint16";
  if (t == nb::dtype<int64_t>()) return "int64";
  return "another type (code " + std::to_string(t.code) + ", " + std::to_string(t.bits) + " bits)";
}

// The data of an array that has to be C-contiguous, aligned, of this type and shape; -1 is any size.
template <typename A>
auto* checked(const A& a, const std::string& name, nb::dlpack::dtype type,
              std::initializer_list<int64_t> shape) {
  if (a.dtype() != type)
    throw nb::type_error((name + " is " + name_of(a.dtype()) + "; it has to be " + name_of(type)).c_str());
  std::string found = "(", wanted = "(";
  for (size_t i = 0; i < a.ndim(); ++i) found += (i ? ", " : "") + std::to_string(a.shape(i));
  bool same = a.ndim() == shape.size();
  size_t i = 0;
  for (const int64_t n : shape) {
    wanted += (i ? ", " : "") + (n < 0 ? std::string("any") : std::to_string(n));
    same = same && (n < 0 || static_cast<int64_t>(a.shape(i)) == n);
    ++i;
  }
  if (!same) refuse(name + " has shape " + found + "); it has to be " + wanted + ")");
  int64_t stride = 1;
  for (size_t axis = a.ndim(); axis-- > 0 && a.size() > 0; stride *= static_cast<int64_t>(a.shape(axis)))
    if (a.shape(axis) > 1 && a.stride(axis) != stride) refuse(name + " has to be C-contiguous");
  const int bytes = type.bits / 8;
  if (reinterpret_cast<uintptr_t>(a.data()) % bytes)
    refuse(name + " is not aligned to its " + std::to_string(bytes) + "-byte elements");
  return a.data();
}

// The sizes of arrays. Kernels count the bytes of 16 outputs in an int: hence fewer inputs.
inline constexpr int kMostBits = 30, kMostInputBits = 24;

inline int size_of(size_t n, const std::string& name, const char* what, int bits = kMostBits) {
  if (n < 1 || n > size_t{1} << bits)
    refuse(name + " has " + std::to_string(n) + " " + what + "; 1 to 2^" + std::to_string(bits) +
           " are possible");
  return static_cast<int>(n);
}

inline nb::ndarray<nb::numpy, float> new_floats(size_t rows, size_t columns) {
  auto* data = new float[rows * columns];
  const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return nb::ndarray<nb::numpy, float>(data, {rows, columns}, owner);
}

}  // namespace outrider

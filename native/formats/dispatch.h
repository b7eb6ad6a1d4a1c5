// The one place that leads from a format's number to its code.
#pragma once

#include "../kernels_dot.h"
#include "lines.h"
// In this order: they build on each other.
#include "codes.h"
#ifdef __ARM_FEATURE_MATMUL_INT8
#include "pairs.h"
#endif
#include "floats.h"
#include "floats8.h"
#include "q8.h"
#include "q4_q5.h"
#include "codebooks.h"
#include "k_quants.h"
#include "k_halves.h"

namespace outrider::OUTRIDER_ISA {
namespace {

// Calls `f` with the traits of `format`.
template <class F>
void with_traits(Format format, F f) {
  switch (format) {
    case Format::kF32: return f(F32Weights());
    case Format::kF16: return f(F16Weights());
    case Format::kBF16: return f(BF16Weights());
    case Format::kQ8_0: return f(Integer<Q8_0>());
    case Format::kQ8_CHANNEL: return f(Integer<Q8_CHANNEL>());
    case Format::kQ4_0: return f(Integer<Q4_0>());
    case Format::kQ4_1: return f(Integer<Q4_1>());
    case Format::kQ5_0: return f(Integer<Q5_0>());
    case Format::kQ5_1: return f(Integer<Q5_1>());
    case Format::kQ2_K: return f(Integer<Q2_K>());
    case Format::kQ3_K: return f(Integer<Q3_K>());
    case Format::kQ4_K: return f(Integer<Q4_K>());
    case Format::kQ5_K: return f(Integer<Q5_K>());
    case Format::kQ6_K: return f(Integer<Q6_K>());
    case Format::kIQ4_NL: return f(Integer<IQ4_NL>());
    case Format::kIQ4_XS: return f(Integer<IQ4_XS>());
    case Format::kMXFP4: return f(Integer<MXFP4>());
    case Format::kU4_32: return f(Integer<U4<Format::kU4_32>>());
    case Format::kU4_64: return f(Integer<U4<Format::kU4_64>>());
    case Format::kU4_128: return f(Integer<U4<Format::kU4_128>>());
    case Format::kF8_E4M3: return f(F8_E4M3());
    case Format::kF8_BLOCK: return f(F8_BLOCK());
  }
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

// Every kernel, for the instruction set that OUTRIDER_ISA names.
#include "kernels.h"

#if defined(__AVX512VNNI__) && !defined(OUTRIDER_AVX_VNNI)
#include "simd_avx512.h"
#elif defined(__AVX2__)
#include "simd_avx2.h"
#elif defined(OUTRIDER_NEON)
#include "simd_neon.h"
#else
#include "simd_portable.h"
#endif

#include "kernels_functions.h"
#include "kernels_norm.h"
#include "kernels_cache.h"
#include "kernels_attention.h"
#include "kernels_linear.h"
#include "kernels_encode.h"
#include "kernels_rows.h"
#include "kernels_sample.h"
#include "kernels_states.h"

namespace outrider::OUTRIDER_ISA {

#define OUTRIDER_TEXT(x) #x
#define OUTRIDER_NAME(x) OUTRIDER_TEXT(x)

const Kernels& kernels() {
  static constexpr Kernels table{
      .name = OUTRIDER_NAME(OUTRIDER_ISA),
      .max_rows = {max_rows(Form::kFloat32), max_rows(Form::kBfloat16), max_rows(Form::kInt8)},
      .linear = linear,
      .prepare = prepare,
      .pack = pack,
      .encode = encode,
      .weight_row = weight_row,
      .rms_norm = rms_norm,
      .soft_cap = soft_cap,
      .multiply = multiply,
      .convolve = convolve,
      .delta = delta,
      .rotate = rotate,
      .spread = spread,
      .store = store_kv,
      .attend = attend,
      .merge = merge,
      .finish = finish,
      .maximum = maximum,
      .scale = scale,
      .mass = mass,
      .noise = noise,
  };
  return table;
}

}  // namespace outrider::OUTRIDER_ISA

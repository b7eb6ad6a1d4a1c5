// Functions of sixteen numbers at a time.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

// exp by 2^n * 2^r, a polynomial on |r| <= 1/2 (Cephes' expf): within 2 ulp. Below -87 the result is 0.
inline F32 exp(F32 x) {
  const F32 low = set1(-87.0f);
  const F32 bounded = max(min(x, set1(88.0f)), low);
  const F32 n = round(mul(bounded, set1(1.44269504088896341f)));
  F32 r = fma(n, set1(-0.693359375f), bounded);
  r = fma(n, set1(2.12194440e-4f), r);
  F32 p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(mul(r, r), p, r), set1(1.0f));
  return zero_below(x, low, mul(p, power_of_two(n)));
}

inline float exp_one(float x) {
  float lanes[kLanes];
  store(lanes, exp(set1(x)));
  return lanes[0];
}

inline F32 negative(F32 x) { return sub(set1(0), x); }

// Cephes' tanhf: a polynomial below 0.625, else by exp. Within 3 ulp.
inline F32 tanh(F32 x) {
  const F32 edge = set1(0.625f);
  const F32 near = max(min(x, edge), negative(edge)), z = mul(near, near);
  F32 p = set1(-5.70498872745e-3f);
  p = fma(p, z, set1(2.06390887954e-2f));
  p = fma(p, z, set1(-5.37397155531e-2f));
  p = fma(p, z, set1(1.33314422036e-1f));
  p = fma(p, z, set1(-3.33332819422e-1f));
  const F32 small = fma(mul(p, z), near, near);
  const F32 large = sub(set1(1), div(set1(2), add(exp(add(x, x)), set1(1))));
  const F32 is_large = zero_below(abs(x), edge, set1(1));  // 1 or 0; NaN stays
  return add(mul(is_large, large), mul(sub(set1(1), is_large), small));
}

inline F32 soft_cap(F32 x, float cap) { return mul(set1(cap), tanh(div(x, set1(cap)))); }

inline F32 sigmoid(F32 x) { return div(set1(1), add(set1(1), exp(negative(x)))); }

inline F32 silu(F32 x) { return div(x, add(set1(1), exp(negative(x)))); }

// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), by 1 + tanh(u) = 2 / (1 + exp(-2 u)).
inline F32 gelu_tanh(F32 x) {
  const F32 slope = fma(mul(x, x), set1(-0.0713548162726f), set1(-1.59576912161f));
  return div(x, add(set1(1), exp(mul(x, slope))));
}

// erfc of x >= 0: Chebyshev's fit of Numerical Recipes (Press et al., 6.2), relative error below 1.2e-7.
inline F32 erfc(F32 x) {
  const F32 t = div(set1(1), fma(x, set1(0.5f), set1(1)));
  F32 p = set1(0.17087277f);
  p = fma(p, t, set1(-0.82215223f));
  p = fma(p, t, set1(1.48851587f));
  p = fma(p, t, set1(-1.13520398f));
  p = fma(p, t, set1(0.27886807f));
  p = fma(p, t, set1(-0.18628806f));
  p = fma(p, t, set1(0.09678418f));
  p = fma(p, t, set1(0.37409196f));
  p = fma(p, t, set1(1.00002368f));
  p = fma(p, t, set1(-1.26551223f));
  return mul(t, exp(sub(p, mul(x, x))));
}

// x times the normal distribution's share below x, each half from its own tail.
inline F32 gelu(F32 x) {
  const F32 tail = mul(set1(0.5f), erfc(mul(abs(x), set1(0.707106781187f))));
  const F32 above = zero_below(x, set1(0), sub(set1(1), tail));
  return mul(x, add(above, zero_below(negative(x), set1(0), tail)));
}

inline F32 swiglu_clamped(F32 gate, F32 up) {
  const F32 limit = set1(7), g = min(limit, gate), u = max(negative(limit), min(limit, up));  // NaN stays
  return mul(div(g, add(set1(1), exp(mul(g, set1(-1.702f))))), add(u, set1(1)));
}

inline F32 gated(Activation activation, F32 gate, F32 up) {
  switch (activation) {
    case Activation::kNone: break;
    case Activation::kSilu: return mul(silu(gate), up);
    case Activation::kGeluTanh: return mul(gelu_tanh(gate), up);
    case Activation::kGelu: return mul(gelu(gate), up);
    case Activation::kSwiGluClamped: return swiglu_clamped(gate, up);
    case Activation::kSigmoid: return mul(sigmoid(gate), up);
  }
  return up;
}

inline F32 product(F32 x, F32 gate, Activation activation) {
  return activation == Activation::kNone ? mul(x, gate) : gated(activation, gate, x);
}

void multiply(const float* x, const float* gate, bool one, Activation activation, size_t count, float* y) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store(y + i, product(load(x + i), one ? set1(*gate) : load(gate + i), activation));
  const int rest = static_cast<int>(count - i);
  if (rest > 0)
    store_n(y + i, product(load_n(x + i, rest), one ? set1(*gate) : load_n(gate + i, rest), activation), rest);
}

void soft_cap(const float* x, float cap, size_t count, float* y) {
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(y + i, soft_cap(load(x + i), cap));
  const int rest = static_cast<int>(count - i);
  if (rest > 0) store_n(y + i, soft_cap(load_n(x + i, rest), cap), rest);
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

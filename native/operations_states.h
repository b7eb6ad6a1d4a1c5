// The operations of a plan that keep a state: a request's rows are walked in order, from the state that it has,
// and the state after a row goes to a slot where the span gives it one. A row of a tree goes on from the state after
// the row that it follows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "operations.h"

namespace outrider {

// The state before a span's first row; null where it is zero.
inline const float* state_before(const StateView& states, const Span& span) {
  return span.state < 0 ? nullptr : states.at(span.state);
}

class Convolve : public OneByOne {
 public:
  Convolve(const Graph::Convolve& c, Operand x, Operand y) : c_(c), x_(x), y_(y) {}
  int tasks(const Pass& pass) const override {
    return static_cast<int>(pass.batch().spans.size()) * pieces();
  }
  size_t scratch() const override { return kColumns; }
  void run_one(const Pass& pass, int task, float* zeros) const override {
    const auto number = static_cast<size_t>(task / pieces());
    const Span& span = pass.batch().spans[number];
    const int first = task % pieces() * kColumns, count = std::min(kColumns, x_.width - first);
    const int row0 = pass.batch().first_rows[number], before = c_.kernel - 1;
    std::fill(zeros, zeros + kColumns, 0.0f);
    const float* state = state_before(c_.states, span);
    // The inputs of a row of the span; below 0, of one before it.
    const auto seen = [&](int row) -> const float* {
      if (row >= 0) return pass.row(x_, row0 + row) + first;
      return state == nullptr ? zeros : state + static_cast<size_t>(before + row) * static_cast<size_t>(x_.width) + first;
    };
    const float* rows[kMostTaps];
    for (int row = 0; row < span.rows; ++row) {
      for (int tap = before, at = row; tap >= 0; --tap) {
        rows[tap] = seen(at);
        at = at < 0 ? at - 1 : span.follows(at);
      }
      pass.kernels().convolve(rows, c_.weight.data() + first, static_cast<size_t>(x_.width), c_.kernel,
                              c_.bias.empty() ? nullptr : c_.bias.data() + first, c_.silu, count,
                              pass.row(y_, row0 + row) + first);
      if (const int slot = span.slot_after(row); slot >= 0)
        for (int i = 0; i < before; ++i)
          std::memcpy(c_.states.at(slot) + static_cast<size_t>(i) * static_cast<size_t>(x_.width) + first,
                      rows[i + 1], sizeof(float) * static_cast<size_t>(count));
    }
  }

 private:
  static constexpr int kColumns = 256;  // of a task
  int pieces() const { return (x_.width + kColumns - 1) / kColumns; }

  const Graph::Convolve& c_;
  Operand x_, y_;
};

// One head of values of one request.
class Delta : public OneByOne {
 public:
  Delta(const Graph::Delta& d, Operand qkv, Operand forget, Operand write, Operand y)
      : d_(d), qkv_(qkv), forget_(forget), write_(write), y_(y) {}
  int tasks(const Pass& pass) const override {
    return static_cast<int>(pass.batch().spans.size()) * d_.value_heads;
  }
  size_t scratch() const override { return d_.state_floats() + 2 * static_cast<size_t>(d_.key_dim); }
  void run_one(const Pass& pass, int task, float* scratch) const override {
    const auto number = static_cast<size_t>(task / d_.value_heads);
    const int head = task % d_.value_heads, keys = d_.key_heads * d_.key_dim;
    const int of = d_.tiled ? head % d_.key_heads : head * d_.key_heads / d_.value_heads;
    const Span& span = pass.batch().spans[number];
    const int first = pass.batch().first_rows[number];
    const size_t size = d_.state_floats(), place = size * static_cast<size_t>(head);
    float *q = scratch + size, *k = q + d_.key_dim;
    const float* state = state_before(d_.states, span);
    if (state != nullptr) {
      state += place;
    } else {
      std::fill_n(scratch, size, 0.0f);
      state = scratch;
    }
    for (int i = 0; i < span.rows; ++i) {
      const int row = first + i, before = span.follows(i);
      if (before != i - 1) state = d_.states.at(span.slot_after(before)) + place;
      const float* x = pass.row(qkv_, row);
      unit(x + of * d_.key_dim, 1 / std::sqrt(static_cast<float>(d_.key_dim)), q);
      unit(x + keys + of * d_.key_dim, 1, k);
      const auto h = static_cast<size_t>(head);
      const float kept = std::exp(d_.rates[h] * softplus(pass.row(forget_, row)[head] + d_.bias[h]));
      const float written = 1 / (1 + std::exp(-pass.row(write_, row)[head]));
      const int slot = span.slot_after(i);
      float* after = slot < 0 ? scratch : d_.states.at(slot) + place;
      pass.kernels().delta(state, after, q, k, x + 2 * keys + head * d_.value_dim, kept, written, d_.key_dim,
                           d_.value_dim, pass.row(y_, row) + head * d_.value_dim);
      state = after;
    }
  }

 private:
  static float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }
  // x as a vector of length `length`; the sum of squares in order.
  void unit(const float* x, float length, float* y) const {
    float squares = 0;
    for (int i = 0; i < d_.key_dim; ++i) squares += x[i] * x[i];
    const float factor = length / std::sqrt(squares + 1e-6f);
    for (int i = 0; i < d_.key_dim; ++i) y[i] = x[i] * factor;
  }

  const Graph::Delta& d_;
  Operand qkv_, forget_, write_, y_;
};

class NormHeads : public OneByOne {
 public:
  NormHeads(const Graph::NormHeads& norm, Operand x, Operand y) : norm_(norm), x_(x), y_(y) {}
  int tasks(const Pass& pass) const override { return pass.rows(x_); }
  void run_one(const Pass& pass, int row, float*) const override {
    const int dim = x_.width / norm_.heads;
    for (int first = 0; first < x_.width; first += dim)
      pass.kernels().rms_norm(pass.row(x_, row) + first, norm_.weight.data() + first, norm_.eps, dim, nullptr,
                              pass.row(y_, row) + first);
  }

 private:
  const Graph::NormHeads& norm_;
  Operand x_, y_;
};

}  // namespace outrider

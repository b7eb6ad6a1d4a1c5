// The operations of a program. Each says how many tasks it has for a step and does some of them.
#pragma once

#include <algorithm>
#include <cstring>

#include "program.h"

namespace outrider {

inline constexpr int kRowsPerPiece = 16;  // of attention

class Embed : public OneByOne {
 public:
  Embed(const Program& p, std::shared_ptr<const Matrix> table, int y)
      : p_(p), table_(std::move(table)), y_(y) {}
  int tasks(const Step& step) const override { return step.rows; }
  void run_one(const Step& step, int row, float* scratch) const override {
    p_.kernels().weight_row(table_->view(), step.tokens[row], scratch);
    const size_t width = static_cast<size_t>(p_.width(y_));
    std::memcpy(p_.floats(y_, step) + width * row, scratch, width * sizeof(float));
  }

 private:
  const Program& p_;
  std::shared_ptr<const Matrix> table_;
  int y_;
};

class RmsNorm : public OneByOne {
 public:
  RmsNorm(const Program& p, int x, std::vector<float> weight, float eps, int y)
      : p_(p), x_(x), weight_(std::move(weight)), eps_(eps), y_(y) {}
  int tasks(const Step& step) const override { return p_.rows(x_, step); }
  void run_one(const Step& step, int row, float*) const override {
    const size_t at = weight_.size() * row;
    p_.kernels().rms_norm(p_.floats(x_, step) + at, weight_.data(), eps_, static_cast<int>(weight_.size()),
                          p_.floats(y_, step) + at);
  }

 private:
  const Program& p_;
  int x_;
  std::vector<float> weight_;
  float eps_;
  int y_;
};

// Neighbouring rows share cache lines of prepared activations: one thread writes several.
inline constexpr int kRowsTogether = 4;

// Norm, if there is one, and conversion to what a linear layer reads.
class Prepare : public OneByOne {
 public:
  Prepare(const Program& p, int x, std::vector<float> norm, float eps, Form form, int inputs, int buffer)
      : p_(p), x_(x), norm_(std::move(norm)), eps_(eps), form_(form), inputs_(inputs), buffer_(buffer) {}
  int tasks(const Step& step) const override {
    return (p_.rows(x_, step) + kRowsTogether - 1) / kRowsTogether;
  }
  void run_one(const Step& step, int task, float* scratch) const override {
    const int rows = p_.rows(x_, step), width = p_.width(x_);
    const RowBlocks blocks(rows, p_.kernels().max_rows[static_cast<int>(form_)]);
    for (int row = task * kRowsTogether; row < std::min(rows, (task + 1) * kRowsTogether); ++row) {
      const int b = blocks.of(row), first = blocks.first(b);
      uint32_t* block = p_.prepared(buffer_, step) + static_cast<size_t>(units_of(form_, inputs_)) * first;
      p_.kernels().prepare(form_, p_.floats(x_, step) + static_cast<size_t>(width) * row,
                           norm_.empty() ? nullptr : norm_.data(), eps_, width, inputs_, blocks.size(b),
                           row - first, block, scratch);
    }
  }

 private:
  const Program& p_;
  int x_;
  std::vector<float> norm_;
  float eps_;
  Form form_;
  int inputs_, buffer_;
};

// One weight of a linear layer, which reads `buffer`. Its outputs go to columns `column`.., with `gate` times
// silu(gate).
struct Part {
  int buffer;
  std::shared_ptr<const Matrix> weight, gate;
  int column;
};

// A linear layer of weights side by side. Residual: -1 for none.
class Linear : public Op {
 public:
  Linear(const Program& p, int x, std::vector<Part> parts, int residual, int y)
      : p_(p), x_(x), parts_(std::move(parts)), residual_(residual), y_(y) {
    for (const Part& part : parts_) panels_ += part.weight->view().panels();
  }
  int tasks(const Step& step) const override { return p_.rows(x_, step) ? panels_ : 0; }
  void run(const Step& step, int first, int last, float*) const override {
    for (const Part& part : parts_) {
      const int panels = part.weight->view().panels();
      if (first < panels && last > 0) run(step, part, {std::max(first, 0), std::min(last, panels)});
      first -= panels;
      last -= panels;
    }
  }

 private:
  void run(const Step& step, const Part& part, Panels panels) const {
    const size_t stride = static_cast<size_t>(p_.width(y_));
    const Output out{p_.floats(y_, step) + part.column, stride,
                     residual_ < 0 ? nullptr : p_.floats(residual_, step) + part.column, stride};
    const uint32_t* x = p_.prepared(part.buffer, step);
    if (part.gate) {
      p_.kernels().gated(part.gate->view(), part.weight->view(), panels, x, p_.rows(x_, step), out);
    } else {
      p_.kernels().linear(part.weight->view(), panels, x, p_.rows(x_, step), out);
    }
  }

  const Program& p_;
  int x_;
  std::vector<Part> parts_;
  int panels_ = 0;
  int residual_, y_;
};

class RotateAndStore : public OneByOne {
 public:
  RotateAndStore(const Program& p, int qkv, const CacheView& cache, int q)
      : p_(p), qkv_(qkv), cache_(cache), q_(q) {}
  int tasks(const Step& step) const override { return step.rows; }
  void run_one(const Step& step, int row, float* scratch) const override {
    const Shape& s = p_.shape();
    const size_t q_width = static_cast<size_t>(s.heads * s.head_dim);
    const size_t kv_width = static_cast<size_t>(s.kv_heads * s.head_dim);
    const float* x = p_.floats(qkv_, step) + static_cast<size_t>(p_.width(qkv_)) * row;
    const size_t half = static_cast<size_t>(s.head_dim / 2) * row;
    const float *cos = step.cos.data() + half, *sin = step.sin.data() + half;
    p_.kernels().rotate(x, cos, sin, s.heads, s.head_dim, p_.floats(q_, step) + q_width * row);
    p_.kernels().rotate(x + q_width, cos, sin, s.kv_heads, s.head_dim, scratch);
    p_.kernels().store(cache_, step.blocks[row], step.offsets[row], scratch, x + q_width + kv_width);
  }

 private:
  const Program& p_;
  int qkv_;
  CacheView cache_;
  int q_;
};

class Attend : public OneByOne {
 public:
  Attend(const Program& p, int q, const CacheView& cache, int y) : p_(p), q_(q), cache_(cache), y_(y) {}
  int tasks(const Step& step) const override {
    return static_cast<int>(step.pieces.size()) * p_.shape().kv_heads;
  }
  void run_one(const Step& step, int task, float* scratch) const override {
    const Shape& s = p_.shape();
    const int head = task % s.kv_heads, share = s.heads / s.kv_heads;
    const Piece& piece = step.pieces[static_cast<size_t>(task / s.kv_heads)];
    const size_t width = static_cast<size_t>(s.heads * s.head_dim);
    const size_t size = static_cast<size_t>(state_size(s.head_dim));
    const size_t column = static_cast<size_t>(head * share * s.head_dim);
    const size_t queries = static_cast<size_t>(piece.rows * share);
    const bool direct = piece.state < 0;
    const size_t scratch_size = attend_scratch_size(s.head_dim, static_cast<int>(queries));
    float* state = direct ? scratch + scratch_size - queries * size
                          : step.states + piece.state + queries * size * head;
    p_.kernels().attend({&cache_, step.spans[static_cast<size_t>(piece.span)].table.data(), head, share,
                         p_.floats(q_, step) + width * piece.row + column, width, piece.rows, piece.position,
                         s.window, piece.first_key, piece.last_key,
                         1.0f / __builtin_sqrtf(static_cast<float>(s.head_dim)), state, scratch});
    if (!direct) return;
    for (size_t i = 0; i < queries; ++i) {
      const size_t row = static_cast<size_t>(piece.row) + i / share;
      p_.kernels().finish(state + i * size, s.head_dim,
                          p_.floats(y_, step) + width * row + column + i % share * s.head_dim);
    }
  }

 private:
  const Program& p_;
  int q_;
  CacheView cache_;
  int y_;
};

// Merges what threads computed for the chunks of one request's keys, in order of position.
class Merge : public OneByOne {
 public:
  Merge(const Program& p, int y) : p_(p), y_(y) {}
  int tasks(const Step& step) const override {
    return static_cast<int>(step.splits.size()) * p_.shape().kv_heads;
  }
  void run_one(const Step& step, int task, float*) const override {
    const Shape& s = p_.shape();
    const int head = task % s.kv_heads, share = s.heads / s.kv_heads;
    const Split& split = step.splits[static_cast<size_t>(task / s.kv_heads)];
    const size_t width = static_cast<size_t>(s.heads * s.head_dim);
    const size_t size = static_cast<size_t>(state_size(s.head_dim));
    const size_t queries = static_cast<size_t>(split.rows * share), chunk = queries * size * s.kv_heads;
    float* states = step.states + split.state + queries * size * head;
    for (size_t i = 0; i < queries; ++i) {
      float* state = states + i * size;
      for (int c = 1; c < split.count; ++c) p_.kernels().merge(state, state + chunk * c, s.head_dim);
      const size_t row = static_cast<size_t>(split.row) + i / share;
      const size_t column = (static_cast<size_t>(head * share) + i % share) * s.head_dim;
      p_.kernels().finish(state, s.head_dim, p_.floats(y_, step) + width * row + column);
    }
  }

 private:
  const Program& p_;
  int y_;
};

class SelectLogitRows : public OneByOne {
 public:
  SelectLogitRows(const Program& p, int x, int y) : p_(p), x_(x), y_(y) {}
  int tasks(const Step& step) const override { return static_cast<int>(step.logit_rows.size()); }
  void run_one(const Step& step, int row, float*) const override {
    const size_t width = static_cast<size_t>(p_.width(x_));
    const float* from = p_.floats(x_, step) + width * step.logit_rows[row];
    std::memcpy(p_.floats(y_, step) + width * row, from, width * sizeof(float));
  }

 private:
  const Program& p_;
  int x_, y_;
};

// Copies x to columns `column`.. of what the caller keeps.
class Keep : public OneByOne {
 public:
  Keep(const Program& p, int x, int column) : p_(p), x_(x), column_(static_cast<size_t>(column)) {}
  int tasks(const Step& step) const override { return p_.rows(x_, step); }
  void run_one(const Step& step, int row, float*) const override {
    const size_t width = static_cast<size_t>(p_.width(x_)), stride = static_cast<size_t>(p_.kept_width());
    std::memcpy(step.kept + stride * row + column_, p_.floats(x_, step) + width * row, width * sizeof(float));
  }

 private:
  const Program& p_;
  int x_;
  size_t column_;
};

}  // namespace outrider

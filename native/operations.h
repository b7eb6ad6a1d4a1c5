// The operations of a plan that work on rows and panels.
#pragma once

#include <algorithm>
#include <cstring>

#include "pass.h"

namespace outrider {

class OneByOne : public Op {
 public:
  void run(const Pass& pass, int first, int last, float* scratch) const override {
    for (int task = first; task < last; ++task) run_one(pass, task, scratch);
  }

 private:
  virtual void run_one(const Pass& pass, int task, float* scratch) const = 0;
};

class Embed : public OneByOne {
 public:
  Embed(const Graph::Embed& embed, Operand y) : table_(embed.table->view()), scale_(embed.scale), y_(y) {}
  int tasks(const Pass& pass) const override { return pass.rows(y_); }
  void run_one(const Pass& pass, int row, float*) const override {
    float* y = pass.row(y_, row);
    pass.kernels().weight_row(table_, pass.batch().tokens[static_cast<size_t>(row)], y);
    for (int i = 0; i < y_.width; ++i) y[i] *= scale_;
  }

 private:
  MatrixView table_;
  float scale_;
  Operand y_;
};

class RmsNorm : public OneByOne {
 public:
  RmsNorm(const Graph::Norm& norm, Operand x, std::optional<Operand> residual, Operand y)
      : norm_(norm), x_(x), residual_(residual), y_(y) {}
  int tasks(const Pass& pass) const override { return pass.rows(x_); }
  void run_one(const Pass& pass, int row, float*) const override {
    pass.kernels().rms_norm(pass.row(x_, row), norm_.weight.data(), norm_.eps, x_.width,
                            residual_ ? pass.row(*residual_, row) : nullptr, pass.row(y_, row));
  }

 private:
  const Graph::Norm& norm_;
  Operand x_;
  std::optional<Operand> residual_;
  Operand y_;
};

// Neighbouring rows share cache lines of prepared activations: one thread writes several.
inline constexpr int kRowsTogether = 4;

// Norm, if there is one, and conversion to what linear layers of one form read.
class Prepare : public OneByOne {
 public:
  Prepare(Operand x, const Graph::Norm* norm, Prepared y) : x_(x), norm_(norm), y_(y) {}
  int tasks(const Pass& pass) const override { return (pass.rows(x_) + kRowsTogether - 1) / kRowsTogether; }
  size_t scratch() const override { return static_cast<size_t>(y_.inputs); }
  void run_one(const Pass& pass, int task, float* scratch) const override {
    const int rows = pass.rows(x_);
    const RowStrips strips(rows, pass.kernels().max_rows[static_cast<int>(y_.form)]);
    for (int row = task * kRowsTogether; row < std::min(rows, (task + 1) * kRowsTogether); ++row) {
      const int s = strips.of(row), first = strips.first(s);
      uint32_t* strip = pass.prepared(y_) + static_cast<size_t>(units_of(y_.form, y_.inputs)) * first;
      pass.kernels().prepare(y_.form,
                             {.x = pass.row(x_, row), .width = x_.width,
                              .norm = norm_ ? norm_->weight.data() : nullptr, .eps = norm_ ? norm_->eps : 0,
                              .columns = y_.columns},
                             scratch, {.strip = strip, .rows = strips.size(s), .row = row - first});
    }
  }

 private:
  Operand x_;
  const Graph::Norm* norm_;
  Prepared y_;
};

// A weight and the activations that it reads.
struct Layer {
  Prepared x;
  const Matrix* weight;
};

// One of the weights side by side in a linear layer: its outputs go to columns `column`.., times the
// activation of the gate's, if there is a gate.
struct Part {
  std::optional<Layer> gate;
  Layer layer;
  int column;
  int gate_buffer = -1;
};

class Linear : public Op {
 public:
  Linear(std::vector<Part> parts, std::optional<Operand> residual, float scale, Activation activation,
         Operand y)
      : parts_(std::move(parts)), residual_(residual), scale_(scale), activation_(activation), y_(y) {
    for (const Part& part : parts_) panels_ += part.layer.weight->view().panels();
  }
  int tasks(const Pass& pass) const override { return pass.rows(y_) ? panels_ : 0; }
  void run(const Pass& pass, int first, int last, float*) const override {
    for (const Part& part : parts_) {
      const int panels = part.layer.weight->view().panels();
      if (first < panels && last > 0) run(pass, part, {std::max(first, 0), std::min(last, panels)});
      first -= panels;
      last -= panels;
    }
  }

 private:
  void run(const Pass& pass, const Part& part, Panels panels) const {
    Output out{.values = pass.row(y_, 0) + part.column, .stride = static_cast<size_t>(y_.width)};
    // What a thread has written of the gate is still in its cache when it comes to the other half.
    if (part.gate) run(pass, *part.gate, panels, out);
    out.scale = scale_;
    out.activation = activation_;
    if (residual_) out.residual = pass.row(*residual_, 0) + part.column;
    run(pass, part.layer, panels, out);
  }
  void run(const Pass& pass, const Layer& layer, Panels panels, const Output& out) const {
    pass.kernels().linear(layer.weight->view(), panels, pass.prepared(layer.x), pass.rows(y_), out);
  }

  std::vector<Part> parts_;
  int panels_ = 0;
  std::optional<Operand> residual_;
  float scale_;
  Activation activation_;
  Operand y_;
};

class SoftCap : public OneByOne {
 public:
  SoftCap(float cap, Operand x, Operand y) : cap_(cap), x_(x), y_(y) {}
  int tasks(const Pass& pass) const override { return pass.rows(x_) * pieces(); }
  void run_one(const Pass& pass, int task, float*) const override {
    const int row = task / pieces(), first = task % pieces() * kColumns;
    const auto count = static_cast<size_t>(std::min(kColumns, x_.width - first));
    pass.kernels().soft_cap(pass.row(x_, row) + first, cap_, count, pass.row(y_, row) + first);
  }

 private:
  static constexpr int kColumns = 4096;  // of a task: a row of logits is long
  int pieces() const { return (x_.width + kColumns - 1) / kColumns; }

  float cap_;
  Operand x_, y_;
};

class Scale : public OneByOne {
 public:
  Scale(float factor, Operand x, Operand y) : factor_(factor), x_(x), y_(y) {}
  int tasks(const Pass& pass) const override { return pass.rows(x_); }
  void run_one(const Pass& pass, int row, float*) const override {
    const float* x = pass.row(x_, row);
    float* y = pass.row(y_, row);
    for (int i = 0; i < x_.width; ++i) y[i] = factor_ * x[i];
  }

 private:
  float factor_;
  Operand x_, y_;
};

class Columns : public OneByOne {
 public:
  Columns(int first, Operand x, Operand y) : first_(first), x_(x), y_(y) {}
  int tasks(const Pass& pass) const override { return pass.rows(y_); }
  void run_one(const Pass& pass, int row, float*) const override {
    std::memcpy(pass.row(y_, row), pass.row(x_, row) + first_, sizeof(float) * static_cast<size_t>(y_.width));
  }

 private:
  int first_;
  Operand x_, y_;
};

class Multiply : public OneByOne {
 public:
  Multiply(Operand x, Operand gate, Activation activation, Operand y)
      : x_(x), gate_(gate), activation_(activation), y_(y) {}
  int tasks(const Pass& pass) const override { return pass.rows(y_); }
  void run_one(const Pass& pass, int row, float*) const override {
    pass.kernels().multiply(pass.row(x_, row), pass.row(gate_, row), gate_.width == 1, activation_,
                            static_cast<size_t>(y_.width), pass.row(y_, row));
  }

 private:
  Operand x_, gate_;
  Activation activation_;
  Operand y_;
};

class SelectLogitRows : public OneByOne {
 public:
  SelectLogitRows(Operand x, Operand y) : x_(x), y_(y) {}
  int tasks(const Pass& pass) const override { return pass.rows(y_); }
  void run_one(const Pass& pass, int row, float*) const override {
    const float* from = pass.row(x_, pass.batch().logit_rows[static_cast<size_t>(row)]);
    std::memcpy(pass.row(y_, row), from, sizeof(float) * static_cast<size_t>(y_.width));
  }

 private:
  Operand x_, y_;
};

// Copies x to columns `column`.. of what the caller keeps.
class Keep : public OneByOne {
 public:
  Keep(Operand x, int column, int stride) : x_(x), column_(column), stride_(static_cast<size_t>(stride)) {}
  int tasks(const Pass& pass) const override { return pass.rows(x_); }
  void run_one(const Pass& pass, int row, float*) const override {
    std::memcpy(pass.kept() + stride_ * static_cast<size_t>(row) + column_, pass.row(x_, row),
                sizeof(float) * static_cast<size_t>(x_.width));
  }

 private:
  Operand x_;
  int column_;
  size_t stride_;
};

}  // namespace outrider

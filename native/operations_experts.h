// The operations of a plan that make up a mixture of experts.
//
// A row and one of its experts are a slot. Slots are grouped by expert, so that an expert's weights are read
// once for all of its rows; what they come to is added up row by row, in the order of the experts' rank, so
// that a row does not depend on which others went to its experts.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "operations.h"

namespace outrider {

// Who goes where, as it lies in a buffer: of each row its experts, their weights, and its slots, by rank; of
// each slot its row; of each expert its first slot, and of the next; and the experts that have rows.
struct Assignment {
  int buffer;
  int count;
  int chosen;
  bool logits;

  // 32-bit words a row; what is an expert's fits one row.
  static constexpr int words(int count, int chosen) { return 4 * chosen + 2 * count + 2; }

  int slots(const Pass& pass) const { return pass.rows(logits) * chosen; }
  int32_t* experts(const Pass& pass) const { return pass.words(buffer); }
  float* weights(const Pass& pass) const { return reinterpret_cast<float*>(experts(pass) + slots(pass)); }
  int32_t* slots_of_rows(const Pass& pass) const { return experts(pass) + 2 * slots(pass); }
  int32_t* rows_of_slots(const Pass& pass) const { return experts(pass) + 3 * slots(pass); }
  int32_t* first_slots(const Pass& pass) const { return experts(pass) + 4 * slots(pass); }
  int32_t* with_rows(const Pass& pass) const { return first_slots(pass) + count + 1; }
  int32_t& number_with_rows(const Pass& pass) const { return with_rows(pass)[count]; }
};

// Chooses each row's experts.
class Route : public OneByOne {
 public:
  Route(const Routing& routing, Operand scores, Assignment a) : routing_(routing), scores_(scores), a_(a) {}
  int tasks(const Pass& pass) const override { return pass.rows(scores_); }
  size_t scratch() const override { return 2 * static_cast<size_t>(a_.count); }
  void run_one(const Pass& pass, int row, float* scratch) const override {
    const float* scores = pass.row(scores_, row);
    int32_t* experts = a_.experts(pass) + row * a_.chosen;
    float *weights = a_.weights(pass) + row * a_.chosen, *all = scratch, *ranked = scratch + a_.count;
    const bool are_numbers = weigh(scores, all);
    for (int e = 0; e < a_.count; ++e) {
      // Softmax keeps the order of scores, and rounds what is small to equal weights.
      ranked[e] = routing_.scoring == Routing::Scoring::kSoftmax ? scores[e] : all[e];
      if (!routing_.bias.empty()) ranked[e] += routing_.bias[static_cast<size_t>(e)];
    }
    float sum = 0;
    for (int rank = 0; rank < a_.chosen; ++rank) {
      const int best = are_numbers ? static_cast<int>(std::max_element(ranked, ranked + a_.count) - ranked) : rank;
      ranked[best] = -std::numeric_limits<float>::infinity();
      experts[rank] = best;
      sum += weights[rank] = all[best];
    }
    for (int rank = 0; rank < a_.chosen; ++rank) {
      if (routing_.normalised) weights[rank] /= sum;
      weights[rank] *= routing_.factor;
    }
  }

 private:
  // Of all experts. False where a score is not a number: then all weights are none either.
  bool weigh(const float* scores, float* weights) const {
    const float top = *std::max_element(scores, scores + a_.count);
    float sum = 0;
    bool are_numbers = true;
    for (int e = 0; e < a_.count; ++e) {
      are_numbers = are_numbers && std::isfinite(scores[e]);
      const bool softmax = routing_.scoring == Routing::Scoring::kSoftmax;
      weights[e] = softmax ? std::exp(scores[e] - top) : 1 / (1 + std::exp(-scores[e]));
      sum += weights[e];
    }
    if (routing_.scoring == Routing::Scoring::kSoftmax && !routing_.normalised)
      for (int e = 0; e < a_.count; ++e) weights[e] /= sum;
    if (!are_numbers) std::fill(weights, weights + a_.count, std::numeric_limits<float>::quiet_NaN());
    return are_numbers;
  }

  const Routing& routing_;
  Operand scores_;
  Assignment a_;
};

// Gives slots to rows, expert by expert, and within one in order of row.
class GroupByExpert : public OneByOne {
 public:
  explicit GroupByExpert(Assignment a) : a_(a) {}
  int tasks(const Pass& pass) const override { return a_.slots(pass) ? 1 : 0; }
  void run_one(const Pass& pass, int, float*) const override {
    const int slots = a_.slots(pass);
    const int32_t* experts = a_.experts(pass);
    int32_t *first = a_.first_slots(pass), *with_rows = a_.with_rows(pass), number = 0;
    std::fill(first, first + a_.count + 1, 0);
    for (int i = 0; i < slots; ++i) ++first[experts[i] + 1];
    for (int e = 0; e < a_.count; ++e) {
      if (first[e + 1] > 0) with_rows[number++] = e;
      first[e + 1] += first[e];
    }
    a_.number_with_rows(pass) = number;
    for (int i = 0; i < slots; ++i) {  // moves each beginning to its end, which is the next one's beginning
      const int slot = first[experts[i]]++;
      a_.slots_of_rows(pass)[i] = slot;
      a_.rows_of_slots(pass)[slot] = i / a_.chosen;
    }
    std::copy_backward(first, first + a_.count, first + a_.count + 1);
    first[0] = 0;
  }

 private:
  Assignment a_;
};

// The rows of one expert, as kernels want them: a batch of their own.
struct ExpertRows {
  int expert;
  int first;  // slot
  int rows;
};

inline ExpertRows expert_rows(const Assignment& a, const Pass& pass, int expert) {
  const int32_t* first = a.first_slots(pass);
  return {expert, first[expert], first[expert + 1] - first[expert]};
}

// Converts the rows of experts to what their weights read: those of a batch, or of slots.
class PrepareForExperts : public OneByOne {
 public:
  PrepareForExperts(Assignment a, Operand x, bool by_row, Prepared y) : a_(a), x_(x), by_row_(by_row), y_(y) {}
  int tasks(const Pass& pass) const override { return std::min(a_.count, a_.slots(pass)); }
  size_t scratch() const override { return static_cast<size_t>(y_.inputs); }
  void run_one(const Pass& pass, int task, float* scratch) const override {
    if (task >= a_.number_with_rows(pass)) return;
    const ExpertRows mine = expert_rows(a_, pass, a_.with_rows(pass)[task]);
    const RowStrips strips(mine.rows, pass.kernels().max_rows[static_cast<int>(y_.form)]);
    const auto units = static_cast<size_t>(units_of(y_.form, y_.inputs));
    for (int i = 0; i < mine.rows; ++i) {
      const int s = strips.of(i), slot = mine.first + i;
      const float* x = pass.row(x_, by_row_ ? a_.rows_of_slots(pass)[slot] : slot);
      uint32_t* strip = pass.prepared(y_) + units * static_cast<size_t>(mine.first + strips.first(s));
      pass.kernels().prepare(y_.form,
                             {.x = x, .width = x_.width, .norm = nullptr, .eps = 0, .columns = y_.columns},
                             scratch, {.strip = strip, .rows = strips.size(s), .row = i - strips.first(s)});
    }
  }

 private:
  Assignment a_;
  Operand x_;
  bool by_row_;
  Prepared y_;
};

// The weights of all experts one below the other, and what they read.
struct ExpertLayer {
  Prepared x;
  MatrixView all;
  int outputs;  // of one expert

  int panels() const { return outputs / kLanes; }
  MatrixView of(int expert) const {
    MatrixView one = all;
    one.outputs = outputs;
    one.data = all.data + all.panel_bytes * static_cast<size_t>(expert * panels());
    if (all.bias != nullptr) one.bias = all.bias + expert * outputs;
    return one;
  }
};

// A linear layer, gated if there is a gate, of each slot's expert.
class ExpertsLinear : public Op {
 public:
  ExpertsLinear(Assignment a, std::optional<ExpertLayer> gate, ExpertLayer layer, Activation activation,
                Operand y)
      : a_(a), gate_(gate), layer_(layer), activation_(activation), y_(y) {}
  int tasks(const Pass& pass) const override {
    return std::min(a_.count, a_.slots(pass)) * layer_.panels();
  }
  void run(const Pass& pass, int first, int last, float*) const override {
    const int panels = layer_.panels(), number = a_.number_with_rows(pass);
    for (int i = first / panels; i < number && i * panels < last; ++i) {
      const ExpertRows mine = expert_rows(a_, pass, a_.with_rows(pass)[i]);
      const Panels wanted{std::max(first - i * panels, 0), std::min(last - i * panels, panels)};
      Output out{.values = pass.row(y_, mine.first), .stride = static_cast<size_t>(y_.width)};
      if (gate_) run(pass, *gate_, mine, wanted, out);
      out.activation = activation_;
      run(pass, layer_, mine, wanted, out);
    }
  }

 private:
  void run(const Pass& pass, const ExpertLayer& layer, const ExpertRows& mine, Panels panels,
           const Output& out) const {
    const auto units = static_cast<size_t>(units_of(layer.x.form, layer.x.inputs));
    pass.kernels().linear(layer.of(mine.expert), panels,
                          pass.prepared(layer.x) + units * static_cast<size_t>(mine.first), mine.rows, out);
  }

  Assignment a_;
  std::optional<ExpertLayer> gate_;
  ExpertLayer layer_;
  Activation activation_;
  Operand y_;
};

// residual + scale * the weighted sum of what a row's experts came to, in order of rank.
class AddExperts : public OneByOne {
 public:
  AddExperts(Assignment a, Operand outputs, std::optional<Operand> residual, float scale, Operand y)
      : a_(a), outputs_(outputs), residual_(residual), scale_(scale), y_(y) {}
  int tasks(const Pass& pass) const override { return pass.rows(y_); }
  size_t scratch() const override { return static_cast<size_t>(y_.width); }
  void run_one(const Pass& pass, int row, float* sum) const override {
    std::fill(sum, sum + y_.width, 0.0f);
    for (int i = row * a_.chosen; i < (row + 1) * a_.chosen; ++i) {
      const float weight = a_.weights(pass)[i], *x = pass.row(outputs_, a_.slots_of_rows(pass)[i]);
      for (int d = 0; d < y_.width; ++d) sum[d] += weight * x[d];
    }
    float* y = pass.row(y_, row);
    const float* residual = residual_ ? pass.row(*residual_, row) : nullptr;
    for (int d = 0; d < y_.width; ++d) y[d] = (residual ? residual[d] : 0) + scale_ * sum[d];
  }

 private:
  Assignment a_;
  Operand outputs_;
  std::optional<Operand> residual_;
  float scale_;
  Operand y_;
};

}  // namespace outrider

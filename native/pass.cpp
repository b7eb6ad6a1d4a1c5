#include "pass.h"

#include <algorithm>

namespace outrider {

Pass::Pass(std::unique_ptr<const Plan> plan, std::shared_ptr<Threads> threads)
    : plan_(std::move(plan)), threads_(std::move(threads)), memory_(plan_->buffers.size()) {
  for (int i = 0; i < threads_->count(); ++i) scratch_.push_back(aligned<float>(plan_->scratch));
}

int Pass::prepare(std::vector<int32_t> tokens, std::vector<Span> spans) {
  const DefaultFloats default_floats;
  batch_ = lay_out(*plan_, std::move(tokens), std::move(spans), threads_->count());
  return rows(plan_->output);
}

int Pass::kept_rows() const { return plan_->graph.kept().empty() ? 0 : rows(plan_->graph.keeps_logit_rows()); }

void Pass::run(const float* input, float* output, float* kept) {
  if (batch_.rows == 0) return;
  const DefaultFloats default_floats;
  find_memory(input, output);
  kept_ = kept;
  std::vector<int> tasks;
  for (const auto& op : plan_->ops) tasks.push_back(op->tasks(*this));
  threads_->run(tasks, [this](int stage, int first, int last, int thread) {
    plan_->ops[static_cast<size_t>(stage)]->run(*this, first, last,
                                                scratch_[static_cast<size_t>(thread)].get());
  });
}

void Pass::find_memory(const float* input, float* output) {
  if (static_cast<size_t>(batch_.rows) > capacity_) {
    arena_ = aligned<std::byte>(plan_->bytes_per_row * static_cast<size_t>(batch_.rows));
    capacity_ = static_cast<size_t>(batch_.rows);
  }
  for (size_t b = 0; b < memory_.size(); ++b) memory_[b] = arena_.get() + plan_->buffers[b].place * capacity_;
  memory_[static_cast<size_t>(plan_->output.buffer)] = reinterpret_cast<std::byte*>(output);
  if (plan_->input)
    memory_[static_cast<size_t>(plan_->input->buffer)] =
        reinterpret_cast<std::byte*>(const_cast<float*>(input));
  size_t states = 0;
  for (const Pieces& pieces : batch_.pieces) states = std::max(states, pieces.states);
  if (states > states_floats_) {
    states_ = aligned<float>(states);
    states_floats_ = states;
  }
}

}  // namespace outrider

// A plan as it runs: a batch laid out, and the memory that it is computed in.
#pragma once

#include <memory>
#include <vector>

#include "batch.h"
#include "threads.h"

namespace outrider {

class Pass {
 public:
  Pass(std::unique_ptr<const Plan> plan, std::shared_ptr<Threads> threads);

  // Rows of the output that these spans lead to. Throws std::invalid_argument for what cannot be run.
  int prepare(std::vector<int32_t> tokens, std::vector<Span> spans);
  // Rows of what is kept, once a batch is prepared.
  int kept_rows() const;
  // Runs what was prepared. input: [rows, width] if the plan has one; output: [output rows, width]; kept:
  // [kept rows, kept width].
  void run(const float* input, float* output, float* kept);

  const Plan& plan() const { return *plan_; }
  Threads& threads() const { return *threads_; }

  // For the operations.
  const Kernels& kernels() const { return plan_->kernels; }
  const Rope& rope(int number) const { return plan_->graph.ropes()[static_cast<size_t>(number)]; }
  const Batch& batch() const { return batch_; }
  int rows(bool logits) const { return logits ? static_cast<int>(batch_.logit_rows.size()) : batch_.rows; }
  int rows(const Operand& x) const { return rows(x.logits); }
  float* row(const Operand& x, int row) const {
    return reinterpret_cast<float*>(at(x.buffer)) + static_cast<size_t>(x.width) * static_cast<size_t>(row);
  }
  uint32_t* prepared(const Prepared& x) const { return reinterpret_cast<uint32_t*>(at(x.buffer)); }
  int32_t* words(int buffer) const { return reinterpret_cast<int32_t*>(at(buffer)); }
  float* states() const { return states_.get(); }
  float* kept() const { return kept_; }

 private:
  std::byte* at(int buffer) const { return memory_[static_cast<size_t>(buffer)]; }
  void find_memory(const float* input, float* output);

  std::unique_ptr<const Plan> plan_;
  std::shared_ptr<Threads> threads_;
  Batch batch_;
  Aligned<std::byte> arena_;
  size_t capacity_ = 0;  // rows that the arena has room for
  Aligned<float> states_;
  size_t states_floats_ = 0;
  std::vector<Aligned<float>> scratch_;  // of each thread
  std::vector<std::byte*> memory_;       // of each buffer
  float* kept_ = nullptr;
};

}  // namespace outrider

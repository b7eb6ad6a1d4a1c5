// A program as Python has it: a graph until it has its output, and a pass from then on.
#pragma once

#include <mutex>
#include <optional>

#include "bindings.h"
#include "draft.h"
#include "pass.h"

namespace outrider {

using Tables = std::vector<std::vector<std::vector<int32_t>>>;          // of each span and group of layers
using States = std::optional<std::vector<int>>;                         // of each span
using NewStates = std::optional<std::vector<std::vector<int32_t>>>;     // of each span and row
using Parents = std::vector<std::vector<int32_t>>;                      // of each span and row of its tree, or none

// The spans of a pass from what Python gives of each.
std::vector<Span> spans_of(const std::vector<int>& starts, const std::vector<int>& rows, Tables tables,
                           const std::vector<int>& logit_rows, const States& states, NewStates new_states,
                           Parents parents = {});

class Program {
 public:
  using Logits = nb::ndarray<nb::numpy, float>;
  using Tokens = std::vector<int32_t>;

  Program(std::shared_ptr<Threads> threads, const std::string& instruction_set);

  Graph& graph() { return graph_; }
  // The arrays of a layer's cache, which the program holds from here on.
  CacheView cache(const Array& keys, const Array& values, int kv_heads, int head_dim);
  // The states of one layer, [slots, ...] of so many floats a slot, which the program holds from here on.
  StateView states(const Array& array, size_t floats);
  // There is an output only if there is memory for what each thread needs.
  void output(Value x);

  // These three are refused with std::runtime_error while another thread runs the program. They hold no lock of the
  // interpreter's while they compute.
  Logits run(Tokens tokens, std::vector<Span> spans, const std::optional<Input>& input,
             const std::optional<Array>& kept);
  std::pair<std::vector<std::vector<int>>, std::optional<Logits>> step(
      Tokens tokens, std::vector<Span> spans, const std::vector<std::optional<Choice>>& choices,
      const std::optional<Input>& input, const std::optional<Array>& kept, bool looks);
  // Moves K and V of all layers from some places of a request's tables to others, in order.
  void move(const std::vector<std::vector<int32_t>>& tables, const std::vector<int>& from, const std::vector<int>& to);
  // This is the first of two passes; see `Drafting`.
  std::vector<std::optional<Grown>> draft(Program& then, Tokens tokens, std::vector<Span> spans,
                                          const std::vector<std::optional<Lane>>& lanes,
                                          const std::optional<Input>& words, int vocab,
                                          const std::optional<Input>& input, bool in_place);

 private:
  // Held while the program runs.
  std::unique_lock<std::mutex> claim();
  void check_choices(const std::vector<Span>& spans, const std::vector<std::optional<Choice>>& choices) const;
  Words words_of(const std::optional<Input>& words, int vocab) const;
  const float* input_of(const std::optional<Input>& input, int64_t rows) const;
  float* kept_of(const std::optional<Array>& kept) const;

  std::shared_ptr<Threads> threads_;
  const Kernels& kernels_;
  Graph graph_;
  std::optional<Pass> pass_;
  int output_width_ = 0;
  Room logits_, choosing_;
  DraftRooms rooms_;
  std::mutex running_;
  std::vector<Array> arrays_;
};

}  // namespace outrider

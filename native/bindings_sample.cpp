// What Python sees of choosing tokens.
#include <cmath>

#include "bindings.h"
#include "instruction_sets.h"
#include "matrix.h"
#include "sample.h"
#include "threads.h"

namespace outrider {
namespace {

// Rows of logits to choose from.
struct Rows {
  Rows(const Input& logits, int64_t wanted, const std::string& instruction_set)
      : data(static_cast<const float*>(checked(logits, "logits", nb::dtype<float>(), {wanted, -1}))),
        count(logits.shape(0)), vocab(size_of(logits.shape(1), "logits", "columns")),
        kernels(kernels_named(instruction_set)) {}
  const float* row(size_t i) const { return data + i * static_cast<size_t>(vocab); }

  const float* data;
  size_t count;
  int vocab;
  const Kernels& kernels;
  const DefaultFloats default_floats;
};

Filters filters_of(float temperature, double min_p, int top_k, double top_p) {
  if (!(temperature > 0 && std::isfinite(temperature)))
    refuse(named("temperature", temperature) + " has to be above 0 and finite");
  if (!(min_p >= 0 && min_p <= 1)) refuse(named("min_p", min_p) + " has to be 0 to 1");
  if (top_k < 0) refuse(named("top_k", top_k) + " has to be at least 0");
  if (!(top_p > 0 && top_p <= 1)) refuse(named("top_p", top_p) + " has to be above 0 and at most 1");
  return {temperature, min_p, top_k, top_p};
}

}  // namespace

void bind_sample(nb::module_& m) {
  m.def("largest", [](const Input& logits, const std::string& instruction_set) {
          const Rows rows(logits, -1, instruction_set);
          std::vector<int> tokens(rows.count);
          const nb::gil_scoped_release release;
          for (size_t i = 0; i < rows.count; ++i) tokens[i] = largest(rows.kernels, rows.row(i), rows.vocab);
          return tokens;
        }, "logits"_a, "instruction_set"_a,
        "The first of the largest logits of each row; -1 where none can be chosen (NaN, +inf, or all -inf).");
  m.def("confidences", [](const Input& logits, const std::string& instruction_set) {
          const Rows rows(logits, -1, instruction_set);
          std::vector<double> shares(rows.count);
          const nb::gil_scoped_release release;
          for (size_t i = 0; i < rows.count; ++i)
            shares[i] = confidence(rows.kernels, rows.row(i), rows.vocab);
          return shares;
        }, "logits"_a, "instruction_set"_a,
        "The probability of the likeliest token of each row; 0 where none can be chosen.");
  m.def("filtered", [](const Input& logits, float temperature, double min_p, int top_k, double top_p,
                       const std::string& instruction_set) {
          const Rows rows(logits, -1, instruction_set);
          const Filters filters = filters_of(temperature, min_p, top_k, top_p);
          auto scores = new_floats(rows.count, static_cast<size_t>(rows.vocab));
          const nb::gil_scoped_release release;
          for (size_t i = 0; i < rows.count; ++i)
            filtered(rows.kernels, rows.row(i), rows.vocab, filters, scores.data() + i * rows.vocab);
          return scores;
        }, "logits"_a, "temperature"_a, "min_p"_a, "top_k"_a, "top_p"_a, "instruction_set"_a,
        "Log-probabilities up to a constant, -inf where filtered; NaN where no token can be chosen.");
  m.def("choose", [](const Input& logits, const std::vector<uint64_t>& keys, const std::optional<Input>& ids,
                     float temperature, double min_p, int top_k, double top_p,
                     const std::string& instruction_set) {
          const Rows rows(logits, static_cast<int64_t>(keys.size()), instruction_set);
          const auto tokens_of = ids ? static_cast<const int64_t*>(checked(*ids, "ids", nb::dtype<int64_t>(),
                                                                           {rows.vocab}))
                                     : nullptr;
          const Filters filters = filters_of(temperature, min_p, top_k, top_p);
          const auto scratch = aligned<float>(static_cast<size_t>(rows.vocab));
          std::vector<int> tokens(rows.count);
          const nb::gil_scoped_release release;
          for (size_t i = 0; i < rows.count; ++i)
            tokens[i] = choose(rows.kernels, rows.row(i), rows.vocab, filters, keys[i], tokens_of, scratch.get());
          return tokens;
        }, "logits"_a, "keys"_a, "ids"_a.none(), "temperature"_a, "min_p"_a, "top_k"_a, "top_p"_a,
        "instruction_set"_a,
        "The place in each row that the Gumbel-max trick chooses with counter-based noise, -1 where there is\n"
        "none. ids: int64 [vocab], whose token's noise each place gets; None: its own.");
}

}  // namespace outrider

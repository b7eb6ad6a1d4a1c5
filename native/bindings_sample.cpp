// What Python sees of choosing tokens.
#include <nanobind/stl/tuple.h>

#include "bindings.h"
#include "choice.h"
#include "instruction_sets.h"

namespace outrider {
namespace {

// Rows of logits to look at.
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

template <typename T>
std::vector<T> copied(const Input& array, const char* name) {
  const auto* first = static_cast<const T*>(checked(array, name, nb::dtype<T>(), {-1}));
  return std::vector<T>(first, first + array.shape(0));
}

std::vector<uint8_t> mask_of(const Input& mask) {
  const bool truths = mask.dtype() == nb::dtype<bool>();
  const auto* first = static_cast<const uint8_t*>(
      checked(mask, "mask", truths ? nb::dtype<bool>() : nb::dtype<uint8_t>(), {-1}));
  return std::vector<uint8_t>(first, first + mask.shape(0));
}

std::vector<std::tuple<int, double, int>> ranked_tokens(const Input& logits, int token, int count,
                                                        const std::string& instruction_set) {
  const auto* row = static_cast<const float*>(checked(logits, "logits", nb::dtype<float>(), {-1}));
  const int vocab = size_of(logits.shape(0), "logits", "columns");
  if (token < 0 || token >= vocab) refuse(named("token", token) + "; logits has " + std::to_string(vocab) + " columns");
  if (count < 0) refuse(named("count", count) + " has to be at least 0");
  const Kernels& kernels = kernels_named(instruction_set);
  const DefaultFloats default_floats;
  std::vector<std::tuple<int, double, int>> found;
  const nb::gil_scoped_release release;
  for (const Ranked& one : ranked(kernels, row, vocab, token, count))
    found.emplace_back(one.token, one.logprob, one.rank);
  return found;
}

auto scores_of(const Input& logits, const Choice& choice, const std::string& instruction_set) {
  const Rows rows(logits, choice.rows, instruction_set);
  choice.check_edits(rows.vocab);
  auto scores = new_floats(rows.count, static_cast<size_t>(rows.vocab));
  const auto room = aligned<float>(static_cast<size_t>(rows.vocab));
  const nb::gil_scoped_release release;
  for (size_t i = 0; i < rows.count; ++i)
    choice.score(rows.kernels, choice.edited(static_cast<int>(i), rows.row(i), rows.vocab, room.get()), rows.vocab,
                 scores.data() + i * static_cast<size_t>(rows.vocab));
  return scores;
}

}  // namespace

void bind_sample(nb::module_& m) {
  m.attr("NAN") = kNan;
  m.attr("INFINITE") = kInfinite;
  m.attr("NOTHING") = kNothing;

  nb::class_<Filters>(m, "Filters",
                      "Temperature above 0, then min-p, top-k and top-p, in vLLM's order; 0, 0 and 1 filter nothing.")
      .def("__init__", [](Filters* self, float temperature, double min_p, int top_k, double top_p) {
             new (self) Filters(filters_of(temperature, min_p, top_k, top_p));
           }, "temperature"_a, "min_p"_a = 0.0, "top_k"_a = 0, "top_p"_a = 1.0);

  nb::class_<Change>(m, "Change",
                     "One edit of a row of logits; a copy of what it is made of. It may be used again and again. A row\n"
                     "that does not have what is edited is refused with ValueError where the change is used.")
      .def_static("bar", [](const Input& ids) { return Change(Change::Bar{copied<int64_t>(ids, "ids")}); }, "ids"_a,
                  "These tokens cannot be chosen. ids: int64 [n].")
      .def_static("allow", [](const Input& mask) { return Change(Change::Allow{mask_of(mask)}); }, "mask"_a,
                  "No tokens can be chosen but where the mask is not 0. mask: bool or uint8 [vocab].")
      .def_static("add", [](const Input& ids, const Input& values) {
                    return Change(Change::Add{copied<int64_t>(ids, "ids"), copied<float>(values, "values")});
                  }, "ids"_a, "values"_a,
                  "Adds to the logits of these tokens. ids: int64 [n]; values: float32 [n]. A token that stands twice\n"
                  "has both values added.")
      .def_static("penalise", [](const Input& ids, float factor) {
                    return Change(Change::Penalise{copied<int64_t>(ids, "ids"), factor});
                  }, "ids"_a, "factor"_a,
                  "Positive logits of these tokens are divided by the factor, others multiplied (Keskar et al., 2019).\n"
                  "ids: int64 [n], each once; factor: above 0.");

  nb::class_<Choice>(m, "Choice", "What is chosen from the logits of a span.")
      .def("__init__", [](Choice* self, int skip, int rows, const std::optional<Filters>& filters, uint64_t key,
                          int64_t position, std::vector<Changes> edits, std::vector<int> offsets) {
             Choice choice{skip, rows, filters, key, position, std::move(edits), std::move(offsets)};
             choice.check();
             new (self) Choice(std::move(choice));
           }, "skip"_a, "rows"_a, "filters"_a.none(), "key"_a, "position"_a, "edits"_a = std::vector<Changes>(),
           "offsets"_a = std::vector<int>(),
           "Of the rows with logits the first `skip` are passed over, and each of the next `rows` gives a token: the\n"
           "first of the largest logits where filters is None, or what the Gumbel-max trick draws from what the filters\n"
           "keep, with the noise of (key, position + offset). offsets: of each row; or [], for 0, 1, 2 and so on. edits: of each\n"
           "row, in their order; or [], for none at all.\n"
           "They change what is chosen from, and not the logits that can be looked at.");

  m.def("ranked", ranked_tokens, "logits"_a, "token"_a, "count"_a, "instruction_set"_a,
        "(token, log-probability, rank) of `token`, and then of the others among the `count` likeliest, likeliest first\n"
        "and equals by id. rank: of `token`, one more than there are likelier ones; of others, their place. logits:\n"
        "float32 [vocab]. Log-probabilities are summed in double; NaN where the row holds NaN or +inf.");
  m.def("scores", scores_of, "logits"_a, "choice"_a, "instruction_set"_a,
        "What a choice's tokens are chosen from: float32 log-probabilities up to a constant, [rows, vocab], edited, and\n"
        "-inf where filtered. NaN where there is no token. logits: [rows, vocab], those of the choice alone, without\n"
        "what it skips. Without filters: 0 at the token, -inf elsewhere.");
}

}  // namespace outrider

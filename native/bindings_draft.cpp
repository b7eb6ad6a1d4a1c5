// What Python sees of drafting.
#include "bindings.h"
#include "program.h"

namespace outrider {
namespace {

constexpr int kMostTokens = 1 << 12;  // of a draft

Price price_of(double row, double token, int least, std::vector<double> sure, std::vector<double> reached,
               std::vector<double> second) {
  if (sure.empty()) refuse("sure is empty; it has to have a chance at least");
  if (least < 0) refuse(named("least", least) + " has to be at least 0");
  return {row, token, least, std::move(sure), std::move(reached), std::move(second)};
}

Lane lane_of(const Choice& choice, int length, std::vector<int> stops, std::optional<Price> price, bool chances,
             bool scores, std::vector<int32_t> slots, int siblings) {
  if (siblings < 0) refuse(named("siblings", siblings) + " has to be at least 0");
  if (length < 1 || length > kMostTokens)
    refuse(named("length", length) + " has to be 1 to " + std::to_string(kMostTokens));
  return {choice, length, std::move(stops), std::move(price), chances, scores, std::move(slots), siblings};
}

// The scores of a draft as an array that the draft owns.
std::optional<nb::ndarray<nb::numpy, float>> scores_of(Grown& grown) {
  if (!grown.wants_scores) return std::nullopt;
  return nb::ndarray<nb::numpy, float>(grown.scores.data(),
                                       {grown.tokens.size(), static_cast<size_t>(grown.columns)}, nb::find(grown));
}

// The state from which an edited draft goes on.
std::optional<nb::ndarray<nb::numpy, float>> state_of(Grown& grown) {
  if (grown.state.empty()) return std::nullopt;
  return nb::ndarray<nb::numpy, float>(grown.state.data(), {size_t{1}, grown.state.size()}, nb::find(grown));
}

}  // namespace

void bind_draft(nb::module_& m) {
  nb::class_<Price>(m, "Price", "When the next token of a draft is not worth what it costs; see outrider.ops.budget.")
      .def("__init__", [](Price* self, double row, double token, int least, std::vector<double> sure,
                          std::vector<double> reached, std::vector<double> second) {
             new (self) Price(price_of(row, token, least, std::move(sure), std::move(reached), std::move(second)));
           }, "row"_a, "token"_a, "least"_a, "sure"_a, "reached"_a = std::vector<double>(),
           "second"_a = std::vector<double>());

  nb::class_<Lane>(m, "Lane", "A draft to grow behind the last row of a span.")
      .def("__init__", [](Lane* self, const Choice& choice, int length, std::vector<int> stops,
                          std::optional<Price> price, bool chances, bool scores, std::vector<int32_t> slots,
                          int siblings) {
             new (self) Lane(lane_of(choice, length, std::move(stops), std::move(price), chances, scores,
                                     std::move(slots), siblings));
           }, "choice"_a, "length"_a, "stops"_a, "price"_a.none(), "chances"_a, "scores"_a,
           "slots"_a = std::vector<int32_t>(), "siblings"_a = 0,
           "choice: of one row, with the noise of the first token; token i has that of position + i. A draft whose row\n"
           "is edited has length 1. stops: tokens behind which nothing is drafted. chances, scores: whether they are\n"
           "wanted. slots: where layers keep states, of those after each drafted token but the last. siblings: next best\n"
           "tokens at most, where the price says that they are worth it.");

  nb::class_<Grown>(m, "Grown", "A draft.")
      .def_ro("tokens", &Grown::tokens, "In the target's vocabulary.")
      .def_ro("seconds", &Grown::seconds, "Of each token the next best one, or a negative number where it is not wanted.")
      .def_ro("confidences", &Grown::confidences, "How sure the drafter was of each token; [] without a price.")
      .def_ro("chances", &Grown::chances, "softmax of the drafter's logits at each token; [] if not wanted.")
      .def_prop_ro("state", state_of,
                   "What was kept of the row that the token was drafted from, float32 [1, width]: of a draft with edits,\n"
                   "be they none for this token, which another call goes on from. None for others.")
      .def_prop_ro("scores", scores_of,
                   "What each token was chosen from, float32 [tokens, columns], or None if not wanted; see `scores`.\n"
                   "columns: those of the words; without words the first `vocab` of the logits, as many as there are;\n"
                   "`vocab` where the row was edited.");

  m.def("draft", [](Program& first, Program& then, std::vector<int32_t> tokens, const std::vector<int>& starts,
                    const std::vector<int>& rows, Tables tables, const std::vector<std::optional<Lane>>& lanes,
                    const std::optional<Input>& words, int vocab, const std::optional<Input>& input,
                    const States& states, NewStates new_states, bool in_place) {
          std::vector<Span> spans = spans_of(starts, rows, std::move(tables), std::vector<int>(starts.size()), states,
                                             std::move(new_states));
          return first.draft(then, std::move(tokens), std::move(spans), lanes, words, vocab, input, in_place);
        }, "first"_a, "then"_a, "tokens"_a, "starts"_a, "rows"_a, "tables"_a, "lanes"_a, "words"_a.none(), "vocab"_a,
        "input"_a = nb::none(), "states"_a = nb::none(), "new_states"_a = nb::none(),
        "in_place"_a = false,
        "Grow a draft behind each span that has a lane: `first` runs the spans, and `then` one row for each drafted\n"
        "token but the last, at the position behind, in the same tables, which have to be long enough for it. They may\n"
        "be the same program. Where `then` has an input, it is what `first`, or `then` before, kept of the lane's row;\n"
        "both keep rows with logits, as wide as the input. words: int64 [columns], ascending, the target's token of\n"
        "each column of the logits; None: column i is token i, and columns from `vocab` on are padding. A draft ends\n"
        "before a token that its price does not take, or where there is none to choose; and with one that is in stops,\n"
        "that is the last of its length, or behind which its price does not go on. Returns a Grown for each lane, None\n"
        "for each None. in_place: `then` runs at the place of the span's last row for each token, and writes nothing there.\n"
        "Raises as `Program.run` does, for either program.");
}

}  // namespace outrider

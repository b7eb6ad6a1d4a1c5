#include "draft.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "refuse.h"

namespace outrider {
namespace {

// A cell is a step of the log-odds, as in outrider/ops/budget.py: confidences near 1 are told apart most finely.
size_t cell(double confidence, size_t cells) {
  const double doubt = std::max(1.0 - confidence, 1e-4);
  const double log_odds = std::log2((1.0 - doubt + 1e-4) / doubt);
  return static_cast<size_t>(std::clamp(log_odds / 1.25 + 3.0, 0.0, static_cast<double>(cells) - 1.0));
}

bool holds(const std::vector<int>& values, int value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

}  // namespace

bool Meter::takes(double confidence) {
  const double survival = survival_ * price_->sure[cell(confidence, price_->sure.size())];
  if (survival < price_->row && position_ >= price_->least) return false;
  survival_ = survival;
  ++position_;
  return true;
}

bool Meter::forks(double confidence) const {
  if (price_->second.empty()) return false;
  const double falls = 1 - price_->sure[cell(confidence, price_->sure.size())];
  return survival_ * falls * price_->second[cell(confidence, price_->second.size())] >= price_->row;
}

bool Meter::goes_on() const {
  if (price_->reached.empty() || position_ < price_->least) return true;
  const size_t here = std::min(static_cast<size_t>(position_), price_->reached.size() - 1);
  return survival_ * price_->reached[here] >= price_->token;
}

int Words::column(int token) const {
  return ids != nullptr ? static_cast<int>(std::lower_bound(ids, ids + columns, token) - ids) : token;
}

void Words::spread(const float* logits, float* row) const {
  std::fill_n(row, vocab, -std::numeric_limits<float>::infinity());
  for (int column = 0; column < count(); ++column) row[token(column)] = logits[column];
}

Drafting::Drafting(Pass& first, Pass& then, std::vector<int32_t> tokens, std::vector<Span> spans,
                   const std::vector<std::optional<Lane>>& lanes, const Words& words, DraftRooms& rooms,
                   bool in_place)
    : first_(first), then_(then), spans_(std::move(spans)), lanes_(lanes), words_(words), rooms_(rooms),
      in_place_(in_place) {
  for (size_t i = 0; i < spans_.size(); ++i) spans_[i].logit_rows = lanes_[i].has_value();
  check_passes();
  first_.prepare(std::move(tokens), spans_);
  choosing_ = choosing_floats(words_.columns);
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (!lanes_[i]) continue;
    check_lane(i);
    if (lanes_[i]->edited()) choosing_ = choosing_floats(std::max(words_.columns, words_.vocab));
  }
}

void Drafting::check_passes() const {
  const Plan &first = first_.plan(), &then = then_.plan();
  for (const Plan* plan : {&first, &then})
    if (!plan->output.logits || plan->output.width != words_.columns)
      refuse("the output of first or then has width " + std::to_string(plan->output.width) +
             "; it has to have that of words, " + std::to_string(words_.columns) + ", and the rows that need logits");
  if (in_place_ && then.graph.stores())
    refuse("in_place = True: then writes K and V or states, which the next token would overwrite");
  if (!then.input) return;
  for (const Plan* plan : {&first, &then})
    if (!plan->graph.keeps_logit_rows() || plan->graph.kept_width() != then.input->width)
      refuse("the input of then has width " + std::to_string(then.input->width) + "; first and then keep " +
             std::to_string(plan->graph.kept_width()) + " columns, which have to be as many, of the rows that need logits");
}

void Drafting::check_lane(size_t number) const {
  const Lane& lane = *lanes_[number];
  const std::string of_lane = " of lane " + std::to_string(number);
  if (lane.choice.skip != 0 || lane.choice.rows != 1)
    refuse("choice" + of_lane + " has skip = " + std::to_string(lane.choice.skip) + " and rows = " +
           std::to_string(lane.choice.rows) + "; they have to be 0 and 1");
  if (lane.edited() && (lane.length != 1 || lane.siblings != 0))
    refuse("length" + of_lane + " = " + std::to_string(lane.length) + " and siblings = " +
           std::to_string(lane.siblings) + "; a draft with edits has 1 and 0");
  lane.choice.check_edits(words_.vocab);
  if (lane.length == 1) return;
  const Plan& then = then_.plan();
  if (words_.last() >= then.graph.vocab())
    refuse("words" + of_lane + " lead to token " + std::to_string(words_.last()) + "; then has a table of " +
           std::to_string(then.graph.vocab()));
  if (then.graph.slots() && lane.slots.size() + 1 < static_cast<size_t>(lane.length))
    refuse("slots" + of_lane + " has " + std::to_string(lane.slots.size()) + " values; a draft of " +
           std::to_string(lane.length) + " tokens needs " + std::to_string(lane.length - 1));
  for (int position = 0; position + 1 < lane.length; ++position)
    check_span(then, span_after(number, position), of_lane);
}

Span Drafting::span_after(size_t number, int position) const {
  const Span& before = spans_[number];
  const int64_t start = int64_t{before.start} + before.rows + (in_place_ ? -1 : position);
  Span span{.start = static_cast<int>(std::min<int64_t>(start, kMostPositions)), .rows = 1, .tables = before.tables,
            .logit_rows = 1};
  if (!then_.plan().graph.slots()) return span;
  const std::vector<int32_t>& slots = lanes_[number]->slots;
  if (position > 0) span.state = slots[static_cast<size_t>(position) - 1];
  else if (!before.new_states.empty()) span.state = before.new_states.back();
  span.new_states = {slots[static_cast<size_t>(position)]};
  return span;
}

std::vector<std::optional<Grown>> Drafting::run(const float* input) {
  std::vector<std::optional<Grown>> grown(lanes_.size());
  std::vector<Growing> active;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (!lanes_[i]) continue;
    const Lane& lane = *lanes_[i];
    Grown& of_lane = grown[i].emplace();
    of_lane.wants_scores = lane.scores;
    of_lane.columns = lane.edited() ? words_.vocab : words_.count();
    active.push_back({.span = i, .lane = &lane, .grown = &of_lane, .meter = {}});
    if (lane.price) active.back().meter.emplace(*lane.price);
  }
  const DefaultFloats default_floats;
  const auto columns = static_cast<size_t>(words_.columns);
  const auto kept_width = static_cast<size_t>(std::max(first_.plan().graph.kept_width(), then_.plan().graph.kept_width()));
  const auto input_width = static_cast<size_t>(then_.plan().input ? then_.plan().input->width : 0);
  const auto kept_rows = static_cast<size_t>(std::max(first_.kept_rows(), static_cast<int>(active.size())));
  float* logits = rooms_.logits.of(columns * active.size());
  float* kept = rooms_.kept.of(kept_width * kept_rows);
  float* states = rooms_.input.of(input_width * active.size());
  float* rooms = rooms_.choosing.of(choosing_ * static_cast<size_t>(first_.threads().count()));

  first_.run(input, logits, kept);
  std::vector<char> goes_on;
  while (!active.empty()) {
    goes_on.assign(active.size(), false);
    first_.threads().each(static_cast<int>(active.size()), [&](int number, int thread) {
      const auto n = static_cast<size_t>(number);
      goes_on[n] = grow(active[n], logits + columns * n, rooms + choosing_ * static_cast<size_t>(thread));
      if (!active[n].lane->choice.edits.empty()) {
        const float* state = kept + kept_width * n;
        active[n].grown->state.assign(state, state + kept_width);
      }
    });
    std::vector<Growing> left;
    std::vector<int32_t> tokens;
    std::vector<Span> spans;
    for (size_t i = 0; i < active.size(); ++i) {
      if (!goes_on[i]) continue;
      const Growing& lane = active[i];
      std::copy_n(kept + input_width * i, input_width, states + input_width * left.size());
      tokens.push_back(lane.grown->tokens.back());
      spans.push_back(span_after(lane.span, static_cast<int>(lane.grown->tokens.size()) - 1));
      left.push_back(lane);
    }
    active = std::move(left);
    if (active.empty()) break;
    then_.prepare(std::move(tokens), std::move(spans));
    then_.run(states, logits, kept);
  }
  return grown;
}

bool Drafting::grow(Growing& growing, const float* logits, float* room) const {
  const Lane& lane = *growing.lane;
  Grown& grown = *growing.grown;
  const Kernels& kernels = first_.kernels();
  double sure = 0;
  bool forks = false;
  if (growing.meter) {
    sure = confidence(kernels, logits, words_.count());
    forks = growing.siblings < lane.siblings && growing.meter->forks(sure);
    if (!growing.meter->takes(sure)) return false;
  }
  const int token = drawn(growing, logits, room);
  if (token < 0) return false;
  grown.seconds.push_back(forks ? second(growing, logits, token, room) : -1);
  growing.siblings += grown.seconds.back() >= 0;
  grown.tokens.push_back(token);
  if (growing.meter) grown.confidences.push_back(sure);
  if (lane.chances)
    grown.chances.push_back(
        std::exp(logits[words_.column(token)] - log_total(kernels, logits, words_.count())));
  const bool ends = holds(lane.stops, token) || static_cast<int>(grown.tokens.size()) >= lane.length;
  return !ends && (!growing.meter || growing.meter->goes_on());
}

// The next token of a draft, or why there is none. What it is chosen from is kept if it is wanted.
int Drafting::drawn(const Growing& growing, const float* logits, float* room) const {
  const Lane& lane = *growing.lane;
  const Kernels& kernels = first_.kernels();
  const bool edited = lane.edited();
  float* scratch = room + choosing_ / 2;
  if (edited) {
    words_.spread(logits, room);
    logits = lane.choice.edited(0, room, words_.vocab, room);
  }
  const int count = growing.grown->columns;
  const int position = static_cast<int>(growing.grown->tokens.size());
  const int place = lane.choice.place_in(kernels, position, logits, count, edited ? nullptr : words_.ids, scratch);
  if (place < 0) return place;
  if (lane.scores) {
    std::vector<float>& scores = growing.grown->scores;
    const size_t before = scores.size();
    scores.resize(before + static_cast<size_t>(count));
    lane.choice.score(kernels, logits, count, scores.data() + before);
  }
  return edited ? place : words_.token(place);
}

// The next best token behind `first`, of a row without edits.
int Drafting::second(const Growing& growing, const float* logits, int first, float* room) const {
  const int position = static_cast<int>(growing.grown->tokens.size());
  const int place = growing.lane->choice.second_in(first_.kernels(), position, logits, words_.count(), words_.ids,
                                                   words_.column(first), room + choosing_ / 2);
  return place < 0 ? place : words_.token(place);
}

}  // namespace outrider

#include "suffix.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace outrider {
namespace {

constexpr uint32_t kNone = UINT32_MAX, kRoot = 0;
constexpr uint32_t kMostElements = 1u << 31;
// States whose occurrences one token adds to, the longest strings first: a bound for texts such as "aaaa", whose ends
// all occurred before.
constexpr int kCounted = 32;
// Edges that are looked at for a second token.
constexpr int kLooked = 64;

// How sure it is that a token follows again. What alone followed does so the likelier, the longer the place is and the
// more often it did; where ways part, length says little. The factors fit source code and prose.
double confidence(const Followed& followed, uint32_t longest) {
  const double length = std::min(followed.at.length, longest), times = followed.times;
  const double odds = times * std::sqrt(times) * length / (3 + 4 * followed.others * length);
  return odds / (1 + odds);
}

uint32_t hashed(int32_t token) { return static_cast<uint32_t>(token) * 2654435769u; }

}  // namespace

SuffixAutomaton::SuffixAutomaton() { states_.add({0, kNone, 0, kNone, kNone}); }

size_t SuffixAutomaton::bytes() const {
  return states_.bytes() + edges_.bytes() + ends_.capacity() * sizeof(uint32_t);
}

// The edge of a state with this token, or kNone.
uint32_t SuffixAutomaton::find(uint32_t state, int32_t token) const {
  uint32_t edge = states_[state].edges;
  for (uint32_t bits = hashed(token); edge != kNone && edges_[edge].token != token; bits <<= 1)
    edge = edges_[edge].sides[bits >> 31];
  return edge;
}

// A new edge of a state. The hash of a token is a bijection of 32 bits, so that no two share all sides.
uint32_t SuffixAutomaton::insert(uint32_t state, int32_t token, uint32_t target) {
  const uint32_t added = edges_.add({token, target, {kNone, kNone}});
  uint32_t* side = &states_[state].edges;
  for (uint32_t bits = hashed(token); *side != kNone; bits <<= 1) side = &edges_[*side].sides[bits >> 31];
  *side = added;
  return added;
}

void SuffixAutomaton::copy(uint32_t edge, uint32_t to) {
  if (edge == kNone) return;
  const Edge from = edges_[edge];
  insert(to, from.token, from.target);
  copy(from.sides[0], to);
  copy(from.sides[1], to);
}

// A state of its own for those strings behind an edge of `parent` that are the parent's with the token.
uint32_t SuffixAutomaton::cloned(uint32_t parent, uint32_t edge) {
  const int32_t token = edges_[edge].token;
  const uint32_t whole = edges_[edge].target;
  const State from = states_[whole];
  const uint32_t part = states_.add({states_[parent].length + 1, from.link, from.count, kNone, kNone});
  copy(from.edges, part);
  states_[part].best = from.best == kNone ? kNone : find(part, edges_[from.best].token);
  states_[whole].link = part;
  for (uint32_t at = parent; at != kNone; at = states_[at].link) {
    const uint32_t found = find(at, token);
    if (found == kNone || edges_[found].target != whole) break;
    edges_[found].target = part;
  }
  return part;
}

void SuffixAutomaton::add(int32_t token) {
  if (edges_.size() > kMostElements - 4 * kLooked) throw std::length_error("a suffix automaton is full");
  const uint32_t before = last_;
  const uint32_t known = find(before, token);
  if (known != kNone) {  // the text begins as another one did
    const uint32_t target = edges_[known].target;
    last_ = states_[target].length == states_[before].length + 1 ? target : cloned(before, known);
  } else {
    last_ = states_.add({states_[before].length + 1, kRoot, 0, kNone, kNone});
    uint32_t at = before, edge = kNone;
    for (; at != kNone && (edge = find(at, token)) == kNone; at = states_[at].link) insert(at, token, last_);
    if (at != kNone) {
      const uint32_t target = edges_[edge].target;
      const uint32_t link = states_[target].length == states_[at].length + 1 ? target : cloned(at, edge);
      states_[last_].link = link;
    }
  }
  count(before, token);
}

// The strings that end with a token, of which `parent` is the longest without it, occurred once more.
void SuffixAutomaton::count(uint32_t parent, int32_t token) {
  uint32_t counted = kNone;
  for (int n = 0; parent != kNone && n < kCounted; parent = states_[parent].link, ++n) {
    const uint32_t edge = find(parent, token);
    const uint32_t target = edges_[edge].target;
    if (target != counted) ++states_[counted = target].count;
    State& state = states_[parent];
    if (state.best == kNone || states_[target].count >= states_[edges_[state.best].target].count) state.best = edge;
  }
}

void SuffixAutomaton::clear() { *this = SuffixAutomaton(); }

void SuffixAutomaton::end() {
  if (last_ != kRoot) ends_.push_back(last_);
  last_ = kRoot;
}

std::vector<std::vector<int32_t>> SuffixAutomaton::texts() const {
  // One edge to each state prolongs the longest string of a state to its longest: these form a tree of prefixes.
  std::vector<uint32_t> parents(states_.size(), kNone);
  std::vector<int32_t> tokens(states_.size());
  std::vector<uint32_t> open;
  for (uint32_t state = 0; state < states_.size(); ++state) {
    if (states_[state].edges != kNone) open.push_back(states_[state].edges);
    while (!open.empty()) {
      const Edge& edge = edges_[open.back()];
      open.pop_back();
      for (const uint32_t side : edge.sides)
        if (side != kNone) open.push_back(side);
      if (states_[edge.target].length == states_[state].length + 1) {
        parents[edge.target] = state;
        tokens[edge.target] = edge.token;
      }
    }
  }
  std::vector<bool> passed(states_.size()), told(states_.size());
  for (const uint32_t end : ends_)
    for (uint32_t at = parents[end]; at != kNone && !passed[at]; at = parents[at]) passed[at] = true;
  std::vector<std::vector<int32_t>> texts;
  for (const uint32_t end : ends_) {
    if (passed[end] || told[end]) continue;
    told[end] = true;
    auto& text = texts.emplace_back();
    for (uint32_t at = end; at != kRoot; at = parents[at]) text.push_back(tokens[at]);
    std::reverse(text.begin(), text.end());
  }
  return texts;
}

// A state may have been divided since the place was found, or all may have been forgotten.
void SuffixAutomaton::settle(Place& place) const {
  if (place.state >= states_.size()) place = {};
  while (place.state != kRoot && place.length <= states_[states_[place.state].link].length)
    place.state = states_[place.state].link;
}

void SuffixAutomaton::advance(Place& place, int32_t token) const {
  settle(place);
  uint32_t edge;
  while ((edge = find(place.state, token)) == kNone) {
    if (place.state == kRoot) return;
    place.state = states_[place.state].link;
    place.length = states_[place.state].length;
  }
  place.state = edges_[edge].target;
  ++place.length;
}

Followed SuffixAutomaton::follow(Place place, bool at_end) const {
  settle(place);
  while (place.state != kRoot && states_[place.state].best == kNone) {
    place.state = states_[place.state].link;
    place.length = states_[place.state].length;
  }
  if (place.state == kRoot) return {};
  const State& state = states_[place.state];
  const Edge& best = edges_[state.best];
  const uint32_t times = states_[best.target].count, known = times + at_end;
  return {best.token, place, times, state.count > known ? state.count - known : 0};
}

int32_t SuffixAutomaton::second(const Place& place) const {
  const State& state = states_[place.state];
  int32_t found = -1;
  uint32_t most = 0;
  std::vector<uint32_t> open{state.edges};
  for (int n = 0; n < kLooked && !open.empty(); ++n) {
    const uint32_t at = open.back();
    const Edge& edge = edges_[at];
    open.pop_back();
    for (const uint32_t side : edge.sides)
      if (side != kNone) open.push_back(side);
    if (at == state.best || states_[edge.target].count <= most) continue;
    most = states_[edge.target].count;
    found = edge.token;
  }
  return found;
}

void SuffixText::add(const std::vector<int32_t>& tokens) {
  for (const int32_t token : tokens) {
    own_.advance(place_, token);  // before it is added: it would find itself
    own_.add(token);
    for (size_t i = 0; i < others_.size(); ++i) others_[i]->advance(places_[i], token);
  }
}

void SuffixText::watch(std::vector<std::shared_ptr<SuffixAutomaton>> others, const std::vector<int32_t>& recent) {
  std::vector<Place> places;
  for (const auto& each : others) {
    const auto known = std::find(others_.begin(), others_.end(), each);
    Place& place = places.emplace_back();
    if (known != others_.end()) {
      place = places_[known - others_.begin()];
    } else {
      for (const int32_t token : recent) each->advance(place, token);
    }
  }
  others_ = std::move(others);
  places_ = std::move(places);
}

Continuation SuffixText::follow(const std::vector<int32_t>& after, int length, uint32_t least, uint32_t longest,
                                bool siblings) const {
  std::vector<const SuffixAutomaton*> automata{&own_};
  std::vector<Place> places{place_};
  for (const auto& each : others_) automata.push_back(each.get());
  places.insert(places.end(), places_.begin(), places_.end());
  const auto advance = [&](int32_t token) {
    for (size_t i = 0; i < automata.size(); ++i) automata[i]->advance(places[i], token);
  };
  for (const int32_t token : after) advance(token);
  Continuation found;
  for (int n = 0; n < length; ++n) {
    Followed best;
    const SuffixAutomaton* by = nullptr;
    for (size_t i = 0; i < automata.size(); ++i) {
      const Followed one = automata[i]->follow(places[i], i == 0 && after.empty() && n == 0);
      if (one.token < 0 || one.at.length <= best.at.length) continue;
      best = one;
      by = automata[i];
    }
    if (best.at.length < least || by == nullptr) break;
    found.tokens.push_back(best.token);
    found.confidences.push_back(confidence(best, longest));
    found.seconds.push_back(siblings && best.others > 0 ? by->second(best.at) : -1);
    advance(best.token);
  }
  return found;
}

}  // namespace outrider

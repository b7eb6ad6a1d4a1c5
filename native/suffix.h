// What followed the longest end of a text that occurred before, in it or in others: a suffix automaton.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace outrider {

// Numbered elements in blocks that never move, so that growing copies nothing and takes no more than a block ahead.
template <typename T>
class Blocks {
 public:
  Blocks() = default;
  Blocks(Blocks&&) = default;
  Blocks& operator=(Blocks&&) = default;

  T& operator[](uint32_t i) { return blocks_[i / kBlock][i % kBlock]; }
  const T& operator[](uint32_t i) const { return blocks_[i / kBlock][i % kBlock]; }
  uint32_t size() const { return size_; }
  size_t bytes() const { return blocks_.size() * kBlock * sizeof(T) + blocks_.capacity() * sizeof(blocks_[0]); }

  uint32_t add(const T& element) {
    if (size_ == blocks_.size() * kBlock) blocks_.push_back(std::make_unique<T[]>(kBlock));
    (*this)[size_] = element;
    return size_++;
  }

 private:
  static constexpr uint32_t kBlock = 256;
  std::vector<std::unique_ptr<T[]>> blocks_;
  uint32_t size_ = 0;
};

// The longest end of a text that an automaton knows: a state, and how many tokens of the text it stands for.
struct Place {
  uint32_t state = 0;
  uint32_t length = 0;
};

// What followed a place. token: the one that followed most often, the latest of those that are equal, or -1; at: the place
// that it followed, which is a shorter end where nothing did. times: how often it did, others: how often anything else.
struct Followed {
  int32_t token = -1;
  Place at;
  uint32_t times = 0;
  uint32_t others = 0;
};

// The suffix automaton of some texts (Blumer et al., 1985), grown token by token in amortised constant time. A state is a
// set of strings that end at the same places; there are at most two states and three edges for a token.
class SuffixAutomaton {
 public:
  SuffixAutomaton();
  // Bytes that a token takes at most, and what the last blocks and their tables may take besides.
  static constexpr size_t kMostPerToken = 97, kBesides = 1 << 14;

  size_t bytes() const;
  // Add a token to the text that is being written, 0 or above. Raises std::length_error for more than 2^30.
  void add(int32_t token);
  // The text is complete; the next token begins another one.
  void end();
  // The complete texts, as they were added; one that begins another is left out.
  std::vector<std::vector<int32_t>> texts() const;

  // Forget all texts, and give their memory back.
  void clear();

  // The place one token on: the longest known end of that text.
  void advance(Place& place, int32_t token) const;
  // What followed there, or a shorter end of it. at_end: whether the place is the end of the text that is being written,
  // which nothing follows.
  Followed follow(Place place, bool at_end) const;
  // What followed there most often but one, or -1.
  int32_t second(const Place& place) const;

 private:
  struct State {
    uint32_t length;  // of the longest string
    uint32_t link;    // the state of its longest end that occurs elsewhere too
    uint32_t count;   // occurrences
    uint32_t edges;   // the root of a tree of them
    uint32_t best;    // the edge that was followed most often, the latest of equals
  };
  // Edges of a state form a digital search tree: bits of the token's hash lead to either side.
  struct Edge {
    int32_t token;
    uint32_t target;
    uint32_t sides[2];
  };

  uint32_t find(uint32_t state, int32_t token) const;
  uint32_t insert(uint32_t state, int32_t token, uint32_t target);
  uint32_t cloned(uint32_t parent, uint32_t edge);
  void copy(uint32_t edge, uint32_t to);
  void count(uint32_t parent, int32_t token);
  void settle(Place& place) const;

  Blocks<State> states_;
  Blocks<Edge> edges_;
  std::vector<uint32_t> ends_;  // states of complete texts
  uint32_t last_ = 0;
};

// A draft, token by token: how sure it is of each, and what might stand in its place, or -1.
struct Continuation {
  std::vector<int32_t> tokens;
  std::vector<double> confidences;
  std::vector<int32_t> seconds;
};

// A text as it grows, and where it stands in others that are known.
class SuffixText {
 public:
  size_t bytes() const { return own_.bytes(); }
  void add(const std::vector<int32_t>& tokens);
  // Match these from now on, and no others. recent: the end of the text as it is.
  void watch(std::vector<std::shared_ptr<SuffixAutomaton>> others, const std::vector<int32_t>& recent);
  // What followed the longest end that was seen before, of the text with `after` behind it: up to `length` tokens, as long
  // as that end has `least`. longest: tokens from which on a longer end makes nothing surer.
  Continuation follow(const std::vector<int32_t>& after, int length, uint32_t least, uint32_t longest,
                      bool siblings) const;

 private:
  SuffixAutomaton own_;
  Place place_;  // of the end that occurred before, in `own_`
  std::vector<std::shared_ptr<SuffixAutomaton>> others_;
  std::vector<Place> places_;
};

}  // namespace outrider

// Drafts that a model or a head grows in lockstep, token by token.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "choice.h"
#include "pass.h"

namespace outrider {

// When the next token of a draft is not worth what it costs. row: the price of verifying a token, token: of drafting
// and verifying one; least: tokens for which no price is asked. sure: the chance that a token stands, given those
// before it, by how sure the drafter is of it; reached: the same by its position, or empty; second: the chance that the
// next best token stands where the best has fallen, by how sure the drafter was of that, or empty.
struct Price {
  double row, token;
  int least;
  std::vector<double> sure, reached, second;
};

// A draft on its budget, position by position.
class Meter {
 public:
  explicit Meter(const Price& price) : price_(&price) {}
  // Whether the next token is worth verifying. confidence: how sure the drafter is of it, 0 to 1.
  bool takes(double confidence);
  // Whether the next best token is worth verifying too, beside the one that is asked about next.
  bool forks(double confidence) const;
  // Whether another token is worth drafting.
  bool goes_on() const;

 private:
  const Price* price_;
  int position_ = 0;
  double survival_ = 1;
};

// A draft to grow behind the last row of a span. choice: of one row; token i has the noise of position + i. A draft
// that is edited has one token and no siblings. stops: nothing is drafted after these. slots: of the states after each drafted token
// that is computed.
struct Lane {
  Choice choice;
  int length;
  std::vector<int> stops;
  std::optional<Price> price;
  bool chances, scores;  // whether they are wanted
  std::vector<int32_t> slots;
  int siblings = 0;  // next best tokens at most

  bool edited() const { return choice.edits_row(0); }
};

// Which tokens the columns of a drafter's logits are. ids: [columns], ascending; null: column i is token i, and those
// at or beyond `vocab` are padding.
struct Words {
  const int64_t* ids;
  int columns;
  int vocab;  // the target's

  int count() const { return ids != nullptr ? columns : std::min(columns, vocab); }  // of columns that are looked at
  int token(int column) const { return ids != nullptr ? static_cast<int>(ids[column]) : column; }
  int column(int token) const;  // of a word
  int last() const { return token(count() - 1); }  // the largest id
  // row: [vocab]; -inf for all that are not words.
  void spread(const float* logits, float* row) const;
};

// seconds: of each token the next best one, or a negative number where it is not wanted. confidences, chances: one a
// token, or none at all; scores: [tokens, columns], or none. state: what was kept of the
// row, where edits are given, even none for this token: such a draft goes on in another call.
struct Grown {
  std::vector<int> tokens, seconds;
  std::vector<double> confidences, chances;
  std::vector<float> scores, state;
  int columns = 0;  // of what tokens are chosen from
  bool wants_scores = false;
};

// What drafts are computed in.
struct DraftRooms {
  Room logits, kept, input, choosing;
};

// One round of drafting: `first` over the spans, and `then` over one drafted token of each lane, again and again.
// Both have the same cache; they may be the same. in_place: `then` writes nothing there, and reads it from the last row of
// the lane's span for each token; else from the row behind.
class Drafting {
 public:
  // Throws std::invalid_argument for what cannot be run, before anything is written. lanes: one a span; without one it
  // is only read.
  Drafting(Pass& first, Pass& then, std::vector<int32_t> tokens, std::vector<Span> spans,
           const std::vector<std::optional<Lane>>& lanes, const Words& words, DraftRooms& rooms, bool in_place);

  // input: of `first`.
  std::vector<std::optional<Grown>> run(const float* input);

 private:
  // A lane that has not ended.
  struct Growing {
    size_t span;
    const Lane* lane;
    Grown* grown;
    std::optional<Meter> meter;
    int siblings = 0;  // that are drafted
  };

  void check_passes() const;
  void check_lane(size_t number) const;
  // The pass over a lane's drafted token `position`.
  Span span_after(size_t number, int position) const;
  // One more token after these logits; whether the draft goes on.
  bool grow(Growing& growing, const float* logits, float* room) const;
  int drawn(const Growing& growing, const float* logits, float* room) const;
  int second(const Growing& growing, const float* logits, int first, float* room) const;

  Pass& first_;
  Pass& then_;
  std::vector<Span> spans_;
  const std::vector<std::optional<Lane>>& lanes_;
  const Words words_;
  DraftRooms& rooms_;
  const bool in_place_;
  size_t choosing_ = 0;  // floats that a thread needs to choose
};

}  // namespace outrider

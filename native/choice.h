// How tokens are chosen from the logits of a span.
#pragma once

#include <optional>
#include <vector>

#include "change.h"
#include "room.h"
#include "sample.h"
#include "threads.h"

namespace outrider {

// Of the rows of a span that have logits the first `skip` are passed over, and the next `rows` give a token each:
// the first of the largest logits where there are no filters, or what the Gumbel-max trick draws with the noise of
// position + offset of the row.
struct Choice {
  int skip;
  int rows;
  std::optional<Filters> filters;
  uint64_t key;  // a fold of all that tells noise apart but for the position
  int64_t position;
  std::vector<Changes> edits;  // of each row; empty: none at all
  std::vector<int> offsets = {};  // of each row, from position on; empty: one after the other

  // Throws std::invalid_argument.
  void check() const;
  void check_edits(int vocab) const;

  bool edits_row(int row) const { return !edits.empty() && !edits[static_cast<size_t>(row)].empty(); }
  // The key of a row's noise.
  uint64_t key_of(int row) const;
  // The logits that a row's token is chosen from: the given ones, or a copy in `room`, which has as many floats.
  const float* edited(int row, const float* logits, int vocab, float* room) const;
  // The place of the token among `count` logits, or why there is none. ids: see `choose`; room: `count` floats.
  int place_in(const Kernels& kernels, int row, const float* logits, int count, const int64_t* ids, float* room) const;
  // The next best place, behind `first`.
  int second_in(const Kernels& kernels, int row, const float* logits, int count, const int64_t* ids, int first,
                float* room) const;
  // What it is chosen from, as log-probabilities up to a constant; see `filtered`. scores: `count` floats.
  void score(const Kernels& kernels, const float* logits, int count, float* scores) const;
};

// Floats that a thread needs to choose from edited rows.
inline size_t choosing_floats(int vocab) { return 2 * static_cast<size_t>(round_up(vocab, kLanes)); }

// The tokens of each span's choice. logit_rows: of each span; logits: [sum of logit_rows, vocab]; all was checked.
std::vector<std::vector<int>> choose_all(const std::vector<std::optional<Choice>>& choices,
                                         const std::vector<int>& logit_rows, const float* logits, int vocab,
                                         const Kernels& kernels, Threads& threads, Room& room);

}  // namespace outrider

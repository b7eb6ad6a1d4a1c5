// The rows of one pass, laid out for a plan.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pieces.h"
#include "plan.h"

namespace outrider {

// The rows that one request adds to a pass. tables: for each group of layers, the blocks of its cache; those
// that lie behind the group's window are never read and may be -1. logit_rows: counted from the last row.
//
// The last rows may be a tree: parents holds, for each of them, which of them it follows, or -1 for the row before them
// all. Row i writes its K and V at place start + i of the tables, and sees those of the rows that it follows, wherever
// they lie, in order of position. A row that another follows than the one behind it needs a slot for the states after it.
struct Span {
  int start;
  int rows;
  std::vector<std::vector<int32_t>> tables;
  int logit_rows;
  int state = -1;                        // the slot of the states before the first row; -1: they are zero
  std::vector<int32_t> new_states = {};  // of each row, the slot of the states after it, or -1; empty: none
  std::vector<int32_t> parents = {};

  int trunk() const { return rows - static_cast<int>(parents.size()); }  // rows before the tree
  std::vector<int32_t> positions() const;                                // of each row
  // The slot of the states after a row; -1: none.
  int slot_after(int row) const { return new_states.empty() ? -1 : new_states[static_cast<size_t>(row)]; }
  // The row that a row follows; -1 for the first.
  int follows(int row) const {
    return row < trunk() ? row - 1 : trunk() + parents[static_cast<size_t>(row - trunk())];
  }
};

// Where the rows' K and V go in the caches of one group.
struct Places {
  std::vector<int32_t> blocks, offsets;
};

// By how much one rope turns each row: [rows, pairs].
struct Turns {
  std::vector<float> cos, sin;
};

struct Batch {
  int rows = 0;
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<int32_t> logit_rows;
  std::vector<Span> spans;
  std::vector<int32_t> first_rows;  // of each span
  std::vector<Places> places;  // of each group
  std::vector<Turns> turns;    // of each rope
  std::vector<Pieces> pieces;  // of each class of layers
};

// Throws std::invalid_argument for a span that cannot be run. of_span: what errors call it, as " of span 0".
void check_span(const Plan& plan, const Span& span, const std::string& of_span);

// Throws std::invalid_argument for what cannot be run.
Batch lay_out(const Plan& plan, std::vector<int32_t> tokens, std::vector<Span> spans, int threads);

}  // namespace outrider

// How the attention of a pass is cut into pieces that threads take.
#pragma once

#include <cstddef>
#include <vector>

#include "plan.h"

namespace outrider {

struct Span;

inline constexpr int kRowsPerPiece = 16;

// Some rows of one request that follow each other, and all the keys that they see or one chunk of them. The keys of
// positions from `branch` on lie at the places that `path` leads to, in `Pieces::paths`, and others at their positions.
struct Piece {
  int span;
  int row;  // of the pass
  int rows;
  int position;  // of the first row
  int first_key;
  int last_key;
  int branch = kMostPositions;
  size_t path = 0;
  ptrdiff_t state = -1;  // where the states of a chunk go, for one K/V head after the other

  bool is_whole() const { return state < 0; }
};

// Rows of which attention was split over keys: the states to merge, `count` of them.
struct Split {
  int row;
  int rows;
  int count;
  ptrdiff_t state;
};

struct Pieces {
  std::vector<Piece> pieces;
  std::vector<Split> splits;
  std::vector<int32_t> paths;
  size_t states = 0;  // floats
  int heads = 1;      // K/V heads that a task attends to side by side; the last task of a piece may have fewer

  int head_groups(int kv_heads) const { return (kv_heads + heads - 1) / heads; }
};

// A piece that would keep a thread busy while others wait is split at every chunk of its keys. The arithmetic is
// the same: chunks are merged in order either way.
Pieces cut(const std::vector<Span>& spans, const AttentionClass& layers, int threads);

}  // namespace outrider

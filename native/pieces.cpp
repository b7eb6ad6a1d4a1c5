#include "pieces.h"

#include <algorithm>

#include "batch.h"

namespace outrider {
namespace {

constexpr int kPartsPerThread = 4;                       // so that none waits long for the last
constexpr int kQueriesPerTask = 12;                    // of heads side by side: the first-level cache holds what they keep
constexpr ptrdiff_t kMostStates = ptrdiff_t{1} << 25;  // floats of partial results: 128 MiB

int chunks_of(const Piece& piece) {
  return (piece.last_key + kChunk - 1) / kChunk - piece.first_key / kChunk;
}

// The pieces of one span, whose first row is `first_row` of the pass: rows that follow each other, as far as a piece
// goes.
void add_pieces(const Span& span, int number, int first_row, int window, std::vector<Piece>& whole,
                std::vector<int32_t>& paths) {
  const std::vector<int32_t> positions = span.positions();
  const int trunk = span.trunk(), branch = span.start + trunk;
  for (int row = 0, rows; row < span.rows; row += rows) {
    rows = 1;
    while (rows < kRowsPerPiece && row + rows < span.rows && span.follows(row + rows) == row + rows - 1) ++rows;
    const int position = positions[static_cast<size_t>(row)];
    Piece piece{.span = number,
                .row = first_row + row,
                .rows = rows,
                .position = position,
                .first_key = std::max(0, position - window + 1),
                .last_key = position + rows};
    if (position != span.start + row) {  // else all that it follows lies in order
      piece.branch = branch;
      piece.path = paths.size();
      paths.resize(paths.size() + static_cast<size_t>(piece.last_key - branch));
      int32_t* place = paths.data() + paths.size();
      for (int last = row + rows - 1; last >= trunk; last = span.follows(last)) *--place = span.start + last;
    }
    whole.push_back(piece);
  }
}

}  // namespace

Pieces cut(const std::vector<Span>& spans, const AttentionClass& layers, int threads) {
  Pieces found;
  std::vector<Piece> whole;
  for (size_t i = 0, first_row = 0; i < spans.size(); first_row += static_cast<size_t>(spans[i].rows), ++i)
    add_pieces(spans[i], static_cast<int>(i), static_cast<int>(first_row), layers.window, whole, found.paths);
  int64_t chunks_in_all = 0;
  int most_rows = 1;
  for (const Piece& piece : whole) {
    chunks_in_all += chunks_of(piece);
    most_rows = std::max(most_rows, piece.rows);
  }
  const int queries = most_rows * layers.heads / layers.kv_heads;
  found.heads = std::clamp(kQueriesPerTask / queries, 1, layers.kv_heads);
  const int64_t parts = threads > 1 ? int64_t{kPartsPerThread} * threads : 0;
  ptrdiff_t states = 0;
  for (const Piece& piece : whole) {
    const int chunks = chunks_of(piece);
    const ptrdiff_t size = ptrdiff_t{piece.rows} * layers.heads * state_size(layers.head_dim);
    const bool large = chunks > 1 && chunks * parts > chunks_in_all * found.head_groups(layers.kv_heads);
    if (!large || states + chunks * size > kMostStates) {
      found.pieces.push_back(piece);
      continue;
    }
    found.splits.push_back({.row = piece.row, .rows = piece.rows, .count = chunks, .state = states});
    for (int key = piece.first_key; key < piece.last_key; states += size) {
      Piece chunk = piece;
      chunk.first_key = key;
      key = std::min(piece.last_key, (key / kChunk + 1) * kChunk);
      chunk.last_key = key;
      chunk.state = states;
      found.pieces.push_back(chunk);
    }
  }
  found.states = static_cast<size_t>(states);
  const auto tasks = [&] { return static_cast<int64_t>(found.pieces.size()) * found.head_groups(layers.kv_heads); };
  while (found.heads > 1 && tasks() < parts) --found.heads;
  return found;
}

}  // namespace outrider

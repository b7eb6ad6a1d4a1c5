#include "pieces.h"

#include <algorithm>

#include "batch.h"

namespace outrider {
namespace {

constexpr int kPartsPerThread = 4;                       // so that none waits long for the last
constexpr ptrdiff_t kMostStates = ptrdiff_t{1} << 25;  // floats of partial results: 128 MiB

int chunks_of(const Piece& piece) {
  return (piece.last_key + kChunk - 1) / kChunk - piece.first_key / kChunk;
}

std::vector<Piece> whole_pieces(const std::vector<Span>& spans, int window) {
  std::vector<Piece> whole;
  int first_row = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    const Span& span = spans[i];
    for (int row = 0; row < span.rows; row += kRowsPerPiece) {
      const int rows = std::min(kRowsPerPiece, span.rows - row), position = span.start + row;
      whole.push_back({.span = static_cast<int>(i),
                       .row = first_row + row,
                       .rows = rows,
                       .position = position,
                       .first_key = std::max(0, position - window + 1),
                       .last_key = position + rows});
    }
    first_row += span.rows;
  }
  return whole;
}

}  // namespace

Pieces cut(const std::vector<Span>& spans, const AttentionClass& layers, int threads) {
  const std::vector<Piece> whole = whole_pieces(spans, layers.window);
  int64_t chunks_in_all = 0;
  for (const Piece& piece : whole) chunks_in_all += chunks_of(piece);
  const int64_t parts = threads > 1 ? int64_t{kPartsPerThread} * threads : 0;
  Pieces found;
  ptrdiff_t states = 0;
  for (const Piece& piece : whole) {
    const int chunks = chunks_of(piece);
    const ptrdiff_t size = ptrdiff_t{piece.rows} * layers.heads * state_size(layers.head_dim);
    const bool large = chunks > 1 && chunks * parts > chunks_in_all * layers.kv_heads;
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
  return found;
}

}  // namespace outrider

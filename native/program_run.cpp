// Programs as they run.
#include <algorithm>
#include <cmath>

#include "operations.h"
#include "program.h"

namespace outrider {
namespace {

constexpr int kPartsPerThread = 4;                       // of attention, so that none waits long for the last
constexpr ptrdiff_t kMostStates = ptrdiff_t{1} << 25;  // floats of partial results: 128 MiB

int chunks_of(const Piece& piece) {
  return (piece.last_key + kChunk - 1) / kChunk - piece.first_key / kChunk;
}

}  // namespace

float* Program::floats(Value x, const Step& step) const {
  if (x == input_) return const_cast<float*>(step.input);
  if (x == output_) return step.output;
  const Buffer& buffer = buffers_[static_cast<size_t>(values_[static_cast<size_t>(x)].buffer)];
  return reinterpret_cast<float*>(step.arena + buffer.place * step.capacity);
}

uint32_t* Program::prepared(int buffer, const Step& step) const {
  const size_t place = buffers_[static_cast<size_t>(buffer)].place;
  return reinterpret_cast<uint32_t*>(step.arena + place * step.capacity);
}

int Program::rows(Value x, const Step& step) const {
  return values_[static_cast<size_t>(x)].logits ? static_cast<int>(step.logit_rows.size()) : step.rows;
}

// Nothing may be written before all of a pass is known to be possible.
void Program::check_spans(const std::vector<int32_t>& tokens, const std::vector<Span>& spans) const {
  int64_t rows = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    const Span& span = spans[i];
    const int64_t end = int64_t{span.start} + span.rows;
    const auto at = [&](const char* what) { return std::string(what) + " of span " + std::to_string(i); };
    if (span.start < 0) refuse(at("start") + " = " + std::to_string(span.start) + " has to be at least 0");
    if (span.rows < 1) refuse(at("rows") + " = " + std::to_string(span.rows) + " has to be at least 1");
    if (end > kMostPositions)
      refuse(at("start and rows") + " lead to " + std::to_string(end) + " positions; 2^30 are possible");
    if (span.logit_rows < 0 || span.logit_rows > span.rows)
      refuse(at("logit_rows") + " = " + std::to_string(span.logit_rows) + " has to be 0 to " +
             std::to_string(span.rows));
    rows += span.rows;
    if (caches_.empty()) continue;
    const int64_t size = caches_[0].block_size;
    if (static_cast<int64_t>(span.table.size()) * size < end)
      refuse(at("table") + " holds " + std::to_string(span.table.size()) + " blocks of " +
             std::to_string(size) + "; " + std::to_string(end) + " positions need more");
    for (const int32_t block : span.table)
      if (block < 0 || block >= caches_[0].blocks)
        refuse(at("table") + " names block " + std::to_string(block) + "; there are " +
               std::to_string(caches_[0].blocks));
  }
  if (static_cast<int64_t>(tokens.size()) != rows)
    refuse("tokens has " + std::to_string(tokens.size()) + " values; the spans have " + std::to_string(rows) +
           " rows");
  if (rows > kMostRows) refuse("tokens has " + std::to_string(rows) + " values; up to 2^20 are possible");
  for (const int32_t token : tokens)
    if (token < 0 || token >= vocab_)
      refuse("tokens holds " + std::to_string(token) + "; vocab = " + std::to_string(vocab_));
}

int Program::prepare(const std::vector<int32_t>& tokens, std::vector<Span> spans) {
  output_width();
  check_spans(tokens, spans);
  Step& step = step_;
  step.rows = 0;
  step.positions.clear();
  step.blocks.clear();
  step.offsets.clear();
  step.logit_rows.clear();
  for (const Span& span : spans) {
    step.rows += span.rows;
    for (int row = span.logit_rows; row > 0; --row) step.logit_rows.push_back(step.rows - row);
    for (int position = span.start; position < span.start + span.rows; ++position) {
      step.positions.push_back(position);
      if (caches_.empty()) continue;
      step.blocks.push_back(span.table[static_cast<size_t>(position / caches_[0].block_size)]);
      step.offsets.push_back(position % caches_[0].block_size);
    }
  }
  step.tokens = tokens;
  step.spans = std::move(spans);
  return rows(output_, step);
}

void Program::run(const float* input, float* output, float* kept) {
  Step& step = step_;
  if (step.rows == 0) return;
  const DefaultFloats default_floats;
  if (static_cast<size_t>(step.rows) > step.capacity) {
    arena_ = aligned<std::byte>(bytes_per_row_ * static_cast<size_t>(step.rows));
    step.capacity = static_cast<size_t>(step.rows);
    step.arena = arena_.get();
  }
  step.input = input;
  step.output = output;
  step.kept = kept;
  if (!caches_.empty()) {
    fill_rotation();
    plan_attention();
  }
  tasks_.clear();
  for (const auto& op : ops_) tasks_.push_back(op->tasks(step));
  threads_->run(tasks_, [&](int stage, int first, int last, int thread) {
    const Op& op = *ops_[static_cast<size_t>(stage)];
    float* scratch = scratch_[static_cast<size_t>(thread)].get();
    op.run(step, first, last, scratch);
  });
}

void Program::fill_rotation() {
  const size_t half = inv_freq_.size();
  step_.cos.resize(half * static_cast<size_t>(step_.rows));
  step_.sin.resize(step_.cos.size());
  for (size_t row = 0, i = 0; row < static_cast<size_t>(step_.rows); ++row) {
    for (size_t d = 0; d < half; ++d, ++i) {
      const float angle = static_cast<float>(step_.positions[row]) * inv_freq_[d];
      step_.cos[i] = std::cos(angle) * attention_factor_;
      step_.sin[i] = std::sin(angle) * attention_factor_;
    }
  }
}

// Cuts attention into pieces of some rows. One that would keep a thread busy while others wait is split at
// every chunk of its keys. The arithmetic is the same: chunks are merged in order either way.
void Program::plan_attention() {
  const Shape& s = shape();
  Step& step = step_;
  std::vector<Piece> whole;
  int64_t chunks_in_all = 0;
  int first_row = 0;
  for (size_t i = 0; i < step.spans.size(); ++i) {
    const Span& span = step.spans[i];
    for (int row = 0; row < span.rows; row += kRowsPerPiece) {
      const int rows = std::min(kRowsPerPiece, span.rows - row), position = span.start + row;
      const int first_key = std::max(0, position - s.window + 1);
      whole.push_back({static_cast<int>(i), first_row + row, rows, position, first_key, position + rows, -1});
      chunks_in_all += chunks_of(whole.back());
    }
    first_row += span.rows;
  }
  step.pieces.clear();
  step.splits.clear();
  const int64_t parts = threads_->count() > 1 ? int64_t{kPartsPerThread} * threads_->count() : 0;
  ptrdiff_t states = 0;
  for (const Piece& piece : whole) {
    const int chunks = chunks_of(piece);
    const ptrdiff_t size = ptrdiff_t{piece.rows} * s.heads * state_size(s.head_dim);
    const bool large = chunks > 1 && chunks * parts > chunks_in_all * s.kv_heads;
    if (!large || states + chunks * size > kMostStates) {
      step.pieces.push_back(piece);
      continue;
    }
    step.splits.push_back({piece.row, piece.rows, chunks, states});
    for (int key = piece.first_key; key < piece.last_key; states += size) {
      Piece chunk = piece;
      chunk.first_key = key;
      key = std::min(piece.last_key, (key / kChunk + 1) * kChunk);
      chunk.last_key = key;
      chunk.state = states;
      step.pieces.push_back(chunk);
    }
  }
  if (states_floats_ < static_cast<size_t>(states)) {
    states_ = aligned<float>(static_cast<size_t>(states));
    states_floats_ = static_cast<size_t>(states);
    step.states = states_.get();
  }
}

}  // namespace outrider

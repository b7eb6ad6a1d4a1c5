// The operations of a plan that make up an attention layer.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "operations.h"

namespace outrider {

// Norms and turns q and k of each row, norms v, and writes k and v to the cache, where the layer has them.
class Store : public OneByOne {
 public:
  Store(const Graph::Attend& attend, Operand qkv, Operand q)
      : a_(attend.attention), cache_(attend.cache), qkv_(qkv), q_(q) {}
  int tasks(const Pass& pass) const override { return pass.rows(q_); }
  size_t scratch() const override { return 2 * static_cast<size_t>(a_.kv_width()); }
  void run_one(const Pass& pass, int row, float* k) const override {
    const float* x = pass.row(qkv_, row);
    float* q = pass.row(q_, row);
    std::memcpy(q, x, sizeof(float) * static_cast<size_t>(a_.q_width()));
    norm(pass, a_.q_norm, a_.q_width(), q);
    turn(pass, row, a_.heads, q);
    if (a_.temperature) {
      const int lengths = pass.batch().positions[static_cast<size_t>(row)] / a_.temperature->length;
      const float growth = 1 + a_.temperature->beta * std::log(static_cast<float>(lengths + 1));
      for (int i = 0; i < a_.q_width(); ++i) q[i] *= growth;
    }
    spread(pass, a_.heads, q);
    if (!a_.stores()) return;
    const size_t bytes = sizeof(float) * static_cast<size_t>(a_.kv_width());
    float* v = k + a_.kv_width();
    std::memcpy(k, x + a_.q_width(), bytes);
    std::memcpy(v, x + a_.qkv_width() - a_.kv_width(), bytes);
    norm(pass, a_.k_norm, a_.kv_width(), k);
    norm(pass, a_.v_norm, a_.kv_width(), v);
    turn(pass, row, a_.kv_heads, k);
    spread(pass, a_.kv_heads, k);
    const Places& places = pass.batch().places[static_cast<size_t>(a_.group)];
    const auto at = static_cast<size_t>(row);
    pass.kernels().store(cache_, places.blocks[at], places.offsets[at], k, v);
  }

 private:
  void norm(const Pass& pass, const Floats& weight, int width, float* x) const {
    const auto size = static_cast<int>(weight.size());
    for (int at = 0; size > 0 && at < width; at += size)
      pass.kernels().rms_norm(x + at, weight.data(), a_.norm_eps, size, nullptr, x + at);
  }
  void turn(const Pass& pass, int row, int heads, float* x) const {
    if (!a_.rope) return;
    const Rope& rope = pass.rope(*a_.rope);
    const Turns& turns = pass.batch().turns[static_cast<size_t>(*a_.rope)];
    const size_t first = rope.inv_freq.size() * static_cast<size_t>(row);
    pass.kernels().rotate(x, &turns.cos[first], &turns.sin[first], rope.pairs(), rope.interleaved, heads,
                          a_.head_dim);
  }

  // What q and k go through before they meet, where k is rounded to 8 bits.
  void spread(const Pass& pass, int heads, float* x) const {
    if (cache_.stored == Stored::kInt8) pass.kernels().spread(x, heads, a_.head_dim);
  }

  const Attention& a_;
  CacheView cache_;
  Operand qkv_, q_;
};

// What pieces of attention have in common, whether they are computed or merged.
class OfLayer : public OneByOne {
 protected:
  OfLayer(const Graph::Attend& attend, int number, Operand y)
      : a_(attend.attention), cache_(attend.cache), class_(static_cast<size_t>(number)), y_(y) {}

  const Pieces& pieces(const Pass& pass) const { return pass.batch().pieces[class_]; }
  size_t state_floats() const { return static_cast<size_t>(state_size(a_.head_dim)); }
  // Writes what the `queries` states of K/V head `head`, from row `row` on, have come to.
  void finish(const Pass& pass, const float* states, int queries, int row, int head) const {
    for (int i = 0; i < queries; ++i) {
      const int query_head = head * a_.share() + i % a_.share();
      pass.kernels().finish(states + state_floats() * static_cast<size_t>(i), a_.head_dim,
                            a_.sinks.empty() ? nullptr : &a_.sinks[static_cast<size_t>(query_head)],
                            pass.row(y_, row + i / a_.share()) + query_head * a_.head_dim);
    }
  }

  const Attention& a_;
  CacheView cache_;
  size_t class_;
  Operand y_;
};

class Attend : public OfLayer {
 public:
  Attend(const Graph::Attend& attend, int number, Operand q, Operand y) : OfLayer(attend, number, y), q_(q) {}
  int tasks(const Pass& pass) const override {
    return static_cast<int>(pieces(pass).pieces.size()) * pieces(pass).head_groups(a_.kv_heads);
  }
  size_t scratch() const override {
    return attend_scratch_size(a_.head_dim, kRowsPerPiece * a_.share());
  }
  void run_one(const Pass& pass, int task, float* scratch) const override {
    const int groups = pieces(pass).head_groups(a_.kv_heads), head = task % groups * pieces(pass).heads;
    const int heads = std::min(pieces(pass).heads, a_.kv_heads - head);
    const Piece& piece = pieces(pass).pieces[static_cast<size_t>(task / groups)];
    const int queries = piece.rows * a_.share();
    const size_t size = static_cast<size_t>(queries) * state_floats();
    float* state = piece.is_whole()
                       ? scratch + attend_scratch_size(a_.head_dim, heads * queries) - size * static_cast<size_t>(heads)
                       : pass.states() + piece.state + size * static_cast<size_t>(head);
    const Span& span = pass.batch().spans[static_cast<size_t>(piece.span)];
    pass.kernels().attend({
        .cache = &cache_,
        .table = span.tables[static_cast<size_t>(a_.group)].data(),
        .kv_head = head,
        .heads = heads,
        .share = a_.share(),
        .q = pass.row(q_, piece.row) + head * a_.share() * a_.head_dim,
        .q_stride = static_cast<size_t>(q_.width),
        .rows = piece.rows,
        .position = piece.position,
        .window = a_.window,
        .first_key = piece.first_key,
        .last_key = piece.last_key,
        .branch = piece.branch,
        .path = pieces(pass).paths.data() + piece.path,
        .scale = a_.scale,
        .soft_cap = a_.soft_cap,
        .state = state,
        .scratch = scratch,
    });
    for (int i = 0; i < heads && piece.is_whole(); ++i)
      finish(pass, state + size * static_cast<size_t>(i), queries, piece.row, head + i);
  }

 private:
  Operand q_;
};

// Merges what threads computed for the chunks of one request's keys, in order of position.
class Merge : public OfLayer {
 public:
  using OfLayer::OfLayer;
  Merge(const Graph::Attend& attend, int number, Operand y) : OfLayer(attend, number, y) {}
  int tasks(const Pass& pass) const override {
    return static_cast<int>(pieces(pass).splits.size()) * a_.kv_heads;
  }
  void run_one(const Pass& pass, int task, float*) const override {
    const int head = task % a_.kv_heads;
    const Split& split = pieces(pass).splits[static_cast<size_t>(task / a_.kv_heads)];
    const int queries = split.rows * a_.share();
    const size_t size = static_cast<size_t>(queries) * state_floats();
    const size_t chunk = size * static_cast<size_t>(a_.kv_heads);  // from one chunk's states to the next's
    float* first = pass.states() + split.state + size * static_cast<size_t>(head);
    for (int i = 0; i < queries; ++i) {
      float* state = first + state_floats() * static_cast<size_t>(i);
      for (int c = 1; c < split.count; ++c)
        pass.kernels().merge(state, state + chunk * static_cast<size_t>(c), a_.head_dim);
    }
    finish(pass, first, queries, split.row, head);
  }
};

}  // namespace outrider

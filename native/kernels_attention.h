// Attention of one request's rows over its paged keys and values.
//
// Keys are walked in chunks of 128 positions, in order of position: a chunk's scores, its softmax, its values, and then
// it is merged with those before (online softmax: Milakov and Gimelshein, 2018; Dao et al., 2022). Scores and values are
// computed in tiles of 32 positions. So the order of summation is the same for any row, batch, block size and thread.
// All rows and query heads that share K and V share each load, as far as registers hold their sums. K/V heads go tile by
// tile, since theirs in a block follow each other.
#pragma once

#include "kernels_chunk.h"

namespace outrider::OUTRIDER_ISA {
namespace {

inline void clear(float* state, int head_dim) {
  state[0] = kLowest;
  state[1] = 0;
  for (int i = 0; i < padded_dim(head_dim); ++i) sums_of(state)[i] = 0;
}

void merge(float* state, const float* other, int head_dim) {
  if (other[1] == 0) return;  // it has seen no key
  if (state[1] == 0) {        // nor has this: no arithmetic, so that splitting a request changes no bit
    __builtin_memcpy(state, other, sizeof(float) * static_cast<size_t>(state_size(head_dim)));
    return;
  }
  const float now = other[0] > state[0] ? other[0] : state[0];
  const float mine = exp_one(state[0] - now), theirs = exp_one(other[0] - now);
  state[0] = now;
  state[1] = state[1] * mine + other[1] * theirs;
  for (int d = kLanes; d < state_size(head_dim); d += kLanes)
    store(state + d, fma(load(other + d), set1(theirs), mul(load(state + d), set1(mine))));
}

// What a task computes with: all heads, or those from one on.
struct Room {
  float* tile;     // turned into floats
  float* q;        // [heads, queries, padded_dim], scaled
  float* weights;  // [heads, queries, kChunk]
  float* states;   // [heads, queries, state_size]: what they make of a chunk

  Room of(const AttendTask& t, int head) const {
    const int first = head * t.rows * t.share, dim = t.cache->head_dim;
    return {tile, q + first * padded_dim(dim), weights + first * kChunk, states + first * state_size(dim)};
  }
};

// All queries of a head leave their scores for the tile at `at` of a chunk in `weights`.
template <typename Numbers>
inline void meet_keys(const AttendTask& t, const Room& room, const Tile<Numbers>& keys, const Ahead& ahead, int at) {
  const int dim = t.cache->head_dim, padded = padded_dim(dim);
  together<kTogether>(0, t.rows * t.share, [&](auto count, int first) {
    score<count.value>(room.q + first * padded, static_cast<size_t>(padded), keys, static_cast<size_t>(dim), ahead,
                       room.weights + first * kChunk + at);
  });
}

template <typename Numbers>
inline void meet_values(const AttendTask& t, const Room& room, const Tile<Numbers>& values, const Ahead& ahead, int chunk,
                        int at) {
  const int dim = t.cache->head_dim;
  const bool whole = sees_whole(t, chunk + at);
  together<kTogether>(0, t.rows * t.share, [&](auto count, int first) {
    constexpr Seen all{0, kTile};
    const auto padded = static_cast<size_t>(padded_dim(dim));
    Query queries[count.value];
    for (int r = 0; r < count.value; ++r)
      queries[r] = {room.weights + (first + r) * kChunk + at, sums_of(room.states + (first + r) * state_size(dim)), all};
    if (whole) return weigh_all<count.value>(queries, all, values, padded, ahead);
    for (int r = 0; r < count.value; ++r) {
      const Seen seen = seen_by(t, first + r, chunk);
      queries[r].seen = {clamp(seen.first - at, 0, kTile), clamp(seen.last - at, 0, kTile)};
    }
    weigh_seen<count.value>(queries, values, padded, ahead);
  });
}

// All queries meet a chunk of keys, and leave in `states`, which are clear, what they make of it. Tiles are read where
// they lie if they can be, and what comes later, in `next` too, is fetched meanwhile.
template <typename Numbers>
inline void meet(const AttendTask& t, const Room& room, const Chunk& chunk, const Chunk& next) {
  const int dim = t.cache->head_dim, queries = t.rows * t.share;
  const auto each_tile = [&](auto f) {
    for (int tile = 0; tile < kTiles && chunk.first + tile * kTile < t.last_key; ++tile)
      if (chunk.first + (tile + 1) * kTile > t.first_key)
        for (int head = 0; head < t.heads; ++head) f(tile, head, room.of(t, head));
  };
  each_tile([&](int tile, int head, const Room& of_head) {
    const int at = tile * kTile;
    if (chunk.straight[tile]) {
      meet_keys(t, of_head, straight_keys<Numbers>(t, chunk, tile, head),
                lines_ahead<Numbers>(t, chunk, next, tile * t.heads + head), at);
    } else {
      meet_keys(t, of_head, copied_keys<Numbers>(t, chunk.first + at, head, room.tile), nothing_ahead(t), at);
    }
  });
  for (int head = 0; head < t.heads; ++head) {
    const Room of_head = room.of(t, head);
    Scales scales;
    const Scales* used = nullptr;
    if (t.cache->stored == Stored::kInt8) {
      load_scales(t, chunk.first, head, scales);
      used = &scales;
    }
    for (int query = 0; query < queries; ++query) {
      const Seen seen = seen_by(t, query, chunk.first);
      if (seen.first < seen.last)
        soften(t, seen, used, of_head.weights + query * kChunk, of_head.states + query * state_size(dim));
    }
  }
  each_tile([&](int tile, int head, const Room& of_head) {
    const int at = tile * kTile;
    if (chunk.straight[tile]) {
      meet_values(t, of_head, straight_values<Numbers>(t, chunk, tile, head),
                  lines_ahead<Numbers>(t, chunk, next, (kTiles + tile) * t.heads + head), chunk.first, at);
    } else {
      meet_values(t, of_head, copied_values<Numbers>(t, chunk.first + at, head, room.tile), nothing_ahead(t),
                  chunk.first, at);
    }
  });
  for (int query = 0; query < t.heads * queries; ++query) {
    float* sums = sums_of(room.states + query * state_size(dim));
    for (int d = 0; d + kLanes <= dim; d += kLanes) store(sums + d, Numbers::in_order(load(sums + d)));
  }
}

template <typename Numbers>
inline void attend_to(const AttendTask& t) {
  const int dim = t.cache->head_dim, padded = padded_dim(dim), of_head = t.rows * t.share, size = state_size(dim);
  const int queries = t.heads * of_head;
  float* const q = t.scratch + kTile * padded;
  float* const weights = q + queries * padded;
  float* const partial = weights + queries * kChunk;
  for (int i = 0; i < queries; ++i) {
    const int row = i % of_head / t.share, head = i / of_head * t.share + i % t.share;
    const float* from = t.q + static_cast<size_t>(row) * t.q_stride + head * dim;
    for (int d = 0; d < dim; ++d) q[i * padded + d] = from[d] * t.scale;
  }
  const int begin = t.first_key / kChunk * kChunk;
  Chunk chunk = locate(t, begin);
  for (int first = begin; first < t.last_key; first += kChunk) {
    const bool is_first = first == begin;
    const Room room{t.scratch, q, weights, is_first ? t.state : partial};
    const Chunk next = locate(t, first + kChunk);
    for (int i = 0; i < queries; ++i) clear(room.states + i * size, dim);
    meet<Numbers>(t, room, chunk, next);
    for (int i = 0; i < queries && !is_first; ++i) merge(t.state + i * size, partial + i * size, dim);
    chunk = next;
  }
}

void attend(const AttendTask& t) {
  switch (t.cache->stored) {
    case Stored::kFloat32: return attend_to<Floats>(t);
    case Stored::kBfloat16: return attend_to<Bfloats>(t);
    case Stored::kInt8: return attend_to<Codes>(t);
  }
}

// A sink is taken in last, after all keys, however they were split.
void finish(const float* state, int head_dim, const float* sink, float* y) {
  float total = state[1], mine = 1;
  if (sink != nullptr) {
    const float now = *sink > state[0] ? *sink : state[0];
    mine = exp_one(state[0] - now);
    total = total * mine + exp_one(*sink - now);
  }
  const float* sums = sums_of(state);
  int d = 0;
  for (; d + kLanes <= head_dim; d += kLanes)
    store(y + d, div(mul(load(sums + d), set1(mine)), set1(total)));
  if (d < head_dim) store_n(y + d, div(mul(load(sums + d), set1(mine)), set1(total)), head_dim - d);
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

// Attention of one request's rows over its paged keys and values.
//
// Keys are walked in tiles of 32 positions and the tiles of 128 positions are merged, in order of position:
// the order of summation is the same for any row, batch, block size and thread. K and V of a tile are turned
// into floats once, for all rows and all query heads that share them. The softmax is computed online
// (Milakov and Gimelshein, 2018; Dao et al., 2022).
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

constexpr float kLowest = -__builtin_inff();

// A state: maximum, sum of weights, 14 unused, weighted sum of values.
inline float* sums_of(float* state) { return state + kLanes; }
inline const float* sums_of(const float* state) { return state + kLanes; }

inline void clear(float* state, int head_dim) {
  state[0] = kLowest;
  state[1] = 0;
  for (int i = 0; i < padded_dim(head_dim); ++i) sums_of(state)[i] = 0;
}

// One query, as it meets a tile.
struct Query {
  const float* q;   // [head_dim], scaled
  float* state;     // what it has summed up so far
  int first, last;  // keys of the tile that it sees: first <= key < last
  float decay;      // of what it has summed up
  alignas(64) float weights[kTile];
};

struct Scores {
  F32 low, high;  // of keys 0..15 and 16..31 of a tile
};

template <int R, typename Numbers>
inline void scores(const Query (&queries)[R], const Tile<Numbers>& tile, int dim, Scores (&out)[R]) {
  F32 low[R], high[R];
  for (int r = 0; r < R; ++r) low[r] = high[r] = set1(0);
  Numbers a = tile.keys[0], b = tile.keys[1];
  for (int d = 0; d < dim; ++d, a = a + tile.key_stride, b = b + tile.key_stride) {
    const F32 x = a.sixteen(0), y = b.sixteen(0);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F32 q = set1(queries[r].q[d]);
      low[r] = fma(x, q, low[r]);
      high[r] = fma(y, q, high[r]);
    }
  }
  for (int r = 0; r < R; ++r) out[r] = {low[r], high[r]};
}

// N registers of the weighted sums of values from dimension `d` on: sum * decay + sum over keys of
// weight * value, each query over its own keys in order.
template <int R, int N, typename Numbers>
inline void weigh(const Query* queries, const Tile<Numbers>& tile, size_t d) {
  F32 sum[R][N];
  int from = queries[0].first, to = queries[0].last;  // keys that all of the queries see
  for (int r = 0; r < R; ++r) {
    const Query& query = queries[r];
    for (int n = 0; n < N; ++n)
      sum[r][n] = mul(load(sums_of(query.state) + d + n * kLanes), set1(query.decay));
    from = query.first > from ? query.first : from;
    to = query.last < to ? query.last : to;
  }
  if (to < from) to = from;
  const auto alone = [&](int r, int begin, int end) {
    for (int key = begin; key < end; ++key) {
      const Numbers row = tile.values[key / kLanes] + static_cast<size_t>(key % kLanes) * tile.value_stride + d;
      for (int n = 0; n < N; ++n)
        sum[r][n] = fma(set1(queries[r].weights[key]), row.sixteen(static_cast<size_t>(n * kLanes)), sum[r][n]);
    }
  };
  for (int r = 0; r < R; ++r) alone(r, queries[r].first, from < queries[r].last ? from : queries[r].last);
  for (int half = 0; half < 2; ++half) {
    const int begin = clamp(from - half * kLanes, 0, kLanes), end = clamp(to - half * kLanes, 0, kLanes);
    Numbers row = tile.values[half] + static_cast<size_t>(begin) * tile.value_stride + d;
    for (int key = begin; key < end; ++key, row = row + tile.value_stride) {
      F32 weight[R];
      for (int r = 0; r < R; ++r) weight[r] = set1(queries[r].weights[half * kLanes + key]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const F32 value = row.sixteen(static_cast<size_t>(n * kLanes));
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r][n] = fma(weight[r], value, sum[r][n]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    alone(r, to > queries[r].first ? to : queries[r].first, queries[r].last);
    for (int n = 0; n < N; ++n) store(sums_of(queries[r].state) + d + n * kLanes, sum[r][n]);
  }
}

template <int R, typename Numbers>
inline void weigh_all(const Query* queries, const Tile<Numbers>& tile, size_t padded) {
  size_t d = 0;
  for (; d + 4 * kLanes <= padded; d += 4 * kLanes) weigh<R, 4>(queries, tile, d);
  for (; d < padded; d += kLanes) weigh<R, 1>(queries, tile, d);
}

// Queries that meet a tile together: as many as registers hold the sums of.
constexpr int kTogether = kMaxRows >= 12 ? 6 : 4;

// R queries meet the keys of the tile that begins at position `start`. A query that sees none of them is left
// as it was.
template <int R, typename Numbers>
inline void meet(const AttendTask& t, const float* q, int query, int start, const Tile<Numbers>& tile, float* states) {
  const int dim = t.cache->head_dim, padded = padded_dim(dim);
  Query queries[R];
  for (int r = 0; r < R; ++r) {
    Query& mine = queries[r];
    const int position = t.position + (query + r) / t.share;
    mine.q = q + static_cast<size_t>((query + r) * padded);
    mine.state = states + static_cast<size_t>((query + r) * state_size(dim));
    mine.first = clamp(position - t.window + 1 - start, 0, kTile);
    mine.last = clamp(position + 1 - start, 0, kTile);
    if (mine.first >= mine.last) mine.first = mine.last = 0;
  }
  Scores s[R];
  scores<R>(queries, tile, dim, s);

  alignas(64) float decays[kLanes] = {}, sums[R] = {};
  const F32 lowest = set1(kLowest);
  for (int r = 0; r < R; ++r) {
    Query& mine = queries[r];
    if (mine.first == mine.last) continue;
    if (tile.scales != nullptr)
      s[r] = {mul(s[r].low, load(tile.scales->keys)), mul(s[r].high, load(tile.scales->keys + kLanes))};
    if (t.soft_cap > 0) s[r] = {soft_cap(s[r].low, t.soft_cap), soft_cap(s[r].high, t.soft_cap)};
    const F32 low = select_range(s[r].low, mine.first, mine.last, lowest);
    const F32 high = select_range(s[r].high, mine.first - kLanes, mine.last - kLanes, lowest);
    const float before = mine.state[0], here = reduce_max(max(low, high));
    const float now = here > before ? here : before;
    const F32 a = exp(sub(low, set1(now))), b = exp(sub(high, set1(now)));
    sums[r] = reduce_add(add(a, b));
    if (tile.scales != nullptr) {
      store(mine.weights, mul(a, load(tile.scales->values)));
      store(mine.weights + kLanes, mul(b, load(tile.scales->values + kLanes)));
    } else {
      store(mine.weights, a);
      store(mine.weights + kLanes, b);
    }
    decays[r] = before - now;
    mine.state[0] = now;
  }
  store(decays, exp(load(decays)));  // 1 for a query that sees nothing
  for (int r = 0; r < R; ++r) {
    Query& mine = queries[r];
    mine.decay = decays[r];
    mine.state[1] = mine.state[1] * mine.decay + sums[r];
  }
  constexpr int kSums = kTogether == 4 && R % 2 == 0 ? 2 : R;
  for (int r = 0; r < R; r += kSums) weigh_all<kSums>(queries + r, tile, static_cast<size_t>(padded));
}

// `count` queries, up to R, meet it.
template <int R, typename Numbers>
inline void meet_up_to(const AttendTask& t, const float* q, int query, int count, int start, const Tile<Numbers>& tile,
                       float* states) {
  if (count >= R) return meet<R>(t, q, query, start, tile, states);
  if constexpr (R > 1) meet_up_to<R - 1>(t, q, query, count, start, tile, states);
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

// All queries meet the tile that begins at position `start`. Few read it where it lies, as they go, so that memory is
// read while they compute; for many it is turned into floats once, in `room`.
template <typename Numbers>
inline void meet_all(const AttendTask& t, const float* q, int queries, int start, float* room, float* states) {
  Scales scales;
  const Scales* used = nullptr;
  if (t.cache->stored == Stored::kInt8) {
    load_scales(t, start, scales);
    used = &scales;
  }
  if (queries <= kTogether && is_straight(t, start)) {
    meet_up_to<kTogether>(t, q, 0, queries, start, straight_tile<Numbers>(t, start, used), states);
    return;
  }
  const Tile<Floats> tile = copied_tile<Numbers>(t, start, used, room);
  for (int query = 0; query < queries; query += kTogether)
    meet_up_to<kTogether>(t, q, query, queries - query, start, tile, states);
}

template <typename Numbers>
inline void attend_to(const AttendTask& t) {
  const int dim = t.cache->head_dim, padded = padded_dim(dim), queries = t.rows * t.share;
  const size_t state = static_cast<size_t>(state_size(dim));
  float* q = t.scratch + 2 * kTile * padded;
  float* partial = q + static_cast<size_t>(queries * padded);
  for (int i = 0; i < queries; ++i) {
    const float* row = t.q + static_cast<size_t>(i / t.share) * t.q_stride;
    const float* from = row + static_cast<size_t>(i % t.share * dim);
    for (int d = 0; d < dim; ++d) q[i * padded + d] = from[d] * t.scale;
  }
  for (int i = 0; i < queries; ++i) clear(t.state + static_cast<size_t>(i) * state, dim);
  for (int chunk = t.first_key / kChunk * kChunk; chunk < t.last_key; chunk += kChunk) {
    for (int i = 0; i < queries; ++i) clear(partial + static_cast<size_t>(i) * state, dim);
    for (int first = chunk; first < chunk + kChunk && first < t.last_key; first += kTile)
      if (first + kTile > t.first_key) meet_all<Numbers>(t, q, queries, first, t.scratch, partial);
    for (int i = 0; i < queries; ++i)
      merge(t.state + static_cast<size_t>(i) * state, partial + static_cast<size_t>(i) * state, dim);
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

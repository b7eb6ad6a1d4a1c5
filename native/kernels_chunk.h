// What the queries of a task make of a chunk of keys: scores, weights, and sums of values.
#pragma once

#include <utility>

namespace outrider::OUTRIDER_ISA {
namespace {

constexpr float kLowest = -__builtin_inff();

// A state: maximum, sum of weights, 14 unused, weighted sum of values.
inline float* sums_of(float* state) { return state + kLanes; }
inline const float* sums_of(const float* state) { return state + kLanes; }

// Keys that a query sees: first <= key < last.
struct Seen {
  int first, last;
};

// Of the chunk that begins at position `chunk`.
inline Seen seen_by(const AttendTask& t, int query, int chunk) {
  const int position = t.position + query / t.share;
  const Seen seen{clamp(position - t.window + 1 - chunk, 0, kChunk), clamp(position + 1 - chunk, 0, kChunk)};
  return seen.first < seen.last ? seen : Seen{0, 0};
}

// Whether all queries see each key of the tile that begins at position `tile`.
inline bool sees_whole(const AttendTask& t, int tile) {
  return tile + kTile <= t.position + 1 && tile > t.position + t.rows - 1 - t.window;
}

// Queries that meet a tile together: as many as registers hold the sums, and the addresses, of.
constexpr int kTogether = kFloatSums < 12 ? kFloatSums / 2 : 6;

// Calls f(how many, the first) for `count` queries, with up to R at a time; how many is known to the compiler.
template <int R, typename F>
OUTRIDER_HOT void together(int first, int count, const F& f) {
  for (; count - first >= R; first += R) f(std::integral_constant<int, R>{}, first);
  if constexpr (R > 1) {
    if (first < count) together<R - 1>(first, count, f);
  }
}

// The two inner loops are functions of their own: as a part of what calls them they have too few registers for addresses
// and sums. Loops over sums are straight code, or sums would lie in memory.

// The scores of R queries, [R, padded_dim], for a tile of keys, into out [R, kChunk].
template <int R, typename Numbers>
[[gnu::noinline]] void score(const float* q, size_t padded, const Tile<Numbers>& keys, size_t dim, const Ahead& ahead,
                             float* out) {
  F32 low[R], high[R];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) low[r] = high[r] = set1(0);
  Numbers a = keys.half[0], b = keys.half[1];
  const size_t stride = keys.stride, line = ahead.stride;
  for (size_t half = 0, d = 0; half < 2; ++half) {  // of what is fetched meanwhile
    const uint8_t* next = ahead.half[half];
    for (const size_t end = half == 0 ? dim / 2 : dim; d < end; ++d, a = a + stride, b = b + stride) {
#pragma GCC unroll 2
      for (size_t row = 0; row < 2; row += Numbers::kRowStep) prefetch_near(next + row * line);
      next += 2 * line;
      const F32 x = a.mixed(0);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) low[r] = fma(x, set1(q[r * padded + d]), low[r]);
      load_again();
      const F32 y = b.mixed(0);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) high[r] = fma(y, set1(q[r * padded + d]), high[r]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    store(out + r * kChunk, Numbers::in_order(low[r]));
    store(out + r * kChunk + kLanes, Numbers::in_order(high[r]));
  }
}

// Turns a query's scores of a chunk into weights; their maximum and sum go to its state.
inline void soften(const AttendTask& t, const Seen& seen, const Scales* scales, float* weights, float* state) {
  const int begin = seen.first / kLanes * kLanes;
  F32 most = set1(kLowest), sum = set1(0);
  for (int key = begin; key < seen.last; key += kLanes) {
    F32 score = load(weights + key);
    if (scales != nullptr) score = mul(score, load(scales->keys + key));
    if (t.soft_cap > 0) score = soft_cap(score, t.soft_cap);
    if (key < seen.first || key + kLanes > seen.last)
      score = select_range(score, seen.first - key, seen.last - key, set1(kLowest));
    most = max(most, score);
    store(weights + key, score);
  }
  state[0] = reduce_max(most);
  for (int key = begin; key < seen.last; key += kLanes) {
    const F32 weight = exp(sub(load(weights + key), set1(state[0])));
    sum = add(sum, weight);
    store(weights + key, scales != nullptr ? mul(weight, load(scales->values + key)) : weight);
  }
  state[1] = reduce_add(sum);
}

// A query, as it meets a tile of values.
struct Query {
  const float* weights;  // of the tile's keys
  float* sums;           // of weight * value, in the order of `mixed`
  Seen seen;             // of the tile
};

// Adds weight * value to N registers of the sums from dimension `d` on, over the keys `of` in order.
template <int R, int N, typename Numbers>
[[gnu::noinline]] void weigh(const Query* queries, const Seen& of, const Tile<Numbers>& values, size_t d, size_t padded,
                             const Ahead& ahead) {
  F32 sum[R][N];
  const float* weights[R];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    weights[r] = queries[r].weights;
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sum[r][n] = load(queries[r].sums + d + n * kLanes);
  }
  for (int half = 0; half < 2; ++half) {
    const int begin = half * kLanes > of.first ? half * kLanes : of.first;
    const int end = half * kLanes + kLanes < of.last ? half * kLanes + kLanes : of.last;
    const size_t skipped = static_cast<size_t>(begin % kLanes), stride = values.stride;
    Numbers row = values.half[half] + skipped * stride + d;
    const size_t each = padded / kLanes, line = ahead.stride;  // rows that are fetched while a key is read
    const uint8_t* next = ahead.half[half] + (skipped * each + d / kLanes) * line;
    for (int key = begin; key < end; ++key, row = row + stride, next += each * line) {
#pragma GCC unroll 4
      for (size_t n = 0; n < N; n += Numbers::kRowStep) prefetch_near(next + n * line);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const F32 value = row.mixed(static_cast<size_t>(n * kLanes));
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) sum[r][n] = fma(set1(weights[r][key]), value, sum[r][n]);
        load_again();
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(queries[r].sums + d + n * kLanes, sum[r][n]);
  }
}

template <int R, typename Numbers>
inline void weigh_all(const Query* queries, const Seen& of, const Tile<Numbers>& values, size_t padded,
                      const Ahead& ahead) {
  if (of.first >= of.last) return;
  constexpr int N = kFloatSums / R >= 4 ? 4 : kFloatSums / R >= 2 ? 2 : 1;
  size_t d = 0;
  for (; d + N * kLanes <= padded; d += N * kLanes) weigh<R, N>(queries, of, values, d, padded, ahead);
  for (; d < padded; d += kLanes) weigh<R, 1>(queries, of, values, d, padded, ahead);
}

// R queries meet a tile of values, each over its own keys in order: together those that all of them see.
template <int R, typename Numbers>
inline void weigh_seen(const Query (&queries)[R], const Tile<Numbers>& values, size_t padded, const Ahead& ahead) {
  const auto most = [](int a, int b) { return a > b ? a : b; };
  const auto least = [](int a, int b) { return a < b ? a : b; };
  Seen all = queries[0].seen;
  for (const Query& query : queries) all = {most(all.first, query.seen.first), least(all.last, query.seen.last)};
  all.last = most(all.first, all.last);
  for (const Query& query : queries)
    weigh_all<1>(&query, {query.seen.first, least(all.first, query.seen.last)}, values, padded, ahead);
  weigh_all<R>(queries, all, values, padded, ahead);
  for (const Query& query : queries)
    weigh_all<1>(&query, {most(all.last, query.seen.first), query.seen.last}, values, padded, ahead);
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

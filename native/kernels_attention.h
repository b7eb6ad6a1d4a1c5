// Attention of one request's rows over its paged keys and values.
//
// Keys are walked in tiles of 32 positions and the tiles of 128 positions are merged, in order of position:
// the order of summation is the same for any row, batch, block size and thread. K and V of a tile are turned
// into floats once, for all rows and all query heads that share them. The softmax is computed online
// (Milakov and Gimelshein, 2018; Dao et al., 2022).
#pragma once

#include <utility>

namespace outrider::OUTRIDER_ISA {
namespace {

constexpr float kLowest = -__builtin_inff();

// exp by 2^n * 2^r, a polynomial on |r| <= 1/2 (Cephes' expf): within 2 ulp. Below -87 the result is 0.
inline F32 exp(F32 x) {
  const F32 low = set1(-87.0f);
  const F32 bounded = max(min(x, set1(88.0f)), low);
  const F32 n = round(mul(bounded, set1(1.44269504088896341f)));
  F32 r = fma(n, set1(-0.693359375f), bounded);
  r = fma(n, set1(2.12194440e-4f), r);
  F32 p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(mul(r, r), p, r), set1(1.0f));
  return zero_below(x, low, mul(p, power_of_two(n)));
}

inline float exp_one(float x) {
  float lanes[kLanes];
  store(lanes, exp(set1(x)));
  return lanes[0];
}

// Keys and values as they are stored, read as floats.
struct Floats {
  const float* p;
  F32 sixteen(size_t at) const { return load(p + at); }
  float one(size_t at) const { return p[at]; }
};
struct Bfloats {
  const uint16_t* p;
  F32 sixteen(size_t at) const { return load_bf16(p + at); }
  float one(size_t at) const {
    const uint32_t bits = static_cast<uint32_t>(p[at]) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof bits);
    return value;
  }
};

// `count` positions from `at` on, which lie one after the other, into places `to`.. of a tile.
template <typename Stored>
inline void load_run(Stored k, Stored v, size_t key_at, size_t value_at, int to, int count, size_t dim,
                     size_t size, float* keys, float* values) {
  const size_t padded = round_up(dim, size_t{kLanes});
  if (count == kLanes) {
    for (size_t d = 0; d < dim; ++d) store(keys + d * kTile + to, k.sixteen(key_at + d * size));
  } else {
    for (int i = 0; i < count; ++i)
      for (size_t d = 0; d < dim; ++d) keys[d * kTile + to + i] = k.one(key_at + d * size + i);
  }
  for (int i = 0; i < count; ++i) {
    float* row = values + static_cast<size_t>(to + i) * padded;
    const size_t from = value_at + static_cast<size_t>(i) * dim;
    size_t d = 0;
    for (; d + kLanes <= dim; d += kLanes) store(row + d, v.sixteen(from + d));
    for (; d < dim; ++d) row[d] = v.one(from + d);
    for (; d < padded; ++d) row[d] = 0;
  }
}

// keys: [head_dim, kTile], values: [kTile, padded_dim], for positions first.. of which there are `count`.
template <typename Stored>
inline void load_tile(const AttendTask& t, Stored k, Stored v, int first, int count, float* keys,
                      float* values) {
  const int block_size = t.cache->block_size, kv_heads = t.cache->kv_heads, head = t.kv_head;
  const int32_t* table = t.table;
  const size_t dim = static_cast<size_t>(t.cache->head_dim), size = static_cast<size_t>(block_size);
  for (int to = 0; to < count;) {
    const int position = first + to, block = position / block_size, offset = position % block_size;
    int run = block_size - offset < count - to ? block_size - offset : count - to;
    if (run > kLanes - to % kLanes) run = kLanes - to % kLanes;
    const size_t base = (static_cast<size_t>(table[block]) * kv_heads + head) * dim * size;
    load_run(k, v, base + offset, base + static_cast<size_t>(offset) * dim, to, run, dim, size, keys, values);
    to += run;
  }
}

inline void load_tile(const AttendTask& t, int first, int count, float* keys, float* values) {
  if (t.cache->bfloat16) {
    load_tile(t, Bfloats{static_cast<const uint16_t*>(t.cache->keys)},
              Bfloats{static_cast<const uint16_t*>(t.cache->values)}, first, count, keys, values);
  } else {
    load_tile(t, Floats{static_cast<const float*>(t.cache->keys)},
              Floats{static_cast<const float*>(t.cache->values)}, first, count, keys, values);
  }
}

inline void prefetch_lines(const void* array, size_t from, size_t bytes) {
  const auto* first = static_cast<const uint8_t*>(array);
  for (size_t byte = from / kAlign * kAlign; byte < from + bytes; byte += kAlign) prefetch_far(first + byte);
}

// Ask for the keys and values of positions first..last, which the next tile will need.
inline void prefetch_tile(const AttendTask& t, int first, int last) {
  const CacheView& c = *t.cache;
  const size_t element = c.bfloat16 ? 2 : 4, dim = static_cast<size_t>(c.head_dim);
  const size_t size = static_cast<size_t>(c.block_size);
  for (int position = first, run; position < last; position += run) {
    const int offset = position % c.block_size;
    run = c.block_size - offset < last - position ? c.block_size - offset : last - position;
    const size_t block = static_cast<size_t>(t.table[position / c.block_size]);
    const size_t base = (block * c.kv_heads + t.kv_head) * dim * size;
    const size_t bytes = static_cast<size_t>(run) * element;
    prefetch_lines(c.values, (base + static_cast<size_t>(offset) * dim) * element, bytes * dim);
    if (run == c.block_size) {
      prefetch_lines(c.keys, base * element, bytes * dim);
    } else {  // a piece of each dimension's row
      for (size_t d = 0; d < dim; ++d) prefetch_lines(c.keys, (base + d * size + offset) * element, bytes);
    }
  }
}

struct Scores {
  F32 low, high;  // of keys 0..15 and 16..31 of a tile
};

template <int R>
inline void scores(const float* const (&q)[R], const float* keys, int dim, Scores (&out)[R]) {
  for (int r = 0; r < R; ++r) out[r].low = out[r].high = set1(0);
  for (int d = 0; d < dim; ++d, keys += kTile) {
    const F32 low = load(keys), high = load(keys + kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const F32 x = set1(q[r][d]);
      out[r].low = fma(low, x, out[r].low);
      out[r].high = fma(high, x, out[r].high);
    }
  }
}

// y[r][16 * N] = y * decay + sum over keys of weight * value, each row over its own keys in order.
template <int R, int N>
inline void weigh(const float* const (&weights)[R], const int (&first)[R], const int (&last)[R],
                  const float* values, size_t stride, const float (&decay)[R], float* const (&y)[R]) {
  F32 sum[R][N];
  int from = first[0], to = last[0];  // keys that all of the rows see
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n) sum[r][n] = mul(load(y[r] + n * kLanes), set1(decay[r]));
    from = first[r] > from ? first[r] : from;
    to = last[r] < to ? last[r] : to;
  }
  if (to < from) to = from;
  const auto alone = [&](int r, int begin, int end) {
    for (int key = begin; key < end; ++key) {
      const float* row = values + static_cast<size_t>(key) * stride;
      for (int n = 0; n < N; ++n)
        sum[r][n] = fma(set1(weights[r][key]), load(row + n * kLanes), sum[r][n]);
    }
  };
  for (int r = 0; r < R; ++r) alone(r, first[r], from < last[r] ? from : last[r]);
  for (int key = from; key < to; ++key) {
    const float* row = values + static_cast<size_t>(key) * stride;
    F32 weight[R];
    for (int r = 0; r < R; ++r) weight[r] = set1(weights[r][key]);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const F32 value = load(row + n * kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][n] = fma(weight[r], value, sum[r][n]);
    }
  }
  for (int r = 0; r < R; ++r) {
    alone(r, to > first[r] ? to : first[r], last[r]);
    for (int n = 0; n < N; ++n) store(y[r] + n * kLanes, sum[r][n]);
  }
}

template <int R>
inline void weigh_all(const float* const (&weights)[R], const int (&first)[R], const int (&last)[R],
                      const float* values, int padded, const float (&decay)[R], float* const (&state)[R]) {
  float* y[R];
  for (int r = 0; r < R; ++r) y[r] = state[r] + kLanes;
  int d = 0;
  for (; d + 4 * kLanes <= padded; d += 4 * kLanes) {
    weigh<R, 4>(weights, first, last, values + d, static_cast<size_t>(padded), decay, y);
    for (int r = 0; r < R; ++r) y[r] += 4 * kLanes;
  }
  for (; d < padded; d += kLanes) {
    weigh<R, 1>(weights, first, last, values + d, static_cast<size_t>(padded), decay, y);
    for (int r = 0; r < R; ++r) y[r] += kLanes;
  }
}

// state: [maximum, sum, ...14 unused, weighted sum of values]
inline void clear(float* state, int head_dim) {
  state[0] = kLowest;
  state[1] = 0;
  for (int i = 0; i < padded_dim(head_dim); ++i) state[kLanes + i] = 0;
}

inline int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

// R queries meet the keys of a tile. A query that sees none of them is left as it was.
template <int R>
inline void tile(const AttendTask& t, const float* q, int query, int start, const float* keys,
                 const float* values, float* states) {
  const int dim = t.cache->head_dim, padded = padded_dim(dim);
  const float* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = q + static_cast<size_t>((query + r) * padded);
  Scores s[R];
  scores<R>(rows, keys, dim, s);

  alignas(64) float all_weights[R][kTile], decays[kLanes] = {};
  const float* weights[R];
  float *state[R], decay[R], sums[R];
  int first[R], last[R];
  const F32 lowest = set1(kLowest);
  for (int r = 0; r < R; ++r) {
    const int position = t.position + (query + r) / t.share;
    state[r] = states + static_cast<size_t>((query + r) * state_size(dim));
    weights[r] = all_weights[r];
    first[r] = clamp(position - t.window + 1 - start, 0, kTile);
    last[r] = clamp(position + 1 - start, 0, kTile);
    sums[r] = 0;
    if (first[r] >= last[r]) {
      first[r] = last[r] = 0;
      continue;
    }
    const F32 low = select_range(s[r].low, first[r], last[r], lowest);
    const F32 high = select_range(s[r].high, first[r] - kLanes, last[r] - kLanes, lowest);
    const float before = state[r][0], here = reduce_max(max(low, high));
    const float now = here > before ? here : before;
    const F32 a = exp(sub(low, set1(now))), b = exp(sub(high, set1(now)));
    store(all_weights[r], a);
    store(all_weights[r] + kLanes, b);
    sums[r] = reduce_add(add(a, b));
    decays[r] = before - now;
    state[r][0] = now;
  }
  store(decays, exp(load(decays)));  // 1 for a query that sees nothing
  for (int r = 0; r < R; ++r) {
    decay[r] = decays[r];
    state[r][1] = state[r][1] * decay[r] + sums[r];
  }
  if constexpr (R % 2 == 0) {
    for (int r = 0; r < R; r += 2)
      weigh_all<2>({weights[r], weights[r + 1]}, {first[r], first[r + 1]}, {last[r], last[r + 1]}, values,
                   padded, {decay[r], decay[r + 1]}, {state[r], state[r + 1]});
  } else {
    weigh_all<R>(weights, first, last, values, padded, decay, state);
  }
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

void attend(const AttendTask& t) {
  const int dim = t.cache->head_dim, padded = padded_dim(dim), queries = t.rows * t.share;
  const size_t state = static_cast<size_t>(state_size(dim));
  float* keys = t.scratch;
  float* values = keys + kTile * padded;
  float* q = values + kTile * padded;
  float* partial = q + static_cast<size_t>(queries * padded);
  for (int i = 0; i < queries; ++i) {
    const float* row = t.q + static_cast<size_t>(i / t.share) * t.q_stride;
    const float* from = row + static_cast<size_t>(i % t.share * dim);
    for (int d = 0; d < dim; ++d) q[i * padded + d] = from[d] * t.scale;
  }
  for (int i = 0; i < queries; ++i) clear(t.state + static_cast<size_t>(i) * state, dim);
  for (int chunk = t.first_key / kChunk * kChunk; chunk < t.last_key; chunk += kChunk) {
    for (int i = 0; i < queries; ++i) clear(partial + static_cast<size_t>(i) * state, dim);
    for (int first = chunk; first < chunk + kChunk && first < t.last_key; first += kTile) {
      if (first + kTile <= t.first_key) continue;
      prefetch_tile(t, first + kTile, clamp(t.last_key, 0, first + 2 * kTile));
      load_tile(t, first, clamp(t.last_key - first, 0, kTile), keys, values);
      int query = 0;
      for (; query + 4 <= queries; query += 4) tile<4>(t, q, query, first, keys, values, partial);
      switch (queries - query) {
        case 3: tile<3>(t, q, query, first, keys, values, partial); break;
        case 2: tile<2>(t, q, query, first, keys, values, partial); break;
        case 1: tile<1>(t, q, query, first, keys, values, partial); break;
      }
    }
    for (int i = 0; i < queries; ++i)
      merge(t.state + static_cast<size_t>(i) * state, partial + static_cast<size_t>(i) * state, dim);
  }
}

void finish(const float* state, int head_dim, float* y) {
  const F32 sum = set1(state[1]);
  int d = 0;
  for (; d + kLanes <= head_dim; d += kLanes) store(y + d, div(load(state + kLanes + d), sum));
  if (d < head_dim) store_n(y + d, div(load(state + kLanes + d), sum), head_dim - d);
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

// Keys and values in the blocks of a cache: written a row at a time, read a tile at a time.
#pragma once

#include <utility>

namespace outrider::OUTRIDER_ISA {
namespace {

inline uint16_t bfloat16_of(float x) {
  uint16_t lanes[kLanes];
  store_bf16(lanes, set1(x));
  return lanes[0];
}

// Multiplies each head by an orthogonal matrix, in place: Sylvester's Hadamard matrix, over as many dimensions at a time
// as a power of two divides head_dim into. Products of two heads stay what they are, and an outlier of one dimension
// is shared out over all, so that 8 bits hold the others, too (Ashkboos et al., QuaRot, 2024).
void spread(float* x, int heads, int head_dim) {
  const int size = head_dim & -head_dim;
  const float scale = 1 / __builtin_sqrtf(static_cast<float>(size));
  for (float* end = x + heads * head_dim; x < end; x += size) {
    for (int half = 1; half < size; half *= 2)
      for (int first = 0; first < size; first += 2 * half)
        for (int i = first; i < first + half; ++i) {
          const float a = x[i], b = x[i + half];
          x[i] = a + b;
          x[i + half] = a - b;
        }
    for (int i = 0; i < size; ++i) x[i] *= scale;
  }
}

// Rounds the `dim` numbers of one head: calls put(d, code) for each, and returns what codes are multiplied with. That is
// NaN where a number is NaN or infinite. Numbers too small for 127 / largest to be finite are zero.
template <typename Put>
inline float round_head(const float* x, size_t dim, Put put) {
  const auto at = [&](size_t d) {
    return d + kLanes <= dim ? load(x + d) : load_n(x + d, static_cast<int>(dim - d));
  };
  F32 most = set1(0), not_finite = set1(0);
  for (size_t d = 0; d < dim; d += kLanes) {
    most = max(most, abs(at(d)));
    not_finite = fma(at(d), set1(0), not_finite);  // NaN, or else 0
  }
  const float largest = reduce_max(most);
  const bool is_zero = !(largest >= 0x1p-121f);
  const F32 inverse = set1(is_zero ? 0.0f : 127.0f / largest);
  for (size_t d = 0; d < dim; d += kLanes) {
    int8_t lanes[kLanes];
    store_i8(lanes, round(mul(at(d), inverse)));
    for (size_t i = 0; i < kLanes && d + i < dim; ++i) put(d + i, static_cast<uint8_t>(lanes[i]));
  }
  return (is_zero ? 0.0f : largest / 127.0f) + reduce_add(not_finite);
}

// One row's K and V (each [kv_heads, head_dim]) into one position of one block.
void store_kv(const CacheView& c, int block, int offset, const float* k, const float* v) {
  const size_t dim = static_cast<size_t>(c.head_dim), size = static_cast<size_t>(c.block_size);
  for (int h = 0; h < c.kv_heads; ++h, k += dim, v += dim) {
    const size_t base = (static_cast<size_t>(block) * c.kv_heads + h) * part_bytes(c);
    uint8_t *keys = static_cast<uint8_t*>(c.keys) + base, *values = static_cast<uint8_t*>(c.values) + base;
    switch (c.stored) {
      case Stored::kFloat32: {
        auto *to_k = reinterpret_cast<float*>(keys) + offset, *to_v = reinterpret_cast<float*>(values) + offset * dim;
        for (size_t d = 0; d < dim; ++d) to_k[d * size] = k[d];
        __builtin_memcpy(to_v, v, sizeof(float) * dim);
        break;
      }
      case Stored::kBfloat16: {
        auto* to_k = reinterpret_cast<uint16_t*>(keys) + offset;
        auto* to_v = reinterpret_cast<uint16_t*>(values) + offset * dim;
        size_t d = 0;
        for (; d + kLanes <= dim; d += kLanes) {
          uint16_t lanes[kLanes];
          store_bf16(lanes, load(k + d));
          for (int i = 0; i < kLanes; ++i) to_k[(d + i) * size] = lanes[i];
          store_bf16(to_v + d, load(v + d));
        }
        for (; d < dim; ++d) {
          to_k[d * size] = bfloat16_of(k[d]);
          to_v[d] = bfloat16_of(v[d]);
        }
        break;
      }
      case Stored::kInt8: {
        const size_t row = static_cast<size_t>(offset), scale = dim * size + 4 * row;
        const float of_k = round_head(k, dim, [&](size_t d, uint8_t code) { keys[d * size + row] = code; });
        const float of_v = round_head(v, dim, [&](size_t d, uint8_t code) { values[row * dim + d] = code; });
        __builtin_memcpy(keys + scale, &of_k, sizeof of_k);
        __builtin_memcpy(values + scale, &of_v, sizeof of_v);
        break;
      }
    }
  }
}

// Numbers as they are stored, read as floats.
struct Floats {
  static constexpr size_t kRowStep = 1;  // see `Cursor`
  const float* p;
  static Floats at(const void* array, size_t byte) {
    return {reinterpret_cast<const float*>(static_cast<const uint8_t*>(array) + byte)};
  }
  Floats operator+(size_t n) const { return {p + n}; }
  F32 sixteen(size_t at) const { return load(p + at); }
  F32 mixed(size_t at) const { return sixteen(at); }
  static F32 in_order(F32 x) { return x; }
  float one(size_t at) const { return p[at]; }
};
struct Bfloats {
  static constexpr size_t kRowStep = 2;
  const uint16_t* p;
  static Bfloats at(const void* array, size_t byte) {
    return {reinterpret_cast<const uint16_t*>(static_cast<const uint8_t*>(array) + byte)};
  }
  Bfloats operator+(size_t n) const { return {p + n}; }
  F32 sixteen(size_t at) const { return load_bf16(p + at); }
  F32 mixed(size_t at) const { return load_bf16_mixed(p + at); }
  static F32 in_order(F32 x) { return bf16_in_order(x); }
  float one(size_t at) const {
    const uint32_t bits = static_cast<uint32_t>(p[at]) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof bits);
    return value;
  }
};
struct Codes {
  static constexpr size_t kRowStep = 2;
  const uint8_t* p;
  static Codes at(const void* array, size_t byte) { return {static_cast<const uint8_t*>(array) + byte}; }
  Codes operator+(size_t n) const { return {p + n}; }
  F32 sixteen(size_t at) const { return to_float(load_i8(p + at)); }
  F32 mixed(size_t at) const { return sixteen(at); }
  static F32 in_order(F32 x) { return x; }
  float one(size_t at) const { return static_cast<float>(static_cast<int8_t>(p[at])); }
};

// What codes are multiplied with, by position of a chunk.
struct Scales {
  alignas(64) float keys[kChunk], values[kChunk];
};

// Keys or values of a tile, in two halves of 16 positions: keys are [head_dim, stride], values [16, stride].
template <typename Numbers>
struct Tile {
  Numbers half[2];
  size_t stride;
};

inline int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

// The bytes of K, or of V, of a head in a block of the task's table.
inline size_t part_at(const AttendTask& t, int block) {
  const CacheView& c = *t.cache;
  return (static_cast<size_t>(t.table[block]) * c.kv_heads + t.kv_head) * part_bytes(c);
}

// Keys of `count` positions from `offset` of a block on, into places `to`.. of a tile of floats.
template <typename Numbers>
inline void load_keys(Numbers k, size_t offset, int to, int count, size_t dim, size_t size, float* keys) {
  if (count == kLanes) {
    for (size_t d = 0; d < dim; ++d) store(keys + d * kTile + to, k.sixteen(offset + d * size));
  } else {
    for (int i = 0; i < count; ++i)
      for (size_t d = 0; d < dim; ++d) keys[d * kTile + to + i] = k.one(offset + d * size + i);
  }
}

template <typename Numbers>
inline void load_values(Numbers v, size_t offset, int to, int count, size_t dim, float* values) {
  const size_t padded = round_up(dim, size_t{kLanes});
  for (int i = 0; i < count; ++i) {
    float* row = values + static_cast<size_t>(to + i) * padded;
    const size_t from = (offset + static_cast<size_t>(i)) * dim;
    size_t d = 0;
    for (; d + kLanes <= dim; d += kLanes) store(row + d, v.mixed(from + d));
    for (; d < dim; ++d) row[d] = v.one(from + d);
    for (; d < padded; ++d) row[d] = 0;
  }
}

// Calls f(place, block of the table, offset in it, positions) for `size` positions from `first` on, in runs of up to 16
// that lie in one block and one half of a tile. What lies in blocks before the first key's, or after the last key, is
// left out: no row sees it, and there may be no such blocks.
template <typename F>
inline void each_run(const AttendTask& t, int first, int size, F f) {
  const int block_size = t.cache->block_size, count = clamp(t.last_key - first, 0, size);
  for (int to = clamp(t.first_key / block_size * block_size - first, 0, size), run; to < count; to += run) {
    const int position = first + to;
    const int place = position < t.branch ? position : t.path[position - t.branch];
    const int offset = place % block_size;
    run = block_size - offset < count - to ? block_size - offset : count - to;
    if (run > kLanes - to % kLanes) run = kLanes - to % kLanes;
    if (position >= t.branch) run = 1;
    else if (run > t.branch - position) run = t.branch - position;
    f(to, place / block_size, offset, run);
  }
}

// The bytes from the beginning of `keys`, or of `values`, to the scale of a position.
inline size_t scale_at(const AttendTask& t, int block, int offset) {
  const size_t codes = static_cast<size_t>(t.cache->head_dim) * static_cast<size_t>(t.cache->block_size);
  return part_at(t, block) + codes + 4 * static_cast<size_t>(offset);
}

inline void load_scales(const AttendTask& t, int chunk, Scales& scales) {
  const CacheView& c = *t.cache;
  each_run(t, chunk, kChunk, [&](int to, int block, int offset, int run) {
    const size_t from = scale_at(t, block, offset), bytes = 4 * static_cast<size_t>(run);
    __builtin_memcpy(scales.keys + to, static_cast<const uint8_t*>(c.keys) + from, bytes);
    __builtin_memcpy(scales.values + to, static_cast<const uint8_t*>(c.values) + from, bytes);
  });
}

// The tile's keys as floats, [head_dim, kTile], in `room`.
template <typename Numbers>
inline Tile<Floats> copied_keys(const AttendTask& t, int first, float* room) {
  const CacheView& c = *t.cache;
  const size_t dim = static_cast<size_t>(c.head_dim), size = static_cast<size_t>(c.block_size);
  each_run(t, first, kTile, [&](int to, int block, int offset, int run) {
    load_keys(Numbers::at(c.keys, part_at(t, block)), static_cast<size_t>(offset), to, run, dim, size, room);
  });
  return {{{room}, {room + kLanes}}, kTile};
}

// The tile's values as floats, [kTile, padded_dim], in `room`.
template <typename Numbers>
inline Tile<Floats> copied_values(const AttendTask& t, int first, float* room) {
  const CacheView& c = *t.cache;
  const size_t dim = static_cast<size_t>(c.head_dim), padded = round_up(dim, size_t{kLanes});
  each_run(t, first, kTile, [&](int to, int block, int offset, int run) {
    load_values(Numbers::at(c.values, part_at(t, block)), static_cast<size_t>(offset), to, run, dim, room);
  });
  return {{{room}, {room + kLanes * padded}}, padded};
}

// Whether a tile can be read where it lies, if it ends before `last`: its values fill registers, and each half is in one
// block that there is. Its positions behind the last key hold anything.
inline bool is_straight(const AttendTask& t, int first, int last) {
  const CacheView& c = *t.cache;
  return c.block_size % kLanes == 0 && c.head_dim % kLanes == 0 && first + kTile <= t.branch &&
         first >= t.first_key / c.block_size * c.block_size && first + kLanes < last;
}

template <typename Numbers>
inline Tile<Numbers> straight_keys(const AttendTask& t, int first) {
  const CacheView& c = *t.cache;
  const auto half = [&](int position) {
    return Numbers::at(c.keys, part_at(t, position / c.block_size)) + static_cast<size_t>(position % c.block_size);
  };
  return {{half(first), half(first + kLanes)}, static_cast<size_t>(c.block_size)};
}

template <typename Numbers>
inline Tile<Numbers> straight_values(const AttendTask& t, int first) {
  const CacheView& c = *t.cache;
  const size_t dim = static_cast<size_t>(c.head_dim);
  const auto half = [&](int position) {
    return Numbers::at(c.values, part_at(t, position / c.block_size)) +
           static_cast<size_t>(position % c.block_size) * dim;
  };
  return {{half(first), half(first + kLanes)}, dim};
}

// Lines that are fetched while a tile is read, so that memory works while the core does: of each half of another tile
// `head_dim` rows of 16 numbers, `stride` bytes from one to the next.
struct Ahead {
  const uint8_t* half[2];
  size_t stride;
};

inline Ahead nothing_ahead(const AttendTask& t) {
  const auto* q = reinterpret_cast<const uint8_t*>(t.q);
  return {{q, q}, 0};
}

// Fetches row by row. Where a row is less than a line, every second row of one half and the others of the other are
// enough: a line holds neighbouring rows of a half, or the same row of both.
template <typename Numbers>
struct Cursor {
  const uint8_t *first, *second;
  size_t stride;

  explicit Cursor(const Ahead& ahead)
      : first(ahead.half[0]), second(ahead.half[1] + (Numbers::kRowStep - 1) * ahead.stride),
        stride(Numbers::kRowStep * ahead.stride) {}
  OUTRIDER_HOT void fetch() {
    prefetch_near(first);
    first += stride;
    if (Numbers::kRowStep == 1) {
      prefetch_near(second);
      second += stride;
    } else {
      std::swap(first, second);
    }
  }
};

// A chunk is met in steps: the tiles of its keys, and then the tiles of their values. These are the lines of the step
// that comes two after one of keys, or of values, that begins at position `first`. Scales come with keys, and are
// fetched here.
template <typename Numbers>
inline Ahead lines_ahead(const AttendTask& t, int first, bool of_keys) {
  constexpr int kAhead = 2 * kTile;
  const bool turns = (first + kAhead) / kChunk != first / kChunk, keys = of_keys != turns;
  const int next = first + kAhead - (of_keys && turns ? kChunk : 0);
  if (!is_straight(t, next, t.position + t.rows)) return nothing_ahead(t);
  for (int position = next; keys && t.cache->stored == Stored::kInt8 && position < next + kTile; position += kLanes) {
    const size_t at = scale_at(t, position / t.cache->block_size, position % t.cache->block_size);
    prefetch_near(static_cast<const uint8_t*>(t.cache->keys) + at);
    prefetch_near(static_cast<const uint8_t*>(t.cache->values) + at);
  }
  const Tile<Numbers> tile = keys ? straight_keys<Numbers>(t, next) : straight_values<Numbers>(t, next);
  const auto bytes = [](Numbers half) { return reinterpret_cast<const uint8_t*>(half.p); };
  return {{bytes(tile.half[0]), bytes(tile.half[1])}, (keys ? tile.stride : kLanes) * sizeof *tile.half[0].p};
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

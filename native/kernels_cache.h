// Keys and values in the blocks of a cache: written a row at a time, read a tile at a time.
#pragma once

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
  static constexpr size_t kRowStep = 1;  // see `Ahead`
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

// The bytes from the beginning of `keys`, or of `values`, to those of one of the task's heads in a block of its table.
inline size_t part_at(const AttendTask& t, int block, int head) {
  const CacheView& c = *t.cache;
  return (static_cast<size_t>(t.table[block]) * c.kv_heads + t.kv_head + head) * part_bytes(c);
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

// The bytes from the beginning of a head's part of a block to the scale of a position.
inline size_t scale_at(const CacheView& c, int offset) {
  return static_cast<size_t>(c.head_dim) * static_cast<size_t>(c.block_size) + 4 * static_cast<size_t>(offset);
}

inline void load_scales(const AttendTask& t, int chunk, int head, Scales& scales) {
  const CacheView& c = *t.cache;
  each_run(t, chunk, kChunk, [&](int to, int block, int offset, int run) {
    const size_t from = part_at(t, block, head) + scale_at(c, offset), bytes = 4 * static_cast<size_t>(run);
    __builtin_memcpy(scales.keys + to, static_cast<const uint8_t*>(c.keys) + from, bytes);
    __builtin_memcpy(scales.values + to, static_cast<const uint8_t*>(c.values) + from, bytes);
  });
}

// A head's keys of a tile as floats, [head_dim, kTile], in `room`.
template <typename Numbers>
inline Tile<Floats> copied_keys(const AttendTask& t, int first, int head, float* room) {
  const CacheView& c = *t.cache;
  const size_t dim = static_cast<size_t>(c.head_dim), size = static_cast<size_t>(c.block_size);
  each_run(t, first, kTile, [&](int to, int block, int offset, int run) {
    load_keys(Numbers::at(c.keys, part_at(t, block, head)), static_cast<size_t>(offset), to, run, dim, size, room);
  });
  return {{{room}, {room + kLanes}}, kTile};
}

// A head's values of a tile as floats, [kTile, padded_dim], in `room`.
template <typename Numbers>
inline Tile<Floats> copied_values(const AttendTask& t, int first, int head, float* room) {
  const CacheView& c = *t.cache;
  const size_t dim = static_cast<size_t>(c.head_dim), padded = round_up(dim, size_t{kLanes});
  each_run(t, first, kTile, [&](int to, int block, int offset, int run) {
    load_values(Numbers::at(c.values, part_at(t, block, head)), static_cast<size_t>(offset), to, run, dim, room);
  });
  return {{{room}, {room + kLanes * padded}}, padded};
}

inline constexpr int kTiles = kChunk / kTile;

// Where a chunk lies.
struct Chunk {
  int first;              // position
  bool straight[kTiles];  // whether a tile can be read where it lies: its values fill registers, and each half is in one
                          // block that there is. Its positions behind the last key hold anything.
  struct Half {           // of a tile: 16 positions
    size_t part;          // the first head's, of their block; see `part_at`
    size_t offset;        // in the block
  } halves[kChunk / kLanes];
};

// The chunk that begins at position `first`, as far as there are rows.
inline Chunk locate(const AttendTask& t, int first) {
  const CacheView& c = *t.cache;
  Chunk chunk;
  chunk.first = first;
  for (bool& straight : chunk.straight) straight = c.block_size % kLanes == 0 && c.head_dim % kLanes == 0;
  const int known = t.first_key / c.block_size * c.block_size;
  int block = first / c.block_size, offset = first % c.block_size;
  for (int half = 0, position = first; half < kChunk / kLanes; ++half, position += kLanes, offset += kLanes) {
    if (offset >= c.block_size) ++block, offset = 0;
    if (position >= known && position < t.position + t.rows && position + kLanes <= t.branch) {
      chunk.halves[half] = {part_at(t, block, 0), static_cast<size_t>(offset)};
    } else {
      chunk.straight[half * kLanes / kTile] = false;
    }
  }
  return chunk;
}

template <typename Numbers>
inline Tile<Numbers> straight_keys(const AttendTask& t, const Chunk& chunk, int tile, int head) {
  const CacheView& c = *t.cache;
  const size_t to_head = static_cast<size_t>(head) * part_bytes(c);
  const auto half = [&](const Chunk::Half& h) { return Numbers::at(c.keys, h.part + to_head) + h.offset; };
  return {{half(chunk.halves[2 * tile]), half(chunk.halves[2 * tile + 1])}, static_cast<size_t>(c.block_size)};
}

template <typename Numbers>
inline Tile<Numbers> straight_values(const AttendTask& t, const Chunk& chunk, int tile, int head) {
  const CacheView& c = *t.cache;
  const size_t to_head = static_cast<size_t>(head) * part_bytes(c), dim = static_cast<size_t>(c.head_dim);
  const auto half = [&](const Chunk::Half& h) { return Numbers::at(c.values, h.part + to_head) + h.offset * dim; };
  return {{half(chunk.halves[2 * tile]), half(chunk.halves[2 * tile + 1])}, dim};
}

// Lines that are fetched while a tile is read, so that memory works while the core does: of each half of another tile
// `head_dim` rows of 16 numbers, `stride` bytes from one to the next.
//
// Where a row is less than a line, every second row is enough, from row 0 of one half on and from row 1 of the other: a
// line holds neighbouring rows of a half, or the same row of both.
struct Ahead {
  const uint8_t* half[2];
  size_t stride;
};

inline Ahead nothing_ahead(const AttendTask& t) {
  const auto* q = reinterpret_cast<const uint8_t*>(t.q);
  return {{q, q}, 0};
}

// A chunk is met in steps: the tiles of its keys, each for one head after the other, and then those of its values.
// These are the lines of a step of `chunk`. Scales come with keys, and are fetched here.
template <typename Numbers>
inline Ahead lines_of(const AttendTask& t, const Chunk& chunk, int step) {
  const CacheView& c = *t.cache;
  const int tile = step / t.heads % kTiles, head = step % t.heads;
  const bool keys = step < kTiles * t.heads;
  if (!chunk.straight[tile]) return nothing_ahead(t);
  if (keys && c.stored == Stored::kInt8)
    for (int half = 2 * tile; half < 2 * tile + 2; ++half) {
      const Chunk::Half& h = chunk.halves[half];
      const size_t at = h.part + static_cast<size_t>(head) * part_bytes(c) + scale_at(c, static_cast<int>(h.offset));
      prefetch_near(static_cast<const uint8_t*>(c.keys) + at);
      prefetch_near(static_cast<const uint8_t*>(c.values) + at);
    }
  const Tile<Numbers> of =
      keys ? straight_keys<Numbers>(t, chunk, tile, head) : straight_values<Numbers>(t, chunk, tile, head);
  const auto bytes = [](Numbers half) { return reinterpret_cast<const uint8_t*>(half.p); };
  const size_t stride = (keys ? of.stride : kLanes) * sizeof *of.half[0].p;
  return {{bytes(of.half[0]), bytes(of.half[1]) + (Numbers::kRowStep - 1) * stride}, stride};
}

// Those of the step that comes a few after `step` of `here`, the chunk before `next`.
template <typename Numbers>
inline Ahead lines_ahead(const AttendTask& t, const Chunk& here, const Chunk& next, int step) {
  constexpr int kAhead = 3;
  const int later = step + kAhead - 2 * kTiles * t.heads;
  return later < 0 ? lines_of<Numbers>(t, here, step + kAhead) : lines_of<Numbers>(t, next, later);
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

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
  const float* p;
  static Floats at(const void* array, size_t byte) {
    return {reinterpret_cast<const float*>(static_cast<const uint8_t*>(array) + byte)};
  }
  Floats operator+(size_t n) const { return {p + n}; }
  F32 sixteen(size_t at) const { return load(p + at); }
  float one(size_t at) const { return p[at]; }
};
struct Bfloats {
  const uint16_t* p;
  static Bfloats at(const void* array, size_t byte) {
    return {reinterpret_cast<const uint16_t*>(static_cast<const uint8_t*>(array) + byte)};
  }
  Bfloats operator+(size_t n) const { return {p + n}; }
  F32 sixteen(size_t at) const { return load_bf16(p + at); }
  float one(size_t at) const {
    const uint32_t bits = static_cast<uint32_t>(p[at]) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof bits);
    return value;
  }
};
struct Codes {
  const uint8_t* p;
  static Codes at(const void* array, size_t byte) { return {static_cast<const uint8_t*>(array) + byte}; }
  Codes operator+(size_t n) const { return {p + n}; }
  F32 sixteen(size_t at) const { return to_float(load_i8(p + at)); }
  float one(size_t at) const { return static_cast<float>(static_cast<int8_t>(p[at])); }
};

// What a tile's codes are multiplied with, by position.
struct Scales {
  alignas(64) float keys[kTile], values[kTile];
};

// The keys and values of a tile, in two halves of 16 positions: of each a pointer to its keys, [head_dim, key_stride], and
// to its values, [16, value_stride].
template <typename Numbers>
struct Tile {
  Numbers keys[2], values[2];
  size_t key_stride, value_stride;
  const Scales* scales;  // null where the numbers are what is meant
};

inline int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

// The bytes of K, or of V, of a head in a block of the task's table.
inline size_t part_at(const AttendTask& t, int block) {
  const CacheView& c = *t.cache;
  return (static_cast<size_t>(t.table[block]) * c.kv_heads + t.kv_head) * part_bytes(c);
}

// `count` positions from `offset` of a block on, into places `to`.. of a tile of floats.
template <typename Numbers>
inline void load_run(Numbers k, Numbers v, size_t offset, int to, int count, size_t dim, size_t size, float* keys,
                     float* values) {
  const size_t padded = round_up(dim, size_t{kLanes});
  if (count == kLanes) {
    for (size_t d = 0; d < dim; ++d) store(keys + d * kTile + to, k.sixteen(offset + d * size));
  } else {
    for (int i = 0; i < count; ++i)
      for (size_t d = 0; d < dim; ++d) keys[d * kTile + to + i] = k.one(offset + d * size + i);
  }
  for (int i = 0; i < count; ++i) {
    float* row = values + static_cast<size_t>(to + i) * padded;
    const size_t from = (offset + static_cast<size_t>(i)) * dim;
    size_t d = 0;
    for (; d + kLanes <= dim; d += kLanes) store(row + d, v.sixteen(from + d));
    for (; d < dim; ++d) row[d] = v.one(from + d);
    for (; d < padded; ++d) row[d] = 0;
  }
}

// Calls f(place in the tile, block of the table, offset in it, positions) for the positions of the tile that begins at
// `first`, in runs of up to 16 that lie in one block and one half of the tile. What lies in blocks before the first
// key's, or after the last key, is left out: no row sees it, and there may be no such blocks.
template <typename F>
inline void each_run(const AttendTask& t, int first, F f) {
  const int block_size = t.cache->block_size, count = clamp(t.last_key - first, 0, kTile);
  for (int to = clamp(t.first_key / block_size * block_size - first, 0, kTile), run; to < count; to += run) {
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

inline void load_scales(const AttendTask& t, int first, Scales& scales) {
  const CacheView& c = *t.cache;
  const size_t codes = static_cast<size_t>(c.head_dim) * static_cast<size_t>(c.block_size);
  each_run(t, first, [&](int to, int block, int offset, int run) {
    const size_t from = part_at(t, block) + codes + 4 * static_cast<size_t>(offset), bytes = 4 * static_cast<size_t>(run);
    __builtin_memcpy(scales.keys + to, static_cast<const uint8_t*>(c.keys) + from, bytes);
    __builtin_memcpy(scales.values + to, static_cast<const uint8_t*>(c.values) + from, bytes);
  });
}

// The tile as floats, in `room`: keys [head_dim, kTile] and values [kTile, padded_dim].
template <typename Numbers>
inline Tile<Floats> copied_tile(const AttendTask& t, int first, const Scales* scales, float* room) {
  const CacheView& c = *t.cache;
  const size_t dim = static_cast<size_t>(c.head_dim), size = static_cast<size_t>(c.block_size);
  const size_t padded = round_up(dim, size_t{kLanes});
  float *keys = room, *values = room + kTile * padded;
  each_run(t, first, [&](int to, int block, int offset, int run) {
    const size_t at = part_at(t, block);
    load_run(Numbers::at(c.keys, at), Numbers::at(c.values, at), static_cast<size_t>(offset), to, run, dim, size, keys,
             values);
  });
  return {{{keys}, {keys + kLanes}}, {{values}, {values + kLanes * padded}}, kTile, padded, scales};
}

// Whether the tile can be read where it lies: its values fill registers, and each half is in one block that there is.
inline bool is_straight(const AttendTask& t, int first) {
  const CacheView& c = *t.cache;
  return c.block_size % kLanes == 0 && c.head_dim % kLanes == 0 && first + kTile <= t.branch &&
         first >= t.first_key / c.block_size * c.block_size && first + kLanes < t.last_key;
}

// Such a tile. Its positions behind the last key hold anything.
template <typename Numbers>
inline Tile<Numbers> straight_tile(const AttendTask& t, int first, const Scales* scales) {
  const CacheView& c = *t.cache;
  const size_t dim = static_cast<size_t>(c.head_dim), size = static_cast<size_t>(c.block_size);
  Tile<Numbers> tile{.keys = {}, .values = {}, .key_stride = size, .value_stride = dim, .scales = scales};
  for (int half = 0; half < 2; ++half) {
    const int position = first + half * kLanes;
    const size_t part = part_at(t, position / c.block_size), offset = static_cast<size_t>(position % c.block_size);
    tile.keys[half] = Numbers::at(c.keys, part) + offset;
    tile.values[half] = Numbers::at(c.values, part) + offset * dim;
  }
  return tile;
}

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

// Keys and values in the blocks of a cache: written a row at a time, read a tile at a time.
#pragma once

namespace outrider::OUTRIDER_ISA {
namespace {

inline uint16_t bfloat16_of(float x) {
  uint16_t lanes[kLanes];
  store_bf16(lanes, set1(x));
  return lanes[0];
}

// One row's K and V (each [kv_heads, head_dim]) into one position of one block.
void store_kv(const CacheView& c, int block, int offset, const float* k, const float* v) {
  const size_t dim = static_cast<size_t>(c.head_dim), size = static_cast<size_t>(c.block_size);
  for (int h = 0; h < c.kv_heads; ++h, k += dim, v += dim) {
    const size_t base = (static_cast<size_t>(block) * c.kv_heads + h) * dim * size;
    const size_t value = base + static_cast<size_t>(offset) * dim;
    if (c.bfloat16) {
      auto* keys = static_cast<uint16_t*>(c.keys) + base + offset;
      auto* values = static_cast<uint16_t*>(c.values) + value;
      size_t d = 0;
      for (; d + kLanes <= dim; d += kLanes) {
        uint16_t lanes[kLanes];
        store_bf16(lanes, load(k + d));
        for (int i = 0; i < kLanes; ++i) keys[(d + i) * size] = lanes[i];
        store_bf16(values + d, load(v + d));
      }
      for (; d < dim; ++d) {
        keys[d * size] = bfloat16_of(k[d]);
        values[d] = bfloat16_of(v[d]);
      }
    } else {
      float* keys = static_cast<float*>(c.keys) + base + offset;
      for (size_t d = 0; d < dim; ++d) keys[d * size] = k[d];
      __builtin_memcpy(static_cast<float*>(c.values) + value, v, sizeof(float) * dim);
    }
  }
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

inline int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

// keys: [head_dim, kTile], values: [kTile, padded_dim], of the tile that begins at position `first`. What lies
// in blocks before the first key's, or after the last key, is left out: no row sees it, and there may be no
// such blocks.
template <typename Stored>
inline void load_tile(const AttendTask& t, Stored k, Stored v, int first, float* keys, float* values) {
  const int block_size = t.cache->block_size, kv_heads = t.cache->kv_heads, head = t.kv_head;
  const int32_t* table = t.table;
  const size_t dim = static_cast<size_t>(t.cache->head_dim), size = static_cast<size_t>(block_size);
  const int count = clamp(t.last_key - first, 0, kTile);
  for (int to = clamp(t.first_key / block_size * block_size - first, 0, kTile); to < count;) {
    const int position = first + to;
    const int place = position < t.branch ? position : t.path[position - t.branch];
    const int block = place / block_size, offset = place % block_size;
    int run = block_size - offset < count - to ? block_size - offset : count - to;
    if (run > kLanes - to % kLanes) run = kLanes - to % kLanes;
    if (position >= t.branch) run = 1;
    else if (run > t.branch - position) run = t.branch - position;
    const size_t base = (static_cast<size_t>(table[block]) * kv_heads + head) * dim * size;
    load_run(k, v, base + offset, base + static_cast<size_t>(offset) * dim, to, run, dim, size, keys, values);
    to += run;
  }
}

inline void load_tile(const AttendTask& t, int first, float* keys, float* values) {
  if (t.cache->bfloat16) {
    load_tile(t, Bfloats{static_cast<const uint16_t*>(t.cache->keys)},
              Bfloats{static_cast<const uint16_t*>(t.cache->values)}, first, keys, values);
  } else {
    load_tile(t, Floats{static_cast<const float*>(t.cache->keys)},
              Floats{static_cast<const float*>(t.cache->values)}, first, keys, values);
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

}  // namespace
}  // namespace outrider::OUTRIDER_ISA

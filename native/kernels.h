// The kernels of one instruction set, as a table. `kernels.cpp` is compiled once for each.
//
// Row invariance: what a kernel computes for a row depends on that row alone, in one order of operations.
// How many rows go along, on which thread, and how K/V blocks lie in memory decide only what is computed
// side by side.
#pragma once

#include "formats.h"

namespace outrider {

// Panels first <= panel < last of a weight.
struct Panels {
  int first;
  int last;
};

// Where the results of a linear layer go: y + residual, or written as they are.
struct Output {
  float* values;          // [rows, stride]
  size_t stride;
  const float* residual;  // null, or [rows, residual_stride]
  size_t residual_stride;
};

// K and V of one layer. keys: [blocks, kv_heads, head_dim, block_size], so that one load takes the same
// dimension of 16 neighbouring positions; values: [blocks, kv_heads, block_size, head_dim].
struct CacheView {
  void* keys;
  void* values;
  bool bfloat16;
  int blocks;
  int block_size;
  int kv_heads;
  int head_dim;
};

inline constexpr int kTile = 32;    // keys whose scores are computed together
inline constexpr int kChunk = 128;  // keys after which partial results are merged: where threads may split

// The attention of the rows of one request that share one K/V head, over keys first_key..last_key.
struct AttendTask {
  const CacheView* cache;
  const int32_t* table;  // the request's blocks
  int kv_head;
  int share;             // query heads a K/V head
  const float* q;        // the first row's first query head of the group
  size_t q_stride;       // floats from row to row
  int rows;
  int position;          // of the first row
  int window;            // keys that a row sees, its own among them
  int first_key;
  int last_key;          // exclusive
  float scale;
  float* state;          // [rows, share, state_size(head_dim)]: merged into
  float* scratch;        // scratch_size(...) floats, 64-byte aligned
};

OUTRIDER_INLINE constexpr int padded_dim(int head_dim) { return round_up(head_dim, kLanes); }
// Running maximum, sum, and weighted sum of values; padded to whole cache lines.
OUTRIDER_INLINE constexpr int state_size(int head_dim) { return padded_dim(head_dim) + kLanes; }
OUTRIDER_INLINE constexpr size_t attend_scratch_size(int head_dim, int queries) {
  const size_t dim = static_cast<size_t>(padded_dim(head_dim));
  return 2 * kTile * dim + static_cast<size_t>(queries) * (2 * state_size(head_dim) + dim);
}

struct Kernels {
  const char* name;
  int max_rows[kForms];  // of one block of activations

  // Panel `panel` of `weight` for all rows of prepared activations.
  void (*linear)(const MatrixView& weight, Panels panels, const uint32_t* x, int rows, const Output& out);
  // silu(gate) * up, both weights of one shape.
  void (*gated)(const MatrixView& gate, const MatrixView& up, Panels panels, const uint32_t* x, int rows,
                const Output& out);
  // Row `row` of a block of `rows` rows, normed if `norm` is not null, into the interleaved `form`.
  void (*prepare)(Form form, const float* x, const float* norm, float eps, int width, int inputs, int rows,
                  int row, uint32_t* block, float* scratch);
  void (*rms_norm)(const float* x, const float* norm, float eps, int width, float* y);
  // The weights of one output, as floats.
  void (*weight_row)(const MatrixView& weight, int output, float* y);
  // Rotate `heads` heads of one row (cos, sin: head_dim / 2).
  void (*rotate)(const float* x, const float* cos, const float* sin, int heads, int head_dim, float* y);
  void (*store)(const CacheView& cache, int block, int offset, const float* k, const float* v);
  void (*attend)(const AttendTask& task);
  void (*merge)(float* state, const float* other, int head_dim);
  void (*finish)(const float* state, int head_dim, float* y);
  float (*maximum)(const float* values, size_t count);  // of those that are numbers
  // y = (x - top) / by. Whether any of them is NaN.
  bool (*scale)(const float* x, float top, float by, size_t count, float* y);
  // The sum of exp(x - top), in units of `mass_of`. Whether any of them is NaN.
  bool (*mass)(const float* x, float top, size_t count, int64_t* total);
  // The noise bits of consecutive tokens, or of those in `ids` if it is not null; the least of them.
  uint64_t (*noise)(uint64_t key, int token, const int64_t* ids, int count, uint64_t* bits);
};

namespace portable { const Kernels& kernels(); }
#ifdef OUTRIDER_X86
namespace avx2 { const Kernels& kernels(); }
namespace avx512_vnni { const Kernels& kernels(); }
namespace avx512_bf16 { const Kernels& kernels(); }
namespace amx { const Kernels& kernels(); }
#endif

}  // namespace outrider

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

// What a gated layer makes of its two halves: activation(gate) * up. kSwiGluClamped is gpt-oss's:
// g * sigmoid(1.702 g) * (u + 1) of g = min(gate, 7) and u = up within -7 and 7.
enum class Activation : int { kNone, kSilu, kGeluTanh, kGelu, kSwiGluClamped, kSigmoid };

// Where the results y = W x + b of a linear layer go: residual + scale * y. With an activation the values
// that are there already are the gate, and y is the other half.
struct Output {
  float* values;                              // [rows, stride]
  size_t stride;                              // floats from row to row, of the residual too
  float scale = 1;
  const float* residual = nullptr;            // null, or [rows, stride]
  Activation activation = Activation::kNone;  // kNone: there is no gate
};

// A row to be prepared for a linear layer.
struct Source {
  const float* x;
  int width;
  const float* norm;       // null, or its weight [width]: the row is normed first
  float eps;
  const int32_t* columns;  // null, or the input that each column of the weight is multiplied with
};

// Where the slices of row `row` of a strip of `rows` rows go.
struct Slices {
  uint32_t* strip;
  int rows;
  int row;
};

// How the numbers of K and V are stored. kInt8: as codes, and behind those of a block and head, of each position the
// float32 that its codes are multiplied with.
enum class Stored : int { kFloat32, kBfloat16, kInt8 };

// K and V of one layer. keys: [blocks, kv_heads, head_dim, block_size], so that one load takes the same
// dimension of 16 neighbouring positions; values: [blocks, kv_heads, block_size, head_dim].
struct CacheView {
  void* keys;
  void* values;
  Stored stored;
  int blocks;
  int block_size;
  int kv_heads;
  int head_dim;
};

OUTRIDER_INLINE constexpr size_t bytes_of(Stored stored) {
  return stored == Stored::kFloat32 ? 4 : stored == Stored::kBfloat16 ? 2 : 1;
}
// The bytes of K, or of V, of one head in one block.
OUTRIDER_INLINE constexpr size_t part_bytes(const CacheView& c) {
  const size_t dim = static_cast<size_t>(c.head_dim), scales = c.stored == Stored::kInt8 ? 4 : 0;
  return (dim * bytes_of(c.stored) + scales) * static_cast<size_t>(c.block_size);
}

inline constexpr int kTile = 32;    // keys whose scores are computed together
inline constexpr int kChunk = 128;  // keys after which partial results are merged: where threads may split

// The attention of the rows of one request to some K/V heads that follow each other, over keys first_key..last_key.
struct AttendTask {
  const CacheView* cache;
  const int32_t* table;  // the request's blocks
  int kv_head;           // the first
  int heads;             // K/V heads
  int share;             // query heads a K/V head
  const float* q;        // the first row's first query head
  size_t q_stride;       // floats from row to row
  int rows;
  int position;          // of the first row
  int window;            // keys that a row sees, its own among them
  int first_key;
  int last_key;          // exclusive
  int branch;            // keys from here on lie at path[key - branch] of the table, others at their positions
  const int32_t* path;
  float scale;           // of the scores
  float soft_cap;        // score -> soft_cap * tanh(score / soft_cap); 0: none
  float* state;          // [heads, rows, share, state_size(head_dim)]: written
  float* scratch;        // scratch_size(...) floats, 64-byte aligned
};

OUTRIDER_INLINE constexpr int padded_dim(int head_dim) { return round_up(head_dim, kLanes); }
// Running maximum, sum, and weighted sum of values; padded to whole cache lines.
OUTRIDER_INLINE constexpr int state_size(int head_dim) { return padded_dim(head_dim) + kLanes; }
OUTRIDER_INLINE constexpr size_t attend_scratch_size(int head_dim, int queries) {
  const size_t dim = static_cast<size_t>(padded_dim(head_dim));
  return kTile * dim + static_cast<size_t>(queries) * (2 * state_size(head_dim) + dim + kChunk);
}

struct Kernels {
  const char* name;
  int max_rows[kForms];  // of one strip

  // Panels of `weight` for all rows of prepared activations.
  void (*linear)(const MatrixView& weight, Panels panels, const uint32_t* x, int rows, const Output& out);
  // scratch: `width` floats.
  void (*prepare)(Form form, const Source& source, float* scratch, Slices slices);
  // Packs 16 rows of a file, each `Layout::row_bytes(inputs)` long.
  void (*pack)(Format format, const uint8_t* const* rows, int inputs, uint8_t* panel);
  // The nearest rows of a file in one of the formats that weights are turned into (`is_made`), of up to 16 rows x
  // [rows, inputs].
  void (*encode)(Format to, const float* x, int rows, int inputs, uint8_t* out);
  // The weights [inputs] of one output.
  void (*weight_row)(const MatrixView& weight, int output, float* y);
  // residual + the normed x; residual may be null, and y may be x.
  void (*rms_norm)(const float* x, const float* norm, float eps, int width, const float* residual, float* y);
  // y = cap * tanh(x / cap); y may be x.
  void (*soft_cap)(const float* x, float cap, size_t count, float* y);
  // y = x * activation(gate), where gate is one number for all of x if `one`; y may be x.
  void (*multiply)(const float* x, const float* gate, bool one, Activation activation, size_t count, float* y);
  // One row of a convolution of each of `count` channels by itself: y = bias + the sum of seen[tap] * weight[tap], and
  // silu of that if `silu`. weight: rows of `stride` floats; bias may be null.
  void (*convolve)(const float* const* seen, const float* weight, size_t stride, int taps, const float* bias,
                   bool silu, int count, float* y);
  // One row of one head of a gated delta rule (Yang et al., 2025). before, after: the states around the row,
  // [key_dim, value_dim], which may be one; kept: of the state; written: of the correction.
  void (*delta)(const float* before, float* after, const float* q, const float* k, const float* v, float kept,
                float written, int key_dim, int value_dim, float* y);
  // Turns the first 2 * pairs dimensions of `heads` heads of one row, in place. cos, sin: [pairs].
  void (*rotate)(float* x, const float* cos, const float* sin, int pairs, bool interleaved, int heads,
                 int head_dim);
  // Turns heads so that 8 bits hold them better, q's as well as k's; see `spread`.
  void (*spread)(float* x, int heads, int head_dim);
  void (*store)(const CacheView& cache, int block, int offset, const float* k, const float* v);
  void (*attend)(const AttendTask& task);
  void (*merge)(float* state, const float* other, int head_dim);
  // The weighted mean of the values. sink: null, or the logit that takes part in it without a value.
  void (*finish)(const float* state, int head_dim, const float* sink, float* y);
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
namespace avx_vnni { const Kernels& kernels(); }
namespace avx512_vnni { const Kernels& kernels(); }
namespace avx512_bf16 { const Kernels& kernels(); }
namespace amx { const Kernels& kernels(); }
#endif
#ifdef OUTRIDER_ARM64
namespace neon { const Kernels& kernels(); }
namespace neon_dot { const Kernels& kernels(); }
namespace neon_i8mm { const Kernels& kernels(); }
namespace neon_bf16 { const Kernels& kernels(); }
#endif

}  // namespace outrider

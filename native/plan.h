// How a graph is computed: which operations are fused, and where values lie.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "graph.h"

namespace outrider {

class Pass;

// A step of a plan. It is cut into tasks, which threads take in any order.
class Op {
 public:
  virtual ~Op() = default;
  virtual int tasks(const Pass& pass) const = 0;
  // Tasks first <= task < last.
  virtual void run(const Pass& pass, int first, int last, float* scratch) const = 0;
  virtual size_t scratch() const { return 0; }  // floats that a thread needs for itself
};

// A value as it lies in a buffer.
struct Operand {
  int buffer;
  int width;
  bool logits;  // has only the rows that need logits
};

// The same as linear layers of one form read it.
struct Prepared {
  int buffer;
  Form form;
  int inputs;
  const int32_t* columns;  // null, or the input that each column of the weight is multiplied with
  bool logits;
};

// Memory for some bytes of each row of a pass.
struct Buffer {
  size_t bytes_per_row;
  size_t first, last;  // operations between which it lives
  size_t place = 0;    // bytes a row before it in the arena
};

// Layers whose attention is cut into the same pieces.
struct AttentionClass {
  int heads;
  int kv_heads;
  int head_dim;
  int window;

  bool operator==(const AttentionClass&) const = default;
};

// Layers that share block tables.
struct TableGroup {
  int blocks = 0;  // of the cache; 0: no layer is of this group
  int block_size = 1;
  int window = 0;  // the longest of its layers
};

// Norms go into the conversion that a linear layer needs, unless their floats are wanted too. Buffers whose
// lifetimes do not meet share memory. The plan refers to the graph, which has to outlive it.
struct Plan {
  Plan(const Graph& graph, Value output, const Kernels& kernels);

  const Graph& graph;
  const Kernels& kernels;
  std::vector<std::unique_ptr<Op>> ops;
  std::vector<Buffer> buffers;
  std::optional<Operand> input;
  Operand output{};
  std::vector<AttentionClass> classes;
  std::vector<TableGroup> groups;
  size_t bytes_per_row = 0;  // of the arena
  size_t scratch = 0;        // floats a thread
};

}  // namespace outrider

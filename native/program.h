// A model's operations, recorded once and run for any batch in one call.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels.h"
#include "matrix.h"
#include "threads.h"

namespace outrider {

[[noreturn]] void refuse(const std::string& what);  // throws std::invalid_argument

// "name = value", as errors have it.
template <typename T>
std::string named(const char* name, T value) {
  return std::string(name) + " = " + std::to_string(value);
}

inline constexpr int kMostPositions = 1 << 30;  // of a request
inline constexpr int kMostRows = 1 << 20;       // of a pass

// The rows that one request adds to a pass. table: its blocks; logit_rows: counted from the last row.
struct Span {
  int start;
  int rows;
  std::vector<int32_t> table;
  int logit_rows;
};

struct Shape {
  int heads;
  int kv_heads;
  int head_dim;
  int window;  // keys that a row sees at most
};

// One piece of attention that a thread takes: some rows of one request, all keys or one chunk of them.
struct Piece {
  int span;
  int row;       // of the pass
  int rows;
  int position;  // of the first row
  int first_key;
  int last_key;
  ptrdiff_t state;  // where partial results go, for one K/V head after the other; -1: to the output
};

// Rows of which attention was split over keys: the states to merge, `count` of them.
struct Split {
  int row;
  int rows;
  int count;
  ptrdiff_t state;
};

// What one pass works on; read by all operations and threads.
struct Step {
  int rows = 0;
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<int32_t> blocks;   // where a row's K and V go
  std::vector<int32_t> offsets;  // in that block
  std::vector<int32_t> logit_rows;
  std::vector<Span> spans;
  std::vector<float> cos, sin;  // [rows, head_dim / 2]
  std::vector<Piece> pieces;
  std::vector<Split> splits;
  float* states = nullptr;
  const float* input = nullptr;
  float* output = nullptr;
  float* kept = nullptr;
  std::byte* arena = nullptr;
  size_t capacity = 0;  // rows that the arena has room for
};

class Program;

// An operation is cut into tasks, which threads take in any order.
class Op {
 public:
  virtual ~Op() = default;
  virtual int tasks(const Step& step) const = 0;
  // Tasks first <= task < last.
  virtual void run(const Step& step, int first, int last, float* scratch) const = 0;
};

class OneByOne : public Op {
 public:
  void run(const Step& step, int first, int last, float* scratch) const override {
    for (int task = first; task < last; ++task) run_one(step, task, scratch);
  }

 private:
  virtual void run_one(const Step& step, int task, float* scratch) const = 0;
};

class Program {
 public:
  // Values are numbered as they are recorded.
  using Value = int;

  Program(std::shared_ptr<Threads> threads, const Kernels& kernels, std::optional<Shape> shape,
          std::vector<float> inv_freq, float attention_factor);
  ~Program();

  Value input(int width);
  Value embed(std::shared_ptr<const Matrix> table);
  Value rms_norm(Value x, std::vector<float> weight, float eps);
  // Weights side by side: their outputs follow each other.
  Value linear(Value x, std::vector<std::shared_ptr<const Matrix>> weights, std::optional<Value> residual);
  Value gated(Value x, std::shared_ptr<const Matrix> gate, std::shared_ptr<const Matrix> up);
  Value rotate_and_store(Value qkv, const CacheView& cache);
  Value attend(Value q, const CacheView& cache);
  Value select_logit_rows(Value x);
  // Also written by a run, beside what was kept before: all of it has the same rows.
  void keep(Value x);
  // Ends the recording: `x` is what a run writes.
  void output(Value x);

  int width(Value x) const;
  int output_width() const;
  int kept_width() const { return kept_width_; }
  // Whether what is kept has only the rows that need logits.
  bool keeps_logit_rows() const { return kept_ >= 0 && values_[static_cast<size_t>(kept_)].logits; }
  // Rows of what is kept, once a pass is prepared.
  int kept_rows() const { return kept_width_ ? rows(kept_, step_) : 0; }
  std::optional<int> input_width() const {
    return input_ < 0 ? std::nullopt : std::optional(width(input_));
  }
  // Rows of the output that these spans lead to. Throws std::invalid_argument for what cannot be run.
  int prepare(const std::vector<int32_t>& tokens, std::vector<Span> spans);
  // Runs what was prepared. input: [rows, width] if the program has one; output: [output rows, width]; kept:
  // [kept rows, kept width].
  void run(const float* input, float* output, float* kept);

  // For the operations.
  const Kernels& kernels() const { return kernels_; }
  const Shape& shape() const;
  float* floats(Value x, const Step& step) const;
  uint32_t* prepared(int buffer, const Step& step) const;
  int rows(Value x, const Step& step) const;

 private:
  struct Norm {
    Value source;
    std::vector<float> weight;
    float eps;
  };
  struct Buffer {
    size_t bytes_per_row;
    size_t first, last;  // operations between which it lives
    size_t place = 0;    // bytes a row before it in the arena
  };
  struct Entry {
    int width;
    bool logits;                // has only the rows that need logits
    std::optional<Norm> norm;   // not computed until somebody needs it
    int buffer = -1;
    int forms[3] = {-1, -1, -1};
  };

  Value add(int width, bool logits);
  int add_buffer(size_t bytes_per_row);
  void use(int buffer);
  int form(Value x, Form form);
  void materialise(Value x);
  void check_unfinished() const;
  void check_inputs(Value x, const Matrix& weight, const char* name) const;
  void check_all_rows(Value x, const char* name) const;
  void check_spans(const std::vector<int32_t>& tokens, const std::vector<Span>& spans) const;
  void place_buffers();
  void plan_attention();
  void fill_rotation();
  template <typename T, typename... Args>
  void record(Args&&... args);

  std::shared_ptr<Threads> threads_;
  const Kernels& kernels_;
  int vocab_ = 1 << 30;  // of the smallest embedding table
  const std::optional<Shape> shape_;
  const std::vector<float> inv_freq_;
  const float attention_factor_;
  std::vector<std::unique_ptr<Op>> ops_;
  std::vector<Entry> values_;
  std::vector<Buffer> buffers_;
  std::vector<CacheView> caches_;
  Value input_ = -1, output_ = -1, kept_ = -1;  // kept_: the last of what is kept
  int kept_width_ = 0;
  size_t bytes_per_row_ = 0, scratch_floats_ = 0;
  Aligned<std::byte> arena_;
  Aligned<float> states_;
  size_t states_floats_ = 0;
  std::vector<Aligned<float>> scratch_;
  Step step_;
  std::vector<int> tasks_;  // of each operation
};

}  // namespace outrider

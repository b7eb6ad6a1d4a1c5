// What a model computes, as it was recorded.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels.h"
#include "matrix.h"

namespace outrider {

inline constexpr int kMostPositions = 1 << 30;  // of a request

// Values are numbered as they are recorded. One has the rows of a batch, or those of them that need logits.
using Value = int;
using Floats = std::vector<float>;
using Weight = std::shared_ptr<const Matrix>;

// Rotary embedding (Su et al., 2021): pair i of a head's first 2 * pairs dimensions turns by
// (position + ahead) * inv_freq[i]. Dimension i pairs with i + pairs, or, interleaved, 2 i with 2 i + 1.
struct Rope {
  Floats inv_freq;
  float factor;  // of cos and sin
  bool interleaved;
  int ahead = 0;

  int pairs() const { return static_cast<int>(inv_freq.size()); }
  bool operator==(const Rope&) const = default;
};

// How scores grow with a query's position: they are multiplied by 1 + beta * ln(1 + position / length), of
// whole lengths.
struct Temperature {
  float beta;
  int length;
};

// Where K and V of a layer's rows come from: from matrices of their own; V is K before its norm and its rope; or another
// layer has written them to the cache that this one reads.
enum class KeyValues { kOwn, kKeys, kShared };

// The attention of one layer. Query head h reads K/V head h * kv_heads / heads.
struct Attention {
  int heads;
  int kv_heads;
  int head_dim;
  float scale = 1;                         // of the scores
  std::optional<int> rope = std::nullopt;  // its number in the graph
  int window = kMostPositions;             // keys that a row sees at most, its own among them
  float soft_cap = 0;                      // score -> soft_cap * tanh(score / soft_cap); 0: none
  Floats q_norm = {}, k_norm = {};         // of each head [head_dim], or of all together; empty: none
  Floats v_norm = {};                      // of each head [head_dim]; empty: none
  float norm_eps = 0;
  std::optional<Temperature> temperature = std::nullopt;
  Floats sinks = {};                       // [heads], logits that take part without a value; empty: none
  int group = 0;                           // of layers that share block tables
  KeyValues kv = KeyValues::kOwn;

  int share() const { return heads / kv_heads; }  // query heads a K/V head
  int q_width() const { return heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
  bool stores() const { return kv != KeyValues::kShared; }
  // Numbers that the layer's matrices make of a row.
  int qkv_width() const {
    return q_width() + (kv == KeyValues::kOwn ? 2 * kv_width() : kv == KeyValues::kKeys ? kv_width() : 0);
  }
};

// Where the states of one layer lie: of each slot `floats` numbers.
struct StateView {
  float* data;
  int slots;
  size_t floats;

  float* at(int slot) const { return data + floats * static_cast<size_t>(slot); }
};

inline constexpr int kMostTaps = 16;  // of a convolution

// A mixture of experts: the `chosen` of `count` experts that score highest, each times its weight. Weights are
// the softmax of the scores, or their sigmoid; `normalised` ones add up to 1, so that they are the softmax of
// the chosen scores alone.
struct Routing {
  enum class Scoring { kSoftmax, kSigmoid };

  int count;
  int chosen;
  Scoring scoring = Scoring::kSoftmax;
  bool normalised = true;
  float factor = 1;  // of the weights
  Floats bias = {};  // [count], added where experts are chosen and not to their weights; empty: none
};

// Operations with checked shapes. What is wrong is refused with std::invalid_argument.
class Graph {
 public:
  struct Input {};
  struct Embed {  // scale * row of the table
    Weight table;
    float scale;
  };
  struct Norm {  // residual + rms_norm(x)
    Value x;
    Floats weight;
    float eps;
    std::optional<Value> residual;
  };
  struct Linear {  // residual + scale * (W x + b), with the outputs of several weights side by side
    Value x;
    std::vector<Weight> weights;
    std::optional<Value> residual;
    float scale;
  };
  struct Gated {  // activation(gate(x)) * up(x)
    Value x;
    std::vector<Weight> gates, ups;
    Activation activation;
  };
  struct Experts {  // residual + scale * sum over the chosen of weight * down(activation(gate(x)) * up(x))
    Value x;
    Value scores;             // [rows, count]
    Weight gates, ups;        // [count * inner, width of x]
    Weight downs;             // [count * width of the output, inner]
    Routing routing;
    Activation activation;
    std::optional<Value> residual;
    float scale;
  };
  struct Attend {  // norm, rotate, store K and V, attend
    Value qkv;
    CacheView cache;
    Attention attention;
  };
  struct SoftCap {  // cap * tanh(x / cap)
    Value x;
    float cap;
  };
  struct Scale {  // factor * x
    Value x;
    float factor;
  };
  struct Columns {  // some of them, from `first` on
    Value x;
    int first, count;
  };
  struct Multiply {  // x * activation(gate); a gate of width 1 holds for all columns
    Value x;
    Value gate;
    Activation activation;
  };
  struct Convolve {  // of each channel by itself, over the request's rows up to a row
    Value x;
    Floats weight;  // [kernel, channels]; the last row is for the row itself
    Floats bias;    // [channels]; empty: none
    int kernel;
    bool silu;
    StateView states;  // [slots, kernel - 1, channels]
  };
  struct Delta {  // a gated delta rule
    Value qkv;            // q and k of each key head, v of each value head
    Value forget, write;  // [rows, value_heads]
    Floats rates, bias;   // [value_heads]
    int key_heads, value_heads, key_dim, value_dim;
    bool tiled;        // value head v reads key head v % key_heads, else v * key_heads / value_heads
    StateView states;  // [slots, value_heads, key_dim, value_dim]

    size_t state_floats() const { return static_cast<size_t>(key_dim) * static_cast<size_t>(value_dim); }
  };
  struct NormHeads {  // rms_norm of each head by itself
    Value x;
    Floats weight;  // [width of x], each head's own part
    int heads;
    float eps;
  };
  struct SelectLogitRows {
    Value x;
  };
  using Operation = 
      std::variant<Input, Embed, Norm, Linear, Gated, Experts, Attend, SoftCap, Scale, Columns, Multiply, Convolve, Delta,
                   NormHeads, SelectLogitRows>;

  struct Node {
    Operation operation;
    int width;
    bool logits;  // has only the rows that need logits
  };
  struct Kept {
    Value x;
    int column;  // of what the caller keeps
  };

  // The values that an operation reads.
  static std::vector<Value> sources(const Operation& operation);

  int rope(Rope rope);  // its number; equal ones share one
  Value input(int width);
  Value embed(Embed embed);
  Value norm(Norm norm);
  Value linear(Linear linear);
  Value gated(Gated gated);
  Value experts(Experts experts);
  Value attend(Attend attend);
  Value soft_cap(SoftCap soft_cap);
  Value scale(Scale scale);
  Value columns(Columns columns);
  Value multiply(Multiply multiply);
  Value convolve(Convolve convolve);
  Value delta(Delta delta);
  Value norm_heads(NormHeads norm);
  Value select_logit_rows(SelectLogitRows select);
  void keep(Value x);
  // What `output` would refuse.
  void check_output(Value x) const;
  // Ends the recording.
  void output(Value x);

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<Rope>& ropes() const { return ropes_; }
  const std::vector<Kept>& kept() const { return kept_; }
  std::optional<Value> input() const { return input_; }
  int width(Value x) const { return node(x).width; }
  bool logits(Value x) const { return node(x).logits; }
  int kept_width() const { return kept_width_; }
  // Slots for states; none where no layer keeps one.
  std::optional<int> slots() const { return slots_; }
  // Whether rows leave something to the rows after them: K and V, or states.
  bool stores() const;
  bool keeps_logit_rows() const { return !kept_.empty() && logits(kept_[0].x); }
  int vocab() const { return vocab_; }  // tokens of the smallest table

 private:
  const Node& node(Value x) const;
  Value add(Operation operation, int width, bool logits);
  int outputs_of(Value x, const std::vector<Weight>& weights, const char* name) const;
  void check_residual(Value residual, int width, bool logits) const;
  void check_all_rows(Value x, const char* name) const;
  void keep_slots(const StateView& states);
  void check_unfinished() const;

  std::vector<Node> nodes_;
  std::vector<Rope> ropes_;
  std::vector<Kept> kept_;
  std::optional<Value> input_, output_;
  std::optional<int> slots_;
  int kept_width_ = 0, vocab_ = 1 << 30;
};

}  // namespace outrider

// What Python sees of threads and programs.
#include <optional>

#include "bindings.h"
#include "program.h"

namespace outrider {
namespace {

using Matrices = std::vector<std::shared_ptr<Matrix>>;

std::vector<Weight> weights_of(const Matrices& matrices) { return {matrices.begin(), matrices.end()}; }

Floats floats_of(const Input& array, const char* name) {
  const auto* first = static_cast<const float*>(checked(array, name, nb::dtype<float>(), {-1}));
  return Floats(first, first + array.shape(0));
}

Floats floats_of(const std::optional<Input>& array, const char* name) {
  return array ? floats_of(*array, name) : Floats();
}

Activation activation_named(const std::string& name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "gelu") return Activation::kGelu;
  if (name == "swiglu_clamped") return Activation::kSwiGluClamped;
  refuse("activation = '" + name + "' is not known; known are silu, gelu_tanh, gelu, swiglu_clamped");
}

// Of a product's other factor.
Activation gate_named(const std::optional<std::string>& name) {
  if (!name) return Activation::kNone;
  if (*name == "silu") return Activation::kSilu;
  if (*name == "sigmoid") return Activation::kSigmoid;
  if (*name == "gelu_tanh") return Activation::kGeluTanh;
  refuse("activation = '" + *name + "' of a gate is not known; known are silu, sigmoid, gelu_tanh, and None");
}

KeyValues key_values_named(const std::string& name) {
  if (name == "own") return KeyValues::kOwn;
  if (name == "keys") return KeyValues::kKeys;
  if (name == "shared") return KeyValues::kShared;
  refuse("kv = '" + name + "' is not known; known are own, keys, shared");
}

Routing::Scoring scoring_named(const std::string& name) {
  if (name == "softmax") return Routing::Scoring::kSoftmax;
  if (name == "sigmoid") return Routing::Scoring::kSigmoid;
  refuse("scoring = '" + name + "' is not known; known are softmax, sigmoid");
}

Value experts(Program& p, Value x, Value scores, std::shared_ptr<Matrix> gates, std::shared_ptr<Matrix> ups,
              std::shared_ptr<Matrix> downs, int count, int chosen, const std::string& activation,
              const std::string& scoring, bool normalised, float factor, const std::optional<Input>& bias,
              std::optional<Value> residual, float scale) {
  return p.graph().experts({.x = x,
                            .scores = scores,
                            .gates = std::move(gates),
                            .ups = std::move(ups),
                            .downs = std::move(downs),
                            .routing = {.count = count,
                                        .chosen = chosen,
                                        .scoring = scoring_named(scoring),
                                        .normalised = normalised,
                                        .factor = factor,
                                        .bias = floats_of(bias, "bias")},
                            .activation = activation_named(activation),
                            .residual = residual,
                            .scale = scale});
}

Value attend(Program& p, Value qkv, const Array& keys, const Array& values, int heads, int kv_heads,
             int head_dim, float scale, std::optional<int> rope, std::optional<int> window,
             std::optional<float> soft_cap, const std::optional<Input>& q_norm,
             const std::optional<Input>& k_norm, float norm_eps,
             const std::optional<std::pair<float, int>>& temperature, const std::optional<Input>& sinks,
             int group, const std::string& kv, const std::optional<Input>& v_norm) {
  std::optional<Temperature> grows;
  if (temperature) grows = Temperature{temperature->first, temperature->second};
  if (soft_cap && *soft_cap == 0) refuse(named("soft_cap", *soft_cap) + " has to be above 0");
  return p.graph().attend({.qkv = qkv,
                           .cache = p.cache(keys, values, kv_heads, head_dim),
                           .attention = {.heads = heads,
                                         .kv_heads = kv_heads,
                                         .head_dim = head_dim,
                                         .scale = scale,
                                         .rope = rope,
                                         .window = window.value_or(kMostPositions),
                                         .soft_cap = soft_cap.value_or(0),
                                         .q_norm = floats_of(q_norm, "q_norm"),
                                         .k_norm = floats_of(k_norm, "k_norm"),
                                         .v_norm = floats_of(v_norm, "v_norm"),
                                         .norm_eps = norm_eps,
                                         .temperature = grows,
                                         .sinks = floats_of(sinks, "sinks"),
                                         .group = group,
                                         .kv = key_values_named(kv)}});
}

}  // namespace

void bind_program(nb::module_& m) {
  nb::class_<Threads>(m, "Threads", "Threads that run programs; may be shared by several.")
      .def("__init__", [](Threads* self, int count) {
             if (count < 1 || count > 1024)
               refuse(named("count", count) + " has to be 1 to 1024");
             new (self) Threads(count);
           }, "count"_a)
      .def_prop_ro("count", &Threads::count)
      .def("check_process", &Threads::check_process,
           "Raises RuntimeError in a process that is a fork of the one that started the threads.");

  nb::class_<Program>(m, "Program",
                      "Operations recorded once, run in one call. Values are numbered as they are recorded.\n"
                      "What cannot be is refused with ValueError or TypeError, and the program is as before.")
      .def(nb::init<std::shared_ptr<Threads>, const std::string&>(), "threads"_a, "instruction_set"_a)
      .def("rope", [](Program& p, const Input& inv_freq, float factor, bool interleaved,
                      int ahead) {
             if (ahead < 0 || ahead > 1 << 20) refuse(named("ahead", ahead) + " has to be 0 to 2^20");
             return p.graph().rope({floats_of(inv_freq, "inv_freq"), factor, interleaved, ahead});
           }, "inv_freq"_a, "factor"_a = 1.0f, "interleaved"_a = false, "ahead"_a = 0,
           "A rotary embedding of a head's first 2 * pairs dimensions. inv_freq: float32 [pairs]; factor: of cos\n"
           "and sin; ahead: positions behind its own by which a row turns. Returns its number; equal ones have the same.")
      .def("input", [](Program& p, int width) { return p.graph().input(width); }, "width"_a)
      .def("embed", [](Program& p, std::shared_ptr<Matrix> table, float scale) {
             return p.graph().embed({std::move(table), scale});
           }, "table"_a, "scale"_a = 1.0f, "scale * the tokens' rows of the table.")
      .def("norm", [](Program& p, Value x, const Input& weight, float eps, std::optional<Value> residual) {
             return p.graph().norm({x, floats_of(weight, "weight"), eps, residual});
           }, "x"_a, "weight"_a, "eps"_a, "residual"_a = nb::none(), "residual + rms_norm(x).")
      .def("linear", [](Program& p, Value x, const Matrices& weights, std::optional<Value> residual,
                        float scale) {
             return p.graph().linear({x, weights_of(weights), residual, scale});
           }, "x"_a, "weights"_a, "residual"_a = nb::none(), "scale"_a = 1.0f,
           "residual + scale * (W x + b), with the outputs of several weights side by side.")
      .def("gated", [](Program& p, Value x, const Matrices& gates, const Matrices& ups,
                       const std::string& activation) {
             return p.graph().gated({x, weights_of(gates), weights_of(ups), activation_named(activation)});
           }, "x"_a, "gates"_a, "ups"_a, "activation"_a,
           "activation(gate(x)) * up(x), with the outputs of several pairs side by side. activation: 'silu',\n"
           "'gelu_tanh', 'gelu' or, as in gpt-oss, 'swiglu_clamped'.")
      .def("experts", experts, "x"_a, "scores"_a, "gates"_a, "ups"_a, "downs"_a, nb::kw_only(), "count"_a,
           "chosen"_a, "activation"_a, "scoring"_a = "softmax", "normalised"_a = true, "factor"_a = 1.0f,
           "bias"_a = nb::none(), "residual"_a = nb::none(), "scale"_a = 1.0f,
           "residual + scale * the sum, in order of rank, of weight * down(activation(gate(x)) * up(x)) over the\n"
           "`chosen` of `count` experts that score highest. scores: [rows, count], of a linear layer; scoring:\n"
           "'softmax' or 'sigmoid' of them is the weight, times factor; normalised: weights of the chosen add up\n"
           "to 1 before the factor. bias: float32 [count], added where experts are chosen, not to weights. gates,\n"
           "ups: [count * inner, hidden]; downs: [count * outputs, inner], experts one below the other; inner and\n"
           "outputs are multiples of 16. A tie goes to the lower number.")
      .def("attend", attend, "qkv"_a, "keys"_a, "values"_a, nb::kw_only(), "heads"_a, "kv_heads"_a,
           "head_dim"_a, "scale"_a, "rope"_a = nb::none(), "window"_a = nb::none(), "soft_cap"_a = nb::none(),
           "q_norm"_a = nb::none(), "k_norm"_a = nb::none(), "norm_eps"_a = 0.0f,
           "temperature"_a = nb::none(), "sinks"_a = nb::none(),
           "group"_a = 0, "kv"_a = "own", "v_norm"_a = nb::none(),
           "Norms q and k, turns them, writes k and v to the cache, and attends: [rows, heads * head_dim].\n"
           "qkv: [rows, (heads + 2 kv_heads) * head_dim]. keys: [blocks, kv_heads, head_dim, block_size];\n"
           "values: the last two the other way round; float32, bfloat16, or uint16 as bfloat16. Or both int8:\n"
           "[blocks, kv_heads, (head_dim + 4) * block_size], codes in that order, and behind them what those of\n"
           "each position are multiplied with, float32; k and q are spread over their dimensions before. window: keys\n"
           "that a row sees at most, its own among them. q_norm, k_norm: float32 [head_dim], of each head by\n"
           "itself, or [heads * head_dim], of all together. temperature: (beta, length), by which scores grow\n"
           "with 1 + beta * ln(1 + position // length). sinks: float32 [heads], logits that take part in\n"
           "the softmax without a value. group: which of a span's block tables the layer reads.\n"
           "kv: 'own'; 'keys', where qkv has no v, which is k before its norm; or 'shared', where it is q alone,\n"
           "and another layer has written K and V to the cache. v_norm: float32 [head_dim], of each head of v.")
      .def("soft_cap", [](Program& p, Value x, float cap) { return p.graph().soft_cap({x, cap}); }, "x"_a,
           "cap"_a, "cap * tanh(x / cap).")
      .def("scale", [](Program& p, Value x, float factor) { return p.graph().scale({x, factor}); }, "x"_a,
           "factor"_a, "factor * x.")
      .def("columns", [](Program& p, Value x, int first, int count) {
             return p.graph().columns({x, first, count});
           }, "x"_a, "first"_a, "count"_a, "Some columns of x, from `first` on.")
      .def("multiply", [](Program& p, Value x, Value gate, const std::optional<std::string>& activation) {
             return p.graph().multiply({x, gate, gate_named(activation)});
           }, "x"_a, "gate"_a, "activation"_a = nb::none(),
           "x * activation(gate). activation: 'silu', 'sigmoid', 'gelu_tanh', or None, which leaves the gate as it is. A gate\n"
           "of one column holds for all columns of x.")
      .def("convolve", [](Program& p, Value x, const Input& weight, const std::optional<Input>& bias,
                          const Array& states, bool silu) {
             const int channels = p.graph().width(x);
             const auto* given = static_cast<const float*>(checked(weight, "weight", nb::dtype<float>(), {channels, -1}));
             const int kernel = size_of(weight.shape(1), "weight", "positions");
             Floats turned(static_cast<size_t>(kernel) * static_cast<size_t>(channels));
             for (int c = 0; c < channels; ++c)
               for (int t = 0; t < kernel; ++t)
                 turned[static_cast<size_t>(t) * static_cast<size_t>(channels) + static_cast<size_t>(c)] =
                     given[static_cast<size_t>(c) * static_cast<size_t>(kernel) + static_cast<size_t>(t)];
             const size_t floats = static_cast<size_t>(kernel - 1) * static_cast<size_t>(channels);
             return p.graph().convolve({x, std::move(turned), floats_of(bias, "bias"), kernel, silu,
                                        p.states(states, floats)});
           }, "x"_a, "weight"_a, "bias"_a, "states"_a, nb::kw_only(), "silu"_a = false,
           "A causal convolution of each channel by itself. weight: float32 [channels, kernel], whose last column\n"
           "is for the row itself; bias: [channels], or None. states: float32 [slots, kernel - 1, channels].")
      .def("delta", [](Program& p, Value qkv, Value forget, Value write, const Input& rates, const Input& bias,
                       const Array& states, int key_heads, int value_heads, int key_dim, int value_dim, bool tiled) {
             const size_t floats = static_cast<size_t>(value_heads) * static_cast<size_t>(key_dim) *
                                   static_cast<size_t>(value_dim);
             return p.graph().delta({qkv, forget, write, floats_of(rates, "rates"), floats_of(bias, "bias"), key_heads,
                                     value_heads, key_dim, value_dim, tiled, p.states(states, floats)});
           }, "qkv"_a, "forget"_a, "write"_a, "rates"_a, "bias"_a, "states"_a, nb::kw_only(), "key_heads"_a,
           "value_heads"_a, "key_dim"_a, "value_dim"_a, "tiled"_a = false,
           "A gated delta rule. q and k are made as long as 1 / sqrt(key_dim) and 1; the state of a head decays by\n"
           "exp(rates * softplus(forget + bias)), and then has sigmoid(write) of the correction of v written under k.\n"
           "states: float32 [slots, value_heads, key_dim, value_dim].")
      .def("norm_heads", [](Program& p, Value x, const Input& weight, int heads, float eps) {
             return p.graph().norm_heads({x, floats_of(weight, "weight"), heads, eps});
           }, "x"_a, "weight"_a, "heads"_a, "eps"_a,
           "rms_norm of each head by itself. weight: float32 [width of x], each head's own part.")
      .def("select_logit_rows", [](Program& p, Value x) { return p.graph().select_logit_rows({x}); }, "x"_a)
      .def("keep", [](Program& p, Value x) { p.graph().keep(x); }, "x"_a,
           "Hand x out beside the output, to the right of what was kept before.")
      .def_prop_ro("kept_width", [](Program& p) { return p.graph().kept_width(); })
      .def_prop_ro("keeps_logit_rows", [](Program& p) { return p.graph().keeps_logit_rows(); })
      .def("output", &Program::output, "x"_a, "Ends the recording: x is what a run returns.")
      .def("run", [](Program& p, std::vector<int32_t> tokens, const std::vector<int>& starts,
                     const std::vector<int>& rows, Tables tables, const std::vector<int>& logit_rows,
                     const std::optional<Input>& input, const std::optional<Array>& kept, const States& states,
                     NewStates new_states, Parents parents) {
             return p.run(std::move(tokens), spans_of(starts, rows, std::move(tables), logit_rows, states,
                                                      std::move(new_states), std::move(parents)), input, kept);
           }, "tokens"_a, "starts"_a, "rows"_a, "tables"_a, "logit_rows"_a,
           "input"_a = nb::none(), "kept"_a = nb::none(), "states"_a = nb::none(), "new_states"_a = nb::none(),
           "parents"_a = Parents(),
           "Run the recorded operations for the spans; float32 [output rows, width]. tables: of each span and\n"
           "group of layers, the blocks of its cache; those behind the window are not read and may be -1. kept:\n"
           "where to write what the program keeps, float32 [rows, sum of widths]. states: of each span, the slot of\n"
           "the states before its first row, or -1; new_states: of each span and row, the slot of those after it,\n"
           "or -1. parents: of each span, for each of its last rows, which of these it follows, or -1 for the row\n"
           "before them all; [] where rows follow each other, or for all. Row i of a span is kept at place start + i\n"
           "of its tables. Raises RuntimeError while another thread runs the same program.")
      .def("step", [](Program& p, std::vector<int32_t> tokens, const std::vector<int>& starts,
                      const std::vector<int>& rows, Tables tables, const std::vector<int>& logit_rows,
                      const std::vector<std::optional<Choice>>& choices, const std::optional<Input>& input,
                      const std::optional<Array>& kept, const States& states, NewStates new_states, bool looks,
                      Parents parents) {
             return p.step(std::move(tokens), spans_of(starts, rows, std::move(tables), logit_rows, states,
                                                       std::move(new_states), std::move(parents)),
                           choices, input, kept, looks);
           }, "tokens"_a, "starts"_a, "rows"_a, "tables"_a, "logit_rows"_a, "choices"_a,
           "input"_a = nb::none(), "kept"_a = nb::none(), "states"_a = nb::none(), "new_states"_a = nb::none(),
           "looks"_a = false, "parents"_a = Parents(),
           "As `run`, and then choose tokens. choices: of each span, or None. The tokens of each span's choice, one a\n"
           "row, or why there is none: NAN, INFINITE or NOTHING; and the logits, float32 [sum of logit_rows, vocab],\n"
           "if they are to be looked at, or None.")
      .def("move", &Program::move, "tables"_a, "from_"_a, "to"_a,
           "Move K and V of all layers, in order, from some places of a request's tables to others. tables: of each\n"
           "group of layers.");
}

}  // namespace outrider

#include "plan.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "operations.h"
#include "operations_attention.h"
#include "operations_experts.h"
#include "operations_states.h"

namespace outrider {
namespace {

// Walks a graph in the order in which it was recorded and writes a plan.
class Planner {
 public:
  Planner(const Graph& graph, Plan& plan) : graph_(graph), plan_(plan), known_(graph.nodes().size()) {
    for (const Graph::Node& node : graph.nodes())
      for (const Value x : Graph::sources(node.operation)) ++known(x).uses;
    for (const Graph::Kept& kept : graph.kept()) ++known(kept.x).uses;
  }

  void walk(Value output) {
    ++known(output).uses;
    for (Value y = 0; y < static_cast<Value>(known_.size()); ++y) {
      std::visit([&](const auto& operation) { add(operation, y); },
                 graph_.nodes()[static_cast<size_t>(y)].operation);
      for (const Graph::Kept& kept : graph_.kept())
        if (kept.x == y) emit<Keep>(floats(y), kept.column, graph_.kept_width());
    }
    plan_.output = floats(output);
  }

 private:
  // What there is of a value so far.
  struct Known {
    int uses = 0;
    std::optional<Operand> floats;
    std::vector<Prepared> prepared;
  };

  void add(const Graph::Input&, Value y) { plan_.input = make_floats(y); }

  void add(const Graph::Embed& embed, Value y) { emit<Embed>(embed, make_floats(y)); }

  void add(const Graph::Norm& norm, Value y) {
    if (norm.residual) write_norm(norm, y);  // the others wait until somebody wants their floats
  }

  void add(const Graph::Linear& linear, Value y) {
    std::vector<Part> parts;
    int column = 0;
    for (const Weight& weight : linear.weights) {
      parts.push_back({.gate = std::nullopt, .layer = layer(linear.x, *weight), .column = column});
      column += weight->view().outputs;
    }
    std::optional<Operand> residual;
    if (linear.residual) residual = floats(*linear.residual);
    emit<Linear>(std::move(parts), residual, linear.scale, Activation::kNone, make_floats(y));
  }

  void add(const Graph::Gated& gated, Value y) {
    std::vector<Part> parts;
    int column = 0;
    for (size_t i = 0; i < gated.ups.size(); ++i) {
      const Layer gate = layer(gated.x, *gated.gates[i]), up = layer(gated.x, *gated.ups[i]);
      parts.push_back({.gate = gate, .layer = up, .column = column});
      column += gated.ups[i]->view().outputs;
    }
    emit<Linear>(std::move(parts), std::optional<Operand>(), 1.0f, gated.activation, make_floats(y));
  }

  void add(const Graph::Experts& experts, Value y) {
    const Routing& routing = experts.routing;
    const Operand x = floats(experts.x);
    const Assignment a = assignment(routing, x.logits);
    emit<Route>(routing, floats(experts.scores), a);
    emit<GroupByExpert>(a);
    const int inner = experts.downs->view().inputs;
    const ExpertLayer gate = expert_layer(*experts.gates, x, a, true);
    const MatrixView& ups = experts.ups->view();
    const bool alike = ups.layout().form == gate.x.form && ups.columns == gate.x.columns;
    const ExpertLayer up = alike ? ExpertLayer{gate.x, ups, inner}
                                 : expert_layer(*experts.ups, x, a, true);
    const Operand hidden = slots(inner, a);
    emit<ExpertsLinear>(a, std::optional(gate), up, experts.activation, hidden);
    const Operand outputs = slots(graph_.width(y), a);
    const ExpertLayer down = expert_layer(*experts.downs, hidden, a, false);
    emit<ExpertsLinear>(a, std::optional<ExpertLayer>(), down, Activation::kNone, outputs);
    std::optional<Operand> residual;
    if (experts.residual) residual = floats(*experts.residual);
    emit<AddExperts>(a, outputs, residual, experts.scale, make_floats(y));
  }

  void add(const Graph::Attend& attend, Value y) {
    const Attention& a = attend.attention;
    const auto group = static_cast<size_t>(a.group);
    if (plan_.groups.size() <= group) plan_.groups.resize(group + 1);
    TableGroup& tables = plan_.groups[group];
    tables = {attend.cache.blocks, attend.cache.block_size, std::max(tables.window, a.window)};

    const int number = class_of({a.heads, a.kv_heads, a.head_dim, a.window});
    const Operand q = new_floats(a.q_width(), false);
    emit<Store>(attend, floats(attend.qkv), q);
    const Operand out = make_floats(y);
    emit<Attend>(attend, number, q, out);
    emit<Merge>(attend, number, out);
  }

  void add(const Graph::SoftCap& soft_cap, Value y) {
    const Operand x = floats(soft_cap.x);
    emit<SoftCap>(soft_cap.cap, x, over(soft_cap.x, x, y));
  }

  void add(const Graph::Scale& scale, Value y) {
    const Operand x = floats(scale.x);
    emit<Scale>(scale.factor, x, over(scale.x, x, y));
  }

  void add(const Graph::Columns& columns, Value y) {
    const Operand x = floats(columns.x);
    emit<Columns>(columns.first, x, make_floats(y));
  }

  void add(const Graph::Multiply& product, Value y) {
    const Operand x = floats(product.x), gate = floats(product.gate);
    emit<Multiply>(x, gate, product.activation, make_floats(y));
  }

  void add(const Graph::Convolve& convolve, Value y) {
    const Operand x = floats(convolve.x);
    emit<Convolve>(convolve, x, make_floats(y));
  }

  void add(const Graph::Delta& delta, Value y) {
    const Operand qkv = floats(delta.qkv), forget = floats(delta.forget), write = floats(delta.write);
    emit<Delta>(delta, qkv, forget, write, make_floats(y));
  }

  void add(const Graph::NormHeads& norm, Value y) {
    const Operand x = floats(norm.x);
    emit<NormHeads>(norm, x, make_floats(y));
  }

  void add(const Graph::SelectLogitRows& select, Value y) {
    const Operand x = floats(select.x);
    emit<SelectLogitRows>(x, make_floats(y));
  }

  void write_norm(const Graph::Norm& norm, Value y) {
    const Operand x = floats(norm.x);
    std::optional<Operand> residual;
    if (norm.residual) residual = floats(*norm.residual);
    emit<RmsNorm>(norm, x, residual, make_floats(y));
  }

  // A norm of which only a prepared form has been wanted so far.
  const Graph::Norm* waiting_norm(Value x) {
    const auto* norm = std::get_if<Graph::Norm>(&graph_.nodes()[static_cast<size_t>(x)].operation);
    return norm != nullptr && !known(x).floats ? norm : nullptr;
  }

  // The floats of x, written now if they are not there yet.
  Operand floats(Value x) {
    if (const Graph::Norm* norm = waiting_norm(x)) write_norm(*norm, x);
    return *known(x).floats;
  }

  // A weight and x in the form that it reads.
  Layer layer(Value x, const Matrix& weight) {
    const MatrixView& view = weight.view();
    const Form form = view.layout().form;
    for (const Prepared& prepared : known(x).prepared)
      if (prepared.form == form && prepared.columns == view.columns) return {prepared, &weight};
    const Graph::Norm* norm = waiting_norm(x);
    const Operand source = floats(norm ? norm->x : x);
    const size_t bytes = sizeof(uint32_t) * static_cast<size_t>(units_of(form, view.inputs));
    const Prepared prepared{.buffer = new_buffer(bytes),
                            .form = form,
                            .inputs = view.inputs,
                            .columns = view.columns,
                            .logits = source.logits};
    emit<Prepare>(source, norm, prepared);
    known(x).prepared.push_back(prepared);
    return {prepared, &weight};
  }

  Assignment assignment(const Routing& routing, bool logits) {
    const auto bytes = sizeof(int32_t) * static_cast<size_t>(Assignment::words(routing.count, routing.chosen));
    return {new_buffer(bytes), routing.count, routing.chosen, logits};
  }

  // Floats for each expert of each row.
  Operand slots(int width, const Assignment& a) {
    return {new_buffer(sizeof(float) * static_cast<size_t>(width) * static_cast<size_t>(a.chosen)), width,
            a.logits};
  }

  // Experts' weights, and what they read of x, whose rows are a batch's (by_row) or slots.
  ExpertLayer expert_layer(const Matrix& all, Operand x, const Assignment& a, bool by_row) {
    const MatrixView& view = all.view();
    const Form form = view.layout().form;
    const auto units = static_cast<size_t>(units_of(form, view.inputs));
    const Prepared prepared{.buffer = new_buffer(sizeof(uint32_t) * units * static_cast<size_t>(a.chosen)),
                            .form = form,
                            .inputs = view.inputs,
                            .columns = view.columns,
                            .logits = a.logits};
    emit<PrepareForExperts>(a, x, by_row, prepared);
    return {prepared, view, view.outputs / a.count};
  }

  int class_of(const AttentionClass& wanted) {
    auto& classes = plan_.classes;
    const auto found = std::find(classes.begin(), classes.end(), wanted);
    const auto number = static_cast<int>(found - classes.begin());
    if (found == classes.end()) classes.push_back(wanted);
    return number;
  }

  // y in place of x, which may be large, as logits are; or beside it, where somebody else reads x.
  Operand over(Value x, Operand floats, Value y) {
    if (known(x).uses > 1 || x == graph_.input()) return make_floats(y);
    known(y).floats = floats;
    return floats;
  }

  Operand make_floats(Value y) {
    known(y).floats = new_floats(graph_.width(y), graph_.logits(y));
    return *known(y).floats;
  }

  Operand new_floats(int width, bool logits) {
    return {new_buffer(sizeof(float) * static_cast<size_t>(width)), width, logits};
  }

  int new_buffer(size_t bytes_per_row) {
    plan_.buffers.push_back({.bytes_per_row = round_up(bytes_per_row, static_cast<size_t>(kAlign)),
                             .first = std::numeric_limits<size_t>::max(),
                             .last = 0});
    return static_cast<int>(plan_.buffers.size()) - 1;
  }

  // Adds an operation. The buffers among its arguments live from the first operation that has them to the last.
  template <typename T, typename... Args>
  void emit(Args&&... args) {
    (touch(args), ...);
    plan_.ops.push_back(std::make_unique<T>(std::forward<Args>(args)...));
  }
  void touch_buffer(int number) {
    Buffer& buffer = plan_.buffers[static_cast<size_t>(number)];
    buffer.first = std::min(buffer.first, plan_.ops.size());
    buffer.last = plan_.ops.size();
  }
  void touch(const Operand& operand) { touch_buffer(operand.buffer); }
  void touch(const std::optional<Operand>& operand) {
    if (operand) touch_buffer(operand->buffer);
  }
  void touch(const Prepared& prepared) { touch_buffer(prepared.buffer); }
  void touch(const Assignment& a) { touch_buffer(a.buffer); }
  void touch(const ExpertLayer& layer) { touch(layer.x); }
  void touch(const std::optional<ExpertLayer>& layer) {
    if (layer) touch(layer->x);
  }
  void touch(const std::vector<Part>& parts) {
    for (const Part& part : parts) {
      touch(part.layer.x);
      if (part.gate) touch(part.gate->x);
    }
  }
  template <typename T>
  void touch(const T&) {}

  Known& known(Value x) { return known_[static_cast<size_t>(x)]; }

  const Graph& graph_;
  Plan& plan_;
  std::vector<Known> known_;
};

// Each buffer goes to the lowest place that is free all its life. Returns the bytes that a row takes.
size_t place(std::vector<Buffer>& buffers) {
  size_t most = 0;
  for (size_t b = 0; b < buffers.size(); ++b) {
    Buffer& mine = buffers[b];
    if (mine.bytes_per_row == 0) continue;
    std::vector<std::pair<size_t, size_t>> taken;
    for (size_t o = 0; o < b; ++o)
      if (const Buffer& other = buffers[o]; other.first <= mine.last && mine.first <= other.last)
        taken.emplace_back(other.place, other.place + other.bytes_per_row);
    std::sort(taken.begin(), taken.end());
    for (const auto& [from, to] : taken) {
      if (mine.place + mine.bytes_per_row <= from) break;
      mine.place = std::max(mine.place, to);
    }
    most = std::max(most, mine.place + mine.bytes_per_row);
  }
  return most;
}

}  // namespace

Plan::Plan(const Graph& graph, Value result, const Kernels& kernels) : graph(graph), kernels(kernels) {
  Planner(graph, *this).walk(result);
  // These two are the caller's arrays.
  buffers[static_cast<size_t>(output.buffer)].bytes_per_row = 0;
  if (input) buffers[static_cast<size_t>(input->buffer)].bytes_per_row = 0;
  bytes_per_row = place(buffers);
  for (const auto& op : ops) scratch = std::max(scratch, op->scratch());
}

}  // namespace outrider

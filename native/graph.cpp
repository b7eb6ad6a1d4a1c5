#include "graph.h"

#include <algorithm>

#include "refuse.h"

namespace outrider {
namespace {

// Sizes that leave every index within its type.
constexpr int kMostHeads = 1 << 9, kMostHeadDim = 1 << 12, kMostColumns = 1 << 30, kMostGroups = 1 << 10;
constexpr int kMostExperts = 1 << 12, kMostChosen = 1 << 9;

void check_size(const char* name, size_t size, const std::string& of, int wanted) {
  if (size != static_cast<size_t>(wanted))
    refuse(std::string(name) + " has " + std::to_string(size) + " values; " + of + " " + std::to_string(wanted));
}

void check_eps(const char* name, float eps) {
  check_finite(name, eps);
  if (eps < 0) refuse(named(name, eps) + " has to be at least 0");
}

void check_cap(const char* name, float cap) {
  check_finite(name, cap);
  if (cap <= 0) refuse(named(name, cap) + " has to be above 0");
}

void check_head_norm(const char* name, const Floats& weight, const Attention& a, int heads) {
  const auto size = static_cast<int64_t>(weight.size());
  if (size != 0 && size != a.head_dim && size != int64_t{heads} * a.head_dim)
    refuse(std::string(name) + " has " + std::to_string(size) + " values; a head has " +
           std::to_string(a.head_dim) + ", all together " + std::to_string(heads * a.head_dim));
}

void check_attention(const Attention& a) {
  if (a.heads < 1 || a.heads > kMostHeads) refuse(named("heads", a.heads) + " has to be 1 to 512");
  if (a.kv_heads < 1 || a.heads % a.kv_heads)
    refuse(named("heads", a.heads) + " cannot share " + named("kv_heads", a.kv_heads));
  if (a.head_dim < 2 || a.head_dim > kMostHeadDim || a.head_dim % 2)
    refuse(named("head_dim", a.head_dim) + " has to be even, 2 to 4096");
  check_finite("scale", a.scale);
  if (a.window < 1 || a.window > kMostPositions) refuse(named("window", a.window) + " has to be 1 to 2^30");
  if (a.soft_cap != 0) check_cap("soft_cap", a.soft_cap);
  if (a.temperature) {
    check_finite("beta of temperature", a.temperature->beta);
    if (a.temperature->length < 1) refuse(named("length of temperature", a.temperature->length) + " has to be at least 1");
  }
  check_head_norm("q_norm", a.q_norm, a, a.heads);
  check_head_norm("k_norm", a.k_norm, a, a.kv_heads);
  if (!a.v_norm.empty()) check_size("v_norm", a.v_norm.size(), "head_dim =", a.head_dim);
  if (!a.stores() && !(a.k_norm.empty() && a.v_norm.empty()))
    refuse("k_norm and v_norm are of a layer whose K and V another one has written; they have to be None");
  check_eps("norm_eps", a.norm_eps);
  if (!a.sinks.empty()) check_size("sinks", a.sinks.size(), "heads =", a.heads);
  for (const float sink : a.sinks) check_finite("a value of sinks", sink);
  if (a.group < 0 || a.group >= kMostGroups) refuse(named("group", a.group) + " has to be 0 to 1023");
}

void check_routing(const Routing& r) {
  if (r.count < 1 || r.count > kMostExperts) refuse(named("count", r.count) + " has to be 1 to 4096");
  if (r.chosen < 1 || r.chosen > std::min(r.count, kMostChosen))
    refuse(named("chosen", r.chosen) + " has to be 1 to " + std::to_string(std::min(r.count, kMostChosen)));
  check_finite("factor", r.factor);
  if (!r.bias.empty()) check_size("bias", r.bias.size(), "count =", r.count);
  for (const float bias : r.bias) check_finite("a value of bias", bias);
}

// The outputs of one of the experts whose weights are stacked in `all`: whole panels.
int outputs_of_expert(const Matrix& all, int count, const char* name) {
  const int outputs = all.view().outputs;
  if (outputs % (count * kLanes))
    refuse(std::string(name) + " has " + std::to_string(outputs) + " outputs; " + std::to_string(count) +
           " experts need the same multiple of 16 each");
  return outputs / count;
}

template <typename... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};

}  // namespace

std::vector<Value> Graph::sources(const Operation& operation) {
  const auto with = [](Value x, std::optional<Value> residual) {
    return residual ? std::vector<Value>{x, *residual} : std::vector<Value>{x};
  };
  return std::visit(Overloaded{
                        [](const Input&) { return std::vector<Value>(); },
                        [](const Embed&) { return std::vector<Value>(); },
                        [&](const Norm& norm) { return with(norm.x, norm.residual); },
                        [&](const Linear& linear) { return with(linear.x, linear.residual); },
                        [&](const Experts& experts) {
                          std::vector<Value> found = with(experts.x, experts.residual);
                          found.push_back(experts.scores);
                          return found;
                        },
                        [](const Delta& d) { return std::vector<Value>{d.qkv, d.forget, d.write}; },
                        [](const Multiply& product) { return std::vector<Value>{product.x, product.gate}; },
                        [](const Attend& attend) { return std::vector<Value>{attend.qkv}; },
                        [](const auto& other) { return std::vector<Value>{other.x}; },
                    },
                    operation);
}

void Graph::check_unfinished() const {
  if (output_) refuse("the program has its output already; nothing can be added");
}

const Graph::Node& Graph::node(Value x) const {
  if (x < 0 || static_cast<size_t>(x) >= nodes_.size())
    refuse("value " + std::to_string(x) + " is not of this program");
  return nodes_[static_cast<size_t>(x)];
}

Value Graph::add(Operation operation, int width, bool logits) {
  check_unfinished();
  if (width < 1 || width > kMostColumns) refuse(named("width", width) + " has to be 1 to 2^30");
  nodes_.push_back({std::move(operation), width, logits});
  return static_cast<Value>(nodes_.size()) - 1;
}

// The outputs of weights side by side that all read x.
int Graph::outputs_of(Value x, const std::vector<Weight>& weights, const char* name) const {
  if (weights.empty()) refuse(std::string(name) + "s is empty");
  int64_t sum = 0;
  for (const Weight& weight : weights) {
    if (weight == nullptr) refuse(std::string(name) + "s holds None; it has to hold matrices");
    if (weight->view().inputs != width(x))
      refuse(std::string(name) + " has " + std::to_string(weight->view().inputs) + " inputs; x has width " +
             std::to_string(width(x)));
    sum += weight->view().outputs;
  }
  if (sum > kMostColumns)
    refuse(std::string(name) + "s have " + std::to_string(sum) + " outputs; up to 2^30 are possible");
  return static_cast<int>(sum);
}

void Graph::check_residual(Value residual, int wanted, bool has_logits) const {
  if (width(residual) != wanted)
    refuse("residual has width " + std::to_string(width(residual)) + "; what it is added to has " +
           std::to_string(wanted));
  if (logits(residual) != has_logits)
    refuse("residual and x have to have the same rows: all, or those that need logits");
}

void Graph::check_all_rows(Value x, const char* name) const {
  if (logits(x))
    refuse(std::string(name) + " has only the rows that need logits; it has to have all rows");
}

int Graph::rope(Rope rope) {
  check_unfinished();
  if (rope.inv_freq.empty()) refuse("inv_freq is empty; a rope turns one pair of dimensions at least");
  if (rope.inv_freq.size() > kMostHeadDim / 2)
    refuse("inv_freq has " + std::to_string(rope.inv_freq.size()) + " values; up to 2048 are possible");
  for (const float frequency : rope.inv_freq) check_finite("a value of inv_freq", frequency);
  check_finite("factor", rope.factor);
  const auto known = std::find(ropes_.begin(), ropes_.end(), rope);
  if (known != ropes_.end()) return static_cast<int>(known - ropes_.begin());
  ropes_.push_back(std::move(rope));
  return static_cast<int>(ropes_.size()) - 1;
}

Value Graph::input(int width) {
  if (input_) refuse("input: the program has one already");
  const Value y = add(Input{}, width, false);
  input_ = y;
  return y;
}

Value Graph::embed(Embed embed) {
  check_finite("scale", embed.scale);
  const int width = embed.table->view().inputs, vocab = embed.table->view().outputs;
  const Value y = add(std::move(embed), width, false);
  vocab_ = std::min(vocab_, vocab);
  return y;
}

Value Graph::norm(Norm norm) {
  const int columns = width(norm.x);
  const bool has_logits = logits(norm.x);
  check_size("weight", norm.weight.size(), "x has width", columns);
  check_eps("eps", norm.eps);
  if (norm.residual) check_residual(*norm.residual, columns, has_logits);
  return add(std::move(norm), columns, has_logits);
}

Value Graph::linear(Linear linear) {
  const int outputs = outputs_of(linear.x, linear.weights, "weight");
  const bool has_logits = logits(linear.x);
  check_finite("scale", linear.scale);
  if (linear.residual) check_residual(*linear.residual, outputs, has_logits);
  return add(std::move(linear), outputs, has_logits);
}

Value Graph::gated(Gated gated) {
  const int outputs = outputs_of(gated.x, gated.gates, "gate");
  outputs_of(gated.x, gated.ups, "up");
  if (gated.gates.size() != gated.ups.size())
    refuse("gates has " + std::to_string(gated.gates.size()) + " matrices, ups has " +
           std::to_string(gated.ups.size()) + "; they have to agree");
  for (size_t i = 0; i < gated.gates.size(); ++i) {
    const int gate = gated.gates[i]->view().outputs, up = gated.ups[i]->view().outputs;
    if (gate != up)
      refuse("gate has " + std::to_string(gate) + " outputs, up has " + std::to_string(up) +
             "; they have to agree");
  }
  const bool has_logits = logits(gated.x);
  return add(std::move(gated), outputs, has_logits);
}

Value Graph::experts(Experts experts) {
  const Routing& routing = experts.routing;
  check_routing(routing);
  outputs_of(experts.x, {experts.gates}, "gate");
  outputs_of(experts.x, {experts.ups}, "up");
  const int inner = outputs_of_expert(*experts.gates, routing.count, "gates");
  const int outputs = outputs_of_expert(*experts.downs, routing.count, "downs");
  const bool has_logits = logits(experts.x);
  if (const int up = outputs_of_expert(*experts.ups, routing.count, "ups"); up != inner)
    refuse("an expert of gates has " + std::to_string(inner) + " outputs, one of ups " + std::to_string(up) +
           "; they have to agree");
  if (experts.downs->view().inputs != inner)
    refuse("downs has " + std::to_string(experts.downs->view().inputs) + " inputs; an expert of gates has " +
           std::to_string(inner) + " outputs");
  if (width(experts.scores) != routing.count || logits(experts.scores) != has_logits)
    refuse("scores has width " + std::to_string(width(experts.scores)) +
           "; it has to have count = " + std::to_string(routing.count) + ", and the rows of x");
  check_finite("scale", experts.scale);
  if (experts.residual) check_residual(*experts.residual, outputs, has_logits);
  return add(std::move(experts), outputs, has_logits);
}

Value Graph::attend(Attend attend) {
  const Attention& a = attend.attention;
  check_attention(a);
  if (a.rope) {
    if (*a.rope < 0 || static_cast<size_t>(*a.rope) >= ropes_.size())
      refuse(named("rope", *a.rope) + " is not of this program");
    const int turned = 2 * ropes_[static_cast<size_t>(*a.rope)].pairs();
    if (turned > a.head_dim)
      refuse(named("rope", *a.rope) + " turns " + std::to_string(turned) + " dimensions; " +
             named("head_dim", a.head_dim));
  }
  const int implied = a.qkv_width(), output = a.q_width();
  if (width(attend.qkv) != implied)
    refuse("qkv has width " + std::to_string(width(attend.qkv)) + "; the heads imply " +
           std::to_string(implied));
  check_all_rows(attend.qkv, "qkv");
  for (const Node& node : nodes_)
    if (const auto* other = std::get_if<Attend>(&node.operation))
      if (other->attention.group == a.group && (other->cache.blocks != attend.cache.blocks ||
                                                other->cache.block_size != attend.cache.block_size))
        refuse("cache: the layers of " + named("group", a.group) +
               " differ in the number or the size of their blocks");
  return add(std::move(attend), output, false);
}

Value Graph::soft_cap(SoftCap soft_cap) {
  check_cap("cap", soft_cap.cap);
  return add(soft_cap, width(soft_cap.x), logits(soft_cap.x));
}

Value Graph::scale(Scale scale) {
  check_finite("factor", scale.factor);
  return add(scale, width(scale.x), logits(scale.x));
}

Value Graph::columns(Columns columns) {
  const int there = width(columns.x);
  if (columns.first < 0 || columns.count < 1 || columns.first > there - columns.count)
    refuse(named("first", columns.first) + " and " + named("count", columns.count) + " have to be among the " +
           std::to_string(there) + " columns of x");
  return add(columns, columns.count, logits(columns.x));
}

Value Graph::multiply(Multiply multiply) {
  const int columns = width(multiply.x), of_gate = width(multiply.gate);
  const bool has_logits = logits(multiply.x);
  if ((of_gate != 1 && of_gate != columns) || logits(multiply.gate) != has_logits)
    refuse("gate has width " + std::to_string(of_gate) + "; it has to have the rows of x, and width 1 or " +
           std::to_string(columns));
  return add(multiply, columns, has_logits);
}

Value Graph::convolve(Convolve convolve) {
  if (convolve.kernel < 2 || convolve.kernel > kMostTaps)
    refuse(named("kernel", convolve.kernel) + " has to be 2 to " + std::to_string(kMostTaps));
  check_all_rows(convolve.x, "x");
  if (!convolve.bias.empty()) check_size("bias", convolve.bias.size(), "x has width", width(convolve.x));
  keep_slots(convolve.states);
  const int channels = width(convolve.x);
  return add(std::move(convolve), channels, false);
}

Value Graph::delta(Delta d) {
  if (d.key_heads < 1 || d.value_heads < 1 || d.value_heads % d.key_heads)
    refuse(named("value_heads", d.value_heads) + " has to be a multiple of " + named("key_heads", d.key_heads));
  if (d.key_dim < 1 || d.value_dim < 1)
    refuse(named("key_dim", d.key_dim) + " and " + named("value_dim", d.value_dim) + " have to be at least 1");
  const int implied = 2 * d.key_heads * d.key_dim + d.value_heads * d.value_dim;
  if (width(d.qkv) != implied)
    refuse("qkv has width " + std::to_string(width(d.qkv)) + "; the heads imply " + std::to_string(implied));
  for (const Value x : {d.forget, d.write})
    if (width(x) != d.value_heads)
      refuse("forget and write have widths " + std::to_string(width(d.forget)) + " and " +
             std::to_string(width(d.write)) + "; " + named("value_heads", d.value_heads));
  check_all_rows(d.qkv, "qkv");
  check_all_rows(d.forget, "forget");
  check_all_rows(d.write, "write");
  check_size("rates", d.rates.size(), "value_heads =", d.value_heads);
  check_size("bias", d.bias.size(), "value_heads =", d.value_heads);
  keep_slots(d.states);
  const int output = d.value_heads * d.value_dim;
  return add(std::move(d), output, false);
}

Value Graph::norm_heads(NormHeads norm) {
  const int columns = width(norm.x);
  check_size("weight", norm.weight.size(), "x has width", columns);
  if (norm.heads < 1 || columns % norm.heads)
    refuse(named("heads", norm.heads) + " cannot share a width of " + std::to_string(columns));
  check_eps("eps", norm.eps);
  const bool has_logits = logits(norm.x);
  return add(std::move(norm), columns, has_logits);
}

bool Graph::stores() const {
  return slots_.has_value() || std::any_of(nodes_.begin(), nodes_.end(), [](const Node& node) {
           const auto* attend = std::get_if<Attend>(&node.operation);
           return attend != nullptr && attend->attention.stores();
         });
}

void Graph::keep_slots(const StateView& states) {
  if (slots_ && *slots_ != states.slots)
    refuse("states has " + std::to_string(states.slots) + " slots; other layers have " + std::to_string(*slots_));
  slots_ = states.slots;
}

Value Graph::select_logit_rows(SelectLogitRows select) {
  check_all_rows(select.x, "x");
  return add(select, width(select.x), true);
}

void Graph::keep(Value x) {
  check_unfinished();
  if (width(x) > kMostColumns - kept_width_)
    refuse("keep: with x, of width " + std::to_string(width(x)) + ", more than 2^30 columns would be kept");
  if (!kept_.empty() && logits(kept_[0].x) != logits(x))
    refuse("keep: all that is kept has to have the same rows: all, or those that need logits");
  kept_.push_back({x, kept_width_});
  kept_width_ += width(x);
}

void Graph::check_output(Value x) const {
  check_unfinished();
  width(x);
  if (x == input_) refuse("x is the program's input; an operation has to write the output");
}

void Graph::output(Value x) {
  check_output(x);
  output_ = x;
}

}  // namespace outrider

// Programs as they are recorded; `program_run.cpp` runs them.
#include "program.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "operations.h"

namespace outrider {
namespace {

// Sizes that leave every index within its type.
constexpr int kMostHeads = 1 << 9, kMostHeadDim = 1 << 12, kMostColumns = 1 << 30;

void check_finite(const char* name, float value) {
  if (!std::isfinite(value)) refuse(named(name, value) + " has to be finite");
}

}  // namespace

void refuse(const std::string& what) { throw std::invalid_argument(what); }

Program::Program(std::shared_ptr<Threads> threads, const Kernels& kernels, std::optional<Shape> shape,
                 std::vector<float> inv_freq, float attention_factor)
    : threads_(std::move(threads)),
      kernels_(kernels),
      shape_(shape),
      inv_freq_(std::move(inv_freq)),
      attention_factor_(attention_factor) {
  if (!shape_) return;
  const auto& [heads, kv_heads, head_dim, window] = *shape_;
  if (heads < 1 || heads > kMostHeads) refuse(named("heads", heads) + " has to be 1 to 512");
  if (kv_heads < 1 || heads % kv_heads)
    refuse(named("heads", heads) + " cannot share " + named("kv_heads", kv_heads));
  if (head_dim < 2 || head_dim > kMostHeadDim || head_dim % 2)
    refuse(named("head_dim", head_dim) + " has to be even, 2 to 4096");
  if (window < 1 || window > kMostPositions) refuse(named("window", window) + " has to be 1 to 2^30");
  if (inv_freq_.size() != static_cast<size_t>(head_dim / 2))
    refuse("inv_freq has " + std::to_string(inv_freq_.size()) + " values; head_dim implies " +
           std::to_string(head_dim / 2));
  for (const float frequency : inv_freq_) check_finite("a value of inv_freq", frequency);
  check_finite("attention_factor", attention_factor_);
  scratch_floats_ = attend_scratch_size(head_dim, kRowsPerPiece * heads / kv_heads);
}

Program::~Program() = default;

void Program::check_unfinished() const {
  if (output_ >= 0) refuse("the program has its output already; nothing can be added");
}

template <typename T, typename... Args>
void Program::record(Args&&... args) {
  check_unfinished();
  ops_.push_back(std::make_unique<T>(*this, std::forward<Args>(args)...));
}

Program::Value Program::add(int width, bool logits) {
  check_unfinished();
  if (width < 1 || width > kMostColumns) refuse(named("width", width) + " has to be 1 to 2^30");
  values_.push_back({width, logits, {}});
  return static_cast<Value>(values_.size()) - 1;
}

// The operation recorded next is the first to use the buffer.
int Program::add_buffer(size_t bytes_per_row) {
  buffers_.push_back({round_up(bytes_per_row, static_cast<size_t>(kAlign)), ops_.size(), ops_.size()});
  return static_cast<int>(buffers_.size()) - 1;
}

void Program::use(int buffer) { buffers_[static_cast<size_t>(buffer)].last = ops_.size(); }

int Program::width(Value x) const {
  if (x < 0 || static_cast<size_t>(x) >= values_.size())
    refuse("value " + std::to_string(x) + " is not of this program");
  return values_[static_cast<size_t>(x)].width;
}

// See that the floats of x exist when the operation recorded next runs.
void Program::materialise(Value x) {
  width(x);
  if (x == input_) return;
  if (Entry& entry = values_[static_cast<size_t>(x)]; entry.buffer < 0) {
    const Norm norm = *entry.norm;
    materialise(norm.source);
    entry.buffer = add_buffer(sizeof(float) * static_cast<size_t>(entry.width));
    record<RmsNorm>(norm.source, norm.weight, norm.eps, x);
  }
  use(values_[static_cast<size_t>(x)].buffer);
}

// The buffer with x in the form that a linear layer reads; made once.
int Program::form(Value x, Form form) {
  const Entry& entry = values_[static_cast<size_t>(x)];
  const int known = entry.forms[static_cast<int>(form)];
  if (known >= 0) {
    use(known);
    return known;
  }
  const int inputs = round_up(entry.width, kGroup);
  scratch_floats_ = std::max(scratch_floats_, static_cast<size_t>(inputs));
  const bool fused = entry.norm && entry.buffer < 0;
  const Value source = fused ? entry.norm->source : x;
  materialise(source);
  const int buffer = add_buffer(sizeof(uint32_t) * static_cast<size_t>(units_of(form, inputs)));
  record<Prepare>(source, fused ? entry.norm->weight : std::vector<float>(), fused ? entry.norm->eps : 0.0f,
                  form, inputs, buffer);
  use(buffer);
  values_[static_cast<size_t>(x)].forms[static_cast<int>(form)] = buffer;
  return buffer;
}

void Program::check_inputs(Value x, const Matrix& weight, const char* name) const {
  if (weight.inputs() != width(x))
    refuse(std::string(name) + " has " + std::to_string(weight.inputs()) + " inputs; x has width " +
           std::to_string(width(x)));
}

void Program::check_all_rows(Value x, const char* name) const {
  width(x);
  if (values_[static_cast<size_t>(x)].logits)
    refuse(std::string(name) + " has only the rows that need logits; it has to have all rows");
}

Program::Value Program::input(int width) {
  if (input_ >= 0) refuse("input: the program has one already");
  return input_ = add(width, false);
}

Program::Value Program::embed(std::shared_ptr<const Matrix> table) {
  const Value y = add(table->inputs(), false);
  vocab_ = std::min(vocab_, table->view().outputs);
  scratch_floats_ = std::max(scratch_floats_, static_cast<size_t>(table->view().inputs));
  values_[static_cast<size_t>(y)].buffer = add_buffer(sizeof(float) * static_cast<size_t>(width(y)));
  record<Embed>(std::move(table), y);
  return y;
}

Program::Value Program::rms_norm(Value x, std::vector<float> weight, float eps) {
  if (weight.size() != static_cast<size_t>(width(x)))
    refuse("weight has " + std::to_string(weight.size()) + " values; x has width " +
           std::to_string(width(x)));
  check_finite("eps", eps);
  if (eps < 0) refuse(named("eps", eps) + " has to be at least 0");
  const Value y = add(width(x), values_[static_cast<size_t>(x)].logits);
  values_[static_cast<size_t>(y)].norm = Norm{x, std::move(weight), eps};
  return y;
}

Program::Value Program::linear(Value x, std::vector<std::shared_ptr<const Matrix>> weights,
                               std::optional<Value> residual) {
  if (weights.empty()) refuse("weights is empty");
  int64_t sum = 0;
  for (const auto& weight : weights) {
    if (weight == nullptr) refuse("weights holds None; it has to hold matrices");
    check_inputs(x, *weight, "weight");
    sum += weight->view().outputs;
  }
  if (sum > kMostColumns) refuse("weights have " + std::to_string(sum) + " outputs; up to 2^30 are possible");
  const int outputs = static_cast<int>(sum);
  const bool logits = values_[static_cast<size_t>(x)].logits;
  if (residual && width(*residual) != outputs)
    refuse("residual has width " + std::to_string(width(*residual)) + "; weight has " +
           std::to_string(outputs) + " outputs");
  if (residual && values_[static_cast<size_t>(*residual)].logits != logits)
    refuse("residual and x have to have the same rows: all, or those that need logits");
  std::vector<Part> parts;
  int column = 0;
  for (const auto& weight : weights) {
    parts.push_back({form(x, form_of(weight->view().format)), weight, nullptr, column});
    column += weight->view().outputs;
  }
  if (residual) materialise(*residual);
  for (const Part& part : parts) use(part.buffer);
  const Value y = add(outputs, logits);
  values_[static_cast<size_t>(y)].buffer = add_buffer(sizeof(float) * static_cast<size_t>(outputs));
  record<Linear>(x, std::move(parts), residual.value_or(-1), y);
  return y;
}

Program::Value Program::gated(Value x, std::shared_ptr<const Matrix> gate, std::shared_ptr<const Matrix> up) {
  check_inputs(x, *gate, "gate");
  check_inputs(x, *up, "up");
  const MatrixView &g = gate->view(), &u = up->view();
  if (g.outputs != u.outputs || form_of(g.format) != form_of(u.format))
    refuse(std::string("gate is ") + name_of(g.format) + " with " + std::to_string(g.outputs) +
           " outputs, up is " + name_of(u.format) + " with " + std::to_string(u.outputs) +
           "; they have to agree");
  const int buffer = form(x, form_of(u.format));
  const Value y = add(u.outputs, values_[static_cast<size_t>(x)].logits);
  values_[static_cast<size_t>(y)].buffer = add_buffer(sizeof(float) * static_cast<size_t>(width(y)));
  record<Linear>(x, std::vector<Part>{{buffer, std::move(up), std::move(gate), 0}}, -1, y);
  return y;
}

const Shape& Program::shape() const {
  if (!shape_) refuse("the program was made without the shape of attention");
  return *shape_;
}

Program::Value Program::rotate_and_store(Value qkv, const CacheView& cache) {
  const Shape& s = shape();
  const int implied = (s.heads + 2 * s.kv_heads) * s.head_dim;
  if (width(qkv) != implied)
    refuse("qkv has width " + std::to_string(width(qkv)) + "; the heads imply " + std::to_string(implied));
  check_all_rows(qkv, "qkv");
  materialise(qkv);
  scratch_floats_ = std::max(scratch_floats_, static_cast<size_t>(s.kv_heads * s.head_dim));
  const Value q = add(s.heads * s.head_dim, false);
  values_[static_cast<size_t>(q)].buffer = add_buffer(sizeof(float) * static_cast<size_t>(width(q)));
  record<RotateAndStore>(qkv, cache, q);
  caches_.push_back(cache);
  return q;
}

Program::Value Program::attend(Value q, const CacheView& cache) {
  const Shape& s = shape();
  if (width(q) != s.heads * s.head_dim)
    refuse("q has width " + std::to_string(width(q)) + "; the heads imply " +
           std::to_string(s.heads * s.head_dim));
  check_all_rows(q, "q");
  materialise(q);
  const Value y = add(width(q), false);
  values_[static_cast<size_t>(y)].buffer = add_buffer(sizeof(float) * static_cast<size_t>(width(y)));
  record<Attend>(q, cache, y);
  use(values_[static_cast<size_t>(y)].buffer);
  record<Merge>(y);
  caches_.push_back(cache);
  return y;
}

Program::Value Program::select_logit_rows(Value x) {
  check_all_rows(x, "x");
  materialise(x);
  const Value y = add(width(x), true);
  values_[static_cast<size_t>(y)].buffer = add_buffer(sizeof(float) * static_cast<size_t>(width(y)));
  record<SelectLogitRows>(x, y);
  return y;
}

void Program::keep(Value x) {
  check_unfinished();
  if (width(x) > kMostColumns - kept_width_)
    refuse("keep: with x, of width " + std::to_string(width(x)) + ", more than 2^30 columns would be kept");
  if (kept_ >= 0 && values_[static_cast<size_t>(kept_)].logits != values_[static_cast<size_t>(x)].logits)
    refuse("keep: all that is kept has to have the same rows: all, or those that need logits");
  materialise(x);
  record<Keep>(x, kept_width_);
  kept_ = x;
  kept_width_ += width(x);
}

void Program::output(Value x) {
  check_unfinished();
  width(x);
  if (x == input_) refuse("x is the program's input; an operation has to write the output");
  materialise(x);
  for (const CacheView& cache : caches_)
    if (cache.blocks != caches_[0].blocks || cache.block_size != caches_[0].block_size)
      refuse("cache: the layers differ in the number or the size of their blocks");
  std::vector<Aligned<float>> scratch;  // a program has its output only if there is memory for them all
  for (int i = 0; i < threads_->count(); ++i) scratch.push_back(aligned<float>(scratch_floats_));
  output_ = x;
  place_buffers();
  scratch_ = std::move(scratch);
}

int Program::output_width() const {
  if (output_ < 0) refuse("the program has no output yet; call output()");
  return width(output_);
}

// Buffers whose lifetimes do not meet share memory: each goes to the lowest place that is free all its life.
// The output's is the caller's array.
void Program::place_buffers() {
  buffers_[static_cast<size_t>(values_[static_cast<size_t>(output_)].buffer)].bytes_per_row = 0;
  for (size_t b = 0; b < buffers_.size(); ++b) {
    Buffer& mine = buffers_[b];
    if (mine.bytes_per_row == 0) continue;
    std::vector<std::pair<size_t, size_t>> taken;
    for (size_t o = 0; o < b; ++o)
      if (const Buffer& other = buffers_[o]; other.first <= mine.last && mine.first <= other.last)
        taken.emplace_back(other.place, other.place + other.bytes_per_row);
    std::sort(taken.begin(), taken.end());
    for (const auto& [from, to] : taken) {
      if (mine.place + mine.bytes_per_row <= from) break;
      mine.place = std::max(mine.place, to);
    }
    bytes_per_row_ = std::max(bytes_per_row_, mine.place + mine.bytes_per_row);
  }
}

}  // namespace outrider

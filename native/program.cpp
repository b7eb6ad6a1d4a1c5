#include "program.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "operations.h"

namespace outrider {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

}  // namespace

Program::Program(std::shared_ptr<Threads> threads, const Kernels& kernels, std::optional<Shape> shape,
                 std::vector<float> inv_freq, float attention_factor)
    : threads_(std::move(threads)),
      kernels_(kernels),
      shape_(shape),
      inv_freq_(std::move(inv_freq)),
      attention_factor_(attention_factor) {
  if (!shape_) return;
  const auto& [heads, kv_heads, head_dim, window] = *shape_;
  if (heads < 1 || kv_heads < 1 || heads % kv_heads)
    refuse("heads = " + std::to_string(heads) + " cannot share kv_heads = " + std::to_string(kv_heads));
  if (head_dim < 2 || head_dim % 2) refuse("head_dim = " + std::to_string(head_dim) + " has to be even and at least 2");
  if (window < 1) refuse("window = " + std::to_string(window) + " has to be at least 1");
  if (inv_freq_.size() != static_cast<size_t>(head_dim / 2))
    refuse("inv_freq has " + std::to_string(inv_freq_.size()) + " values; head_dim implies " + std::to_string(head_dim / 2));
  scratch_floats_ = attend_scratch_size(head_dim, kRowsPerPiece * heads / kv_heads);
}

Program::~Program() = default;

// --- recording ---------------------------------------------------------------------------------------

template <typename T, typename... Args>
void Program::record(Args&&... args) {
  if (output_ >= 0) refuse("the program has its output already; nothing can be added");
  ops_.push_back(std::make_unique<T>(*this, std::forward<Args>(args)...));
}

Program::Value Program::add(int width, bool logits) {
  if (width < 1) refuse("width = " + std::to_string(width) + " has to be at least 1");
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
  if (x < 0 || static_cast<size_t>(x) >= values_.size()) refuse("value " + std::to_string(x) + " is not of this program");
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
  scratch_floats_ = std::max(scratch_floats_, static_cast<size_t>(inputs) * 2);
  const bool fused = entry.norm && entry.buffer < 0;
  const Value source = fused ? entry.norm->source : x;
  materialise(source);
  const int buffer = add_buffer(sizeof(uint32_t) * static_cast<size_t>(units_of(form, inputs)));
  record<Prepare>(source, fused ? entry.norm->weight : std::vector<float>(), fused ? entry.norm->eps : 0.0f, form, inputs, buffer);
  use(buffer);
  values_[static_cast<size_t>(x)].forms[static_cast<int>(form)] = buffer;
  return buffer;
}

void Program::check_inputs(Value x, const Matrix& weight, const char* name) const {
  if (weight.inputs() != width(x))
    refuse(std::string(name) + " has " + std::to_string(weight.inputs()) + " inputs; x has width " + std::to_string(width(x)));
}

Program::Value Program::input(int width) {
  if (input_ >= 0) refuse("input: the program has one already");
  return input_ = add(width, false);
}

Program::Value Program::embed(std::shared_ptr<const Matrix> table) {
  vocab_ = table->view().outputs;
  const Value y = add(table->inputs(), false);
  scratch_floats_ = std::max(scratch_floats_, static_cast<size_t>(table->view().inputs));
  values_[static_cast<size_t>(y)].buffer = add_buffer(sizeof(float) * static_cast<size_t>(width(y)));
  record<Embed>(std::move(table), y);
  return y;
}

Program::Value Program::rms_norm(Value x, std::vector<float> weight, float eps) {
  if (weight.size() != static_cast<size_t>(width(x)))
    refuse("weight has " + std::to_string(weight.size()) + " values; x has width " + std::to_string(width(x)));
  if (!(eps >= 0)) refuse("eps has to be at least 0");
  const Value y = add(width(x), values_[static_cast<size_t>(x)].logits);
  values_[static_cast<size_t>(y)].norm = Norm{x, std::move(weight), eps};
  return y;
}

Program::Value Program::linear(Value x, std::vector<std::shared_ptr<const Matrix>> weights, std::optional<Value> residual) {
  if (weights.empty()) refuse("weights is empty");
  int outputs = 0;
  for (const auto& weight : weights) {
    check_inputs(x, *weight, "weight");
    outputs += weight->view().outputs;
  }
  const bool logits = values_[static_cast<size_t>(x)].logits;
  if (residual && (width(*residual) != outputs || values_[static_cast<size_t>(*residual)].logits != logits))
    refuse("residual has width " + std::to_string(width(*residual)) + "; weight has " + std::to_string(outputs) + " outputs");
  std::vector<int> forms;
  for (const auto& weight : weights) forms.push_back(form(x, form_of(weight->view().format)));
  if (residual) materialise(*residual);
  for (const int buffer : forms) use(buffer);
  const Value y = add(outputs, logits);
  const int buffer = add_buffer(sizeof(float) * static_cast<size_t>(outputs));
  values_[static_cast<size_t>(y)].buffer = buffer;
  int column = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const int part = weights[i]->view().outputs;
    use(buffer);
    if (residual && *residual != input_) use(values_[static_cast<size_t>(*residual)].buffer);
    for (const int later : forms) use(later);
    record<Linear>(x, forms[i], std::move(weights[i]), nullptr, residual.value_or(-1), y, column);
    column += part;
  }
  return y;
}

Program::Value Program::gated(Value x, std::shared_ptr<const Matrix> gate, std::shared_ptr<const Matrix> up) {
  check_inputs(x, *gate, "gate");
  check_inputs(x, *up, "up");
  if (gate->view().outputs != up->view().outputs || form_of(gate->view().format) != form_of(up->view().format))
    refuse(std::string("gate is ") + name_of(gate->view().format) + " with " + std::to_string(gate->view().outputs) +
           " outputs, up is " + name_of(up->view().format) + " with " + std::to_string(up->view().outputs) + "; they have to agree");
  const int buffer = form(x, form_of(up->view().format));
  const Value y = add(up->view().outputs, values_[static_cast<size_t>(x)].logits);
  values_[static_cast<size_t>(y)].buffer = add_buffer(sizeof(float) * static_cast<size_t>(width(y)));
  record<Linear>(x, buffer, std::move(up), std::move(gate), -1, y, 0);
  return y;
}

const Shape& Program::shape() const {
  if (!shape_) refuse("the program was made without the shape of attention");
  return *shape_;
}

Program::Value Program::rotate_and_store(Value qkv, const CacheView& cache) {
  const Shape& s = shape();
  const int implied = (s.heads + 2 * s.kv_heads) * s.head_dim;
  if (width(qkv) != implied) refuse("qkv has width " + std::to_string(width(qkv)) + "; the heads imply " + std::to_string(implied));
  materialise(qkv);
  const Value q = add(s.heads * s.head_dim, false);
  values_[static_cast<size_t>(q)].buffer = add_buffer(sizeof(float) * static_cast<size_t>(width(q)));
  record<RotateAndStore>(qkv, cache, q);
  caches_.push_back(cache);
  return q;
}

Program::Value Program::attend(Value q, const CacheView& cache) {
  const Shape& s = shape();
  if (width(q) != s.heads * s.head_dim)
    refuse("q has width " + std::to_string(width(q)) + "; the heads imply " + std::to_string(s.heads * s.head_dim));
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
  materialise(x);
  const Value y = add(width(x), true);
  values_[static_cast<size_t>(y)].buffer = add_buffer(sizeof(float) * static_cast<size_t>(width(y)));
  record<SelectLogitRows>(x, y);
  return y;
}

void Program::output(Value x) {
  materialise(x);
  for (const CacheView& cache : caches_)
    if (cache.blocks != caches_[0].blocks || cache.block_size != caches_[0].block_size)
      refuse("cache: the layers differ in the number or the size of their blocks");
  output_ = x;
  place_buffers();
  for (int i = 0; i < threads_->count(); ++i) scratch_.push_back(aligned<float>(scratch_floats_));
}

int Program::output_width() const {
  if (output_ < 0) refuse("the program has no output yet; call output()");
  return width(output_);
}

// Buffers whose lifetimes do not meet share memory: each goes to the lowest place that is free all its life.
void Program::place_buffers() {
  for (size_t b = 0; b < buffers_.size(); ++b) {
    Buffer& mine = buffers_[b];
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

// --- running -----------------------------------------------------------------------------------------

float* Program::floats(Value x, const Step& step) const {
  if (x == input_) return const_cast<float*>(step.input);
  if (x == output_) return step.output;
  const Buffer& buffer = buffers_[static_cast<size_t>(values_[static_cast<size_t>(x)].buffer)];
  return reinterpret_cast<float*>(step.arena + buffer.place * step.capacity);
}

uint32_t* Program::prepared(int buffer, const Step& step) const {
  return reinterpret_cast<uint32_t*>(step.arena + buffers_[static_cast<size_t>(buffer)].place * step.capacity);
}

int Program::rows(Value x, const Step& step) const {
  return values_[static_cast<size_t>(x)].logits ? static_cast<int>(step.logit_rows.size()) : step.rows;
}

int Program::prepare(const std::vector<int32_t>& tokens, std::vector<Span> spans) {
  output_width();
  Step& step = step_;
  step.rows = 0;
  step.positions.clear();
  step.blocks.clear();
  step.offsets.clear();
  step.logit_rows.clear();
  for (size_t i = 0; i < spans.size(); ++i) {
    const Span& span = spans[i];
    const auto at = [&](const char* what) { return std::string(what) + " of span " + std::to_string(i); };
    if (span.start < 0) refuse(at("start") + " = " + std::to_string(span.start) + " has to be at least 0");
    if (span.rows < 1) refuse(at("rows") + " = " + std::to_string(span.rows) + " has to be at least 1");
    if (span.logit_rows < 0 || span.logit_rows > span.rows)
      refuse(at("logit_rows") + " = " + std::to_string(span.logit_rows) + " has to be 0 to " + std::to_string(span.rows));
    for (int row = 0; row < span.rows; ++row) step.positions.push_back(span.start + row);
    step.rows += span.rows;
    for (int row = span.logit_rows; row > 0; --row) step.logit_rows.push_back(step.rows - row);
    if (caches_.empty()) continue;
    const auto size = static_cast<int64_t>(caches_[0].block_size), end = int64_t{span.start} + span.rows;
    if (static_cast<int64_t>(span.table.size()) * size < end)
      refuse(at("table") + " holds " + std::to_string(span.table.size()) + " blocks of " + std::to_string(size) +
             "; " + std::to_string(end) + " positions need more");
    for (const int32_t block : span.table)
      if (block < 0 || block >= caches_[0].blocks)
        refuse(at("table") + " names block " + std::to_string(block) + "; there are " + std::to_string(caches_[0].blocks));
    for (int64_t position = span.start; position < end; ++position) {
      step.blocks.push_back(span.table[static_cast<size_t>(position / size)]);
      step.offsets.push_back(static_cast<int32_t>(position % size));
    }
  }
  if (tokens.size() != static_cast<size_t>(step.rows))
    refuse("tokens has " + std::to_string(tokens.size()) + " values; the spans have " + std::to_string(step.rows) + " rows");
  for (const int32_t token : tokens)
    if (token < 0 || token >= vocab_) refuse("tokens holds " + std::to_string(token) + "; vocab = " + std::to_string(vocab_));
  step.tokens = tokens;
  step.spans = std::move(spans);
  return rows(output_, step);
}

void Program::run(const float* input, float* output) {
  Step& step = step_;
  if (step.rows == 0) return;
  if (static_cast<size_t>(step.rows) > step.capacity) {
    arena_ = aligned<std::byte>(bytes_per_row_ * static_cast<size_t>(step.rows));
    step.capacity = static_cast<size_t>(step.rows);
    step.arena = arena_.get();
  }
  step.input = input;
  step.output = output;
  if (!caches_.empty()) {
    fill_rotation();
    plan_attention();
  }
  tasks_.clear();
  for (const auto& op : ops_) tasks_.push_back(op->tasks(step));
  threads_->run(tasks_, [&](int stage, int first, int last, int thread) {
    const Op& op = *ops_[static_cast<size_t>(stage)];
    for (int task = first; task < last; ++task) op.run(step, task, scratch_[static_cast<size_t>(thread)].get());
  });
}

void Program::fill_rotation() {
  const size_t half = inv_freq_.size();
  step_.cos.resize(half * static_cast<size_t>(step_.rows));
  step_.sin.resize(step_.cos.size());
  for (size_t row = 0, i = 0; row < static_cast<size_t>(step_.rows); ++row) {
    for (size_t d = 0; d < half; ++d, ++i) {
      const float angle = static_cast<float>(step_.positions[row]) * inv_freq_[d];
      step_.cos[i] = std::cos(angle) * attention_factor_;
      step_.sin[i] = std::sin(angle) * attention_factor_;
    }
  }
}

// A request of few rows is split over chunks of its keys, for threads to share; one of many, over rows. The
// arithmetic is the same: chunks are merged in order either way.
void Program::plan_attention() {
  const Shape& s = shape();
  Step& step = step_;
  step.pieces.clear();
  step.splits.clear();
  ptrdiff_t states = 0;
  int first_row = 0;
  for (size_t i = 0; i < step.spans.size(); ++i) {
    const Span& span = step.spans[i];
    for (int row = 0; row < span.rows; row += kRowsPerPiece) {
      const int rows = std::min(kRowsPerPiece, span.rows - row), position = span.start + row;
      const int first_key = std::max(0, position - s.window + 1), last_key = position + rows;
      Piece piece{static_cast<int>(i), first_row + row, rows, position, first_key, last_key, -1};
      const int first_chunk = first_key / kChunk, chunks = (last_key + kChunk - 1) / kChunk - first_chunk;
      if (span.rows > kRowsPerPiece || chunks == 1) {
        step.pieces.push_back(piece);
        continue;
      }
      const ptrdiff_t size = ptrdiff_t{rows} * s.heads * state_size(s.head_dim);
      step.splits.push_back({piece.row, rows, chunks, states});
      for (int c = first_chunk; c < first_chunk + chunks; ++c, states += size) {
        piece.first_key = std::max(first_key, c * kChunk);
        piece.last_key = std::min(last_key, (c + 1) * kChunk);
        piece.state = states;
        step.pieces.push_back(piece);
      }
    }
    first_row += span.rows;
  }
  if (step.states.size() < static_cast<size_t>(states)) step.states.resize(static_cast<size_t>(states));
}

}  // namespace outrider

#include "program.h"

#include <cstring>

#include "instruction_sets.h"

namespace outrider {
namespace {

// One position's K and V of one layer, and what its codes are multiplied with.
void move_kv(const CacheView& c, int old_block, int old_offset, int block, int offset) {
  const size_t dim = static_cast<size_t>(c.head_dim), size = static_cast<size_t>(c.block_size);
  const size_t bytes = bytes_of(c.stored), scales = dim * size * bytes;
  const auto from = static_cast<size_t>(old_offset), to = static_cast<size_t>(offset);
  for (int head = 0; head < c.kv_heads; ++head) {
    const auto part = [&](void* array, int of) {
      return static_cast<uint8_t*>(array) + (static_cast<size_t>(of) * static_cast<size_t>(c.kv_heads) +
                                             static_cast<size_t>(head)) * part_bytes(c);
    };
    const uint8_t *old_keys = part(c.keys, old_block), *old_values = part(c.values, old_block);
    uint8_t *keys = part(c.keys, block), *values = part(c.values, block);
    for (size_t d = 0; d < dim; ++d)
      std::memmove(keys + (d * size + to) * bytes, old_keys + (d * size + from) * bytes, bytes);
    std::memmove(values + to * dim * bytes, old_values + from * dim * bytes, dim * bytes);
    if (part_bytes(c) == scales) continue;
    std::memmove(keys + scales + 4 * to, old_keys + scales + 4 * from, 4);
    std::memmove(values + scales + 4 * to, old_values + scales + 4 * from, 4);
  }
}

Stored stored_as(nb::dlpack::dtype type) {
  if (type == kBf16 || type == nb::dtype<uint16_t>()) return Stored::kBfloat16;
  return type == nb::dtype<int8_t>() ? Stored::kInt8 : Stored::kFloat32;
}

}  // namespace

std::vector<Span> spans_of(const std::vector<int>& starts, const std::vector<int>& rows, Tables tables,
                           const std::vector<int>& logit_rows, const States& states, NewStates new_states,
                           Parents parents) {
  if (rows.size() != starts.size() || tables.size() != starts.size() || logit_rows.size() != starts.size())
    refuse("starts, rows, tables and logit_rows have to be of one length");
  if (states.has_value() != new_states.has_value() ||
      (states && (states->size() != starts.size() || new_states->size() != starts.size())))
    refuse("states and new_states have to be of the length of starts");
  if (!parents.empty() && parents.size() != starts.size()) refuse("parents has to be empty, or of the length of starts");
  std::vector<Span> spans;
  for (size_t i = 0; i < starts.size(); ++i)
    spans.push_back({starts[i], rows[i], std::move(tables[i]), logit_rows[i], states ? (*states)[i] : -1,
                     new_states ? std::move((*new_states)[i]) : std::vector<int32_t>(),
                     parents.empty() ? std::vector<int32_t>() : std::move(parents[i])});
  return spans;
}

Program::Program(std::shared_ptr<Threads> threads, const std::string& instruction_set)
    : threads_(std::move(threads)), kernels_(kernels_named(instruction_set)) {}

CacheView Program::cache(const Array& keys, const Array& values, int kv_heads, int head_dim) {
  const Stored stored = stored_as(keys.dtype());
  const auto wanted = stored == Stored::kFloat32 ? nb::dtype<float>() : keys.dtype();
  CacheView cache{.keys = nullptr, .values = nullptr, .stored = stored, .blocks = 0, .block_size = 0,
                  .kv_heads = kv_heads, .head_dim = head_dim};
  if (stored == Stored::kInt8) {
    cache.keys = checked(keys, "keys", wanted, {-1, kv_heads, -1});
    const int position = head_dim + 4, bytes = size_of(keys.shape(2), "keys", "bytes a block");
    if (bytes % position)
      refuse("keys has " + std::to_string(bytes) + " bytes a block; a position takes " + std::to_string(position));
    cache.block_size = bytes / position;
    cache.blocks = size_of(keys.shape(0), "keys", "blocks");
    cache.values = checked(values, "values", wanted, {cache.blocks, kv_heads, bytes});
  } else {
    cache.keys = checked(keys, "keys", wanted, {-1, kv_heads, head_dim, -1});
    cache.blocks = size_of(keys.shape(0), "keys", "blocks");
    cache.block_size = size_of(keys.shape(3), "keys", "positions a block");
    cache.values = checked(values, "values", wanted, {cache.blocks, kv_heads, cache.block_size, head_dim});
  }
  arrays_.push_back(keys);
  arrays_.push_back(values);
  return cache;
}

StateView Program::states(const Array& array, size_t floats) {
  if (array.ndim() < 2) refuse("states has to have a slot in each row");
  const int slots = size_of(array.shape(0), "states", "slots");
  if (array.size() != floats * static_cast<size_t>(slots))
    refuse("states has " + std::to_string(array.size()) + " numbers; " + std::to_string(slots) + " slots need " +
           std::to_string(floats) + " each");
  if (array.dtype() != nb::dtype<float>()) refuse("states is " + name_of(array.dtype()) + "; it has to be float32");
  int64_t stride = 1;
  for (size_t axis = array.ndim(); axis-- > 0; stride *= static_cast<int64_t>(array.shape(axis)))
    if (array.shape(axis) > 1 && array.stride(axis) != stride) refuse("states has to be C-contiguous");
  arrays_.push_back(array);
  return {static_cast<float*>(array.data()), slots, floats};
}

void Program::output(Value x) {
  graph_.check_output(x);
  pass_.emplace(std::make_unique<Plan>(graph_, x, kernels_), threads_);
  graph_.output(x);
  output_width_ = graph_.width(x);
}

Program::Logits Program::run(Tokens tokens, std::vector<Span> spans, const std::optional<Input>& input,
                             const std::optional<Array>& kept) {
  const auto running = claim();
  const auto row_count = static_cast<int64_t>(tokens.size());
  int count = 0;
  {
    const nb::gil_scoped_release release;
    count = pass_->prepare(std::move(tokens), std::move(spans));
  }
  const float* x = input_of(input, row_count);
  float* k = kept_of(kept);
  auto out = new_floats(static_cast<size_t>(count), static_cast<size_t>(output_width_));
  const nb::gil_scoped_release release;
  pass_->run(x, out.data(), k);
  return out;
}

std::pair<std::vector<std::vector<int>>, std::optional<Program::Logits>> Program::step(
    Tokens tokens, std::vector<Span> spans, const std::vector<std::optional<Choice>>& choices,
    const std::optional<Input>& input, const std::optional<Array>& kept, bool looks) {
  const auto running = claim();
  check_choices(spans, choices);
  const auto row_count = static_cast<int64_t>(tokens.size());
  std::vector<int> logit_rows;
  for (const Span& span : spans) logit_rows.push_back(span.logit_rows);
  int count = 0;
  {
    const nb::gil_scoped_release release;
    count = pass_->prepare(std::move(tokens), std::move(spans));
  }
  const float* x = input_of(input, row_count);
  float* k = kept_of(kept);
  const auto rows = static_cast<size_t>(count), columns = static_cast<size_t>(output_width_);
  std::optional<Logits> seen;
  if (looks) seen = new_floats(rows, columns);
  float* logits = looks ? seen->data() : logits_.of(rows * columns);
  std::vector<std::vector<int>> chosen;
  {
    const nb::gil_scoped_release release;
    pass_->run(x, logits, k);
    chosen = choose_all(choices, logit_rows, logits, output_width_, kernels_, *threads_, choosing_);
  }
  return {std::move(chosen), std::move(seen)};
}

void Program::move(const std::vector<std::vector<int32_t>>& tables, const std::vector<int>& from,
                   const std::vector<int>& to) {
  const auto running = claim();
  if (from.size() != to.size()) refuse("from and to have to be of one length");
  const auto place_of = [&](const CacheView& cache, int group, int position) {
    const auto number = static_cast<size_t>(group), index = static_cast<size_t>(position / cache.block_size);
    const bool known = position >= 0 && number < tables.size() && index < tables[number].size();
    const int block = known ? tables[number][index] : -1;
    if (block < 0 || block >= cache.blocks)
      refuse("position " + std::to_string(position) + " has no block in table " + std::to_string(group));
    return std::pair(block, position % cache.block_size);
  };
  for (const Graph::Node& node : graph_.nodes()) {
    const auto* attend = std::get_if<Graph::Attend>(&node.operation);
    if (attend == nullptr || !attend->attention.stores()) continue;
    for (size_t i = 0; i < from.size(); ++i) {
      const auto [old_block, old_offset] = place_of(attend->cache, attend->attention.group, from[i]);
      const auto [block, offset] = place_of(attend->cache, attend->attention.group, to[i]);
      move_kv(attend->cache, old_block, old_offset, block, offset);
    }
  }
}

std::vector<std::optional<Grown>> Program::draft(Program& then, Tokens tokens, std::vector<Span> spans,
                                                 const std::vector<std::optional<Lane>>& lanes,
                                                 const std::optional<Input>& words, int vocab,
                                                 const std::optional<Input>& input, bool in_place) {
  const auto running = claim();
  std::unique_lock<std::mutex> then_running;
  if (&then != this) then_running = then.claim();
  if (lanes.size() != spans.size())
    refuse("lanes has " + std::to_string(lanes.size()) + " values; there are " + std::to_string(spans.size()) +
           " spans");
  const auto row_count = static_cast<int64_t>(tokens.size());
  const Words known = words_of(words, vocab);
  std::optional<Drafting> drafting;
  {
    const nb::gil_scoped_release release;
    drafting.emplace(*pass_, *then.pass_, std::move(tokens), std::move(spans), lanes, known, rooms_,
                     in_place);
  }
  const float* x = input_of(input, row_count);
  const nb::gil_scoped_release release;
  return drafting->run(x);
}

std::unique_lock<std::mutex> Program::claim() {
  std::unique_lock running(running_, std::try_to_lock);
  if (!running) throw std::runtime_error("the program is already running, on another thread");
  if (!pass_) refuse("the program has no output yet; call output()");
  return running;
}

void Program::check_choices(const std::vector<Span>& spans,
                            const std::vector<std::optional<Choice>>& choices) const {
  if (choices.size() != spans.size())
    refuse("choices has " + std::to_string(choices.size()) + " values; there are " + std::to_string(spans.size()) +
           " spans");
  if (!pass_->plan().output.logits)
    refuse("the program's output has all rows; tokens are chosen from those that need logits");
  for (size_t i = 0; i < choices.size(); ++i) {
    if (!choices[i]) continue;
    const Choice& choice = *choices[i];
    if (int64_t{choice.skip} + choice.rows > spans[i].logit_rows)
      refuse("choice of span " + std::to_string(i) + " has skip = " + std::to_string(choice.skip) + " and rows = " +
             std::to_string(choice.rows) + "; " + named("logit_rows", spans[i].logit_rows));
    choice.check_edits(output_width_);
  }
}

Words Program::words_of(const std::optional<Input>& words, int vocab) const {
  size_of(static_cast<size_t>(std::max(vocab, 0)), "vocab", "tokens");
  if (!words) return {nullptr, output_width_, vocab};
  const auto* ids = static_cast<const int64_t*>(checked(*words, "words", nb::dtype<int64_t>(), {output_width_}));
  int64_t least = 0;
  for (int column = 0; column < output_width_; ++column) {
    if (ids[column] < least || ids[column] >= vocab)
      refuse("words holds " + std::to_string(ids[column]) + " at " + std::to_string(column) +
             "; its ids have to ascend, below " + named("vocab", vocab));
    least = ids[column] + 1;
  }
  return {ids, output_width_, vocab};
}

const float* Program::input_of(const std::optional<Input>& input, int64_t rows) const {
  const std::optional<Value> x = graph_.input();
  if (input.has_value() != x.has_value())
    refuse(std::string("input: the program ") + (x ? "needs one" : "takes none"));
  if (!input) return nullptr;
  return static_cast<const float*>(checked(*input, "input", nb::dtype<float>(), {rows, graph_.width(*x)}));
}

float* Program::kept_of(const std::optional<Array>& kept) const {
  if (kept.has_value() != (graph_.kept_width() > 0))
    refuse(std::string("kept: the program ") + (kept ? "keeps nothing" : "needs room for what it keeps"));
  if (!kept) return nullptr;
  return static_cast<float*>(checked(*kept, "kept", nb::dtype<float>(), {pass_->kept_rows(), graph_.kept_width()}));
}

}  // namespace outrider

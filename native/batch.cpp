#include "batch.h"

#include <algorithm>
#include <cmath>

#include "refuse.h"

namespace outrider {
namespace {

constexpr int kMostRows = 1 << 20;  // of a pass

int first_key(const TableGroup& group, int position) { return std::max(0, position - group.window + 1); }

void check_tables(const Plan& plan, const Span& span, const std::string& of_span) {
  const int64_t end = int64_t{span.start} + span.rows;
  if (span.tables.size() < plan.groups.size())
    refuse("tables" + of_span + " has " + std::to_string(span.tables.size()) + " groups; the program has " +
           std::to_string(plan.groups.size()));
  for (size_t g = 0; g < plan.groups.size(); ++g) {
    const TableGroup& group = plan.groups[g];
    const std::vector<int32_t>& table = span.tables[g];
    if (group.blocks == 0) continue;
    const std::string name = "table " + std::to_string(g) + of_span;
    if (static_cast<int64_t>(table.size()) * group.block_size < end)
      refuse(name + " holds " + std::to_string(table.size()) + " blocks of " +
             std::to_string(group.block_size) + "; " + std::to_string(end) + " positions need more");
    for (int64_t at = first_key(group, span.start) / group.block_size; at * group.block_size < end; ++at)
      if (const int32_t block = table[static_cast<size_t>(at)]; block < 0 || block >= group.blocks)
        refuse(name + " names block " + std::to_string(block) + "; there are " +
               std::to_string(group.blocks));
  }
}

void check_states(const Plan& plan, const Span& span, const std::string& of_span) {
  const std::optional<int> slots = plan.graph.slots();
  if (!slots) return;
  if ((span.state < 0) != (span.start == 0))
    refuse("state" + of_span + " = " + std::to_string(span.state) + "; a span that begins at " +
           std::to_string(span.start) + (span.start == 0 ? " has none" : " needs one"));
  if (!span.new_states.empty() && span.new_states.size() != static_cast<size_t>(span.rows))
    refuse("new_states" + of_span + " has " + std::to_string(span.new_states.size()) + " values; the span has " +
           std::to_string(span.rows) + " rows");
  for (const int32_t slot : span.new_states)
    if (slot < -1 || slot >= *slots || (slot >= 0 && slot == span.state))
      refuse("new_states" + of_span + " names slot " + std::to_string(slot) + "; there are " +
             std::to_string(*slots) + ", and state = " + std::to_string(span.state) + " is read");
  if (span.state >= *slots)
    refuse("state" + of_span + " = " + std::to_string(span.state) + "; there are " + std::to_string(*slots) +
           " slots");
}

void check_parents(const Plan& plan, const Span& span, const std::string& of_span) {
  if (span.parents.empty()) return;
  if (span.trunk() < 1)
    refuse("parents" + of_span + " has " + std::to_string(span.parents.size()) + " values; the span has " +
           std::to_string(span.rows) + " rows, and one has to come before the tree");
  for (size_t i = 0; i < span.parents.size(); ++i)
    if (span.parents[i] < -1 || span.parents[i] >= static_cast<int32_t>(i))
      refuse("parents" + of_span + " holds " + std::to_string(span.parents[i]) + " at " + std::to_string(i) +
             "; it has to be -1, or an earlier row of the tree");
  if (!plan.graph.slots()) return;
  for (int row = span.trunk(); row < span.rows; ++row)
    if (const int before = span.follows(row); before != row - 1 && span.slot_after(before) < 0)
      refuse("new_states" + of_span + " has no slot for row " + std::to_string(before) + ", which row " +
             std::to_string(row) + " follows");
}

// Nothing may be written before all of a pass is known to be possible.
void check(const Plan& plan, const std::vector<int32_t>& tokens, const std::vector<Span>& spans) {
  int64_t rows = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    check_span(plan, spans[i], " of span " + std::to_string(i));
    rows += spans[i].rows;
  }
  if (static_cast<int64_t>(tokens.size()) != rows)
    refuse("tokens has " + std::to_string(tokens.size()) + " values; the spans have " + std::to_string(rows) +
           " rows");
  if (rows > kMostRows) refuse("tokens has " + std::to_string(rows) + " values; up to 2^20 are possible");
  for (const int32_t token : tokens)
    if (token < 0 || token >= plan.graph.vocab())
      refuse("tokens holds " + std::to_string(token) + "; vocab = " + std::to_string(plan.graph.vocab()));
}

Places places_of(const std::vector<Span>& spans, const TableGroup& group, size_t number) {
  Places places;
  for (const Span& span : spans)
    for (int position = span.start; group.blocks > 0 && position < span.start + span.rows; ++position) {
      places.blocks.push_back(span.tables[number][static_cast<size_t>(position / group.block_size)]);
      places.offsets.push_back(position % group.block_size);
    }
  return places;
}

Turns turns_of(const Rope& rope, const std::vector<int32_t>& positions) {
  Turns turns;
  turns.cos.reserve(rope.inv_freq.size() * positions.size());
  turns.sin.reserve(turns.cos.capacity());
  for (const int32_t position : positions)
    for (const float frequency : rope.inv_freq) {
      const float angle = static_cast<float>(position + rope.ahead) * frequency;
      turns.cos.push_back(std::cos(angle) * rope.factor);
      turns.sin.push_back(std::sin(angle) * rope.factor);
    }
  return turns;
}

}  // namespace

std::vector<int32_t> Span::positions() const {
  std::vector<int32_t> found;
  for (int row = 0; row < rows; ++row)
    found.push_back(follows(row) < 0 ? start : found[static_cast<size_t>(follows(row))] + 1);
  return found;
}

void check_span(const Plan& plan, const Span& span, const std::string& of_span) {
  const int64_t end = int64_t{span.start} + span.rows;
  const auto value = [&](const char* what, int value) { return what + of_span + " = " + std::to_string(value); };
  if (span.start < 0) refuse(value("start", span.start) + " has to be at least 0");
  if (span.rows < 1) refuse(value("rows", span.rows) + " has to be at least 1");
  if (end > kMostPositions)
    refuse("start and rows" + of_span + " lead to " + std::to_string(end) + " positions; 2^30 are possible");
  if (span.logit_rows < 0 || span.logit_rows > span.rows)
    refuse(value("logit_rows", span.logit_rows) + " has to be 0 to " + std::to_string(span.rows));
  check_tables(plan, span, of_span);
  check_states(plan, span, of_span);
  check_parents(plan, span, of_span);
}

Batch lay_out(const Plan& plan, std::vector<int32_t> tokens, std::vector<Span> spans, int threads) {
  check(plan, tokens, spans);
  Batch batch;
  for (const Span& span : spans) {
    batch.first_rows.push_back(batch.rows);
    batch.rows += span.rows;
    for (int row = span.logit_rows; row > 0; --row) batch.logit_rows.push_back(batch.rows - row);
    for (const int32_t position : span.positions()) batch.positions.push_back(position);
  }
  for (size_t g = 0; g < plan.groups.size(); ++g)
    batch.places.push_back(places_of(spans, plan.groups[g], g));
  for (const Rope& rope : plan.graph.ropes()) batch.turns.push_back(turns_of(rope, batch.positions));
  for (const AttentionClass& layers : plan.classes) batch.pieces.push_back(cut(spans, layers, threads));
  batch.tokens = std::move(tokens);
  batch.spans = std::move(spans);
  return batch;
}

}  // namespace outrider

#include "choice.h"

#include <algorithm>
#include <limits>

#include "noise.h"
#include "refuse.h"

namespace outrider {

void Choice::check() const {
  if (skip < 0) refuse(named("skip", skip) + " has to be at least 0");
  if (rows < 0) refuse(named("rows", rows) + " has to be at least 0");
  if (!edits.empty() && edits.size() != static_cast<size_t>(rows))
    refuse("edits has " + std::to_string(edits.size()) + " lists; it has to have none, or " + named("rows", rows));
  if (!offsets.empty() && offsets.size() != static_cast<size_t>(rows))
    refuse("offsets has " + std::to_string(offsets.size()) + " values; it has to have none, or " + named("rows", rows));
  for (const int offset : offsets)
    if (offset < 0) refuse("offsets holds " + std::to_string(offset) + "; it has to be at least 0");
}

void Choice::check_edits(int vocab) const {
  for (const Changes& changes : edits)
    for (const Change& change : changes) change.check(vocab);
}

uint64_t Choice::key_of(int row) const {
  const int offset = offsets.empty() ? row : offsets[static_cast<size_t>(row)];
  return mix(mix(key + kNoiseStep) ^ (static_cast<uint64_t>(position) + static_cast<uint64_t>(offset)));
}

const float* Choice::edited(int row, const float* logits, int vocab, float* room) const {
  if (!edits_row(row)) return logits;
  if (room != logits) std::copy_n(logits, vocab, room);
  for (const Change& change : edits[static_cast<size_t>(row)]) change.apply(room);
  return room;
}

int Choice::place_in(const Kernels& kernels, int row, const float* logits, int count, const int64_t* ids,
                     float* room) const {
  return filters ? choose(kernels, logits, count, *filters, key_of(row), ids, -1, room)
                 : largest(kernels, logits, count);
}

int Choice::second_in(const Kernels& kernels, int row, const float* logits, int count, const int64_t* ids, int first,
                      float* room) const {
  if (filters) return choose(kernels, logits, count, *filters, key_of(row), ids, first, room);
  std::copy_n(logits, count, room);
  room[first] = -std::numeric_limits<float>::infinity();
  return largest(kernels, room, count);
}

void Choice::score(const Kernels& kernels, const float* logits, int count, float* scores) const {
  if (filters) return filtered(kernels, logits, count, *filters, scores);
  const int best = largest(kernels, logits, count);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::fill_n(scores, count, best < 0 ? std::numeric_limits<float>::quiet_NaN() : -kInf);
  if (best >= 0) scores[best] = 0;
}

std::vector<std::vector<int>> choose_all(const std::vector<std::optional<Choice>>& choices,
                                         const std::vector<int>& logit_rows, const float* logits, int vocab,
                                         const Kernels& kernels, Threads& threads, Room& room) {
  struct Task {
    const Choice* choice;
    int row;
    const float* logits;
    int* token;
  };
  std::vector<std::vector<int>> tokens(choices.size());
  std::vector<Task> tasks;
  const float* of_span = logits;
  for (size_t i = 0; i < choices.size(); ++i) {
    const auto& choice = choices[i];
    tokens[i].resize(choice ? static_cast<size_t>(choice->rows) : 0);
    for (size_t row = 0; row < tokens[i].size(); ++row)
      tasks.push_back({&*choice, static_cast<int>(row),
                       of_span + static_cast<size_t>(vocab) * (static_cast<size_t>(choice->skip) + row),
                       &tokens[i][row]});
    of_span += static_cast<size_t>(vocab) * static_cast<size_t>(logit_rows[i]);
  }
  const size_t floats = choosing_floats(vocab);
  float* rooms = room.of(floats * static_cast<size_t>(threads.count()));
  const DefaultFloats default_floats;
  threads.each(static_cast<int>(tasks.size()), [&](int number, int thread) {
    const Task& task = tasks[static_cast<size_t>(number)];
    float* mine = rooms + floats * static_cast<size_t>(thread);
    const float* row = task.choice->edited(task.row, task.logits, vocab, mine);
    *task.token = task.choice->place_in(kernels, task.row, row, vocab, nullptr, mine + floats / 2);
  });
  return tokens;
}

}  // namespace outrider

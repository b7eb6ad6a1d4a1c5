#include "change.h"

#include <algorithm>
#include <limits>

#include "refuse.h"

namespace outrider {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

int64_t last_of(const Ids& ids) {
  int64_t last = -1;
  for (const int64_t id : ids) {
    if (id < 0) refuse("ids holds " + std::to_string(id) + "; ids of tokens are 0 or more");
    last = std::max(last, id);
  }
  return last;
}

void apply(const Change::Bar& bar, float* logits) {
  for (const int64_t id : bar.ids) logits[id] = kNone;
}

void apply(const Change::Allow& allow, float* logits) {
  for (size_t i = 0; i < allow.mask.size(); ++i) logits[i] = allow.mask[i] ? logits[i] : kNone;
}

void apply(const Change::Add& add, float* logits) {
  for (size_t i = 0; i < add.ids.size(); ++i) logits[add.ids[i]] += add.values[i];
}

void apply(const Change::Penalise& penalise, float* logits) {
  for (const int64_t id : penalise.ids) {
    float& logit = logits[id];
    logit = logit > 0 ? logit / penalise.factor : logit * penalise.factor;
  }
}

}  // namespace

Change::Change(Bar bar) : last_(last_of(bar.ids)) { kind_ = std::make_shared<const Kind>(std::move(bar)); }

Change::Change(Allow allow) { kind_ = std::make_shared<const Kind>(std::move(allow)); }

Change::Change(Add add) : last_(last_of(add.ids)) {
  if (add.values.size() != add.ids.size())
    refuse("values has " + std::to_string(add.values.size()) + " values; ids has " +
           std::to_string(add.ids.size()));
  kind_ = std::make_shared<const Kind>(std::move(add));
}

Change::Change(Penalise penalise) : last_(last_of(penalise.ids)) {
  if (!(penalise.factor > 0 && std::isfinite(penalise.factor)))
    refuse(named("factor", penalise.factor) + " has to be above 0 and finite");
  kind_ = std::make_shared<const Kind>(std::move(penalise));
}

void Change::check(int vocab) const {
  if (last_ >= vocab)
    refuse("a change names the token " + std::to_string(last_) + "; the row has " + std::to_string(vocab) +
           " logits");
  if (const auto* allow = std::get_if<Allow>(kind_.get()); allow && allow->mask.size() != static_cast<size_t>(vocab))
    refuse("a change has a mask of " + std::to_string(allow->mask.size()) + " tokens; the row has " +
           std::to_string(vocab) + " logits");
}

void Change::apply(float* logits) const {
  std::visit([logits](const auto& kind) { outrider::apply(kind, logits); }, *kind_);
}

}  // namespace outrider

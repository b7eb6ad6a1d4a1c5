#include "sample.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <optional>
#include <vector>

#include "mass.h"

namespace outrider {
namespace {

constexpr int kBlock = 64;  // tokens that are ruled out together
constexpr float kNone = -std::numeric_limits<float>::infinity();

float gumbel(uint64_t bits) {
  const auto u = static_cast<float>((static_cast<double>(bits) + 0.5) * 0x1p-52);
  return -std::log(-std::log1p(-std::min(u, 1 - 0x1p-24f)));
}

// Only bits below the result can give noise above `least`. A little more are let through than need be: the
// limits are those of the next lower step of an eighth.
class Limits {
 public:
  Limits() {
    for (int i = 0; i < kCount; ++i) {
      const double share = -std::expm1(-std::exp(-(i / 8.0 + kFirst)));
      limits_[i] = static_cast<uint64_t>(std::min(share * 1.001 + 1e-15, 1.0) * 0x1p52) + 1;
    }
  }
  uint64_t bits_above(float least) const {
    const float step = (least - kFirst) * 8;
    if (step < 0) return ~uint64_t{0};
    return limits_[static_cast<int>(std::min(step, kCount - 1.0f))];
  }

 private:
  static constexpr int kFirst = -4;      // all but one in 10^24 have more noise
  static constexpr int kCount = 8 * 42;  // none has as much as the last
  uint64_t limits_[kCount];
};

// What a filter keeps: scores above the floor, and tokens up to `last` that stand on it.
struct Floor {
  float score = kNone;
  int last = std::numeric_limits<int>::max();

  bool keeps(float s, int token) const { return s > score || (s == score && token <= last); }
};

struct Candidate {
  float score;
  int token;

  bool operator<(const Candidate& other) const {  // likelier first, then lower id
    return score != other.score ? score > other.score : token < other.token;
  }
};

// The largest score of each block.
std::vector<float> peaks_of(const Kernels& kernels, const float* scores, int vocab) {
  std::vector<float> peaks;
  for (int first = 0; first < vocab; first += kBlock)
    peaks.push_back(kernels.maximum(scores + first, static_cast<size_t>(std::min(kBlock, vocab - first))));
  return peaks;
}

// What a floor keeps, from `least` on. peaks: of the scores.
std::vector<Candidate> candidates(const float* scores, int vocab, const std::vector<float>& peaks,
                                  const Floor& floor, float least) {
  std::vector<Candidate> kept;
  for (size_t b = 0; b < peaks.size(); ++b) {
    if (peaks[b] < least) continue;
    const int first = static_cast<int>(b) * kBlock;
    for (int token = first; token < std::min(vocab, first + kBlock); ++token)
      if (scores[token] >= least && floor.keeps(scores[token], token))
        kept.push_back({scores[token], token});
  }
  return kept;
}

// The k likeliest of those that a floor keeps, and more. The k-th largest of the blocks' maxima is no more than the
// k-th largest score, so only scores from there on are looked at.
std::vector<Candidate> likeliest(const Kernels& kernels, const float* scores, int vocab, const Floor& floor, int k) {
  const std::vector<float> peaks = peaks_of(kernels, scores, vocab);
  float least = kNone;
  if (static_cast<size_t>(k) <= peaks.size()) {
    std::vector<float> ranked = peaks;
    std::nth_element(ranked.begin(), ranked.begin() + (k - 1), ranked.end(), std::greater<>());
    least = ranked[static_cast<size_t>(k) - 1];
  }
  return candidates(scores, vocab, peaks, floor, least);
}

// The k likeliest, and those that tie with the last of them.
Floor keep_top_k(const Kernels& kernels, const float* scores, int vocab, const Floor& floor, int k) {
  std::vector<Candidate> kept = likeliest(kernels, scores, vocab, floor, k);
  if (static_cast<size_t>(k) > kept.size()) return floor;
  std::nth_element(kept.begin(), kept.begin() + (k - 1), kept.end());
  return {kept[static_cast<size_t>(k) - 1].score, std::numeric_limits<int>::max()};
}

int64_t mass_of_all(std::vector<Candidate>::const_iterator first,
                    std::vector<Candidate>::const_iterator last) {
  int64_t mass = 0;
  for (; first != last; ++first) mass += mass_of(std::max(first->score, -80.0f));
  return mass;
}

// The smallest set of likeliest tokens with mass of at least p of what is kept so far. It is looked for among
// few tokens first. They are halved by rank, and the half in which p is reached is halved again.
Floor keep_top_p(const Kernels& kernels, const float* scores, int vocab, const Floor& floor, double p) {
  const std::vector<float> peaks = peaks_of(kernels, scores, vocab);
  const auto from = [&](float least) { return candidates(scores, vocab, peaks, floor, least); };
  int64_t total;
  std::vector<Candidate> left;
  if (floor.score == kNone) {
    kernels.mass(scores, 0, static_cast<size_t>(vocab), &total);
  } else {
    left = from(floor.score);
    total = mass_of_all(left.begin(), left.end());
  }
  const double wanted = p * static_cast<double>(total);
  const auto reached = [&](int64_t mass) { return static_cast<double>(mass) >= wanted; };
  for (float least = -4; floor.score == kNone; least *= 2) {
    left = from(least);
    if (reached(mass_of_all(left.begin(), left.end()))) break;
  }
  int64_t before = 0;
  auto first = left.begin(), last = left.end();
  while (last - first > 1) {
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last);
    const int64_t mass = before + mass_of_all(first, middle);
    if (reached(mass)) {
      last = middle;
    } else {
      before = mass;
      first = middle;
    }
  }
  return {first->score, first->token};
}

// Scores from logits, and what the filters keep of them; nothing where no token can be chosen.
std::optional<Floor> filter(const Kernels& kernels, const float* logits, int vocab, const Filters& filters,
                            float* scores) {
  const float top = kernels.maximum(logits, static_cast<size_t>(vocab));
  if (!std::isfinite(top)) return std::nullopt;
  if (kernels.scale(logits, top, filters.temperature, static_cast<size_t>(vocab), scores)) return std::nullopt;
  Floor floor;
  if (filters.min_p > 0) floor.score = static_cast<float>(std::log(filters.min_p));
  if (filters.top_k > 0 && filters.top_k < vocab)
    floor = keep_top_k(kernels, scores, vocab, floor, filters.top_k);
  if (filters.top_p < 1) floor = keep_top_p(kernels, scores, vocab, floor, filters.top_p);
  return floor;
}

// Why no token can be chosen from a row.
int reason(const float* logits, int vocab) {
  bool infinite = false;
  for (int token = 0; token < vocab; ++token) {
    if (logits[token] != logits[token]) return kNan;
    infinite |= logits[token] == -kNone;
  }
  return infinite ? kInfinite : kNothing;
}

}  // namespace

int largest(const Kernels& kernels, const float* logits, int vocab) {
  const float top = kernels.maximum(logits, static_cast<size_t>(vocab));
  int nan = 0;
  for (int token = 0; token < vocab; ++token) nan |= logits[token] != logits[token];
  if (nan || !std::isfinite(top)) return reason(logits, vocab);
  return static_cast<int>(std::find(logits, logits + vocab, top) - logits);
}

double confidence(const Kernels& kernels, const float* logits, int vocab) {
  const float top = kernels.maximum(logits, static_cast<size_t>(vocab));
  if (!std::isfinite(top)) return 0.0;
  int64_t total;
  if (kernels.mass(logits, top, static_cast<size_t>(vocab), &total)) return 0.0;
  return static_cast<double>(mass_of(0.0f)) / static_cast<double>(total);
}

void filtered(const Kernels& kernels, const float* logits, int vocab, const Filters& filters, float* scores) {
  const auto floor = filter(kernels, logits, vocab, filters, scores);
  for (int token = 0; token < vocab; ++token) {
    if (!floor) scores[token] = std::numeric_limits<float>::quiet_NaN();
    else if (!floor->keeps(scores[token], token)) scores[token] = kNone;
  }
}

int choose(const Kernels& kernels, const float* logits, int vocab, const Filters& filters, uint64_t key,
           const int64_t* ids, int without, float* scores) {
  const auto kept = filter(kernels, logits, vocab, filters, scores);
  if (!kept) return reason(logits, vocab);
  static const Limits limits;
  const Floor floor = *kept;
  uint64_t bits[kBlock];
  const auto noise = [&](int first, int count) {
    return kernels.noise(key, first, ids ? ids + first : nullptr, count, bits);
  };
  if (without >= 0) scores[without] = kNone;
  const float top = without < 0 ? 0.0f : kernels.maximum(scores, static_cast<size_t>(vocab));
  int best = static_cast<int>(std::find(scores, scores + vocab, top) - scores);
  if (top == kNone || !floor.keeps(top, best)) return kNothing;
  float highest = scores[best] + gumbel(noise(best, 1));
  for (int first = 0; first < vocab; first += kBlock) {
    const int count = std::min(kBlock, vocab - first);
    const float peak = kernels.maximum(scores + first, static_cast<size_t>(count));
    if (peak < floor.score) continue;
    const uint64_t limit = limits.bits_above(highest - peak);
    if (noise(first, count) >= limit) continue;
    for (int i = 0; i < count; ++i) {
      const int token = first + i;
      if (bits[i] >= limit || !floor.keeps(scores[token], token)) continue;
      const float value = scores[token] + gumbel(bits[i]);
      if (value > highest || (value == highest && token < best)) {
        highest = value;
        best = token;
      }
    }
  }
  return best;
}

double log_total(const Kernels& kernels, const float* logits, int vocab) {
  const double top = kernels.maximum(logits, static_cast<size_t>(vocab));
  double sum = 0;
  for (int token = 0; token < vocab; ++token) sum += std::exp(logits[token] - top);
  return top + std::log(sum);
}

std::vector<Ranked> ranked(const Kernels& kernels, const float* logits, int vocab, int token, int count) {
  const double total = log_total(kernels, logits, vocab);
  const float own = logits[token];
  const auto likelier = std::count_if(logits, logits + vocab, [own](float logit) { return logit > own; });
  std::vector<Ranked> found{{token, own - total, static_cast<int>(likelier) + 1}};
  if (count == 0) return found;
  std::vector<Candidate> others = likeliest(kernels, logits, vocab, Floor(), std::min(count, vocab));
  const auto last = others.begin() + std::min(static_cast<ptrdiff_t>(count), std::ssize(others));
  std::partial_sort(others.begin(), last, others.end());
  for (auto other = others.begin(); other != last; ++other)
    if (other->token != token)
      found.push_back({other->token, other->score - total, static_cast<int>(other - others.begin()) + 1});
  return found;
}

}  // namespace outrider

#include "sample.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

namespace outrider {
namespace {

constexpr int kBlock = 64;  // tokens that are ruled out together
constexpr float kNone = -std::numeric_limits<float>::infinity();

// SplitMix64, as in outrider/verification/noise.py.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}
uint64_t bits_of(uint64_t key, int64_t token) {
  return mix(key + (static_cast<uint64_t>(token) + 1) * 0x9E3779B97F4A7C15u) >> 12;
}

float gumbel(uint64_t bits) {
  const auto u = static_cast<float>((static_cast<double>(bits) + 0.5) * 0x1p-52);
  return -std::log(-std::log1p(-std::min(u, 1 - 0x1p-24f)));
}

// Only bits below the result can give noise above `least`. A little more are let through than need be.
uint64_t bits_above(float least) {
  const double share = -std::expm1(-std::exp(-static_cast<double>(least)));
  return static_cast<uint64_t>(std::min(share * 1.001 + 1e-15, 1.0) * 0x1p52) + 1;
}

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

std::vector<Candidate> candidates(const float* scores, int vocab, const Floor& floor, float least) {
  std::vector<Candidate> kept;
  for (int token = 0; token < vocab; ++token)
    if (scores[token] >= least && floor.keeps(scores[token], token)) kept.push_back({scores[token], token});
  return kept;
}

// The largest score of each block.
std::vector<float> peaks_of(const Kernels& kernels, const float* scores, int vocab) {
  std::vector<float> peaks;
  for (int first = 0; first < vocab; first += kBlock)
    peaks.push_back(kernels.maximum(scores + first, static_cast<size_t>(std::min(kBlock, vocab - first))));
  return peaks;
}

// The k likeliest, and those that tie with the last of them. The k-th largest of the blocks' maxima is no
// more than the k-th largest score, so only scores from there on are looked at.
Floor keep_top_k(const Kernels& kernels, const float* scores, int vocab, Floor floor, int k) {
  std::vector<float> peaks = peaks_of(kernels, scores, vocab);
  float least = kNone;
  if (static_cast<size_t>(k) <= peaks.size()) {
    std::nth_element(peaks.begin(), peaks.begin() + (k - 1), peaks.end(), std::greater<>());
    least = peaks[static_cast<size_t>(k) - 1];
  }
  std::vector<Candidate> kept = candidates(scores, vocab, floor, least);
  if (static_cast<size_t>(k) > kept.size()) return floor;
  std::nth_element(kept.begin(), kept.begin() + (k - 1), kept.end());
  return {kept[static_cast<size_t>(k) - 1].score, std::numeric_limits<int>::max()};
}

// exp(x) for -80 <= x <= 0 in units of 2^-34, so that sums are exact in any order. Plain arithmetic, which
// compilers do on whole vectors: Cephes' expf, then an addition after which the units are the last bits.
int64_t mass_of(float x) {
  constexpr float kRound = 0x1.8p23f;
  constexpr double kUnits = 0x1.8p18;
  const float n = (x * 1.44269504088896341f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const float e = p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return std::bit_cast<int64_t>(static_cast<double>(e) + kUnits) - std::bit_cast<int64_t>(kUnits);
}

constexpr int kSteps = 400;  // of 1/16 nat: after 25 nats there is no mass
int step_of(float score) { return static_cast<int>(std::min(score * -16.0f, kSteps - 1.0f)); }

// The smallest set of likeliest tokens with mass of at least p of what is kept so far. Mass is counted by
// steps of score; the tokens of the step in which p is reached are halved by rank, and the half in which it
// is reached is halved again.
Floor keep_top_p(const Kernels& kernels, const float* scores, int vocab, const Floor& floor, double p) {
  const std::vector<float> peaks = peaks_of(kernels, scores, vocab);
  int64_t steps[kSteps] = {}, masses[kBlock];
  float bounded[kBlock] = {};
  for (int first = 0; first < vocab; first += kBlock) {
    if (peaks[first / kBlock] < floor.score) continue;
    const int count = std::min(kBlock, vocab - first);
    for (int i = 0; i < count; ++i) bounded[i] = std::max(scores[first + i], -80.0f);
    for (int i = 0; i < kBlock; ++i) masses[i] = mass_of(bounded[i]);
    for (int i = 0; i < count; ++i)
      if (scores[first + i] >= floor.score) steps[step_of(scores[first + i])] += masses[i];
  }
  const double wanted = p * static_cast<double>(std::accumulate(steps, steps + kSteps, int64_t{0}));
  const auto reached = [&](int64_t mass) { return static_cast<double>(mass) >= wanted; };
  int64_t before = 0;
  int here = 0;
  while (!reached(before + steps[here])) before += steps[here++];

  std::vector<Candidate> left;
  for (int first = 0; first < vocab; first += kBlock) {
    if (peaks[first / kBlock] < floor.score || step_of(peaks[first / kBlock]) > here) continue;
    for (int token = first; token < std::min(vocab, first + kBlock); ++token)
      if (step_of(scores[token]) == here && scores[token] >= floor.score)
        left.push_back({scores[token], token});
  }
  auto first = left.begin(), last = left.end();
  while (last - first > 1) {
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last);
    int64_t mass = before;
    for (auto c = first; c != middle; ++c) mass += mass_of(c->score);
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
  int nan = 0;
  for (int token = 0; token < vocab; ++token) {
    scores[token] = (logits[token] - top) / filters.temperature;
    nan |= scores[token] != scores[token];
  }
  if (nan) return std::nullopt;
  Floor floor;
  if (filters.min_p > 0) floor.score = static_cast<float>(std::log(filters.min_p));
  if (filters.top_k > 0 && filters.top_k < vocab)
    floor = keep_top_k(kernels, scores, vocab, floor, filters.top_k);
  if (filters.top_p < 1) floor = keep_top_p(kernels, scores, vocab, floor, filters.top_p);
  return floor;
}

}  // namespace

int largest(const Kernels& kernels, const float* logits, int vocab) {
  const float top = kernels.maximum(logits, static_cast<size_t>(vocab));
  int nan = 0;
  for (int token = 0; token < vocab; ++token) nan |= logits[token] != logits[token];
  if (nan || !std::isfinite(top)) return kNoToken;
  return static_cast<int>(std::find(logits, logits + vocab, top) - logits);
}

double confidence(const Kernels& kernels, const float* logits, int vocab) {
  const float top = kernels.maximum(logits, static_cast<size_t>(vocab));
  if (!std::isfinite(top)) return 0.0;
  int64_t total = 0;
  int nan = 0;
  float bounded[kBlock] = {};
  for (int first = 0; first < vocab; first += kBlock) {
    const int count = std::min(kBlock, vocab - first);
    for (int i = 0; i < count; ++i) {
      nan |= logits[first + i] != logits[first + i];
      bounded[i] = std::max(-80.0f, logits[first + i] - top);
    }
    std::fill(bounded + count, bounded + kBlock, -80.0f);
    for (int i = 0; i < kBlock; ++i) total += mass_of(bounded[i]);
  }
  if (nan) return 0.0;
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
           const int64_t* ids, float* scores) {
  const auto noise_of = [&](int token) { return bits_of(key, ids ? ids[token] : token); };
  const auto kept = filter(kernels, logits, vocab, filters, scores);
  if (!kept) return kNoToken;
  const Floor floor = *kept;
  int best = static_cast<int>(std::find(scores, scores + vocab, 0.0f) - scores);
  float highest = scores[best] + gumbel(noise_of(best));
  for (int first = 0; first < vocab; first += kBlock) {
    const int last = std::min(vocab, first + kBlock);
    const float peak = kernels.maximum(scores + first, static_cast<size_t>(last - first));
    if (peak < floor.score) continue;
    const uint64_t limit = bits_above(highest - peak);
    for (int token = first; token < last; ++token) {
      const uint64_t bits = noise_of(token);
      if (bits >= limit || !floor.keeps(scores[token], token)) continue;
      const float value = scores[token] + gumbel(bits);
      if (value > highest || (value == highest && token < best)) {
        highest = value;
        best = token;
      }
    }
  }
  return best;
}

}  // namespace outrider

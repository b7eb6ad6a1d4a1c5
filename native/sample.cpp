#include "sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
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
uint64_t bits_of(uint64_t key, int token) { return mix(key + (static_cast<uint64_t>(token) + 1) * 0x9E3779B97F4A7C15u) >> 12; }

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

// The k likeliest, and those that tie with the last of them. The k-th largest of the blocks' maxima is no
// more than the k-th largest score, so only scores from there on are looked at.
Floor keep_top_k(const Kernels& kernels, const float* scores, int vocab, Floor floor, int k) {
  std::vector<float> peaks;
  for (int first = 0; first < vocab; first += kBlock)
    peaks.push_back(kernels.maximum(scores + first, static_cast<size_t>(std::min(kBlock, vocab - first))));
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

// The smallest set of likeliest tokens with mass of at least p of what is kept so far. Candidates are halved
// by rank, and the half in which the mass is reached is halved again: linear on average.
Floor keep_top_p(const float* scores, int vocab, Floor floor, double p) {
  double whole = 0;
  for (int token = 0; token < vocab; ++token)
    if (floor.keeps(scores[token], token)) whole += std::exp(static_cast<double>(scores[token]));
  const double wanted = p * whole;
  std::vector<Candidate> left;
  for (float least : {-4.0f, -8.0f, -16.0f, kNone}) {  // most of the mass is with few tokens
    left = candidates(scores, vocab, floor, least);
    double mass = 0;
    for (const Candidate& c : left) mass += std::exp(static_cast<double>(c.score));
    if (mass >= wanted) break;
  }
  double before = 0;
  auto first = left.begin(), last = left.end();
  while (last - first > 1) {
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last);
    double mass = 0;
    for (auto c = first; c != middle; ++c) mass += std::exp(static_cast<double>(c->score));
    if (before + mass >= wanted) {
      last = middle;
    } else {
      before += mass;
      first = middle;
    }
  }
  return {first->score, first->token};
}

}  // namespace

int largest(const float* logits, int vocab) {
  int best = 0;
  for (int token = 1; token < vocab; ++token)
    if (logits[token] > logits[best]) best = token;
  return best;
}

int choose(const Kernels& kernels, const float* logits, int vocab, const Filters& filters, uint64_t key,
           float* scores) {
  const float top = kernels.maximum(logits, static_cast<size_t>(vocab));
  for (int token = 0; token < vocab; ++token) scores[token] = (logits[token] - top) / filters.temperature;
  Floor floor;
  if (filters.min_p > 0) floor.score = std::log(filters.min_p);
  if (filters.top_k > 0 && filters.top_k < vocab) floor = keep_top_k(kernels, scores, vocab, floor, filters.top_k);
  if (filters.top_p < 1) floor = keep_top_p(scores, vocab, floor, static_cast<double>(filters.top_p));

  int best = static_cast<int>(std::find(logits, logits + vocab, top) - logits) % vocab;
  float highest = scores[best] + gumbel(bits_of(key, best));
  for (int first = 0; first < vocab; first += kBlock) {
    const int last = std::min(vocab, first + kBlock);
    const float peak = kernels.maximum(scores + first, static_cast<size_t>(last - first));
    if (peak < floor.score) continue;
    const uint64_t limit = bits_above(highest - peak);
    for (int token = first; token < last; ++token) {
      const uint64_t bits = bits_of(key, token);
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

// Choosing a token from a row of logits: filters, noise and argmax, without a sort of the vocabulary.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace outrider {

// Temperature above 0. min_p = 0, top_k = 0 and top_p = 1 filter nothing.
struct Filters {
  float temperature;
  double min_p;
  int top_k;
  double top_p;
};

// Why a row has no token: it holds NaN, whatever else it holds; it holds +inf; it holds nothing but -inf.
inline constexpr int kNan = -1, kInfinite = -2, kNothing = -3;

// The first of the largest logits, or why there is none.
int largest(const Kernels& kernels, const float* logits, int vocab);

// The share of the largest logit's token in softmax(logits), 0 where no token can be chosen.
double confidence(const Kernels& kernels, const float* logits, int vocab);

// (logit - max) / temperature of the tokens that the filters keep, -inf for the others; NaN if there is no
// token to choose. scores: [vocab].
void filtered(const Kernels& kernels, const float* logits, int vocab, const Filters& filters, float* scores);

// argmax of filtered scores + Gumbel noise, or why there is none; ties go to the first. key: the counter-based noise's
// key for this position. ids: which token's noise each logit gets, or null for its own place's. without: a place that
// is passed over, or -1. scratch: `vocab` floats.
int choose(const Kernels& kernels, const float* logits, int vocab, const Filters& filters, uint64_t key,
           const int64_t* ids, int without, float* scratch);

// log(sum(exp(logits))), summed in double; NaN for a row that holds NaN or +inf.
double log_total(const Kernels& kernels, const float* logits, int vocab);

// A token by its log-probability. Rank 1 is the likeliest.
struct Ranked {
  int token;
  double logprob;
  int rank;
};

// `token`, whose rank is one more than there are likelier ones, then the others of the `count` likeliest in order,
// ranked by their places. Equals are ranked by id; NaN is left out.
std::vector<Ranked> ranked(const Kernels& kernels, const float* logits, int vocab, int token, int count);

}  // namespace outrider

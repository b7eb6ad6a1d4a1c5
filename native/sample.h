// Choosing a token from a row of logits: filters, noise and argmax, without a sort of the vocabulary.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace outrider {

// Temperature above 0. min_p = 0, top_k = 0 and top_p = 1 filter nothing.
struct Filters {
  float temperature;
  double min_p;
  int top_k;
  double top_p;
};

// Of a row from which none can be chosen: one that holds NaN or +inf, or nothing but -inf.
inline constexpr int kNoToken = -1;

// The first of the largest logits, or kNoToken.
int largest(const Kernels& kernels, const float* logits, int vocab);

// The share of the largest logit's token in softmax(logits), 0 where no token can be chosen.
double confidence(const Kernels& kernels, const float* logits, int vocab);

// (logit - max) / temperature of the tokens that the filters keep, -inf for the others; NaN if there is no
// token to choose. scores: [vocab].
void filtered(const Kernels& kernels, const float* logits, int vocab, const Filters& filters, float* scores);

// argmax of filtered scores + Gumbel noise, or kNoToken; ties go to the first. key: the counter-based noise's
// key for this position. ids: which token's noise each logit gets, or null for its own place's. scratch:
// `vocab` floats.
int choose(const Kernels& kernels, const float* logits, int vocab, const Filters& filters, uint64_t key,
           const int64_t* ids, float* scratch);

}  // namespace outrider

// Choosing a token from a row of logits: filters, noise and argmax, without a sort of the vocabulary.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace outrider {

// Temperature above 0. min_p = 0, top_k = 0 and top_p = 1 filter nothing.
struct Filters {
  float temperature;
  float min_p;
  int top_k;
  float top_p;
};

// The first of the largest logits.
int largest(const float* logits, int vocab);

// argmax of (logit - max) / temperature + Gumbel noise over the tokens that the filters keep; ties go to the
// lower id. key: the counter-based noise's key for this position. scratch: `vocab` floats.
int choose(const Kernels& kernels, const float* logits, int vocab, const Filters& filters, uint64_t key, float* scratch);

}  // namespace outrider

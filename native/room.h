// Memory that is kept from call to call.
#pragma once

#include "matrix.h"

namespace outrider {

// Floats, made anew where more are needed than there were before; what they held is lost then.
class Room {
 public:
  float* of(size_t count) {
    if (count > size_) {
      floats_ = aligned<float>(count);
      size_ = count;
    }
    return floats_.get();
  }

 private:
  Aligned<float> floats_;
  size_t size_ = 0;
};

}  // namespace outrider

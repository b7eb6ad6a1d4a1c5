// The instruction sets that the kernels are compiled for, and which of them this machine has.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace outrider {

// What this machine can run, the best first.
std::vector<std::string> supported();

const Kernels& kernels_named(const std::string& name);  // throws std::invalid_argument

}  // namespace outrider

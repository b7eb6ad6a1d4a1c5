#include "instruction_sets.h"

#include <stdexcept>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace outrider {
namespace {

struct InstructionSet {
  const char* name;
  const Kernels& (*kernels)();
  bool (*runs_here)();
};

#ifdef OUTRIDER_X86
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool has_avx512_vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

bool has_avx512_bf16() { return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16"); }

// Linux gives a process the registers of AMX when it asks for them.
bool tiles_permitted() {
#ifdef __linux__
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool has_amx() {
  return has_avx512_bf16() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         tiles_permitted();
}
#endif

// The best first.
constexpr InstructionSet kSets[] = {
#ifdef OUTRIDER_X86
    {"amx", amx::kernels, has_amx},
    {"avx512_bf16", avx512_bf16::kernels, has_avx512_bf16},
    {"avx512_vnni", avx512_vnni::kernels, has_avx512_vnni},
    {"avx2", avx2::kernels, has_avx2},
#endif
    {"portable", portable::kernels, [] { return true; }},
};

}  // namespace

std::vector<std::string> supported() {
  std::vector<std::string> names;
  for (const InstructionSet& set : kSets)
    if (set.runs_here()) names.emplace_back(set.name);
  return names;
}

const Kernels& kernels_named(const std::string& name) {
  std::string known;
  for (const InstructionSet& set : kSets) {
    if (!set.runs_here()) continue;
    if (name == set.name) return set.kernels();
    known += std::string(known.empty() ? "" : ", ") + set.name;
  }
  throw std::invalid_argument("instruction_set = '" + name + "' is not what this machine can run: " + known);
}

}  // namespace outrider

#include "instruction_sets.h"

#include <cstdint>
#include <initializer_list>
#include <stdexcept>

#ifdef OUTRIDER_X86
#include <cpuid.h>
#endif
#ifdef __linux__
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

namespace outrider {
namespace {

struct InstructionSet {
  const char* name;
  const Kernels& (*kernels)();
  bool (*runs_here)();
};

#ifdef OUTRIDER_X86
// What the processor says of itself. `__builtin_cpu_supports` would know some of these features by names that
// differ between compilers, and Clang 14 not at all.
struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned part) {  // zeros where the processor has no such leaf
  Registers r;
  __get_cpuid_count(leaf, part, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool has(unsigned word, std::initializer_list<int> bits) {
  for (const int bit : bits)
    if (!(word >> bit & 1)) return false;
  return true;
}

// Whether the system keeps these registers for a thread when it runs another, by the bits of XCR0.
bool kept(std::initializer_list<int> registers) {
  if (!has(cpuid(1, 0).c, {27})) return false;  // osxsave: nobody can ask
  unsigned low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return has(low, registers);
}

bool has_avx2() {
  return kept({1, 2}) && has(cpuid(1, 0).c, {12, 28, 29})  // fma, avx, f16c
         && has(cpuid(7, 0).b, {5});                       // avx2
}

bool has_avx_vnni() { return has_avx2() && has(cpuid(7, 1).a, {4}); }

bool has_avx512_vnni() {
  return has_avx2() && kept({5, 6, 7}) && has(cpuid(7, 0).b, {16, 17, 30, 31})  // avx512f, dq, bw, vl
         && has(cpuid(7, 0).c, {11});                                           // avx512_vnni
}

bool has_avx512_bf16() { return has_avx512_vnni() && has(cpuid(7, 1).a, {5}); }

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
  return has_avx512_bf16() && kept({17, 18}) && has(cpuid(7, 0).d, {22, 24})  // amx-bf16, amx-tile
         && tiles_permitted();
}
#endif

#ifdef OUTRIDER_ARM64
#ifdef __APPLE__
bool has_feature(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

bool has_dot() { return has_feature("hw.optional.arm.FEAT_DotProd"); }
bool has_bf16() { return has_dot() && has_feature("hw.optional.arm.FEAT_BF16"); }
bool has_i8mm() { return has_bf16() && has_feature("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__linux__)
// Bits of the kernel's documentation of ELF hwcaps, which older headers lack.
bool has_dot() { return getauxval(AT_HWCAP) >> 20 & 1; }  // asimddp
bool has_bf16() { return has_dot() && (getauxval(AT_HWCAP2) >> 14 & 1); }   // bf16
bool has_i8mm() { return has_bf16() && (getauxval(AT_HWCAP2) >> 13 & 1); }  // i8mm
#else
bool has_dot() { return false; }
bool has_bf16() { return false; }
bool has_i8mm() { return false; }
#endif
#endif

// The best first.
constexpr InstructionSet kSets[] = {
#ifdef OUTRIDER_X86
    {"amx", amx::kernels, has_amx},
    {"avx512_bf16", avx512_bf16::kernels, has_avx512_bf16},
    {"avx512_vnni", avx512_vnni::kernels, has_avx512_vnni},
#ifdef OUTRIDER_CHECK
    {"avx_vnni", avx_vnni::kernels, has_avx512_vnni},  // compiled for these machines
#else
    {"avx_vnni", avx_vnni::kernels, has_avx_vnni},
#endif
    {"avx2", avx2::kernels, has_avx2},
#endif
#ifdef OUTRIDER_ARM64
    {"neon_i8mm", neon_i8mm::kernels, has_i8mm},
    {"neon_bf16", neon_bf16::kernels, has_bf16},
    {"neon_dot", neon_dot::kernels, has_dot},
    {"neon", neon::kernels, [] { return true; }},  // every ARM64 has it
#endif
    {"portable", portable::kernels, [] { return true; }},
};

// Those that this machine can run; asked once, since a virtual machine is slow to answer.
const std::vector<InstructionSet>& here() {
  static const std::vector<InstructionSet> found = [] {
    std::vector<InstructionSet> sets;
    for (const InstructionSet& set : kSets)
      if (set.runs_here()) sets.push_back(set);
    return sets;
  }();
  return found;
}

}  // namespace

std::vector<std::string> supported() {
  std::vector<std::string> names;
  for (const InstructionSet& set : here()) names.emplace_back(set.name);
  return names;
}

const Kernels& kernels_named(const std::string& name) {
  std::string known;
  for (const InstructionSet& set : here()) {
    if (name == set.name) return set.kernels();
    known += std::string(known.empty() ? "" : ", ") + set.name;
  }
  throw std::invalid_argument("instruction_set = '" + name + "' is not what this machine can run: " + known);
}

}  // namespace outrider

#include "nodes.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace outrider {
namespace {

// What a file like "0-3,8" lists; nothing where there is no such file.
std::vector<int> listed(const std::string& file) {
  std::ifstream stream(file);
  std::vector<int> found;
  for (std::string range; std::getline(stream, range, ',');) {
    std::istringstream words(range);
    int first = 0, last = 0;
    char dash = 0;
    if (!(words >> first)) continue;
    if (!(words >> dash >> last)) last = first;
    for (int number = first; number <= last; ++number) found.push_back(number);
  }
  return found;
}

#if defined(__linux__)
constexpr int kMostProcessors = 1 << 13;
constexpr int kBits = 8 * sizeof(unsigned long);
constexpr int kDefault = 0, kInterleave = 3;  // policies of the system's

std::vector<int> own_processors() {
  std::vector<int> found;
  cpu_set_t* const set = CPU_ALLOC(kMostProcessors);
  const size_t size = CPU_ALLOC_SIZE(kMostProcessors);
  if (sched_getaffinity(0, size, set) == 0)
    for (int processor = 0; processor < kMostProcessors; ++processor)
      if (CPU_ISSET_S(static_cast<size_t>(processor), size, set)) found.push_back(processor);
  CPU_FREE(set);
  return found;
}

bool has_default_policy() {
  int mode = 0;
  return syscall(SYS_get_mempolicy, &mode, nullptr, 0UL, nullptr, 0UL) == 0 && mode == kDefault;
}
#endif

}  // namespace

std::vector<int> nodes_of(const std::string& folder, const std::vector<int>& processors) {
  std::vector<int> found;
  for (const int node : listed(folder + "/has_memory")) {
    const std::vector<int> local = listed(folder + "/node" + std::to_string(node) + "/cpulist");
    const auto used = [&](int processor) { return std::count(local.begin(), local.end(), processor) > 0; };
    if (std::any_of(processors.begin(), processors.end(), used)) found.push_back(node);
  }
  return found;
}

#if defined(__linux__)
const std::vector<int>& nodes() {
  static const std::vector<int> found = nodes_of("/sys/devices/system/node", own_processors());
  return found;
}

bool interleave(void* memory, size_t bytes, const std::vector<int>& nodes) {
  std::vector<unsigned long> mask;
  for (const int node : nodes) {
    const auto word = static_cast<size_t>(node / kBits);
    if (mask.size() <= word) mask.resize(word + 1);
    mask[word] |= 1UL << node % kBits;
  }
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t address = reinterpret_cast<size_t>(memory), first = (address + page - 1) / page * page;
  const size_t last = (address + bytes) / page * page;  // whole pages: what shares one belongs to others, too
  if (first >= last) return true;
  const unsigned long bits = mask.size() * kBits + 1;  // the system takes one off
  return syscall(SYS_mbind, first, last - first, kInterleave, mask.data(), bits, 0U) == 0;
}

void spread(void* memory, size_t bytes) {
  if (nodes().size() > 1 && has_default_policy()) interleave(memory, bytes, nodes());
}
#else
const std::vector<int>& nodes() {
  static const std::vector<int> none;
  return none;
}
bool interleave(void*, size_t, const std::vector<int>&) { return false; }
void spread(void*, size_t) {}
#endif

}  // namespace outrider

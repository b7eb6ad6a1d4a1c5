// Machines whose memory lies in parts, each near some of the processors: NUMA nodes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace outrider {

// The nodes that have memory and one of these processors, in order. folder: as /sys/devices/system/node is; without
// it, or without such nodes, there are none.
std::vector<int> nodes_of(const std::string& folder, const std::vector<int>& processors);

// The nodes whose processors this process may use. They are looked for once. None where the system has no such thing.
const std::vector<int>& nodes();

// Has the pages of this memory that nobody has touched yet come from these nodes in turn. False where the system
// refuses it; the memory may be used all the same.
bool interleave(void* memory, size_t bytes, const std::vector<int>& nodes);

// The same over all of `nodes()`, if there are several and nobody has said otherwise (`numactl`). What all threads
// read, in tasks that any of them takes, is read at the speed of all nodes then, wherever the threads run.
void spread(void* memory, size_t bytes);

}  // namespace outrider

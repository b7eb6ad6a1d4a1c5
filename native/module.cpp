// The Python module. Everything that comes from outside is checked in its bindings or in `Graph`; errors name the
// argument.
#include "bindings.h"
#include "instruction_sets.h"
#include "nodes.h"

namespace outrider {

NB_MODULE(_native, m) {
  // An engine that lives as long as the interpreter is nothing to warn of.
  nb::set_leak_warnings(false);
  m.doc() = "Row-invariant CPU kernels, and programs of them.";
  m.def("instruction_sets", supported, "What this machine can run, the best first.");
  m.def("nodes", nodes, "The NUMA nodes whose processors this process may use.");
  m.def("nodes_of", nodes_of, "folder"_a, "processors"_a,
        "The NUMA nodes that have memory and one of these processors. folder: as /sys/devices/system/node is.");
  m.def("interleave", [](const Array& array, const std::vector<int>& nodes) {
          return interleave(array.data(), array.nbytes(), nodes);
        }, "array"_a, "nodes"_a,
        "Has untouched pages of the array come from these nodes in turn; False where the system refuses it.");
  m.def("spread", [](const Array& array) { spread(array.data(), array.nbytes()); }, "array"_a,
        "`interleave` over `nodes`, where there are several and `numactl` has not said otherwise.");
  bind_program(m);
  bind_matrix(m);
  bind_sample(m);
  bind_draft(m);
  bind_suffix(m);
}

}  // namespace outrider

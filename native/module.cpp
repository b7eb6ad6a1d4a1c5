// The Python module. Everything that comes from outside is checked in its bindings or in `Graph`; errors name the
// argument.
#include "bindings.h"
#include "instruction_sets.h"

namespace outrider {

NB_MODULE(_native, m) {
  // An engine that lives as long as the interpreter is nothing to warn of.
  nb::set_leak_warnings(false);
  m.doc() = "Row-invariant CPU kernels, and programs of them.";
  m.def("instruction_sets", supported, "What this machine can run, the best first.");
  bind_program(m);
  bind_matrix(m);
  bind_sample(m);
  bind_draft(m);
  bind_suffix(m);
}

}  // namespace outrider

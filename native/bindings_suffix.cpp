// What Python sees of texts that occurred before.
#include <nanobind/stl/tuple.h>

#include "bindings.h"
#include "suffix.h"

namespace outrider {
namespace {

void check(const std::vector<int32_t>& tokens, const char* name) {
  for (const int32_t token : tokens)
    if (token < 0) refuse(std::string(name) + " holds " + std::to_string(token) + "; a token is at least 0");
}

}  // namespace

void bind_suffix(nb::module_& m) {
  nb::class_<SuffixAutomaton>(m, "SuffixAutomaton", "What followed any string of some texts, and how often.")
      .def(nb::init<>())
      .def_ro_static("MOST_PER_TOKEN", &SuffixAutomaton::kMostPerToken, "Bytes that a token takes at most.")
      .def_ro_static("BESIDES", &SuffixAutomaton::kBesides, "Bytes that it takes at most besides.")
      .def_prop_ro("bytes", &SuffixAutomaton::bytes, "The memory that it takes.")
      .def("add", [](SuffixAutomaton& self, const std::vector<int32_t>& tokens) {
             check(tokens, "tokens");
             for (const int32_t token : tokens) self.add(token);
             self.end();
           }, "tokens"_a, "Add a whole text.")
      .def("texts", &SuffixAutomaton::texts, "The texts, as they were added; one that begins another is left out.")
      .def("clear", &SuffixAutomaton::clear, "Forget all texts, and give their memory back.");

  nb::class_<SuffixText>(m, "SuffixText", "A text as it grows, and where it stands in others that are known.")
      .def(nb::init<>())
      .def_prop_ro("bytes", &SuffixText::bytes, "The memory that it takes, without the others.")
      .def("add", [](SuffixText& self, const std::vector<int32_t>& tokens) {
             check(tokens, "tokens");
             self.add(tokens);
           }, "tokens"_a, "Add tokens to the text.")
      .def("watch", &SuffixText::watch, "others"_a, "recent"_a,
           "Match these automata from now on, and no others. recent: the end of the text as it is.")
      .def("follow", [](const SuffixText& self, const std::vector<int32_t>& after, int length, uint32_t least,
                        uint32_t longest, bool siblings) {
             check(after, "after");
             Continuation found = self.follow(after, length, least, longest, siblings);
             return std::tuple(std::move(found.tokens), std::move(found.confidences), std::move(found.seconds));
           }, "after"_a, "length"_a, "least"_a, "longest"_a, "siblings"_a,
           "What followed the longest end that was seen before, of the text with the tokens `after` behind it: up to\n"
           "`length` tokens, each where at least `least` before it match. Returns the tokens, how sure each is, which\n"
           "grows with what matches up to `longest` tokens, and what else might stand there, or -1.");
}

}  // namespace outrider

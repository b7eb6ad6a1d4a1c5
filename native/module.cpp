// The Python module. Everything that comes from outside is checked here or in `Program`; errors name the
// argument.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <initializer_list>
#include <mutex>
#include <stdexcept>

#include "instruction_sets.h"
#include "matrix.h"
#include "program.h"
#include "sample.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace outrider {
namespace {

using Array = nb::ndarray<nb::device::cpu>;
using Input = nb::ndarray<nb::ro, nb::device::cpu>;

constexpr nb::dlpack::dtype kBf16{static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat), 16, 1};
constexpr nb::dlpack::dtype kF16{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};

std::string name_of(nb::dlpack::dtype t) {
  if (t == nb::dtype<float>()) return "float32";
  if (t == kF16) return "float16";
  if (t == kBf16) return "bfloat16";
  if (t == nb::dtype<uint8_t>()) return "uint8";
  if (t == nb::dtype<int64_t>()) return "int64";
  return "another type (code " + std::to_string(t.code) + ", " + std::to_string(t.bits) + " bits)";
}

// The data of an array that has to be C-contiguous, aligned, of this type and shape; -1 is any size.
template <typename A>
auto* checked(const A& a, const std::string& name, nb::dlpack::dtype type,
              std::initializer_list<int64_t> shape) {
  if (a.dtype() != type)
    throw nb::type_error((name + " is " + name_of(a.dtype()) + "; it has to be " + name_of(type)).c_str());
  std::string found = "(", wanted = "(";
  for (size_t i = 0; i < a.ndim(); ++i) found += (i ? ", " : "") + std::to_string(a.shape(i));
  bool same = a.ndim() == shape.size();
  size_t i = 0;
  for (const int64_t n : shape) {
    wanted += (i ? ", " : "") + (n < 0 ? std::string("any") : std::to_string(n));
    same = same && (n < 0 || static_cast<int64_t>(a.shape(i)) == n);
    ++i;
  }
  if (!same) refuse(name + " has shape " + found + "); it has to be " + wanted + ")");
  int64_t stride = 1;
  for (size_t axis = a.ndim(); axis-- > 0 && a.size() > 0; stride *= static_cast<int64_t>(a.shape(axis)))
    if (a.shape(axis) > 1 && a.stride(axis) != stride) refuse(name + " has to be C-contiguous");
  const int bytes = type.bits / 8;
  if (reinterpret_cast<uintptr_t>(a.data()) % bytes)
    refuse(name + " is not aligned to its " + std::to_string(bytes) + "-byte elements");
  return a.data();
}

// The sizes of arrays. Kernels count the bytes of 16 outputs in an int: hence fewer inputs.
constexpr int kMostBits = 30, kMostInputBits = 24;

int size_of(size_t n, const std::string& name, const char* what, int bits = kMostBits) {
  if (n < 1 || n > size_t{1} << bits)
    refuse(name + " has " + std::to_string(n) + " " + what + "; 1 to 2^" + std::to_string(bits) +
           " are possible");
  return static_cast<int>(n);
}

void check_presence(const std::string& name, bool present, bool wanted) {
  if (present != wanted) refuse(name + (wanted ? ": this format needs them" : ": this format has none"));
}

std::shared_ptr<Matrix> make_matrix(const std::string& format_name, const Input& values,
                                    const std::optional<Input>& scales, const std::optional<Input>& mins,
                                    const std::optional<Input>& bias) {
  const Format format = format_named(format_name);
  const bool floats = format == Format::kFloat32, halves = format == Format::kBfloat16;
  const auto type = floats ? nb::dtype<float>() : halves ? kBf16 : nb::dtype<uint8_t>();
  const void* data = checked(values, "values", type, {-1, -1});
  Parts parts{size_of(values.shape(0), "values", "rows"),
              size_of(values.shape(1), "values", "columns", kMostInputBits)};
  const int64_t rows = parts.outputs, groups = round_up(parts.inputs, kGroup) / kGroup;
  const bool has_mins = format == Format::kInt4Min, has_scales = !floats && !halves;
  check_presence("scales", scales.has_value(), has_scales);
  check_presence("mins", mins.has_value(), has_mins);
  if (floats) parts.floats = static_cast<const float*>(data);
  if (halves) parts.halves = static_cast<const uint16_t*>(data);
  if (has_scales) parts.codes = static_cast<const uint8_t*>(data);
  if (format == Format::kInt8Channel) {
    parts.floats = static_cast<const float*>(checked(*scales, "scales", nb::dtype<float>(), {rows}));
  } else if (has_scales) {
    parts.scales = static_cast<const uint16_t*>(checked(*scales, "scales", kF16, {rows, groups}));
  }
  if (has_mins) parts.mins = static_cast<const uint16_t*>(checked(*mins, "mins", kF16, {rows, groups}));
  if (bias) parts.bias = static_cast<const float*>(checked(*bias, "bias", nb::dtype<float>(), {rows}));
  const nb::gil_scoped_release release;
  return std::make_shared<Matrix>(format, parts);
}

nb::ndarray<nb::numpy, float> new_floats(size_t rows, size_t columns) {
  auto* data = new float[rows * columns];
  const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return nb::ndarray<nb::numpy, float>(data, {rows, columns}, owner);
}

// Rows of logits to choose from.
struct Rows {
  Rows(const Input& logits, int64_t wanted, const std::string& instruction_set)
      : data(static_cast<const float*>(checked(logits, "logits", nb::dtype<float>(), {wanted, -1}))),
        count(logits.shape(0)), vocab(size_of(logits.shape(1), "logits", "columns")),
        kernels(kernels_named(instruction_set)) {}
  const float* row(size_t i) const { return data + i * static_cast<size_t>(vocab); }

  const float* data;
  size_t count;
  int vocab;
  const Kernels& kernels;
  const DefaultFloats default_floats;
};

Filters filters_of(float temperature, double min_p, int top_k, double top_p) {
  if (!(temperature > 0 && std::isfinite(temperature)))
    refuse(named("temperature", temperature) + " has to be above 0 and finite");
  if (!(min_p >= 0 && min_p <= 1)) refuse(named("min_p", min_p) + " has to be 0 to 1");
  if (top_k < 0) refuse(named("top_k", top_k) + " has to be at least 0");
  if (!(top_p > 0 && top_p <= 1)) refuse(named("top_p", top_p) + " has to be above 0 and at most 1");
  return {temperature, min_p, top_k, top_p};
}

// A program and the arrays that it writes to.
class Recorder {
 public:
  Recorder(std::shared_ptr<Threads> threads, const std::string& instruction_set,
           std::optional<std::vector<int>> shape, std::vector<float> inv_freq, float attention_factor)
      : program_(std::move(threads), kernels_named(instruction_set), shape_of(shape), std::move(inv_freq),
                 attention_factor) {}

  Program& program() { return program_; }

  CacheView cache(const Array& keys, const Array& values) {
    const Shape& s = program_.shape();
    const bool bf16 = keys.dtype() == kBf16;
    const auto type = bf16 ? kBf16 : nb::dtype<float>();
    void* k = checked(keys, "keys", type, {-1, s.kv_heads, s.head_dim, -1});
    const int blocks = size_of(keys.shape(0), "keys", "blocks");
    const int block_size = size_of(keys.shape(3), "keys", "positions a block");
    void* v = checked(values, "values", type, {blocks, s.kv_heads, block_size, s.head_dim});
    arrays_.push_back(keys);
    arrays_.push_back(values);
    return {k, v, bf16, blocks, block_size, s.kv_heads, s.head_dim};
  }

  nb::ndarray<nb::numpy, float> run(const std::vector<int32_t>& tokens, const std::vector<int>& starts,
                                    const std::vector<int>& rows, std::vector<std::vector<int32_t>> tables,
                                    const std::vector<int>& logit_rows, const std::optional<Input>& input,
                                    const std::optional<Array>& kept) {
    const std::unique_lock running(running_, std::try_to_lock);
    if (!running) throw std::runtime_error("the program is already running, on another thread");
    if (rows.size() != starts.size() || tables.size() != starts.size() || logit_rows.size() != starts.size())
      refuse("starts, rows, tables and logit_rows have to be of one length");
    std::vector<Span> spans;
    for (size_t i = 0; i < starts.size(); ++i)
      spans.push_back({starts[i], rows[i], std::move(tables[i]), logit_rows[i]});
    const int count = program_.prepare(tokens, std::move(spans));
    const auto width = program_.input_width();
    if (input.has_value() != width.has_value())
      refuse(std::string("input: the program ") + (width ? "needs one" : "takes none"));
    const void* x = nullptr;
    if (input)
      x = checked(*input, "input", nb::dtype<float>(), {static_cast<int64_t>(tokens.size()), *width});
    if (kept.has_value() != (program_.kept_width() > 0))
      refuse(std::string("kept: the program ") + (kept ? "keeps nothing" : "needs room for what it keeps"));
    void* k = nullptr;
    if (kept) k = checked(*kept, "kept", nb::dtype<float>(), {program_.kept_rows(), program_.kept_width()});
    auto out = new_floats(static_cast<size_t>(count), static_cast<size_t>(program_.output_width()));
    const nb::gil_scoped_release release;
    program_.run(static_cast<const float*>(x), out.data(), static_cast<float*>(k));
    return out;
  }

 private:
  static std::optional<Shape> shape_of(const std::optional<std::vector<int>>& s) {
    if (!s) return std::nullopt;
    if (s->size() != 4) refuse("shape has to be (heads, kv_heads, head_dim, window)");
    return Shape{(*s)[0], (*s)[1], (*s)[2], (*s)[3]};
  }

  Program program_;
  std::mutex running_;
  std::vector<Array> arrays_;
};

NB_MODULE(_native, m) {
  // An engine that lives as long as the interpreter is nothing to warn of.
  nb::set_leak_warnings(false);
  m.doc() = "Row-invariant CPU kernels, and programs of them.";
  m.def("instruction_sets", supported, "What this machine can run, the best first.");

  nb::class_<Threads>(m, "Threads", "Threads that run programs; may be shared by several.")
      .def("__init__", [](Threads* self, int count) {
             if (count < 1 || count > 1024)
               refuse(named("count", count) + " has to be 1 to 1024");
             new (self) Threads(count);
           }, "count"_a)
      .def_prop_ro("count", &Threads::count)
      .def("check_process", &Threads::check_process,
           "Raises RuntimeError in a process that is a fork of the one that started the threads.");

  nb::class_<Matrix>(m, "Matrix", "A packed weight [outputs, inputs].")
      .def_static("pack", make_matrix, "format"_a, "values"_a, "scales"_a = nb::none(), "mins"_a = nb::none(),
                  "bias"_a = nb::none())
      .def_prop_ro("outputs", [](const Matrix& w) { return w.view().outputs; })
      .def_prop_ro("inputs", &Matrix::inputs)
      .def_prop_ro("format", [](const Matrix& w) { return name_of(w.view().format); })
      .def_prop_ro("nbytes", &Matrix::bytes);

  nb::class_<Recorder>(m, "Program", "Operations recorded once, run in one call.")
      .def(nb::init<std::shared_ptr<Threads>, const std::string&, std::optional<std::vector<int>>,
                    std::vector<float>, float>(),
           "threads"_a, "instruction_set"_a, "shape"_a = nb::none(), "inv_freq"_a = std::vector<float>(),
           "attention_factor"_a = 1.0f)
      .def("input", [](Recorder& r, int width) { return r.program().input(width); }, "width"_a)
      .def("embed", [](Recorder& r, std::shared_ptr<Matrix> table) {
             return r.program().embed(std::move(table));
           }, "table"_a)
      .def("rms_norm", [](Recorder& r, int x, const Input& weight, float eps) {
             const void* data = checked(weight, "weight", nb::dtype<float>(), {-1});
             const auto* first = static_cast<const float*>(data);
             return r.program().rms_norm(x, std::vector<float>(first, first + weight.shape(0)), eps);
           }, "x"_a, "weight"_a, "eps"_a)
      .def("linear", [](Recorder& r, int x, const std::vector<std::shared_ptr<Matrix>>& weights,
                        std::optional<int> residual) {
             return r.program().linear(x, {weights.begin(), weights.end()}, residual);
           }, "x"_a, "weights"_a, "residual"_a = nb::none())
      .def("gated", [](Recorder& r, int x, std::shared_ptr<Matrix> gate, std::shared_ptr<Matrix> up) {
             return r.program().gated(x, std::move(gate), std::move(up));
           }, "x"_a, "gate"_a, "up"_a)
      .def("rotate_and_store", [](Recorder& r, int qkv, const Array& keys, const Array& values) {
             return r.program().rotate_and_store(qkv, r.cache(keys, values));
           }, "qkv"_a, "keys"_a, "values"_a)
      .def("attend", [](Recorder& r, int q, const Array& keys, const Array& values) {
             return r.program().attend(q, r.cache(keys, values));
           }, "q"_a, "keys"_a, "values"_a)
      .def("select_logit_rows", [](Recorder& r, int x) { return r.program().select_logit_rows(x); }, "x"_a)
      .def("keep", [](Recorder& r, int x) { r.program().keep(x); }, "x"_a)
      .def_prop_ro("kept_width", [](Recorder& r) { return r.program().kept_width(); })
      .def_prop_ro("keeps_logit_rows", [](Recorder& r) { return r.program().keeps_logit_rows(); })
      .def("output", [](Recorder& r, int x) { r.program().output(x); }, "x"_a)
      .def("run", &Recorder::run, "tokens"_a, "starts"_a, "rows"_a, "tables"_a, "logit_rows"_a,
           "input"_a = nb::none(), "kept"_a = nb::none(),
           "Run the recorded operations for the spans; float32 [output rows, width]. kept: where to write what\n"
           "the program keeps, float32 [rows, sum of widths]. Raises RuntimeError while another thread runs the\n"
           "same program.");

  m.def("largest", [](const Input& logits, const std::string& instruction_set) {
          const Rows rows(logits, -1, instruction_set);
          std::vector<int> tokens(rows.count);
          const nb::gil_scoped_release release;
          for (size_t i = 0; i < rows.count; ++i) tokens[i] = largest(rows.kernels, rows.row(i), rows.vocab);
          return tokens;
        }, "logits"_a, "instruction_set"_a,
        "The first of the largest logits of each row; -1 where none can be chosen (NaN, +inf, or all -inf).");
  m.def("confidences", [](const Input& logits, const std::string& instruction_set) {
          const Rows rows(logits, -1, instruction_set);
          std::vector<double> shares(rows.count);
          const nb::gil_scoped_release release;
          for (size_t i = 0; i < rows.count; ++i)
            shares[i] = confidence(rows.kernels, rows.row(i), rows.vocab);
          return shares;
        }, "logits"_a, "instruction_set"_a,
        "The probability of the likeliest token of each row; 0 where none can be chosen.");
  m.def("filtered", [](const Input& logits, float temperature, double min_p, int top_k, double top_p,
                       const std::string& instruction_set) {
          const Rows rows(logits, -1, instruction_set);
          const Filters filters = filters_of(temperature, min_p, top_k, top_p);
          auto scores = new_floats(rows.count, static_cast<size_t>(rows.vocab));
          const nb::gil_scoped_release release;
          for (size_t i = 0; i < rows.count; ++i)
            filtered(rows.kernels, rows.row(i), rows.vocab, filters, scores.data() + i * rows.vocab);
          return scores;
        }, "logits"_a, "temperature"_a, "min_p"_a, "top_k"_a, "top_p"_a, "instruction_set"_a,
        "Log-probabilities up to a constant, -inf where filtered; NaN where no token can be chosen.");
  m.def("choose", [](const Input& logits, const std::vector<uint64_t>& keys, const std::optional<Input>& ids,
                     float temperature, double min_p, int top_k, double top_p,
                     const std::string& instruction_set) {
          const Rows rows(logits, static_cast<int64_t>(keys.size()), instruction_set);
          const auto tokens_of = ids ? static_cast<const int64_t*>(checked(*ids, "ids", nb::dtype<int64_t>(),
                                                                           {rows.vocab}))
                                     : nullptr;
          const Filters filters = filters_of(temperature, min_p, top_k, top_p);
          const auto scratch = aligned<float>(static_cast<size_t>(rows.vocab));
          std::vector<int> tokens(rows.count);
          const nb::gil_scoped_release release;
          for (size_t i = 0; i < rows.count; ++i)
            tokens[i] = choose(rows.kernels, rows.row(i), rows.vocab, filters, keys[i], tokens_of, scratch.get());
          return tokens;
        }, "logits"_a, "keys"_a, "ids"_a.none(), "temperature"_a, "min_p"_a, "top_k"_a, "top_p"_a,
        "instruction_set"_a,
        "The place in each row that the Gumbel-max trick chooses with counter-based noise, -1 where there is\n"
        "none. ids: int64 [vocab], whose token's noise each place gets; None: its own.");
}

}  // namespace
}  // namespace outrider

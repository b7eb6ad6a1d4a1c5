// Matrices, as Python makes them.
#include "bindings.h"
#include "instruction_sets.h"
#include "matrix.h"

namespace outrider {
namespace {

// Stored rows, and which of them each output has; None: all, as they are.
using Part = std::pair<Input, std::optional<Input>>;
using Names = std::vector<std::string>;

std::vector<int32_t> numbers(const Input& array, const std::string& name, int64_t count, int64_t below) {
  const auto* first = static_cast<const int32_t*>(checked(array, name, nb::dtype<int32_t>(), {count}));
  std::vector<int32_t> values(first, first + array.shape(0));
  for (const int32_t value : values)
    if (value < 0 || value >= below)
      refuse(name + " holds " + std::to_string(value) + "; it has to be 0 to " + std::to_string(below - 1));
  return values;
}

// Appends where the row of each output of a part begins.
void add_rows(const Part& part, const std::string& name, Format format, int inputs, std::vector<Row>& rows) {
  const Layout& layout = layout_of(format);
  const auto& [data, order] = part;
  if (data.dtype() != nb::dtype<uint8_t>())
    throw nb::type_error((name + " is " + name_of(data.dtype()) + "; it has to be uint8").c_str());
  if (data.ndim() != 2) refuse(name + " has " + std::to_string(data.ndim()) + " dimensions; it has to have 2");
  const int stored = size_of(data.shape(0), name, "rows");
  if (const size_t bytes = layout.row_bytes(inputs); data.shape(1) != bytes)
    refuse(name + " has rows of " + std::to_string(data.shape(1)) + " bytes; " + layout.name + " of " +
           std::to_string(inputs) + " inputs has " + std::to_string(bytes));
  if (data.shape(1) > 1 && data.stride(1) != 1) refuse(name + " has rows that are not contiguous");
  const auto* first = static_cast<const uint8_t*>(data.data());
  const auto row = [&](int i) { return Row{first + data.stride(0) * i, format}; };
  if (order) {
    for (const int32_t i : numbers(*order, "order of " + name, -1, stored)) rows.push_back(row(i));
  } else {
    for (int i = 0; i < stored; ++i) rows.push_back(row(i));
  }
}

std::vector<int32_t> permutation(const Input& array, int inputs) {
  std::vector<int32_t> columns = numbers(array, "columns", inputs, inputs);
  std::vector<bool> seen(columns.size());
  for (const int32_t column : columns) {
    if (seen[static_cast<size_t>(column)])
      refuse("columns holds " + std::to_string(column) + " twice; each input has to be there once");
    seen[static_cast<size_t>(column)] = true;
  }
  return columns;
}

// How many of what a matrix has, as an argument says it.
int checked_size(int64_t n, const char* name, int bits) {
  if (n < 1 || n > int64_t{1} << bits) refuse(named(name, n) + " has to be 1 to 2^" + std::to_string(bits));
  return static_cast<int>(n);
}

std::shared_ptr<Matrix> pack(Threads& threads, const std::string& format, const std::vector<Part>& weights,
                             int64_t inputs, const std::optional<Input>& columns,
                             const std::optional<Input>& bias, const std::optional<Names>& stored) {
  if (stored && stored->size() != weights.size())
    refuse("stored has " + std::to_string(stored->size()) + " formats; parts has " + std::to_string(weights.size()));
  Parts parts{.format = format_named(format),
              .inputs = checked_size(inputs, "inputs", kMostInputBits),
              .rows = {},
              .bias = {},
              .columns = {}};
  for (size_t i = 0; i < weights.size(); ++i) {
    const Format from = stored ? format_named((*stored)[i]) : parts.format;
    if (from != parts.format && !is_made(parts.format)) refuse("format = '" + format + "': nothing is turned into it");
    add_rows(weights[i], "part " + std::to_string(i), from, parts.inputs, parts.rows);
  }
  const int outputs = size_of(parts.rows.size(), "parts", "outputs");
  if (columns) parts.columns = permutation(*columns, parts.inputs);
  if (bias) {
    const auto* first = static_cast<const float*>(checked(*bias, "bias", nb::dtype<float>(), {outputs}));
    parts.bias.assign(first, first + outputs);
  }
  const nb::gil_scoped_release release;
  return std::make_shared<Matrix>(threads, std::move(parts));
}

size_t packed_bytes(const std::string& format, int64_t outputs, int64_t inputs) {
  return Matrix::bytes_of(format_named(format), checked_size(outputs, "outputs", kMostBits),
                          checked_size(inputs, "inputs", kMostInputBits));
}

auto dequantize(const Matrix& matrix) {
  const MatrixView& view = matrix.view();
  const auto inputs = static_cast<size_t>(view.inputs);
  auto values = new_floats(static_cast<size_t>(view.outputs), inputs);
  const nb::gil_scoped_release release;
  const Kernels& kernels = kernels_named(supported().front());
  for (int i = 0; i < view.outputs; ++i)
    kernels.weight_row(view, i, values.data() + inputs * static_cast<size_t>(i));
  return values;
}

std::vector<std::string> formats() {
  std::vector<std::string> names;
  for (const Layout& layout : kLayouts) names.emplace_back(layout.name);
  return names;
}

}  // namespace

void bind_matrix(nb::module_& m) {
  m.def("formats", formats, "The names of the formats of weights.");

  nb::class_<Matrix>(m, "Matrix", "A packed weight [outputs, inputs].")
      .def_static("pack", pack, "threads"_a, "format"_a, "parts"_a, "inputs"_a, "columns"_a = nb::none(),
                  "bias"_a = nb::none(), "stored"_a = nb::none(),
                  "The matrix of weights one below the other, packed by `threads` from rows as files have them.\n"
                  "parts: uint8 [rows, bytes of a row] each, with int32 [outputs], the row of each output, or\n"
                  "None. columns: int32 [inputs], the input that each column of a row is multiplied with. bias:\n"
                  "float32 [outputs]. stored: the format of each part, which is turned into `format` if it is\n"
                  "another; None: all have that.")
      .def_static("bytes_of", packed_bytes, "format"_a, "outputs"_a, "inputs"_a,
                  "What `nbytes` of such a matrix will be.")
      .def("dequantize", dequantize, "float32 [outputs, inputs].")
      .def_prop_ro("outputs", [](const Matrix& w) { return w.view().outputs; })
      .def_prop_ro("inputs", [](const Matrix& w) { return w.view().inputs; })
      .def_prop_ro("format", [](const Matrix& w) { return w.view().layout().name; })
      .def_prop_ro("nbytes", &Matrix::bytes);
}

}  // namespace outrider

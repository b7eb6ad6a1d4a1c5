// One linear layer, again and again, for counting its instructions: linear SET FORMAT ROWS TIMES. The activations
// are prepared each time, as in a pass.
#include <cstdio>
#include <cstdlib>
#include <random>

#include "instruction_sets.h"
#include "matrix.h"

int main(int argc, char** argv) {
  using namespace outrider;
  constexpr int kOutputs = 1536, kInputs = 1536;
  if (argc != 5) {
    std::fprintf(stderr, "linear SET FORMAT ROWS TIMES\n");
    return 2;
  }
  const Kernels& kernels = kernels_named(argv[1]);
  const Format format = format_named(argv[2]);
  const int rows = std::atoi(argv[3]), times = std::atoi(argv[4]);
  const Layout& layout = layout_of(format);
  std::mt19937 random;
  std::vector<uint8_t> data(kOutputs * layout.row_bytes(kInputs));
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random() % 64);  // scales are small numbers
  Parts parts{format, kInputs, {}, {}, {}};
  for (int o = 0; o < kOutputs; ++o) parts.rows.push_back({data.data() + layout.row_bytes(kInputs) * static_cast<size_t>(o), parts.format});
  Threads threads(1);
  const Matrix weight(threads, std::move(parts));
  const size_t units = static_cast<size_t>(units_of(layout.form, kInputs));
  const auto prepared = aligned<uint32_t>(units * static_cast<size_t>(rows));
  std::vector<float> x(kInputs, 0.5f), scratch(kInputs), y(static_cast<size_t>(rows) * kOutputs);
  const RowStrips strips(rows, kernels.max_rows[static_cast<int>(layout.form)]);
  for (int time = 0; time < times; ++time) {
    for (int row = 0; row < rows; ++row) {
      const int strip = strips.of(row), first = strips.first(strip);
      kernels.prepare(layout.form, {x.data(), kInputs, nullptr, 0, nullptr}, scratch.data(),
                      {prepared.get() + units * static_cast<size_t>(first), strips.size(strip), row - first});
    }
    kernels.linear(weight.view(), {0, weight.view().panels()}, prepared.get(), rows, {y.data(), kOutputs});
  }
}

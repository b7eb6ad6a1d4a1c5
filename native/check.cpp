// Checks the kernels of every instruction set that the machine has, without Python: against double precision,
// and bit for bit that a row is the same in any batch. For machines that are only emulated.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>

#include "instruction_sets.h"
#include "program.h"

namespace outrider {
namespace {

constexpr int kRows = 17;

using Values = std::vector<float>;
using Random = std::mt19937;

int failures = 0;

void expect(bool holds, const std::string& what) {
  if (!holds) std::printf("FAILED: %s\n", what.c_str());
  failures += !holds;
}

Values uniform(Random& random, size_t count) {  // -1 to 1, the same on every machine
  Values values(count);
  for (float& value : values) value = static_cast<float>(random()) * 0x1p-31f - 1;
  return values;
}

uint16_t to_bfloat16(float x) {  // to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float from_bfloat16(uint16_t x) {
  const uint32_t bits = uint32_t{x} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

double from_float16(uint16_t x) { return std::ldexp(1024 + (x & 1023), (x >> 10) - 25); }  // above 0, normal

// A random weight, and what it is in double precision.
struct Weight {
  std::shared_ptr<const Matrix> packed;
  std::vector<double> exact;  // [outputs, inputs]

  Weight(Format format, int outputs, int inputs, Random& random)
      : exact(static_cast<size_t>(outputs * inputs)) {
    const int groups = round_up(inputs, kGroup) / kGroup;
    const Values floats = uniform(random, exact.size());  // the scales too, of a format with one an output
    std::vector<uint16_t> halves, scales, mins;
    std::vector<uint8_t> codes;
    for (const float x : floats) halves.push_back(to_bfloat16(x));
    const bool four_bits = format == Format::kInt4 || format == Format::kInt4Min;
    for (size_t i = 0; i < exact.size(); ++i)
      codes.push_back(static_cast<uint8_t>(random() & (four_bits ? 15 : 255)));
    for (int i = 0; i < outputs * groups; ++i) {  // 2^-7 to 2^-5
      scales.push_back(static_cast<uint16_t>(8 << 10 | (random() & 2047)));
      mins.push_back(static_cast<uint16_t>(8 << 10 | (random() & 2047)));
    }
    for (int o = 0; o < outputs; ++o) {
      for (int k = 0; k < inputs; ++k) {
        const auto i = static_cast<size_t>(o * inputs + k), g = static_cast<size_t>(o * groups + k / kGroup);
        const double channel = floats[static_cast<size_t>(o)];
        switch (format) {
          case Format::kFloat32: exact[i] = floats[i]; break;
          case Format::kBfloat16: exact[i] = from_bfloat16(halves[i]); break;
          case Format::kInt8: exact[i] = from_float16(scales[g]) * (codes[i] - 128); break;
          case Format::kInt8Channel: exact[i] = channel * (codes[i] - 128); break;
          case Format::kInt4: exact[i] = from_float16(scales[g]) * (codes[i] - 8); break;
          case Format::kInt4Min:
            exact[i] = from_float16(scales[g]) * codes[i] + from_float16(mins[g]);
            break;
        }
      }
    }
    packed = std::make_shared<Matrix>(format, Parts{outputs, inputs, floats.data(), halves.data(),
                                                    codes.data(), scales.data(), mins.data()});
  }
};

// The activations that a format's kernel multiplies, after their rounding.
std::vector<double> as_computed(Form form, const float* x, int width) {
  std::vector<double> y(x, x + width);
  if (form == Form::kBfloat16)
    for (double& value : y) value = from_bfloat16(to_bfloat16(static_cast<float>(value)));
  for (int first = 0; form == Form::kInt8 && first < width; first += kGroup) {
    const int last = std::min(width, first + kGroup);
    float largest = 0;
    for (int i = first; i < last; ++i) largest = std::max(largest, std::fabs(x[i]));
    const double scale = largest / 127.0f;
    for (int i = first; i < last; ++i)
      y[static_cast<size_t>(i)] = std::nearbyintf(x[i] * (127.0f / largest)) * scale;
  }
  return y;
}

// The program run for rows first.. of a text whose K/V blocks are 0, 1, 2...
Values run(Program& program, const Values& x, int first, int count, int block_size) {
  const size_t width = static_cast<size_t>(*program.input_width());
  Span span{first, count, {}, 0};
  for (int block = 0; block * block_size < first + count; ++block) span.table.push_back(block);
  const int rows = program.prepare(std::vector<int32_t>(static_cast<size_t>(count)), {span});
  Values y(static_cast<size_t>(rows * program.output_width()));
  program.run(x.data() + width * static_cast<size_t>(first), y.data(), nullptr);
  return y;
}

// Cuts the text into runs of every length from 1 on, in turn, and compares them with the whole.
void expect_rows_invariant(Program& program, const Values& x, const Values& whole, int block_size,
                           const std::string& what) {
  const size_t width = static_cast<size_t>(program.output_width());
  const int length = static_cast<int>(whole.size() / width);
  for (int most = 1; most <= kRows; ++most) {
    bool same = true;
    for (int first = 0; first < length; first += most) {
      const Values part = run(program, x, first, std::min(most, length - first), block_size);
      const float* expected = whole.data() + width * static_cast<size_t>(first);
      same = same && std::memcmp(part.data(), expected, part.size() * sizeof(float)) == 0;
    }
    expect(same, what + ": rows in runs of " + std::to_string(most) + " differ from all together");
  }
}

void check_linear(const std::string& set, Format format, int outputs, int inputs, int threads) {
  const std::string what =
      set + " " + name_of(format) + " " + std::to_string(outputs) + " x " + std::to_string(inputs);
  Random random;
  const Weight weight(format, outputs, inputs, random);
  const Values x = uniform(random, static_cast<size_t>(2 * kRows * inputs));
  Program program(std::make_shared<Threads>(threads), kernels_named(set), std::nullopt, {}, 1);
  program.output(program.linear(program.input(inputs), {weight.packed}, std::nullopt));
  const Values y = run(program, x, 0, 2 * kRows, 1);
  double worst = 0;  // error, of the sum of the magnitudes that were added up
  for (int row = 0; row < 2 * kRows; ++row) {
    const std::vector<double> in = as_computed(form_of(format), x.data() + row * inputs, inputs);
    for (int o = 0; o < outputs; ++o) {
      double sum = 0, magnitude = 1e-30;
      for (int k = 0; k < inputs; ++k) {
        const double product = weight.exact[static_cast<size_t>(o * inputs + k)] * in[static_cast<size_t>(k)];
        sum += product;
        magnitude += std::fabs(product);
      }
      worst = std::fmax(worst, std::fabs(y[static_cast<size_t>(row * outputs + o)] - sum) / magnitude);
    }
  }
  expect(worst < 5e-6, what + ": relative error " + std::to_string(worst));
  expect_rows_invariant(program, x, y, 1, what);
}

void check_attention(const std::string& set, bool bfloat16, int head_dim, int window, int block_size) {
  const std::string what = set + " attention over " + (bfloat16 ? "bfloat16" : "float32") + ", head_dim " +
                           std::to_string(head_dim);
  constexpr int kHeads = 6, kKvHeads = 2, kLength = 150;
  const int width = (kHeads + 2 * kKvHeads) * head_dim, blocks = (kLength + block_size - 1) / block_size;
  Random random;
  const Values x = uniform(random, static_cast<size_t>(kLength * width));
  const Values inv_freq(static_cast<size_t>(head_dim / 2), 0.0f);  // no rotation: it is checked in Python
  std::vector<uint32_t> keys(static_cast<size_t>(blocks * block_size * kKvHeads * head_dim));
  std::vector<uint32_t> values(keys.size());
  const CacheView cache{keys.data(), values.data(), bfloat16, blocks, block_size, kKvHeads, head_dim};
  Program program(std::make_shared<Threads>(2), kernels_named(set),
                  Shape{kHeads, kKvHeads, head_dim, window}, inv_freq, 1);
  program.output(program.attend(program.rotate_and_store(program.input(width), cache), cache));
  const Values y = run(program, x, 0, kLength, block_size);
  const auto stored = [&](int row, int head, int d) {
    const float value = x[static_cast<size_t>(row * width + head * head_dim + d)];
    return static_cast<double>(bfloat16 ? from_bfloat16(to_bfloat16(value)) : value);
  };
  double worst = 0;
  for (int i = 0; i < kLength * kHeads; ++i) {
    const int row = i / kHeads, head = i % kHeads, kv = kHeads + head / (kHeads / kKvHeads);
    const float *q = x.data() + row * width + head * head_dim, *got = y.data() + i * head_dim;
    std::vector<double> sum(static_cast<size_t>(head_dim));
    double total = 0;
    for (int key = std::max(0, row - window + 1); key <= row; ++key) {
      double score = 0;
      for (int d = 0; d < head_dim; ++d) score += q[d] * stored(key, kv, d);
      const double weight = std::exp(score / std::sqrt(head_dim));
      total += weight;
      for (int d = 0; d < head_dim; ++d)
        sum[static_cast<size_t>(d)] += weight * stored(key, kv + kKvHeads, d);
    }
    for (int d = 0; d < head_dim; ++d)
      worst = std::fmax(worst, std::fabs(got[d] - sum[static_cast<size_t>(d)] / total));
  }
  expect(worst < 2e-6, what + ": error " + std::to_string(worst));
  expect_rows_invariant(program, x, y, block_size, what);
}

// Tasks that take longer than an idle thread spins: all threads have to take part to the end of the run.
void check_long_tasks() {
  constexpr int kStages = 20, kTasks = 8, kThreads = 2;
  std::atomic<int> taken[kThreads] = {};  // in the second half of the run
  Threads threads(kThreads);
  threads.run(std::vector<int>(kStages, kTasks), [&](int stage, int first, int last, int thread) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2 * (last - first)));
    if (stage >= kStages / 2) taken[thread] += last - first;
  });
  for (int thread = 0; thread < kThreads; ++thread)
    expect(taken[thread] > 0, "thread " + std::to_string(thread) + " takes no long tasks");
}

}  // namespace
}  // namespace outrider

int main() {
  using namespace outrider;
  check_long_tasks();
  for (const std::string& set : supported()) {
    for (int format = 0; format < kFormats; ++format) {
      check_linear(set, static_cast<Format>(format), 43, 80, 1);
      check_linear(set, static_cast<Format>(format), 5, 577, 2);
    }
    for (const bool bfloat16 : {false, true}) {
      check_attention(set, bfloat16, 20, 1 << 20, 5);
      check_attention(set, bfloat16, 64, 50, 16);
    }
    std::printf("%s: %s\n", set.c_str(), failures ? "failed" : "passed");
  }
  return failures != 0;
}

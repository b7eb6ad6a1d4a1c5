// Checks kernels without Python: against double precision, and bit for bit that a row is the same in any batch. For
// machines that are only emulated. `check` takes every instruction set that the machine has; `check NAME` the best,
// which has to be that one.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "instruction_sets.h"
#include "pass.h"
#include "refuse.h"

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

template <typename T>
void put(uint8_t* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

// Any bytes are a block but for its scales, which have to be sane: 2^-7 to 2^-5 in float16.
void put_scales(Format format, uint8_t* block, Random& random) {
  const auto half = [&](int at) { put(block + at, static_cast<uint16_t>(8 << 10 | (random() & 2047))); };
  switch (format) {
    case Format::kF32: return put(block, uniform(random, 1)[0]);
    case Format::kBF16: return put(block, to_bfloat16(uniform(random, 1)[0]));
    case Format::kQ8_CHANNEL: return;
    case Format::kQ4_1:
    case Format::kQ5_1:
    case Format::kQ4_K:
    case Format::kQ5_K: return half(0), half(2);
    case Format::kQ2_K: return half(80), half(82);
    case Format::kQ3_K: return half(108);
    case Format::kQ6_K: return half(208);
    case Format::kMXFP4: return put(block, static_cast<uint8_t>(120 + random() % 4));
    case Format::kF8_E4M3: return put(block, static_cast<uint8_t>(random() % 127));  // no NaN
    case Format::kF8_BLOCK:
      put(block, uniform(random, 1)[0]);
      for (int i = 4; i < 132; ++i) put(block + i, static_cast<uint8_t>(random() % 127));
      return;
    default: return half(0);
  }
}

// A random weight, and what it is worth: as the portable kernels say, which Python compares with gguf's own
// dequantisation.
struct RandomWeight {
  std::shared_ptr<const Matrix> packed;
  Values exact;  // [outputs, inputs]

  RandomWeight(Format format, int outputs, int inputs, Random& random)
      : exact(static_cast<size_t>(outputs * inputs)) {
    const Layout& layout = layout_of(format);
    const size_t bytes = layout.row_bytes(inputs), size = static_cast<size_t>(layout.size);
    std::vector<uint8_t> data(bytes * static_cast<size_t>(outputs));
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
    Parts parts{format, inputs, {}, {}, {}};
    for (int o = 0; o < outputs; ++o) {
      uint8_t* row = data.data() + bytes * static_cast<size_t>(o);
      if (layout.head) put(row, uniform(random, 1)[0]);
      for (size_t at = static_cast<size_t>(layout.head); at < bytes; at += size)
        put_scales(format, row + at, random);
      parts.rows.push_back({row, parts.format});
    }
    Threads threads(2);
    packed = std::make_shared<Matrix>(threads, std::move(parts));
    const Kernels& portable = kernels_named("portable");
    for (int o = 0; o < outputs; ++o) portable.weight_row(packed->view(), o, exact.data() + o * inputs);
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

// What becomes of an input.
class Program {
 public:
  Program(const std::string& set, int threads, int width, const std::function<Value(Graph&, Value)>& record) {
    const Value y = record(graph_, graph_.input(width));
    width_ = static_cast<size_t>(width);
    output_width_ = static_cast<size_t>(graph_.width(y));
    pass_.emplace(std::make_unique<Plan>(graph_, y, kernels_named(set)), std::make_shared<Threads>(threads));
  }

  size_t output_width() const { return output_width_; }

  // For rows first.. of a text whose K/V blocks are 0, 1, 2...
  Values run(const Values& x, int first, int count, int block_size) {
    std::vector<int32_t> table;
    for (int block = 0; block * block_size < first + count; ++block) table.push_back(block);
    const Span span{.start = first, .rows = count, .tables = {table}, .logit_rows = 0};
    const int rows = pass_->prepare(std::vector<int32_t>(static_cast<size_t>(count)), {span});
    Values y(static_cast<size_t>(rows) * output_width_);
    pass_->run(x.data() + width_ * static_cast<size_t>(first), y.data(), nullptr);
    return y;
  }

 private:
  Graph graph_;
  std::optional<Pass> pass_;
  size_t width_, output_width_;
};

// Cuts the text into runs of every length from 1 on, in turn, and compares them with the whole.
void expect_rows_invariant(Program& program, const Values& x, const Values& whole, int block_size,
                           const std::string& what) {
  const size_t width = program.output_width();
  const int length = static_cast<int>(whole.size() / width);
  for (int most = 1; most <= kRows; ++most) {
    bool same = true;
    for (int first = 0; first < length; first += most) {
      const Values part = program.run(x, first, std::min(most, length - first), block_size);
      const float* expected = whole.data() + width * static_cast<size_t>(first);
      same = same && std::memcmp(part.data(), expected, part.size() * sizeof(float)) == 0;
    }
    expect(same, what + ": rows in runs of " + std::to_string(most) + " differ from all together");
  }
}

// The least of this machine's instruction sets whose kernels fuse a product and a sum; portable ones do not.
std::string plainest() {
  const std::vector<std::string> sets = supported();
  return sets[sets.size() > 1 ? sets.size() - 2 : 0];
}

void check_linear(const std::string& set, Format format, int outputs, int inputs, int threads) {
  const std::string what =
      set + " " + layout_of(format).name + " " + std::to_string(outputs) + " x " + std::to_string(inputs);
  Random random;
  const RandomWeight weight(format, outputs, inputs, random);
  const Values x = uniform(random, static_cast<size_t>(2 * kRows * inputs));
  const auto record = [&](Graph& graph, Value x) {
    return graph.linear({.x = x, .weights = {weight.packed}, .residual = std::nullopt, .scale = 1});
  };
  Program program(set, threads, inputs, record);
  const Values y = program.run(x, 0, 2 * kRows, 1);
  if (layout_of(format).form == Form::kInt8) {
    const Values same = Program(plainest(), threads, inputs, record).run(x, 0, 2 * kRows, 1);
    expect(set == "portable" || std::memcmp(same.data(), y.data(), y.size() * sizeof(float)) == 0,
           what + ": not the bits of " + plainest());
  }
  double worst = 0;  // error, of the sum of the magnitudes that were added up
  for (int row = 0; row < 2 * kRows; ++row) {
    const std::vector<double> in = as_computed(layout_of(format).form, x.data() + row * inputs, inputs);
    for (int o = 0; o < outputs; ++o) {
      double sum = 0, magnitude = 1e-30;
      for (int k = 0; k < inputs; ++k) {
        const double product = double{weight.exact[static_cast<size_t>(o * inputs + k)]} * in[static_cast<size_t>(k)];
        sum += product;
        magnitude += std::fabs(product);
      }
      worst = std::fmax(worst, std::fabs(y[static_cast<size_t>(row * outputs + o)] - sum) / magnitude);
    }
  }
  expect(worst < 5e-6, what + ": relative error " + std::to_string(worst));
  expect_rows_invariant(program, x, y, 1, what);
}

std::string name_of(Stored kind) {
  return kind == Stored::kFloat32 ? "float32" : kind == Stored::kBfloat16 ? "bfloat16" : "int8";
}

// How 8 bits round is checked in Python; here, that what they make of attention is near.
void check_attention(const std::string& set, Stored kind, int head_dim, int window, int block_size) {
  const std::string what = set + " attention over " + name_of(kind) + ", head_dim " +
                           std::to_string(head_dim);
  constexpr int kHeads = 6, kKvHeads = 2, kLength = 150;
  const int width = (kHeads + 2 * kKvHeads) * head_dim, blocks = (kLength + block_size - 1) / block_size;
  Random random;
  const Values x = uniform(random, static_cast<size_t>(kLength * width));
  std::vector<uint32_t> keys(static_cast<size_t>(blocks * block_size * kKvHeads * head_dim));
  std::vector<uint32_t> values(keys.size());
  const CacheView cache{keys.data(), values.data(), kind, blocks, block_size, kKvHeads, head_dim};
  Program program(set, 2, width, [&](Graph& graph, Value x) {  // ropes, norms and caps are checked in Python
    const Attention attention{.heads = kHeads,
                              .kv_heads = kKvHeads,
                              .head_dim = head_dim,
                              .scale = 1 / std::sqrt(static_cast<float>(head_dim)),
                              .window = window};
    return graph.attend({.qkv = x, .cache = cache, .attention = attention});
  });
  const Values y = program.run(x, 0, kLength, block_size);
  const auto stored = [&](int row, int head, int d) {
    const float value = x[static_cast<size_t>(row * width + head * head_dim + d)];
    return static_cast<double>(kind == Stored::kBfloat16 ? from_bfloat16(to_bfloat16(value)) : value);
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
  expect(worst < (kind == Stored::kInt8 ? 1e-2 : 2e-6), what + ": error " + std::to_string(worst));
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

int main(int argc, char** argv) {
  using namespace outrider;
  std::vector<std::string> sets = supported();
  if (argc > 1) {
    if (sets.front() != argv[1]) {
      std::printf("FAILED: the best instruction set is %s, not %s\n", sets.front().c_str(), argv[1]);
      return 1;
    }
    sets.resize(1);
  }
  check_long_tasks();
  for (const std::string& set : sets) {
    for (int format = 0; format < kFormats; ++format) {
      check_linear(set, static_cast<Format>(format), 43, 80, 1);
      check_linear(set, static_cast<Format>(format), 5, 577, 2);
    }
    for (const Stored kind : {Stored::kFloat32, Stored::kBfloat16, Stored::kInt8}) {
      check_attention(set, kind, 20, 1 << 20, 5);
      check_attention(set, kind, 64, 50, 16);
    }
    std::printf("%s: %s\n", set.c_str(), failures ? "failed" : "passed");
  }
  return failures != 0;
}

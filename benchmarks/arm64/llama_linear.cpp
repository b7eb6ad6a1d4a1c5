// As native/linear.cpp, by llama.cpp's kernels: llama_linear FORMAT ROWS TIMES. The weight is repacked where ggml can do that.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace {

ggml_context* context(bool with_data) { return ggml_init({size_t{1} << 24, nullptr, !with_data}); }

ggml_type type_named(const char* name) {
  for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_Q4_K, GGML_TYPE_BF16})
    if (std::strcmp(ggml_type_name(type), name) == 0) return type;
  std::fprintf(stderr, "%s is not one of q4_0, q8_0, q4_K, bf16\n", name);
  std::exit(2);
}

// The first kind of memory whose kernels take the product, or the ordinary one.
ggml_backend_buffer_type_t memory_for(ggml_backend_dev_t device, ggml_tensor* weight, ggml_tensor* product) {
  const auto kinds = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
      ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
  for (ggml_backend_buffer_type_t* kind = kinds(device); kind && *kind; ++kind) {
    weight->buffer = ggml_backend_buft_alloc_buffer(*kind, 0);
    const bool taken = ggml_backend_dev_supports_op(device, product);
    ggml_backend_buffer_free(weight->buffer);
    weight->buffer = nullptr;
    if (taken) return *kind;
  }
  return ggml_backend_cpu_buffer_type();
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kOutputs = 1536, kInputs = 1536;
  if (argc != 4) {
    std::fprintf(stderr, "llama_linear FORMAT ROWS TIMES\n");
    return 2;
  }
  const ggml_type type = type_named(argv[1]);
  const int rows = std::atoi(argv[2]), times = std::atoi(argv[3]);
  ggml_backend_t cpu = ggml_backend_cpu_init();
  ggml_backend_cpu_set_n_threads(cpu, 1);
  ggml_context *weights = context(false), *others = context(false), *graphs = context(true);
  ggml_tensor* weight = ggml_new_tensor_2d(weights, type, kInputs, kOutputs);
  ggml_tensor* x = ggml_new_tensor_2d(others, GGML_TYPE_F32, kInputs, rows);
  ggml_tensor* y = ggml_mul_mat(others, weight, x);
  const ggml_backend_buffer_type_t memory = memory_for(ggml_backend_get_device(cpu), weight, y);
  std::fprintf(stderr, "%s\n", ggml_backend_buft_name(memory));
  ggml_backend_alloc_ctx_tensors_from_buft(weights, memory);
  ggml_backend_alloc_ctx_tensors(others, cpu);
  const std::vector<float> values(size_t{kInputs} * kOutputs, 0.5f), inputs(static_cast<size_t>(kInputs * rows), 0.5f);
  std::vector<char> stored(ggml_nbytes(weight));
  ggml_quantize_chunk(type, values.data(), stored.data(), 0, kOutputs, kInputs, nullptr);
  ggml_backend_tensor_set(weight, stored.data(), 0, stored.size());
  ggml_backend_tensor_set(x, inputs.data(), 0, inputs.size() * sizeof(float));
  ggml_cgraph* graph = ggml_new_graph(graphs);
  ggml_build_forward_expand(graph, y);
  for (int time = 0; time < times; ++time) ggml_backend_graph_compute(cpu, graph);
}

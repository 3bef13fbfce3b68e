// Writes a random checkpoint of the architecture that a config.json describes, for tests,
// benchmarks and the quickstart. The same seed gives the same bytes for any number of threads.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "formats/architecture.h"
#include "formats/error.h"
#include "formats/file.h"
#include "formats/float16.h"
#include "formats/json.h"
#include "formats/model_config.h"
#include "formats/safetensors.h"

namespace {

using namespace llmq::formats;  // NOLINT(google-build-using-namespace): a program of one file

struct Options {
  std::string config;
  std::string out;
  int64_t n_layers = 0;
  uint64_t seed = 1;
  double deviation = 0.02;
  std::string dtype;
  std::string tied_name = "embedding";
  int n_threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
};

uint64_t mixed(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

/// Nearly normal with mean 0 and deviation 1: the sum of four uniform 16-bit numbers, tails
/// to 3.46.
float random_normal(uint64_t key) {
  const uint64_t bits = mixed(key);
  const auto sum = static_cast<int64_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                        (bits >> 32 & 0xffff) + (bits >> 48));
  constexpr float kDeviation = 37837.2F;  // sqrt(4/12) * 65536
  return static_cast<float>(sum - 2 * 65535) / kDeviation;
}

void store(float value, DType dtype, std::byte* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, &value, 4);
    return;
  }
  const uint16_t bits = dtype == DType::kBF16 ? float_to_bf16(value) : float_to_fp16(value);
  std::memcpy(to, &bits, 2);
}

/// Fills elements [begin, end) of a tensor: norms near 1, all else around 0.
void fill(const ExpectedTensor& tensor, size_t tensor_index, const Options& options, DType dtype,
          int64_t begin, int64_t end, std::vector<std::byte>& block) {
  const bool is_norm = tensor.row->n_in == Extent::kOne && !tensor.is_bias;
  const uint64_t stream = mixed(options.seed ^ mixed(tensor_index));
  const size_t size_bytes = dtype_size_bytes(dtype);
  block.resize(static_cast<size_t>(end - begin) * size_bytes);
  for (int64_t i = begin; i < end; ++i) {
    const float value =
        random_normal(stream + static_cast<uint64_t>(i)) * static_cast<float>(options.deviation);
    store(is_norm ? 1.0F + value : value, dtype,
          block.data() + static_cast<size_t>(i - begin) * size_bytes);
  }
}

std::vector<ExpectedTensor> stored_tensors(const ModelConfig& config, const Options& options) {
  std::vector<ExpectedTensor> tensors = expected_tensors(architecture_of(config), config);
  if (!config.tie_word_embeddings || options.tied_name == "both") return tensors;
  const Role left_out = options.tied_name == "head" ? Role::kEmbedding : Role::kHead;
  std::erase_if(tensors,
                [&](const ExpectedTensor& tensor) { return tensor.row->role == left_out; });
  return tensors;
}

void write_weights(const ModelConfig& config, const Options& options, DType dtype) {
  const std::vector<ExpectedTensor> tensors = stored_tensors(config, options);
  std::vector<TensorEntry> entries;
  entries.reserve(tensors.size());
  for (const ExpectedTensor& tensor : tensors)
    entries.push_back({tensor.name, dtype, tensor.shape, 0, 0});
  assign_offsets(entries);
  const std::string header = serialize_safetensors_header(entries, {{"format", "pt"}});
  const OutputFile file(std::filesystem::path(options.out) / "model.safetensors",
                        header.size() + entries.back().end);
  file.write_at(0, std::as_bytes(std::span(header)));

  constexpr int64_t kBlockElements = 1 << 20;
  std::atomic<size_t> next_tensor{0};
  const auto work = [&] {
    std::vector<std::byte> block;
    for (size_t i = next_tensor++; i < tensors.size(); i = next_tensor++) {
      // Both names of a tied matrix hold the same values.
      const size_t stream =
          tensors[i].row->role == Role::kHead && config.tie_word_embeddings ? 0 : i;
      const int64_t n_elements = shape_elements(tensors[i].shape);
      for (int64_t begin = 0; begin < n_elements; begin += kBlockElements) {
        fill(tensors[i], stream, options, dtype, begin,
             std::min(n_elements, begin + kBlockElements), block);
        file.write_at(header.size() + entries[i].begin +
                          static_cast<uint64_t>(begin) * dtype_size_bytes(dtype),
                      block);
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < options.n_threads; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

void make_checkpoint(const Options& options) {
  std::filesystem::path config_path = options.config;
  if (std::filesystem::is_directory(config_path)) config_path /= "config.json";
  Json document = read_json_file(config_path);
  Json changes = Json::object();
  if (options.n_layers > 0) changes["num_hidden_layers"] = options.n_layers;
  if (!options.dtype.empty()) changes["torch_dtype"] = options.dtype;
  document = rewrite_config(document, changes, {});
  const ModelConfig config = parse_model_config(document, config_path.string());
  std::filesystem::create_directories(options.out);
  write_text_file(std::filesystem::path(options.out) / "config.json", document.dump(2) + "\n");
  write_weights(config, options, config.torch_dtype);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Write a random checkpoint of the architecture in a config.json");
  app.add_option("--config", options.config, "config.json or its folder")->required();
  app.add_option("--out", options.out, "folder to write")->required();
  app.add_option("--layers", options.n_layers, "decoder layers instead of the configuration's");
  app.add_option("--seed", options.seed, "random seed");
  app.add_option("--std", options.deviation, "standard deviation of the weights");
  app.add_option("--dtype", options.dtype,
                 "float16, bfloat16 or float32 instead of the configuration's");
  app.add_option("--tied-name", options.tied_name,
                 "names of a tied matrix: embedding, head or both");
  app.add_option("--threads", options.n_threads, "threads");
  CLI11_PARSE(app, argc, argv);
  try {
    make_checkpoint(options);
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}

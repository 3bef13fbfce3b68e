#include <functional>
#include <utility>

#include "tests/convert/broken_checkpoints.h"
#include "tests/convert/checkpoint_writer.h"
#include "tests/convert/cli_runner.h"

namespace llmq::test {
namespace {

namespace fs = std::filesystem;

const std::string kFile = "model.safetensors";
const std::string kIndex = "model.safetensors.index.json";
const std::string kUp = "model.layers.1.mlp.up_proj.weight";
const std::string kQ = "model.layers.0.self_attn.q_proj.weight";

void write_whole(const fs::path& folder) {
  write_checkpoint(folder, tiny_qwen2_config(), tiny_qwen2_tensors());
}

// A correct folder whose weight file holds these bytes instead.
void write_with_file(const fs::path& folder, const std::string& bytes) {
  write_whole(folder);
  write_file(folder / kFile, bytes);
}

// A correct folder whose weight file has a changed header in front of the right data.
void write_with_header(const fs::path& folder, const std::function<void(OrderedJson&)>& change) {
  const auto tensors = tiny_qwen2_tensors();
  OrderedJson header = safetensors_header(tensors);
  change(header);
  write_whole(folder);
  write_file(folder / kFile, safetensors_file(header.dump(), safetensors_data(tensors)));
}

void shift_begin(OrderedJson& entry, int64_t n_bytes) {
  entry["data_offsets"][0] = entry["data_offsets"][0].get<int64_t>() + n_bytes;
}

void write_sharded(const fs::path& folder) {
  write_sharded_checkpoint(folder, tiny_qwen2_config(), tiny_qwen2_tensors(), 10);
}

// A correct sharded folder with a changed index.
void write_with_index(const fs::path& folder, const std::function<void(OrderedJson&)>& change) {
  write_sharded(folder);
  auto index = OrderedJson::parse(read_file(folder / kIndex));
  change(index);
  write_file(folder / kIndex, index.dump());
}

std::string whole_file() {
  return safetensors_file(tiny_qwen2_tensors());
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name is GoogleTest's.
void PrintTo(const BrokenCheckpoint& broken, std::ostream* stream) {
  *stream << broken.name;
}

const std::vector<BrokenCheckpoint>& broken_files() {
  static const std::vector<BrokenCheckpoint> cases = {
      {"file_empty", [](const fs::path& folder) { write_with_file(folder, ""); }, {kFile}},
      {"file_of_seven_bytes",
       [](const fs::path& folder) { write_with_file(folder, std::string(7, '\0')); },
       {kFile}},
      {"file_cut_in_header",
       [](const fs::path& folder) { write_with_file(folder, whole_file().substr(0, 100)); },
       {kFile}},
      {"file_cut_in_data",
       [](const fs::path& folder) {
         const std::string file = whole_file();
         write_with_file(folder, file.substr(0, file.size() - 10));
       },
       {kFile}},
      {"file_with_bytes_after_its_end",
       [](const fs::path& folder) { write_with_file(folder, whole_file() + "sixteen bytes mo"); },
       {kFile}},
      {"header_length_zero",
       [](const fs::path& folder) { write_with_file(folder, le64(0) + "{}"); },
       {kFile}},
      {"header_length_2_63",
       [](const fs::path& folder) {
         write_with_file(folder, le64(uint64_t{1} << 63) + whole_file().substr(8));
       },
       {kFile}},
      {"header_length_2_64_minus_8",
       [](const fs::path& folder) {
         write_with_file(folder, le64(~uint64_t{7}) + whole_file().substr(8));
       },
       {kFile}},
      {"header_longer_than_file",
       [](const fs::path& folder) { write_with_file(folder, le64(90'000'000) + "{}"); },
       {kFile}},
      {"header_no_json",
       [](const fs::path& folder) {
         write_with_file(folder, safetensors_file("{\"a\": [1, 2", "AAAA"));
       },
       {kFile}},
      {"header_no_object",
       [](const fs::path& folder) { write_with_file(folder, safetensors_file("[1, 2]", "")); },
       {kFile}},
      {"header_deep_json",
       [](const fs::path& folder) {
         write_with_file(folder, safetensors_file("{\"a\":" + std::string(100'000, '['), ""));
       },
       {kFile}},
      {"header_invalid_utf8",
       [](const fs::path& folder) {
         write_with_file(folder, safetensors_file("{\"\xff\xfe\":{}}", ""));
       },
       {kFile}},
      {"header_tensor_twice",
       [](const fs::path& folder) {
         const std::string entry = R"("twin":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
         const std::string other = R"("twin":{"dtype":"U8","shape":[1],"data_offsets":[1,2]})";
         write_with_file(folder, safetensors_file("{" + entry + "," + other + "}", "AA"));
       },
       {kFile, "twin"}},
      {"offsets_overlap",
       [](const fs::path& folder) {
         write_with_header(folder, [](OrderedJson& header) { shift_begin(header[kUp], -16); });
       },
       {kFile, kUp}},
      {"offsets_leave_a_gap",
       [](const fs::path& folder) {
         write_with_header(folder, [](OrderedJson& header) {
           shift_begin(header[kUp], 2);
           header[kUp]["shape"] = OrderedJson::array({8191});
         });
       },
       {kFile, kUp}},
      {"offsets_out_of_order",
       [](const fs::path& folder) {
         write_with_header(folder, [](OrderedJson& header) {
           std::swap(header[kUp]["data_offsets"][0], header[kUp]["data_offsets"][1]);
         });
       },
       {kFile, kUp}},
      {"offsets_overflow",
       [](const fs::path& folder) {
         write_with_header(folder, [](OrderedJson& header) {
           header[kUp]["data_offsets"] = {18446744073709535232U, 18446744073709551615U};
         });
       },
       {kFile, kUp}},
      {"offsets_negative",
       [](const fs::path& folder) {
         write_with_header(folder, [](OrderedJson& header) {
           header[kUp]["data_offsets"] = {-16384, 0};
         });
       },
       {kFile, kUp}},
      {"shape_product_overflows",
       [](const fs::path& folder) {
         write_with_header(folder, [](OrderedJson& header) {
           header[kUp]["shape"] = {int64_t{1} << 32, int64_t{1} << 32};
         });
       },
       {kFile, kUp}},
      {"shape_negative",
       [](const fs::path& folder) {
         write_with_header(folder, [](OrderedJson& header) { header[kUp]["shape"] = {-128, -64}; });
       },
       {kFile, kUp}},
      {"shape_does_not_fill_its_bytes",
       [](const fs::path& folder) {
         write_with_header(folder, [](OrderedJson& header) { header[kUp]["shape"] = {128, 63}; });
       },
       {kFile, kUp}},
      {"dtype_unknown",
       [](const fs::path& folder) {
         write_with_header(folder, [](OrderedJson& header) { header[kUp]["dtype"] = "F7"; });
       },
       {kFile, kUp, "F7"}},
      {"no_weights",
       [](const fs::path& folder) {
         write_whole(folder);
         fs::remove(folder / kFile);
       },
       {"safetensors"}},
      {"shard_missing",
       [](const fs::path& folder) {
         write_sharded(folder);
         fs::remove(folder / "model-00002-of-00002.safetensors");
       },
       {"model-00002-of-00002.safetensors"}},
      {"index_leaves_the_folder",
       [](const fs::path& folder) {
         write_with_index(folder, [](OrderedJson& index) {
           index["weight_map"][kQ] = "../model-00001-of-00002.safetensors";
         });
       },
       {kIndex, "../model-00001-of-00002.safetensors"}},
      {"index_names_an_absolute_path",
       [](const fs::path& folder) {
         write_with_index(folder, [&](OrderedJson& index) {
           index["weight_map"][kQ] = (folder / "model-00001-of-00002.safetensors").string();
         });
       },
       {kIndex}},
      {"index_names_a_tensor_that_its_shard_lacks",
       [](const fs::path& folder) {
         write_with_index(folder, [](OrderedJson& index) {
           index["weight_map"]["model.ghost.weight"] = "model-00002-of-00002.safetensors";
         });
       },
       {"model.ghost.weight", "model-00002-of-00002.safetensors"}},
      {"index_without_weight_map",
       [](const fs::path& folder) {
         write_with_index(folder, [](OrderedJson& index) { index.erase("weight_map"); });
       },
       {kIndex, "weight_map"}},
      {"index_weight_map_of_numbers",
       [](const fs::path& folder) {
         write_with_index(folder, [](OrderedJson& index) { index["weight_map"][kQ] = 1; });
       },
       {kIndex}},
      {"index_no_json",
       [](const fs::path& folder) {
         write_sharded(folder);
         write_file(folder / kIndex, "{\"weight_map\": {");
       },
       {kIndex}},
  };
  return cases;
}

}  // namespace llmq::test

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "convert/commands/commands.h"
#include "convert/commands/folder_options.h"
#include "convert/commands/inspect_tensors.h"
#include "convert/report/table.h"
#include "convert/report/tensor_statistics.h"
#include "formats/file.h"
#include "quant/kernels/thread_team.h"
#include "runtime/tokenizer/tokenizer.h"

namespace llmq::convert {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  llmq inspect Qwen2.5-0.5B\n"
    "  llmq inspect model.safetensors --stats\n"
    "  llmq inspect Qwen2.5-0.5B --tokenize text.txt --json";

struct InspectOptions {
  std::string path;
  bool statistics = false;
  std::string text_file;
  std::string split;
};

/// Token ids of a text file: one list, or with `split` one list for each piece between the
/// splitting strings. No BOS is added and pieces are taken as they are.
formats::Json tokenize_json(const InspectOptions& options) {
  const runtime::Tokenizer tokenizer = runtime::Tokenizer::load(options.path);
  const std::string text = formats::read_text_file(options.text_file);
  if (options.split.empty()) return {{"ids", tokenizer.encode(text, {})}};
  formats::Json lists = formats::Json::array();
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(options.split, begin), text.size());
    lists.push_back(tokenizer.encode(std::string_view(text).substr(begin, end - begin), {}));
    begin = end == text.size() ? text.size() + 1 : end + options.split.size();
  }
  return {{"ids", lists}};
}

formats::Json statistics_json(const TensorStatistics& statistics) {
  formats::Json json = {{"min", statistics.min},
                        {"max", statistics.max},
                        {"mean", statistics.mean},
                        {"deviation", statistics.deviation},
                        {"zero_share", statistics.zero_share},
                        {"non_finite", statistics.n_non_finite}};
  if (statistics.entropy_bits) json["entropy_bits"] = *statistics.entropy_bits;
  return json;
}

formats::Json inspect_json(const TensorList& list, const InspectOptions& options, int n_threads) {
  formats::Json tensors = formats::Json::array();
  uint64_t total_bytes = 0;
  std::vector<TensorStatistics> statistics(list.tensors.size());
  if (options.statistics) {
    quant::ThreadTeam team(n_threads);
    team.parallel_for(static_cast<int64_t>(list.tensors.size()), [&](int64_t i, int) {
      statistics[static_cast<size_t>(i)] = value_statistics(list.tensors[static_cast<size_t>(i)]);
    });
  }
  for (size_t i = 0; i < list.tensors.size(); ++i) {
    const formats::StoredTensor& tensor = list.tensors[i].stored;
    formats::Json item = {{"name", list.tensors[i].name},
                          {"dtype", formats::dtype_name(tensor.dtype)},
                          {"shape", tensor.shape},
                          {"size_bytes", tensor.bytes.size()}};
    if (list.tensors[i].is_compressed()) item["compressed"] = compression_json(list.tensors[i]);
    if (options.statistics) item["statistics"] = statistics_json(statistics[i]);
    total_bytes += tensor.bytes.size();
    tensors.push_back(std::move(item));
  }
  return {{"path", options.path}, {"size_bytes", total_bytes}, {"tensors", tensors}};
}

/// The shape, and of a compressed weight what it holds: "[812] = [64, 32] rans".
std::string shape_text(const formats::Json& tensor) {
  std::string shape = tensor["shape"].dump();
  if (!tensor.contains("compressed")) return shape;
  const formats::Json& compressed = tensor["compressed"];
  return fmt::format("{} = {} {}", shape, compressed["shape"].dump(),
                     compressed["codec"].get<std::string>());
}

std::string inspect_text(const formats::Json& document, bool with_statistics) {
  std::vector<std::string> heading{"tensor", "dtype", "shape", "bytes"};
  if (with_statistics)
    heading.insert(heading.end(), {"min", "max", "mean", "deviation", "zeros %", "entropy bits"});
  Table table(heading);
  for (const formats::Json& tensor : document["tensors"]) {
    std::vector<std::string> cells{tensor["name"], tensor["dtype"], shape_text(tensor),
                                   fmt::to_string(tensor["size_bytes"].get<uint64_t>())};
    if (with_statistics) {
      const formats::Json& statistics = tensor["statistics"];
      for (const char* key : {"min", "max", "mean", "deviation"})
        cells.push_back(fmt::format("{:.5g}", statistics[key].get<double>()));
      cells.push_back(fmt::format("{:.2f}", 100 * statistics["zero_share"].get<double>()));
      cells.push_back(statistics.contains("entropy_bits")
                          ? fmt::format("{:.3f}", statistics["entropy_bits"].get<double>())
                          : "");
    }
    table.add(std::move(cells));
  }
  return table.text() + fmt::format("\n{} tensors, {}\n", document["tensors"].size(),
                                    bytes_text(document["size_bytes"]));
}

}  // namespace

void add_inspect_command(CLI::App& app, const ChooseAction& choose) {
  CLI::App* command = app.add_subcommand(
      "inspect", "List the tensors of a folder, of the parts of ranks, or of a safetensors file");
  auto options = std::make_shared<InspectOptions>();
  command->add_option("PATH", options->path, "Folder or .safetensors file")->required();
  command->add_flag("--stats", options->statistics,
                    "Read the values: extremes, mean, deviation, zeros, entropy of codes");
  command->add_option("--tokenize", options->text_file,
                      "Show the token ids of this text file by the folder's tokenizer");
  command->add_option("--split", options->split,
                      "Cut the text at this string and show one list a piece");
  command->footer(kFooter);
  command->callback([options, choose] {
    choose([options](Console& console, const CommonOptions& common) {
      if (!options->text_file.empty()) {
        const formats::Json ids = tokenize_json(*options);
        console.result(ids, ids["ids"].dump() + "\n");
        return 0;
      }
      const TensorList list = list_tensors(options->path);
      const formats::Json document = inspect_json(list, *options, thread_count(common));
      console.result(document, inspect_text(document, options->statistics));
      return 0;
    });
  });
}

}  // namespace llmq::convert

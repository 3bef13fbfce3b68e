#include "convert/repair/repair_folder.h"

#include <fmt/format.h>

#include <algorithm>

#include "convert/interrupt.h"
#include "convert/pipeline/side_files.h"
#include "convert/report/summary.h"
#include "convert/verify/conformance.h"
#include "formats/error.h"
#include "formats/file.h"
#include "formats/safetensors.h"
#include "formats/staging.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::convert {
namespace {

using formats::Json;
using formats::StoredTensor;
namespace fs = std::filesystem;

/// Elements that one task copies or casts.
constexpr int64_t kChunkElements = int64_t{1} << 22;

/// A weight file: what it holds and where each tensor of the plan lies in it.
struct WeightFile {
  std::vector<formats::TensorEntry> entries;
  std::vector<const RepairedTensor*> tensors;
};

std::vector<WeightFile> weight_files(const RepairPlan& plan) {
  std::vector<WeightFile> files(plan.files.size());
  for (const RepairedTensor& tensor : plan.tensors) {
    WeightFile& file = files.at(tensor.source->file_index);
    file.entries.push_back({tensor.source->name, tensor.dtype, tensor.shape, 0, 0});
    file.tensors.push_back(&tensor);
  }
  for (WeightFile& file : files) formats::assign_offsets(file.entries);
  return files;
}

class FolderWriter {
 public:
  FolderWriter(const RepairPlan& plan, const fs::path& folder, quant::ThreadTeam& team,
               Console& console)
      : plan_(plan), folder_(folder), team_(team), console_(console) {}

  void write(const fs::path& source) {
    const std::vector<WeightFile> files = weight_files(plan_);
    for (size_t i = 0; i < files.size(); ++i) write_file(files[i], folder_ / plan_.files[i]);
    console_.end_progress();
    if (plan_.index_file) write_index(files);
    formats::write_text_file(folder_ / "config.json", plan_.config.dump(2) + "\n");
    formats::write_text_file(folder_ / plan_.description_file,
                             formats::description_json(plan_.description).dump(2) + "\n");
    for (const std::string& name : side_files(source))
      formats::copy_file_synced(source / name, folder_ / name);
  }

 private:
  void write_file(const WeightFile& file, const fs::path& path) {
    const std::string header =
        formats::serialize_safetensors_header(file.entries, {{"format", "pt"}});
    const uint64_t data_bytes = file.entries.empty() ? 0 : file.entries.back().end;
    fs::create_directories(path.parent_path());
    const formats::OutputFile output(path, header.size() + data_bytes);
    output.write_at(0, std::as_bytes(std::span(header)));
    for (size_t i = 0; i < file.tensors.size(); ++i) {
      throw_if_interrupted();
      write_tensor(*file.tensors[i], output, header.size() + file.entries[i].begin);
      done_bytes_ += file.tensors[i]->source->bytes.size();
      console_.progress("repairing", done_bytes_, plan_.checkpoint.size_bytes());
    }
    output.sync();
  }

  void write_tensor(const RepairedTensor& tensor, const formats::OutputFile& output,
                    uint64_t offset_bytes) {
    if (tensor.bytes) {
      output.write_at(offset_bytes, *tensor.bytes);
      return;
    }
    const StoredTensor& source = *tensor.source;
    const int64_t n_elements = formats::shape_elements(source.shape);
    const size_t from_size = formats::dtype_size_bytes(source.dtype);
    const size_t to_size = formats::dtype_size_bytes(tensor.dtype);
    const int64_t n_chunks = (n_elements + kChunkElements - 1) / kChunkElements;
    team_.parallel_for(n_chunks, [&](int64_t chunk, int) {
      const int64_t first = chunk * kChunkElements;
      const int64_t n = std::min(kChunkElements, n_elements - first);
      const auto at = static_cast<size_t>(first);
      const auto part = source.bytes.subspan(at * from_size, static_cast<size_t>(n) * from_size);
      const uint64_t place = offset_bytes + at * to_size;
      if (tensor.dtype == source.dtype) {
        output.write_at(place, part);
      } else {
        output.write_at(place, cast_part(tensor, part, n));
      }
      formats::MappedFile::release(part);
    });
  }

  static std::vector<std::byte> cast_part(const RepairedTensor& tensor,
                                          std::span<const std::byte> part, int64_t n) {
    std::vector<std::byte> cast(static_cast<size_t>(n) * formats::dtype_size_bytes(tensor.dtype));
    quant::CastReport report{};
    const auto from = quant::float_type_index(tensor.source->dtype);
    const auto to = quant::float_type_index(tensor.dtype);
    quant::rounding_kernels().cast[from][to](part.data(), n, cast.data(), &report);
    if (report.n_overflow > 0) {
      throw formats::bad_input(
          fmt::format("tensor {} has values up to {}, beyond {}; keep its dtype",
                      tensor.source->name, report.absmax, formats::torch_dtype_name(tensor.dtype)));
    }
    return cast;
  }

  void write_index(const std::vector<WeightFile>& files) const {
    uint64_t total_size = 0;
    Json map = Json::object();
    for (size_t i = 0; i < files.size(); ++i) {
      for (const formats::TensorEntry& entry : files[i].entries) {
        formats::append_key(map, entry.name, plan_.files[i]);
        total_size += entry.size_bytes();
      }
    }
    const Json index{{"metadata", {{"total_size", total_size}}}, {"weight_map", map}};
    formats::write_text_file(folder_ / *plan_.index_file, index.dump(2) + "\n");
  }

  const RepairPlan& plan_;
  fs::path folder_;
  quant::ThreadTeam& team_;
  Console& console_;
  uint64_t done_bytes_ = 0;
};

Json repairs_json(const RepairPlan& plan) {
  Json list = Json::array();
  for (const Repair& repair : plan.repairs) {
    list.push_back({{"name", repair.name},
                    {"detail", repair.detail},
                    {"count", repair.where.size()},
                    {"where", repair.where}});
  }
  return list;
}

}  // namespace

Json run_repair_job(const RepairJob& job, Console& console) {
  formats::check_destination(job.destination, job.request.source, job.force);
  quant::ThreadTeam team(job.n_threads);
  const RepairPlan plan = make_repair_plan(job.request, team);
  formats::StagingFolder staging(job.destination, job.request.source, job.force);
  staging.clear();
  FolderWriter(plan, staging.path(), team, console).write(job.request.source);
  Json report{{"repairs", repairs_json(plan)}};
  report["conformance"] = conformance_json(check_conformance(staging.path(), std::nullopt, team));
  throw_if_interrupted();
  staging.commit();
  for (const std::string& warning : plan.warnings) console.warn(warning);
  return report;
}

std::string repair_text(const Json& report) {
  std::string text;
  for (const Json& repair : report["repairs"]) {
    const auto count = repair["count"].get<size_t>();
    text += fmt::format("{}: {} ({}{})\n", repair["name"].get<std::string>(),
                        repair["detail"].get<std::string>(), repair["where"][0].get<std::string>(),
                        count > 1 ? fmt::format(" and {} more", count - 1) : "");
  }
  if (text.empty()) text = "nothing to repair\n";
  return text + "\n" + conformance_text(report["conformance"]);
}

}  // namespace llmq::convert

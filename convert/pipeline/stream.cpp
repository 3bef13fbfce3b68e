#include "convert/pipeline/stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "convert/interrupt.h"
#include "convert/pipeline/stream_blocks.h"
#include "convert/pipeline/tensor_bytes.h"
#include "formats/error.h"
#include "formats/file.h"
#include "quant/affine.h"
#include "quant/int4_packing.h"
#include "quant/kernels/rounding/rounding.h"

namespace llmq::convert {
namespace {

using formats::Json;
using formats::Scheme;

/// Weights that engines hold in float16 and that are above this share of its range are worth a
/// word.
constexpr const char* kNearOverflowAdvice =
    "close to float16's limit of 65504; prefer --dtype bfloat16";

/// What a block did, merged in block order afterwards.
struct BlockResult {
  quant::Distortion distortion;
  int64_t n_subnormal_scales = 0;
  int64_t n_near_overflow = 0;
  float absmax = 0.0F;
};

/// What a quantized entry needs beside its codes, gathered from its blocks and written once.
struct EntryScales {
  std::vector<float> scales;
  std::vector<float> offsets;
  std::vector<int64_t> code_sums;  // [n_rows], where the scheme has a quant_bias
};

/// One unit being streamed.
class UnitStream {
 public:
  UnitStream(std::span<const LedgerEntry> entries, const UnitPreparation& unit,
             const StreamTarget& target, quant::ThreadTeam& team)
      : entries_(entries),
        unit_(unit),
        target_(target),
        team_(team),
        blocks_(make_blocks(entries)),
        results_(blocks_.size()),
        scales_(entries.size()),
        buffers_(static_cast<size_t>(team.n_threads())) {
    sources_.reserve(entries.size());
    for (size_t i = 0; i < entries.size(); ++i)
      sources_.push_back(prepared_source(entries[i], unit.entries.at(i)));
  }

  Json run(const std::function<void(uint64_t)>& on_bytes) {
    reserve_scales();
    team_.parallel_for(static_cast<int64_t>(blocks_.size()), [&](int64_t index, int thread_index) {
      throw_if_interrupted();
      const auto block_index = static_cast<size_t>(index);
      const Block& block = blocks_[block_index];
      run_block(block, results_[block_index], buffers_[static_cast<size_t>(thread_index)]);
      if (is_mapped(block)) formats::MappedFile::release(block_bytes(block));
      on_bytes(stored_bytes(block));
    });
    write_scales();
    return entry_results();
  }

 private:
  /// Memory of one thread.
  struct Buffers {
    std::vector<std::byte> cast;
    std::vector<float> changed;
  };

  [[nodiscard]] bool is_mapped(const Block& block) const {
    return unit_.entries[block.entry_index].values.empty() &&
           entries_[block.entry_index].fate != Fate::kAdded;
  }

  /// Bytes of a block in the file.
  [[nodiscard]] uint64_t stored_bytes(const Block& block) const {
    const LedgerEntry& entry = entries_[block.entry_index];
    if (entry.fate == Fate::kAdded) return 0;
    return static_cast<uint64_t>(block.n_rows * row_extents(*entry.source).n_cols) *
           formats::dtype_size_bytes(entry.source->dtype);
  }

  /// Rows of a block as they are written or quantized: in the source's dtype, or float32.
  [[nodiscard]] quant::MatrixView block_rows(const Block& block, const OutputModule& output,
                                             Buffers& buffers) const {
    const formats::StoredTensor& source = sources_[block.entry_index];
    const int64_t n_cols = row_extents(source).n_cols;
    const std::span<const std::byte> bytes = block_bytes(block);
    const auto& change_rows = unit_.entries[block.entry_index].change_rows;
    if (!change_rows) return {source.dtype, bytes, block.n_rows, n_cols};
    buffers.changed.resize(static_cast<size_t>(block.n_rows * n_cols));
    quant::CastReport report{};
    quant::rounding_kernels()
        .cast[quant::float_type_index(source.dtype)][quant::float_type_index(formats::DType::kF32)](
            bytes.data(), block.n_rows * n_cols, buffers.changed.data(), &report);
    change_rows(output, {buffers.changed.data(), block.n_rows, n_cols, n_cols});
    return {formats::DType::kF32, std::as_bytes(std::span(buffers.changed)), block.n_rows, n_cols};
  }

  [[nodiscard]] std::span<const std::byte> block_bytes(const Block& block) const {
    const formats::StoredTensor& source = sources_[block.entry_index];
    const uint64_t row_bytes =
        static_cast<uint64_t>(row_extents(source).n_cols) * formats::dtype_size_bytes(source.dtype);
    return source.bytes.subspan(static_cast<size_t>(block.first_row) * row_bytes,
                                static_cast<size_t>(block.n_rows) * row_bytes);
  }

  void reserve_scales() {
    for (size_t i = 0; i < entries_.size(); ++i) {
      for (const OutputModule& output : entries_[i].outputs) {
        if (output.rule.scheme == Scheme::kFloat || is_computed(entries_[i])) continue;
        const auto [n_rows, n_cols] = row_extents(*entries_[i].source);
        const int64_t n_groups = output.rule.group_size > 0 ? n_cols / output.rule.group_size : 1;
        scales_[i].scales.resize(static_cast<size_t>(n_rows * n_groups));
        scales_[i].offsets.resize(scales_[i].scales.size());
        if (formats::has_tensor(output.rule.scheme, ".quant_bias"))
          scales_[i].code_sums.resize(static_cast<size_t>(n_rows));
      }
    }
  }

  void run_block(const Block& block, BlockResult& result, Buffers& buffers) {
    const LedgerEntry& entry = entries_[block.entry_index];
    for (const OutputModule& output : entry.outputs) {
      try {
        if (output.rule.scheme == Scheme::kFloat) {
          cast_block(block, output, result, buffers);
        } else {
          quantize_block(block, output, result, buffers);
        }
      } catch (const formats::Error& error) {
        if (error.code() != formats::ErrorCode::kBadInput) throw;
        require_finite(sources_[block.entry_index]);
        throw error.with_context("tensor " + entry.source->name);
      }
    }
  }

  void quantize_block(const Block& block, const OutputModule& output, BlockResult& result,
                      Buffers& buffers) {
    const EntryPreparation& preparation = unit_.entries[block.entry_index];
    const quant::AffineMatrix matrix = quant::quantize_weight(
        block_rows(block, output, buffers), weight_spec(output.rule, target_.model_dtype),
        preparation.inputs, team_);
    write_codes(block, output, matrix);
    if (preparation.on_quantized) preparation.on_quantized(block.first_row, matrix);
    const auto first = static_cast<std::ptrdiff_t>(block.first_row * matrix.n_groups);
    EntryScales& scales = scales_[block.entry_index];
    std::copy(matrix.scales.begin(), matrix.scales.end(), scales.scales.begin() + first);
    std::copy(matrix.offsets.begin(), matrix.offsets.end(), scales.offsets.begin() + first);
    if (!scales.code_sums.empty()) {
      const std::vector<int64_t> sums = quant::code_sums(matrix.codes, block.n_rows);
      std::copy(sums.begin(), sums.end(), scales.code_sums.begin() + block.first_row);
    }
    result.distortion.merge(matrix.distortion);
    result.n_subnormal_scales += matrix.n_subnormal_scales;
  }

  /// Codes of a block in the order of the file: bytes, or pairs of int4. Rows before the block fill
  /// as many bytes as they have codes, or half as many.
  void write_codes(const Block& block, const OutputModule& output,
                   const quant::AffineMatrix& matrix) const {
    const int64_t n_codes_before = block.first_row * matrix.n_cols;
    const OutputLayout::Place place = target_.layout.place_of(output.tensors.front().name);
    if (formats::scheme_row(output.rule.scheme).weight_bits == 8) {
      target_.files.write(place, static_cast<uint64_t>(n_codes_before),
                          std::as_bytes(std::span(matrix.codes)));
      return;
    }
    const std::vector<uint8_t> packed =
        output.rule.group_size > 0
            ? quant::pack_int4_per_group(matrix.codes, matrix.n_rows, matrix.n_cols)
            : quant::pack_int4_per_channel(matrix.codes, matrix.n_rows, matrix.n_cols);
    target_.files.write(place, static_cast<uint64_t>(n_codes_before / 2),
                        std::as_bytes(std::span(packed)));
  }

  void cast_block(const Block& block, const OutputModule& output, BlockResult& result,
                  Buffers& buffers) {
    const OutputTensor& to = output.tensors.front();
    const formats::StoredTensor& source = sources_[block.entry_index];
    const uint64_t offset_elements =
        static_cast<uint64_t>(block.first_row) * static_cast<uint64_t>(row_extents(source).n_cols);
    const uint64_t offset_bytes = offset_elements * formats::dtype_size_bytes(to.dtype);
    if (!formats::is_weight_float(source.dtype)) {
      target_.files.write(target_.layout.place_of(to.name), offset_bytes, block_bytes(block));
      return;
    }
    const quant::MatrixView rows = block_rows(block, output, buffers);
    const int64_t n_elements = rows.n_rows() * rows.n_cols();
    buffers.cast.resize(static_cast<size_t>(n_elements) * formats::dtype_size_bytes(to.dtype));
    quant::CastReport report{};
    const quant::RoundingKernels& kernels = quant::rounding_kernels();
    kernels.cast[quant::float_type_index(rows.dtype())][quant::float_type_index(to.dtype)](
        rows.row(0), n_elements, buffers.cast.data(), &report);
    check_cast(block, to, report);
    target_.files.write(target_.layout.place_of(to.name), offset_bytes, buffers.cast);
    result.n_near_overflow += report.n_near_overflow;
    result.absmax = std::max(result.absmax, report.absmax);
  }

  void check_cast(const Block& block, const OutputTensor& to,
                  const quant::CastReport& report) const {
    if (report.first_non_finite >= 0) require_finite(sources_[block.entry_index]);
    if (report.n_overflow == 0) return;
    throw formats::bad_input(
        fmt::format("{} values up to {:.6g} would become infinite in {}; use --dtype bfloat16",
                    report.n_overflow, report.absmax, formats::torch_dtype_name(to.dtype)));
  }

  void write_scales() const {
    for (size_t i = 0; i < entries_.size(); ++i) {
      for (const OutputModule& output : entries_[i].outputs) {
        if (output.rule.scheme == Scheme::kFloat) continue;
        for (const NamedBytes& tensor : parameter_tensors(i, output)) {
          target_.files.write(target_.layout.place_of(tensor.name), 0, tensor.bytes);
        }
      }
    }
  }

  /// The tensors of a quantized linear beside its codes.
  [[nodiscard]] std::vector<NamedBytes> parameter_tensors(size_t entry_index,
                                                          const OutputModule& output) const {
    const LedgerEntry& entry = entries_[entry_index];
    if (is_computed(entry)) return computed_tensors(output);
    const EntryScales& scales = scales_[entry_index];
    const quant::ActivationParams& activation = unit_.entries[entry_index].activation;
    std::vector<NamedBytes> tensors;
    quant::StaticTensors derived;
    try {
      if (!scales.code_sums.empty()) {
        derived = quant::static_tensors(activation, scales.scales, scales.code_sums,
                                        written_bias(entry.module));
      }
    } catch (const formats::Error& error) {
      throw error.with_context("tensor " + entry.source->name);
    }
    for (const OutputTensor& tensor : output.tensors) {
      const std::string_view suffix = std::string_view(tensor.name).substr(tensor.name.rfind('.'));
      if (suffix == ".weight_scale") {
        tensors.push_back({tensor.name, encode_floats(scales.scales, tensor.dtype)});
      } else if (suffix == ".weight_offset") {
        tensors.push_back({tensor.name, encode_floats(scales.offsets, tensor.dtype)});
      } else if (suffix == ".input_scale") {
        tensors.push_back({tensor.name, encode_floats({&activation.scale, 1}, tensor.dtype)});
      } else if (suffix == ".input_offset") {
        tensors.push_back({tensor.name, encode_floats({&activation.offset, 1}, tensor.dtype)});
      } else if (suffix == ".deq_scale") {
        tensors.push_back({tensor.name, encode_deq_scale(derived.deq_scale, tensor.dtype)});
      } else if (suffix == ".quant_bias") {
        const auto bytes = std::as_bytes(std::span(derived.quant_bias));
        tensors.push_back({tensor.name, {bytes.begin(), bytes.end()}});
      }
    }
    return tensors;
  }

  /// The tensors of an attention module, whose values calibration gives.
  [[nodiscard]] std::vector<NamedBytes> computed_tensors(const OutputModule& output) const {
    std::vector<NamedBytes> tensors;
    for (const OutputTensor& tensor : output.tensors) {
      const auto values = unit_.computed.find(tensor.name);
      if (values == unit_.computed.end()) {
        throw formats::Error(formats::ErrorCode::kInternal,
                             "nothing was computed for tensor " + tensor.name);
      }
      tensors.push_back({tensor.name, encode_floats(values->second, tensor.dtype)});
    }
    return tensors;
  }

  /// The bias of a module as it is written, widened; empty where it has none.
  [[nodiscard]] std::vector<float> written_bias(const std::string& module) const {
    const std::string name = module + ".bias";
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (sources_[i].name != name) continue;
      return rounded_floats(sources_[i].bytes, sources_[i].dtype,
                            entries_[i].outputs.front().tensors.front().dtype);
    }
    return {};
  }

  [[nodiscard]] Json entry_results() const {
    std::vector<BlockResult> merged(entries_.size());
    for (size_t i = 0; i < blocks_.size(); ++i) {
      BlockResult& to = merged[blocks_[i].entry_index];
      to.distortion.merge(results_[i].distortion);
      to.n_subnormal_scales += results_[i].n_subnormal_scales;
      to.n_near_overflow += results_[i].n_near_overflow;
      to.absmax = std::max(to.absmax, results_[i].absmax);
    }
    Json list = Json::array();
    for (const BlockResult& result : merged) list.push_back(result_json(result));
    return list;
  }

  static Json result_json(const BlockResult& result) {
    Json json = Json::object();
    if (result.distortion.n > 0) {
      const double sqnr = result.distortion.sqnr_db();
      json["sqnr_db"] = std::isfinite(sqnr) ? Json(sqnr) : Json(nullptr);
      json["max_error"] = result.distortion.max_abs_error;
      json["clipped_share"] = result.distortion.clipped_share();
      json["zero_share"] = result.distortion.zero_share();
      if (result.n_subnormal_scales > 0) json["subnormal_scales"] = result.n_subnormal_scales;
    }
    if (result.n_near_overflow > 0) {
      json["near_overflow"] = result.n_near_overflow;
      json["absmax"] = result.absmax;
      json["advice"] = kNearOverflowAdvice;
    }
    return json;
  }

  std::span<const LedgerEntry> entries_;
  const UnitPreparation& unit_;
  const StreamTarget& target_;
  quant::ThreadTeam& team_;
  std::vector<Block> blocks_;
  std::vector<BlockResult> results_;
  std::vector<EntryScales> scales_;
  std::vector<Buffers> buffers_;
  std::vector<formats::StoredTensor> sources_;  // of entries_, as they are read
};

}  // namespace

uint64_t stream_buffer_bytes(const Ledger& ledger, int n_threads) {
  // A block of codes and one of cast values per thread, and the scales of the largest unit.
  uint64_t largest_row = 0;
  uint64_t largest_unit = 0;
  const std::vector<size_t> begins = ledger.unit_begins();
  for (size_t unit = 0; unit + 1 < begins.size(); ++unit) {
    uint64_t unit_rows = 0;
    for (size_t i = begins[unit]; i < begins[unit + 1]; ++i) {
      const auto [n_rows, n_cols] = row_extents(*ledger.entries[i].source);
      largest_row = std::max(largest_row, static_cast<uint64_t>(n_cols) * 4);
      unit_rows += static_cast<uint64_t>(n_rows);
    }
    largest_unit = std::max(largest_unit, unit_rows * 2 * sizeof(float));
  }
  return static_cast<uint64_t>(n_threads) * 2 * std::max(kBlockBytes, largest_row) + largest_unit;
}

Json stream_unit(std::span<const LedgerEntry> entries, const UnitPreparation& unit,
                 const StreamTarget& target, quant::ThreadTeam& team,
                 const std::function<void(uint64_t)>& on_bytes) {
  return UnitStream(entries, unit, target, team).run(on_bytes);
}

}  // namespace llmq::convert

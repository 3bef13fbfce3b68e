#include "convert/report/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

#include "convert/report/console.h"
#include "convert/report/table.h"

namespace llmq::convert {
namespace {

using formats::Json;

struct SchemeTotals {
  size_t n_tensors = 0;
  uint64_t source_bytes = 0;
  uint64_t output_bytes = 0;
  double sqnr_low = std::numeric_limits<double>::infinity();
  double sqnr_sum = 0;
  size_t n_sqnr = 0;
};

std::map<std::string, SchemeTotals> totals_by_scheme(const Json& tensors) {
  std::map<std::string, SchemeTotals> totals;
  for (const Json& tensor : tensors) {
    SchemeTotals& row = totals[tensor["scheme"].get<std::string>()];
    ++row.n_tensors;
    row.source_bytes += tensor["size_bytes"].get<uint64_t>();
    row.output_bytes += tensor["output_bytes"].get<uint64_t>();
    if (tensor.contains("sqnr_db") && tensor["sqnr_db"].is_number()) {
      const double sqnr = tensor["sqnr_db"];
      row.sqnr_low = std::min(row.sqnr_low, sqnr);
      row.sqnr_sum += sqnr;
      ++row.n_sqnr;
    }
  }
  return totals;
}

}  // namespace

std::string summary_text(const Json& report) {
  Table table({"scheme", "tensors", "before", "after", "SQNR dB mean", "lowest"});
  for (const auto& [scheme, row] : totals_by_scheme(report["tensors"])) {
    const bool measured = row.n_sqnr > 0;
    table.add(
        {scheme, fmt::to_string(row.n_tensors), bytes_text(row.source_bytes),
         bytes_text(row.output_bytes),
         measured ? fmt::format("{:.1f}", row.sqnr_sum / static_cast<double>(row.n_sqnr)) : "",
         measured ? fmt::format("{:.1f}", row.sqnr_low) : ""});
  }
  const Json& totals = report["totals"];
  std::string text = table.text();
  text += fmt::format("\n{} -> {} ({:.2f} bits per weight)", bytes_text(totals["source_bytes"]),
                      bytes_text(totals["output_bytes"]), totals["bits_per_weight"].get<double>());
  if (report.value("dry_run", false)) return text + "\ndry run: nothing was written\n";
  text +=
      fmt::format(" in {}, {}/s, {} of memory\n", seconds_text(totals["seconds"]),
                  bytes_text(totals["bytes_per_second"]), bytes_text(totals["peak_memory_bytes"]));
  text += fmt::format("{} conforms: {} rules hold\n", report["destination"].get<std::string>(),
                      report["conformance"]["rules"].size());
  return text;
}

std::string conformance_text(const Json& conformance) {
  Table table({"rule", "holds", "detail"});
  for (const Json& rule : conformance["rules"]) {
    table.add({rule["name"], rule["ok"].get<bool>() ? "yes" : "NO", rule["detail"]});
  }
  return table.text();
}

}  // namespace llmq::convert

#include "convert/report/eval_report.h"

#include <fmt/format.h>

#include "convert/report/table.h"

namespace llmq::convert {
namespace {

using formats::Json;
using runtime::RetrievalCell;

Json cells_json(const std::vector<RetrievalCell>& cells) {
  Json list = Json::array();
  for (const RetrievalCell& cell : cells) {
    list.push_back({{"length", cell.length},
                    {"depth", cell.depth},
                    {"accuracy", cell.accuracy},
                    {"n", cell.n}});
  }
  return list;
}

void add_text_json(const EvalReport& report, Json& document) {
  const runtime::TextScore& text = *report.text;
  document["mean_nll"] = text.mean_nll;
  document["perplexity"] = text.perplexity();
  document["n_tokens"] = text.n_tokens;
  document["n_pieces"] = text.n_pieces;
  document["context"] = report.context;
  if (!text.reference) return;
  document["kl"] = text.reference->kl;
  document["kl_p99"] = text.reference->kl_p99;
  document["top1_agreement"] = text.reference->top1_agreement;
  document["reference_mean_nll"] = text.reference->mean_nll;
  Json layers = Json::array();
  for (const runtime::LayerError& error : text.reference->layers)
    layers.push_back({{"layer", error.layer}, {"relative_rms", error.relative_rms}});
  document["layers"] = std::move(layers);
}

std::string text_table(const runtime::TextScore& text) {
  Table table({"measure", "value"});
  table.add({"mean negative log-likelihood", fmt::format("{:.6f}", text.mean_nll)});
  table.add({"perplexity", fmt::format("{:.4f}", text.perplexity())});
  table.add({"scored tokens", fmt::to_string(text.n_tokens)});
  if (text.reference) {
    table.add({"the same of the reference", fmt::format("{:.6f}", text.reference->mean_nll)});
    table.add({"KL from the reference", fmt::format("{:.6g}", text.reference->kl)});
    table.add({"KL, 99th percentile", fmt::format("{:.6g}", text.reference->kl_p99)});
    table.add({"top-1 agreement", fmt::format("{:.4f}", text.reference->top1_agreement)});
  }
  std::string result = table.text();
  if (!text.reference || text.reference->layers.empty()) return result;
  Table layers({"layer", "relative RMS error"});
  for (const runtime::LayerError& error : text.reference->layers)
    layers.add({fmt::to_string(error.layer), fmt::format("{:.6f}", error.relative_rms)});
  return result + "\n" + layers.text();
}

std::string cells_table(const char* what, const std::vector<RetrievalCell>& cells) {
  Table table({what, "depth", "accuracy", "n"});
  for (const RetrievalCell& cell : cells) {
    table.add({fmt::to_string(cell.length), fmt::format("{:.3f}", cell.depth),
               fmt::format("{:.3f}", cell.accuracy), fmt::to_string(cell.n)});
  }
  return table.text() + fmt::format("all {:.3f}\n", overall_accuracy(cells));
}

}  // namespace

std::string EvalGate::sentence() const {
  const char* relation = holds() ? "keeps to" : is_least ? "is below" : "is above";
  return fmt::format("{}: {:.6g} {} {:.6g}", option, value, relation, limit);
}

double overall_accuracy(const std::vector<RetrievalCell>& cells) {
  double right = 0.0;
  double all = 0.0;
  for (const RetrievalCell& cell : cells) {
    right += cell.accuracy * static_cast<double>(cell.n);
    all += static_cast<double>(cell.n);
  }
  return right / all;
}

Json eval_json(const EvalReport& report) {
  Json document{{"model_path", report.model_path}};
  if (!report.reference_path.empty()) document["reference"] = report.reference_path;
  if (!report.phase.empty()) document["phase"] = report.phase;
  if (report.text) add_text_json(report, document);
  if (report.passkey) document["passkey"] = cells_json(*report.passkey);
  if (report.key_value) document["kv_retrieval"] = cells_json(*report.key_value);
  if (report.task) {
    document["task"] = {{"accuracy", report.task->accuracy},
                        {"n", report.task->n},
                        {"n_shortened", report.task->n_shortened}};
  }
  if (report.gates.empty()) return document;
  Json gates = Json::array();
  for (const EvalGate& gate : report.gates) {
    gates.push_back({{"option", gate.option},
                     {"value", gate.value},
                     {"limit", gate.limit},
                     {"ok", gate.holds()}});
  }
  document["gates"] = std::move(gates);
  return document;
}

std::string eval_text(const EvalReport& report) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : "\n") + part; };
  if (report.text) add(text_table(*report.text));
  if (report.passkey) add(cells_table("passkey length", *report.passkey));
  if (report.key_value) add(cells_table("key-value length", *report.key_value));
  if (report.task) {
    add(fmt::format("task accuracy {:.4f} of {} questions\n", report.task->accuracy,
                    report.task->n));
  }
  std::string gates;
  for (const EvalGate& gate : report.gates) gates += gate.sentence() + "\n";
  if (!gates.empty()) add(gates);
  return text;
}

}  // namespace llmq::convert

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "convert/report/eval_report.h"

namespace llmq::convert {
namespace {

using runtime::LayerError;
using runtime::RetrievalCell;

constexpr const char* kHead =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<title>llmq eval</title>\n<style>\n"
    "body{font-family:sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222}\n"
    "table{border-collapse:collapse;margin:1em 0}\n"
    "td,th{border:1px solid #bbb;padding:.3em .7em;text-align:right}\n"
    "td:first-child,th:first-child{text-align:left}\n"
    ".failed{background:#f6c9c9}\nsvg{max-width:100%;height:auto}\n"
    "</style>\n</head>\n<body>\n";

std::string row(std::string_view name, std::string_view value) {
  return fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", html_escape(name), html_escape(value));
}

std::string text_section(const EvalReport& report) {
  const runtime::TextScore& text = *report.text;
  std::string html = "<h2>Text</h2>\n<table>\n" + row("text", report.text_path);
  html += row("context", fmt::to_string(report.context));
  html += row("mean negative log-likelihood (nats)", fmt::format("{:.6f}", text.mean_nll));
  html += row("perplexity", fmt::format("{:.4f}", text.perplexity()));
  html += row("scored tokens", fmt::to_string(text.n_tokens));
  if (text.reference) {
    html += row("reference", report.reference_path);
    html +=
        row("its mean negative log-likelihood", fmt::format("{:.6f}", text.reference->mean_nll));
    html += row("KL(reference ‖ model), mean", fmt::format("{:.6g}", text.reference->kl));
    html += row("KL, 99th percentile", fmt::format("{:.6g}", text.reference->kl_p99));
    html += row("top-1 agreement", fmt::format("{:.4f}", text.reference->top1_agreement));
  }
  return html + "</table>\n";
}

/// One bar a layer, heights relative to the largest finite error.
std::string layer_chart(const std::vector<LayerError>& layers) {
  constexpr double kHeight = 200.0;
  constexpr double kBar = 18.0;
  constexpr double kLeft = 70.0;
  double largest = 0.0;
  for (const LayerError& error : layers) {
    if (std::isfinite(error.relative_rms)) largest = std::max(largest, error.relative_rms);
  }
  const double width = kLeft + kBar * static_cast<double>(layers.size()) + 10.0;
  std::string svg = fmt::format(
      "<h2>Error of each layer</h2>\n<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" "
      "aria-label=\"relative RMS error of the hidden states after each layer\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" font-size=\"11\">\n",
      width, kHeight + 50.0);
  svg += fmt::format("<text x=\"{}\" y=\"20\" text-anchor=\"end\">{:.3g}</text>\n", kLeft - 6.0,
                     largest);
  svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">0</text>\n", kLeft - 6.0,
                     kHeight + 16.0);
  svg += fmt::format("<line x1=\"{0}\" y1=\"16\" x2=\"{0}\" y2=\"{1}\" stroke=\"#888\"/>\n",
                     kLeft - 2.0, kHeight + 16.0);
  for (size_t i = 0; i < layers.size(); ++i) {
    const double error = layers[i].relative_rms;
    const double share = !std::isfinite(error) ? 1.0 : largest > 0.0 ? error / largest : 0.0;
    const double x = kLeft + kBar * static_cast<double>(i);
    svg += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.2f}\" width=\"{:.1f}\" height=\"{:.2f}\" fill=\"#4878a8\">"
        "<title>layer {}: {:.6g}</title></rect>\n",
        x, 16.0 + kHeight * (1.0 - share), kBar - 4.0, kHeight * share, layers[i].layer, error);
    if (i % 4 == 0) {
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>\n",
                         x + (kBar - 4.0) / 2.0, kHeight + 32.0, layers[i].layer);
    }
  }
  return svg + "</svg>\n";
}

std::string cells_section(std::string_view title, const std::vector<RetrievalCell>& cells) {
  std::string html = fmt::format(
      "<h2>{}</h2>\n<table>\n<tr><th>length</th><th>depth</th><th>accuracy</th><th>n</th></tr>\n",
      html_escape(title));
  for (const RetrievalCell& cell : cells) {
    html += fmt::format("<tr><td>{}</td><td>{:.3f}</td><td>{:.3f}</td><td>{}</td></tr>\n",
                        cell.length, cell.depth, cell.accuracy, cell.n);
  }
  return html + fmt::format("</table>\n<p>all: {:.3f}</p>\n", overall_accuracy(cells));
}

std::string gate_section(const std::vector<EvalGate>& gates) {
  std::string html =
      "<h2>Limits</h2>\n<table>\n<tr><th>option</th><th>value</th><th>limit</th></tr>\n";
  for (const EvalGate& gate : gates) {
    html += fmt::format("<tr{}><td>{}</td><td>{:.6g}</td><td>{:.6g}</td></tr>\n",
                        gate.holds() ? "" : " class=\"failed\"", html_escape(gate.option),
                        gate.value, gate.limit);
  }
  return html + "</table>\n";
}

}  // namespace

std::string html_escape(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string eval_page(const EvalReport& report) {
  std::string html = kHead;
  html += fmt::format("<h1>{}</h1>\n", html_escape(report.model_path));
  if (!report.gates.empty()) html += gate_section(report.gates);
  if (report.text) {
    html += text_section(report);
    if (report.text->reference && !report.text->reference->layers.empty())
      html += layer_chart(report.text->reference->layers);
  }
  if (report.passkey) html += cells_section("Pass key", *report.passkey);
  if (report.key_value) html += cells_section("Key-value retrieval", *report.key_value);
  if (report.task) {
    html += "<h2>Task</h2>\n<table>\n" + row("questions from", report.task_path);
    html += row("accuracy", fmt::format("{:.4f}", report.task->accuracy));
    html += row("questions", fmt::to_string(report.task->n));
    html += row("shortened to the model's positions", fmt::to_string(report.task->n_shortened));
    html += "</table>\n";
  }
  return html + fmt::format("<p>llmq {}</p>\n</body>\n</html>\n", LLMQ_VERSION);
}

}  // namespace llmq::convert

#pragma once

#include "convert/calibration/activation_ranges.h"
#include "convert/pipeline/plan.h"
#include "convert/pipeline/quantize_folder.h"
#include "convert/report/console.h"
#include "formats/json.h"
#include "quant/kernels/thread_team.h"

namespace llmq::convert {

/// What a step of a run works with.
struct RunContext {
  quant::ThreadTeam& team;
  Console& console;
};

/// Carries out a job's selection goal: measures what quantizing each group of linears does to the
/// model on the calibration samples, decides which stay float, and adds them to
/// `job.recipe->keep_float`, so that the recipe alone does the same again.
///
/// target_bits: as much damage as possible is avoided within so many bits per weight. max_kl: the
/// fewest groups, best first, that bring the mean KL of the quantized model (int8 activations
/// included; lm_head, KV cache and attention in float) on the calibration samples down to it. Both:
/// the choice of max_kl, where it keeps to target_bits.
///
/// `plan` is the job's plan and `calibration` its samples; the model is run, nothing is written.
/// Returns `selection` and `sensitivity` for the report. Throws Error{kUsage} where the recipe
/// quantizes no linear of a decoder layer and where a goal cannot be reached, naming the figure
/// that can be; else as UnitPreparer. The result depends on neither threads nor instruction set.
formats::Json select_layers(FolderJob& job, const FolderPlan& plan,
                            const CalibrationInput& calibration, const RunContext& context);

}  // namespace llmq::convert

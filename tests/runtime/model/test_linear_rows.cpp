// Linears that share an input: the codes made once, as rows arise, give what each gives alone.

#include "runtime/model/linear_rows.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "formats/error.h"
#include "runtime/model/coded_linear.h"
#include "runtime/parallel/thread_ranks.h"

namespace llmq::runtime {
namespace {

using formats::DType;
using formats::Scheme;
using quant::MatrixF32;
using quant::ThreadTeam;

constexpr int64_t kIn = 67;

/// A linear of any executed scheme with random weights and its memory.
struct Owned {
  LinearWeights view;
  std::vector<int8_t> codes;
  std::vector<float> values, scale, deq_scale, bias;
  std::vector<int32_t> quant_bias;
  quant::PackedInt8 packed;
  quant::PackedInt4 packed_int4;
  quant::PackedW8A8sc packed_sc;
};

std::unique_ptr<Owned> linear_of(Scheme scheme, int64_t n_out, uint32_t seed) {
  std::mt19937 random(seed);
  ThreadTeam team(1);
  auto owned = std::make_unique<Owned>();
  Owned& o = *owned;
  const int64_t low = scheme == Scheme::kW4A16 ? 16 : 256;
  for (int64_t i = 0; i < n_out * kIn; ++i) {
    o.codes.push_back(static_cast<int8_t>(static_cast<int64_t>(random() % 256) % low - low / 2));
    o.values.push_back(static_cast<float>(o.codes.back()) * 0.01F);
  }
  for (int64_t i = 0; i < n_out; ++i) {
    o.scale.push_back(0.01F + static_cast<float>(random() % 64) * 0.001F);
    o.deq_scale.push_back(o.scale.back() * 0.03F);
    o.bias.push_back(static_cast<float>(random() % 64) * 0.1F);
    o.quant_bias.push_back(static_cast<int32_t>(random() % 2001) - 1000);
  }
  const bool is_float = scheme == Scheme::kFloat;
  o.view = {
      .scheme = scheme,
      .dtype = is_float ? DType::kF32 : DType::kI8,
      .weight = is_float ? std::as_bytes(std::span(o.values)) : std::as_bytes(std::span(o.codes)),
      .n_out = n_out,
      .n_in = kIn,
      .scale = o.scale.data(),
      .bias = o.bias.data()};
  const bool is_static = scheme == Scheme::kW8A8 || scheme == Scheme::kW8A8S ||
                         scheme == Scheme::kW8A8SC || scheme == Scheme::kW8A8Mix;
  if (is_static) {
    o.view.activation = {.scale = 0.03F, .offset = 5.0F};
    o.view.quant_bias = o.quant_bias.data();
    o.view.deq_scale = o.deq_scale.data();
    if (scheme != Scheme::kW8A8Mix) o.view.bias = nullptr;
  }
  o.packed = quant::PackedInt8::pack(o.codes.data(), n_out, kIn, kIn, team);
  if (scheme == Scheme::kW4A16) {
    o.packed_int4 = quant::PackedInt4::pack(std::as_bytes(std::span(o.codes)),
                                            formats::Int4Layout::kOnePerByte, n_out, kIn, team);
    o.view.packed_int4 = &o.packed_int4;
  } else if (scheme == Scheme::kW8A8SC) {
    o.packed_sc = quant::PackedW8A8sc::pack(o.codes.data(), n_out, kIn, kIn, team);
    o.view.packed_sc = &o.packed_sc;
  } else {
    o.view.packed = &o.packed;
  }
  check_linear(o.view);
  return owned;
}

constexpr std::array kSchemes{Scheme::kFloat,       Scheme::kW8A16,  Scheme::kW4A16,
                              Scheme::kW8A8,        Scheme::kW8A8S,  Scheme::kW8A8SC,
                              Scheme::kW8A8Dynamic, Scheme::kW8A8Mix};

std::vector<float> values(int64_t n_rows, int64_t n_cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  std::vector<float> x(static_cast<size_t>(n_rows * n_cols));
  for (float& value : x) value = normal(random);
  return x;
}

/// Rows of alternating phases, three at a time.
std::vector<PhaseRun> runs_of(int64_t n_rows) {
  std::vector<Phase> phases;
  for (int64_t row = 0; row < n_rows; ++row)
    phases.push_back(row / 3 % 2 == 0 ? Phase::kPrefill : Phase::kDecode);
  return phase_runs(phases);
}

struct Outputs {
  std::vector<std::vector<float>> y;
  int64_t n_produced = 0;       // rows that the producer was asked for
  bool floats_written = false;  // the room holds them
};

MatrixF32 matrix(std::vector<float>& data, int64_t n_rows, int64_t n_cols) {
  data.resize(static_cast<size_t>(n_rows * n_cols), -7.0F);
  return {data.data(), n_rows, n_cols, n_cols};
}

/// Through LinearRows, from a producer that doubles rows of `half`.
Outputs together(const std::vector<const LinearWeights*>& linears, const std::vector<float>& half,
                 bool asks_first, int n_threads) {
  ThreadTeam team(n_threads);
  const auto n_rows = static_cast<int64_t>(half.size()) / kIn;
  Outputs outputs;
  std::atomic<int64_t> n_produced{0};
  const auto produce = [&](int64_t row, float* to) {
    ++n_produced;
    for (int64_t i = 0; i < kIn; ++i) to[i] = 2.0F * half[static_cast<size_t>(row * kIn + i)];
  };
  std::vector<float> room;
  LinearRows rows(produce, matrix(room, n_rows, kIn), team);
  if (asks_first) {
    EXPECT_EQ(rows.floats().data, room.data());
  }
  outputs.y.resize(linears.size());
  std::vector<LinearCall> calls;
  for (size_t i = 0; i < linears.size(); ++i)
    calls.push_back({linears[i], matrix(outputs.y[i], n_rows, linears[i]->n_out)});
  rows.apply(calls, runs_of(n_rows));
  outputs.n_produced = n_produced;
  outputs.floats_written = !room.empty() && room.back() != -7.0F;
  return outputs;
}

Outputs apart(const std::vector<const LinearWeights*>& linears, const std::vector<float>& half) {
  ThreadTeam team(1);
  std::vector<float> x = half;
  for (float& value : x) value *= 2.0F;
  const auto n_rows = static_cast<int64_t>(x.size()) / kIn;
  Outputs outputs;
  outputs.y.resize(linears.size());
  for (size_t i = 0; i < linears.size(); ++i) {
    apply_linear(*linears[i], {x.data(), n_rows, kIn, kIn},
                 matrix(outputs.y[i], n_rows, linears[i]->n_out), team, runs_of(n_rows));
  }
  return outputs;
}

bool same_bits(const Outputs& a, const Outputs& b) {
  for (size_t i = 0; i < a.y.size(); ++i) {
    if (a.y[i].size() != b.y[i].size() ||
        std::memcmp(a.y[i].data(), b.y[i].data(), a.y[i].size() * sizeof(float)) != 0)
      return false;
  }
  return a.y.size() == b.y.size();
}

TEST(LinearRows, any_pair_of_schemes_gives_what_each_gives_alone) {
  for (const Scheme first : kSchemes) {
    for (const Scheme second : kSchemes) {
      const auto a = linear_of(first, 19, 1);
      const auto b = linear_of(second, 33, 2);
      const std::vector<const LinearWeights*> linears{&a->view, &b->view};
      for (const int64_t n_rows : {1, 2, 11}) {
        const std::vector<float> half = values(n_rows, kIn, static_cast<uint32_t>(n_rows));
        const Outputs want = apart(linears, half);
        for (const bool asks_first : {false, true}) {
          for (const int n_threads : {1, 3}) {
            EXPECT_TRUE(same_bits(together(linears, half, asks_first, n_threads), want))
                << formats::scheme_row(first).tag << ", " << formats::scheme_row(second).tag << ", "
                << n_rows << " rows";
          }
        }
      }
    }
  }
}

TEST(LinearRows, common_codes_are_made_from_rows_that_are_never_stored_as_floats) {
  for (const Scheme scheme : kSchemes) {
    const auto a = linear_of(scheme, 19, 1);
    const auto b = linear_of(scheme, 33, 2);
    const std::vector<float> half = values(300, kIn, 3);
    const Outputs outputs = together({&a->view, &b->view}, half, false, 4);
    const bool multiplies_codes = formats::scheme_row(scheme).activation_bits == 8;
    EXPECT_EQ(outputs.floats_written, !multiplies_codes) << formats::scheme_row(scheme).tag;
    EXPECT_EQ(outputs.n_produced, 300) << formats::scheme_row(scheme).tag;
  }
}

TEST(LinearRows, linears_with_rules_of_their_own_read_codes_of_their_own) {
  const auto a = linear_of(Scheme::kW8A8, 19, 1);
  for (const quant::ActivationRule rule :
       {quant::ActivationRule{.scale = 0.05F, .offset = 5.0F},
        quant::ActivationRule{.scale = 0.03F, .offset = -4.0F},
        quant::ActivationRule{
            .scale = 0.03F, .offset = 5.0F, .by_reciprocal = true, .reciprocal = 33.25F}}) {
    const auto b = linear_of(Scheme::kW8A8S, 33, 2);
    b->view.activation = rule;
    const std::vector<float> half = values(5, kIn, 4);
    const Outputs outputs = together({&a->view, &b->view, &a->view}, half, false, 2);
    EXPECT_TRUE(same_bits(outputs, apart({&a->view, &b->view, &a->view}, half)));
    EXPECT_TRUE(outputs.floats_written);
  }
}

TEST(LinearRows, rows_may_be_made_where_their_producer_reads_them) {
  for (const Scheme scheme : kSchemes) {
    const auto a = linear_of(scheme, 19, 1);
    const std::vector<float> half = values(7, kIn, 5);
    std::vector<float> x = half;
    ThreadTeam team(2);
    const auto produce = [&](int64_t row, float* to) {
      for (int64_t i = 0; i < kIn; ++i) to[i] = 2.0F * x[static_cast<size_t>(row * kIn + i)];
    };
    LinearRows rows(produce, {x.data(), 7, kIn, kIn}, team);
    Outputs outputs;
    outputs.y.resize(1);
    rows.apply(std::array{LinearCall{&a->view, matrix(outputs.y[0], 7, 19)}}, runs_of(7));
    EXPECT_TRUE(same_bits(outputs, apart({&a->view}, half))) << formats::scheme_row(scheme).tag;
  }
}

TEST(LinearRows, inputs_that_ranks_cut_are_multiplied_as_by_apply_linear) {
  for (const Scheme scheme : {Scheme::kW8A8, Scheme::kW8A8Dynamic, Scheme::kW8A8SC}) {
    for (const Reduction reduction : {Reduction::kInt32, Reduction::kFloat32}) {
      std::array<std::unique_ptr<Owned>, 2> parts{linear_of(scheme, 19, 1),
                                                  linear_of(scheme, 19, 2)};
      parts[1]->view.scale = parts[0]->view.scale;
      parts[1]->view.deq_scale = parts[0]->view.deq_scale;
      parts[1]->view.bias = parts[0]->view.bias;
      std::array<Outputs, 2> fused;
      std::array<Outputs, 2> alone;
      run_thread_ranks(2, [&](Communicator& ranks) {
        const auto rank = static_cast<size_t>(ranks.rank());
        LinearWeights& linear = parts[rank]->view;
        linear.ranks = &ranks;
        linear.reduction = reduction;
        const std::vector<float> half = values(5, kIn, 6 + static_cast<uint32_t>(rank));
        fused[rank] = together({&linear, &linear}, half, false, 1);
        alone[rank] = apart({&linear, &linear}, half);
      });
      EXPECT_TRUE(same_bits(fused[0], alone[0])) << formats::scheme_row(scheme).tag;
      EXPECT_TRUE(same_bits(fused[1], alone[1])) << formats::scheme_row(scheme).tag;
      EXPECT_TRUE(same_bits(fused[0], fused[1])) << formats::scheme_row(scheme).tag;
    }
  }
}

TEST(LinearRows, other_shapes_are_refused) {
  const auto a = linear_of(Scheme::kW8A8, 19, 1);
  ThreadTeam team(1);
  std::vector<float> x = values(2, kIn, 7);
  std::vector<float> y;
  LinearRows short_rows({x.data(), 2, kIn - 1, kIn}, team);
  EXPECT_THROW(short_rows.apply(std::array{LinearCall{&a->view, matrix(y, 2, 19)}}, runs_of(2)),
               formats::Error);
  LinearRows rows({x.data(), 2, kIn, kIn}, team);
  EXPECT_THROW(rows.apply(std::array{LinearCall{&a->view, matrix(y, 2, 18)}}, runs_of(2)),
               formats::Error);
}

}  // namespace
}  // namespace llmq::runtime

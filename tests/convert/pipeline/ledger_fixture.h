#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "convert/pipeline/ledger.h"
#include "formats/checkpoint.h"
#include "formats/model_config.h"
#include "tests/convert/checkpoint_writer.h"
#include "tests/tools/test_files.h"

namespace llmq::test {

/// A checkpoint without values (its data are a hole) and the ledger made of it.
class LedgerFixture : public testing::Test {
 protected:
  /// Writes the source from config_ and tensors_ and decides about it.
  convert::Ledger make(const convert::LedgerOptions& options = {}) {
    std::filesystem::remove_all(folder_ / "source");
    write_hollow_checkpoint(folder_ / "source", config_, tensors_);
    source_ = std::make_unique<formats::Checkpoint>(formats::Checkpoint::open(folder_ / "source"));
    model_ = formats::read_model_config(folder_ / "source");
    return convert::make_ledger(*source_, model_, recipe_, options);
  }

  /// tensors_ as config_ has them.
  void reset_tensors(const std::string& dtype = "BF16") {
    tensors_ = tensors_of_config(config_, dtype);
  }

  static const convert::LedgerEntry& entry(const convert::Ledger& ledger, const std::string& name) {
    for (const convert::LedgerEntry& candidate : ledger.entries) {
      if (candidate.source->name == name) {
        return candidate;
      }
    }
    throw std::runtime_error("no entry " + name);
  }

  /// Names of what is written for a source tensor, in their order.
  static std::vector<std::string> written(const convert::Ledger& ledger, const std::string& name) {
    std::vector<std::string> names;
    for (const convert::OutputModule& output : entry(ledger, name).outputs) {
      for (const convert::OutputTensor& tensor : output.tensors) {
        names.push_back(tensor.name);
      }
    }
    return names;
  }

  /// Everything that is written, in the order of the files.
  static std::vector<std::string> written_in_order(const convert::Ledger& ledger) {
    std::vector<std::string> names;
    for (const convert::OutputModule* output : ledger.modules_in_order()) {
      for (const convert::OutputTensor& tensor : output->tensors) {
        names.push_back(tensor.name);
      }
    }
    return names;
  }

  TemporaryFolder folder_;
  OrderedJson config_ = tiny_qwen2_config();
  std::vector<RawTensor> tensors_ = tensors_of_config(config_, "BF16");
  convert::Recipe recipe_ = convert::builtin_recipe("w8a16");
  std::unique_ptr<formats::Checkpoint> source_;
  formats::ModelConfig model_;
};

}  // namespace llmq::test

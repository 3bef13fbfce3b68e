#include "convert/pipeline/output_layout.h"

#include <gmock/gmock.h>

#include <span>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/convert/pipeline/ledger_fixture.h"

namespace llmq::convert {
namespace {

using formats::DType;
using test::error_message;
using testing::ElementsAre;
using testing::HasSubstr;

/// A ledger that writes byte tensors "t0", "t1", ... of these sizes.
Ledger ledger_of_sizes(const std::vector<int64_t>& sizes) {
  Ledger ledger;
  for (size_t i = 0; i < sizes.size(); ++i) {
    OutputModule output;
    output.tensors.push_back({"t" + std::to_string(i), DType::kI8, {sizes[i]}});
    output.order = i;
    LedgerEntry entry;
    entry.outputs.push_back(output);
    ledger.entries.push_back(entry);
  }
  return ledger;
}

/// "t0 t1|t2": the tensors of each file.
std::string files_of(const std::vector<int64_t>& sizes, uint64_t part_size_bytes) {
  const OutputLayout layout(ledger_of_sizes(sizes), {"m", part_size_bytes});
  std::string text;
  for (const OutputLayout::File& file : layout.files()) {
    if (!text.empty()) text += "|";
    for (size_t i = 0; i < file.tensors.size(); ++i) {
      text += (i > 0 ? " " : "") + file.tensors[i].name;
    }
  }
  return text;
}

// As the vendor's tool splits: a file ends before the tensor that would bring it to the limit.
TEST(OutputLayout, FileEndsBeforeTheTensorThatWouldReachTheLimit) {
  EXPECT_EQ(files_of({40, 40, 40}, 0), "t0 t1 t2");
  EXPECT_EQ(files_of({40, 40, 40}, 121), "t0 t1 t2");
  EXPECT_EQ(files_of({40, 40, 40}, 120), "t0 t1|t2");
  EXPECT_EQ(files_of({40, 40, 40}, 81), "t0 t1|t2");
  EXPECT_EQ(files_of({40, 40, 40}, 80), "t0|t1|t2");
  EXPECT_EQ(files_of({40, 40, 40}, 1), "t0|t1|t2");
  EXPECT_EQ(files_of({200, 10, 10, 200, 10}, 100), "t0|t1 t2|t3|t4");
  EXPECT_EQ(files_of({0, 0, 40}, 40), "t0 t1|t2");
}

TEST(OutputLayout, SplitFilesAreNumberedEvenWhereThereIsOne) {
  const OutputLayout one(ledger_of_sizes({4}), {"quant_model_weight_w8a16", 1000});
  ASSERT_EQ(one.files().size(), 1U);
  EXPECT_EQ(one.files()[0].name, "quant_model_weight_w8a16-00001-of-00001.safetensors");
  EXPECT_EQ(one.index_name(), "quant_model_weight_w8a16.safetensors.index.json");
  const OutputLayout two(ledger_of_sizes({4, 4}), {"m", 1});
  EXPECT_EQ(two.files()[1].name, "m-00002-of-00002.safetensors");
}

TEST(OutputLayout, UnsplitFileHasNoNumberAndNoIndex) {
  const OutputLayout layout(ledger_of_sizes({4, 4}), {"m", 0});
  ASSERT_EQ(layout.files().size(), 1U);
  EXPECT_EQ(layout.files()[0].name, "m.safetensors");
  EXPECT_EQ(layout.index_name(), "");
}

TEST(OutputLayout, IndexCountsTensorBytesAndNamesTheFileOfEach) {
  const OutputLayout layout(ledger_of_sizes({40, 30, 20}), {"m", 71});
  EXPECT_EQ(layout.index_json().dump(),
            R"({"metadata":{"total_size":90},"weight_map":{)"
            R"("t0":"m-00001-of-00002.safetensors","t1":"m-00001-of-00002.safetensors",)"
            R"("t2":"m-00002-of-00002.safetensors"}})");
}

TEST(OutputLayout, ModulesAreWrittenInTheirOrderAndNotThatOfTheEntries) {
  Ledger ledger = ledger_of_sizes({1, 2, 3});
  ledger.entries[0].outputs[0].order = 9;
  const OutputLayout layout(ledger, {"m", 0});
  std::vector<std::string> names;
  for (const auto& tensor : layout.files()[0].tensors) names.push_back(tensor.name);
  EXPECT_THAT(names, ElementsAre("t1", "t2", "t0"));
}

TEST(OutputLayout, NameThatIsNotWrittenHasNoPlace) {
  const OutputLayout layout(ledger_of_sizes({1}), {"m", 0});
  EXPECT_THAT(error_message(formats::ErrorCode::kInternal, [&] { (void)layout.place_of("other"); }),
              HasSubstr("other"));
}

TEST(OutputFiles, PiecesWrittenInAnyOrderAreFilesThatAnotherReaderReads) {
  const test::TemporaryFolder folder;
  const OutputLayout layout(ledger_of_sizes({3, 4, 5}), {"m", 8});
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  {
    const OutputFiles files(layout, folder.path(), formats::OutputFile::Mode::kCreate);
    files.write(layout.place_of("t2"), 3, bytes("de"));
    files.write(layout.place_of("t1"), 0, bytes("1234"));
    files.write(layout.place_of("t0"), 0, bytes("xyz"));
    files.sync();
  }
  {
    const OutputFiles files(layout, folder.path(), formats::OutputFile::Mode::kReopen);
    files.write(layout.place_of("t2"), 0, bytes("abc"));
    files.sync();
  }
  const auto tensors = test::read_all_tensors(folder.path());
  EXPECT_THAT(tensors, ElementsAre(test::RawTensor{"t0", "I8", {3}, "xyz"},
                                   test::RawTensor{"t1", "I8", {4}, "1234"},
                                   test::RawTensor{"t2", "I8", {5}, "abcde"}));
  uint64_t size_bytes = 0;
  for (const OutputLayout::File& file : layout.files()) {
    EXPECT_EQ(std::filesystem::file_size(folder / file.name), file.size_bytes);
    size_bytes += file.size_bytes;
  }
  EXPECT_EQ(layout.size_bytes(), size_bytes);
}

TEST(OutputLayout, AnEmptyLedgerIsAnEmptyFile) {
  const OutputLayout layout(Ledger{}, {"m", 0});
  ASSERT_EQ(layout.files().size(), 1U);
  EXPECT_EQ(layout.files()[0].size_bytes, layout.files()[0].header.size());
}

}  // namespace
}  // namespace llmq::convert

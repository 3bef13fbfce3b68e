#include "convert/pipeline/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/tools/test_files.h"

namespace llmq::convert {
namespace {

using formats::Json;
using test::read_file;
using test::write_file;

class JournalTest : public testing::Test {
 protected:
  [[nodiscard]] Journal open(bool may_resume = true) const {
    return {folder_.path(), fingerprint_, may_resume};
  }
  // What an interrupted run with two finished units leaves.
  void interrupt_after_two_units() const {
    Journal journal = open();
    journal.record(0, Json{{"sqnr_db", 40.5}});
    journal.record(3, Json::array({1, nullptr}));
  }

  test::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / Journal::kFileName;
  Json fingerprint_ = {{"version", "1"}, {"eps", 1e-06}, {"modified", -4659374502116523}};
};

TEST_F(JournalTest, ANewRunHasNothingToResume) {
  const Journal journal = open();
  EXPECT_FALSE(journal.is_resumed());
  EXPECT_EQ(journal.finished(0), nullptr);
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(JournalTest, FinishedUnitsComeBackWithTheirResults) {
  interrupt_after_two_units();
  const Journal journal = open();
  EXPECT_TRUE(journal.is_resumed());
  ASSERT_NE(journal.finished(0), nullptr);
  EXPECT_EQ(*journal.finished(0), (Json{{"sqnr_db", 40.5}}));
  ASSERT_NE(journal.finished(3), nullptr);
  EXPECT_EQ(*journal.finished(3), Json::array({1, nullptr}));
  EXPECT_EQ(journal.finished(1), nullptr);
}

TEST_F(JournalTest, AnythingElseInTheFingerprintStartsOver) {
  interrupt_after_two_units();
  fingerprint_["eps"] = 1e-05;
  EXPECT_FALSE(open().is_resumed());
  // The old units are gone for good: what they wrote will be overwritten.
  fingerprint_["eps"] = 1e-06;
  EXPECT_FALSE(open().is_resumed());
}

TEST_F(JournalTest, NotToResumeStartsOver) {
  interrupt_after_two_units();
  EXPECT_FALSE(open(false).is_resumed());
  EXPECT_FALSE(open().is_resumed());
}

TEST_F(JournalTest, ALastLineThatWasCutOffIsIgnored) {
  interrupt_after_two_units();
  const std::string text = read_file(path_);
  write_file(path_, text.substr(0, text.size() - 5));
  const Journal journal = open();
  EXPECT_NE(journal.finished(0), nullptr);
  EXPECT_EQ(journal.finished(3), nullptr);
}

TEST_F(JournalTest, UnitsRecordedBehindACutLineAreFoundByTheNextRun) {
  for (const size_t n_cut : {size_t{1}, size_t{5}}) {
    interrupt_after_two_units();
    const std::string text = read_file(path_);
    write_file(path_, text.substr(0, text.size() - n_cut));
    {
      Journal journal = open();
      ASSERT_TRUE(journal.is_resumed());
      journal.record(4, 4);
      journal.record(5, 5);
    }
    const Journal journal = open();
    EXPECT_NE(journal.finished(0), nullptr) << n_cut;
    EXPECT_NE(journal.finished(4), nullptr) << n_cut;
    EXPECT_NE(journal.finished(5), nullptr) << n_cut;
    std::filesystem::remove(path_);
  }
}

TEST_F(JournalTest, LinesThatAreNoUnitsEndTheRecord) {
  for (const char* line : {"7", "[]", "{}", R"({"unit":"x","result":1})",
                           R"({"unit":-1,"result":1})", R"({"unit":2})", "\xff"}) {
    interrupt_after_two_units();
    write_file(path_, read_file(path_) + line + "\n" + R"({"unit":9,"result":1})" + "\n");
    const Journal journal = open();
    EXPECT_NE(journal.finished(3), nullptr) << line;
    EXPECT_EQ(journal.finished(9), nullptr) << line;
    std::filesystem::remove(path_);
  }
}

TEST_F(JournalTest, AFileThatIsNoJournalStartsOver) {
  for (const char* text : {"", "\n", "not json\n", "[]\n", "\xff\n"}) {
    write_file(path_, text);
    EXPECT_FALSE(open().is_resumed()) << text;
  }
}

TEST_F(JournalTest, RemoveLeavesNoFile) {
  Journal journal = open();
  journal.record(0, 1);
  journal.remove();
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

}  // namespace
}  // namespace llmq::convert

#include "formats/staging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

namespace fs = std::filesystem;
using test::error_message;
using test::read_file;
using test::write_file;
using testing::AllOf;
using testing::HasSubstr;

class Staging : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(source_);
    write_file(source_ / "weights", "source");
  }

  // Writes one file through a staging folder and commits it.
  void write_through(const fs::path& destination, bool force) const {
    StagingFolder staging(destination, source_, force);
    write_file(staging.path() / "x", "new");
    staging.commit();
  }
  [[nodiscard]] std::string refusal(const fs::path& destination, bool force = false) const {
    return error_message(ErrorCode::kBadInput,
                         [&] { check_destination(destination, source_, force); });
  }
  [[nodiscard]] std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  test::TemporaryFolder folder_;
  fs::path source_ = folder_ / "source";
  fs::path out_ = folder_ / "out";
};

TEST_F(Staging, DestinationAppearsOnlyWithCommit) {
  {
    StagingFolder staging(out_, source_, false);
    EXPECT_EQ(staging.destination(), fs::canonical(folder_.path()) / "out");
    EXPECT_EQ(staging.path().filename(), ".out.llmq-partial");
    write_file(staging.path() / "x", "new");
    EXPECT_FALSE(fs::exists(out_));
    staging.commit();
    EXPECT_EQ(read_file(out_ / "x"), "new");
  }
  EXPECT_EQ(entries(), (std::vector<std::string>{"out", "source"}));
}

TEST_F(Staging, WithoutCommitNothingIsLeft) {
  {
    const StagingFolder staging(out_, source_, false);
    write_file(staging.path() / "x", "new");
  }
  EXPECT_EQ(entries(), std::vector<std::string>{"source"});
}

TEST_F(Staging, KeptForResumeIsFoundAgain) {
  {
    StagingFolder staging(out_, source_, false);
    write_file(staging.path() / "x", "half");
    staging.keep_for_resume();
  }
  EXPECT_FALSE(fs::exists(out_));
  StagingFolder staging(out_, source_, false);
  EXPECT_EQ(read_file(staging.path() / "x"), "half");
  staging.clear();
  EXPECT_TRUE(fs::is_empty(staging.path()));
}

TEST_F(Staging, ForceReplacesTheWholeDestination) {
  fs::create_directory(out_);
  write_file(out_ / "old", "old");
  EXPECT_THAT(refusal(out_), AllOf(HasSubstr("is not empty"), HasSubstr("--force")));
  write_through(out_, true);
  EXPECT_FALSE(fs::exists(out_ / "old"));
  EXPECT_EQ(read_file(out_ / "x"), "new");
  EXPECT_EQ(entries(), (std::vector<std::string>{"out", "source"}));
}

TEST_F(Staging, ForceKeepsTheDestinationUntilCommit) {
  fs::create_directory(out_);
  write_file(out_ / "old", "old");
  {
    const StagingFolder staging(out_, source_, true);
    write_file(staging.path() / "x", "new");
  }
  EXPECT_EQ(read_file(out_ / "old"), "old");
}

TEST_F(Staging, EmptyDestinationIsUsedWithoutForce) {
  fs::create_directory(out_);
  write_through(out_, false);
  EXPECT_EQ(read_file(out_ / "x"), "new");
}

TEST_F(Staging, ParentsOfTheDestinationAreMade) {
  write_through(folder_ / "a" / "b" / "c", false);
  EXPECT_EQ(read_file(folder_ / "a" / "b" / "c" / "x"), "new");
}

TEST_F(Staging, TrailingSlashesAndDotsNameTheSameFolder) {
  for (const char* spelling : {"/out/", "/out//", "/./out/.", "/none/../out", "/source/../out/"}) {
    write_through(folder_.path().string() + spelling, true);
    EXPECT_EQ(read_file(out_ / "x"), "new") << spelling;
    fs::remove_all(out_);
    EXPECT_EQ(entries(), std::vector<std::string>{"source"}) << spelling;
  }
}

TEST_F(Staging, RelativeDestinationIsTakenFromTheWorkingFolder) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_.path());
  write_through("out", false);
  fs::current_path(before);
  EXPECT_EQ(read_file(out_ / "x"), "new");
}

TEST_F(Staging, LinkToAFolderKeepsPointingThere) {
  const fs::path real = folder_ / "real";
  fs::create_directory(real);
  fs::create_directory_symlink("real", out_);
  write_through(out_, false);
  EXPECT_TRUE(fs::is_symlink(out_));
  EXPECT_EQ(read_file(real / "x"), "new");
  EXPECT_EQ(entries(), (std::vector<std::string>{"out", "real", "source"}));
}

TEST_F(Staging, LinkToNothingIsRefusedBeforeTheWork) {
  fs::create_directory_symlink("nowhere", out_);
  EXPECT_THAT(refusal(out_), AllOf(HasSubstr("out"), HasSubstr("link")));
  EXPECT_THAT(refusal(out_, true), HasSubstr("link"));
}

TEST_F(Staging, LinkToItselfIsRefusedBeforeTheWork) {
  fs::create_directory_symlink("out", out_);
  EXPECT_THAT(refusal(out_), AllOf(HasSubstr("out"), HasSubstr("link")));
}

// A mounted folder cannot be replaced by a rename; better said before hours of work.
TEST_F(Staging, MountPointIsRefusedBeforeTheWork) {
  if (!fs::is_directory("/proc/self")) GTEST_SKIP() << "/proc is not mounted";
  EXPECT_THAT(refusal("/proc", true), AllOf(HasSubstr("/proc"), HasSubstr("mount")));
}

TEST_F(Staging, SourceIsNeverReplacedOrWrittenInto) {
  fs::create_directory_symlink("source", folder_ / "link");
  for (const char* name : {"source", "source/", "source/inner", "link", "link/inner", "./source"}) {
    EXPECT_THAT(refusal(folder_ / name, true), HasSubstr("is the source folder or inside it"))
        << name;
  }
  EXPECT_THAT(refusal(folder_.path(), true), HasSubstr("contains the source folder"));
  EXPECT_THAT(refusal("/", true), HasSubstr("contains the source folder"));
  check_destination(folder_ / "source2", source_, false);
}

TEST_F(Staging, FileInTheWayIsRefusedAndKept) {
  write_file(out_, "file");
  EXPECT_THAT(refusal(out_, true), HasSubstr("is a file"));
  EXPECT_EQ(read_file(out_), "file");
}

TEST_F(Staging, CheckAloneMakesNothing) {
  check_destination(folder_ / "a" / "b", source_, false);
  EXPECT_EQ(entries(), std::vector<std::string>{"source"});
}

TEST_F(Staging, FailedRenameBringsTheOldDestinationBack) {
  fs::create_directory(out_);
  write_file(out_ / "old", "old");
  StagingFolder staging(out_, source_, true);
  fs::remove_all(staging.path());
  EXPECT_THAT(error_message(ErrorCode::kIo, [&] { staging.commit(); }), HasSubstr("partial"));
  EXPECT_EQ(read_file(out_ / "old"), "old");
}

}  // namespace
}  // namespace llmq::formats

#include "formats/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "formats/error.h"
#include "formats/json.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

namespace fs = std::filesystem;
using test::error_message;
using test::read_file;
using test::TemporaryFolder;
using test::write_file;
using testing::HasSubstr;

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(MappedFile, HoldsTheWholeFileAndKeepsItsAddressWhenMoved) {
  const TemporaryFolder folder;
  const std::string content = std::string(100000, 'a') + "end";
  write_file(folder / "x", content);
  MappedFile file(folder / "x");
  EXPECT_EQ(text_of(file.bytes()), content);
  const std::byte* address = file.bytes().data();
  const MappedFile moved(std::move(file));
  EXPECT_EQ(moved.bytes().data(), address);
  EXPECT_EQ(moved.path(), folder / "x");
}

TEST(MappedFile, EmptyFileHasNoBytes) {
  const TemporaryFolder folder;
  write_file(folder / "x", "");
  EXPECT_TRUE(MappedFile(folder / "x").bytes().empty());
}

TEST(MappedFile, FollowsALinkToAFileElsewhere) {
  const TemporaryFolder folder;
  const TemporaryFolder elsewhere;
  write_file(elsewhere / "blob", "content");
  fs::create_symlink(elsewhere / "blob", folder / "x");
  EXPECT_EQ(text_of(MappedFile(folder / "x").bytes()), "content");
}

TEST(MappedFile, BytesAreTheSameAfterRelease) {
  const TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 50000; ++i) content += static_cast<char>(i * 7);
  write_file(folder / "x", content);
  const MappedFile file(folder / "x");
  MappedFile::prefetch(file.bytes());
  MappedFile::prefetch(file.bytes().subspan(1, 10));
  MappedFile::release(file.bytes().subspan(100, 40000));
  MappedFile::release(file.bytes().first(0));
  EXPECT_EQ(text_of(file.bytes()), content);
}

TEST(MappedFile, MissingFileFolderAndPipeAreRefusedByName) {
  const TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_message(ErrorCode::kBadInput, [&] { const MappedFile x(folder / "none"); }),
              HasSubstr("none: no such file"));
  for (const fs::path& path : {folder.path(), folder / "pipe"}) {
    EXPECT_THAT(error_message(ErrorCode::kBadInput, [&] { const MappedFile x(path); }),
                HasSubstr(path.string() + ": not a regular file"));
  }
}

TEST(ReadTextFile, MissingFileFolderAndPipeAreRefusedByName) {
  const TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_message(ErrorCode::kBadInput, [&] { (void)read_text_file(folder / "none"); }),
              HasSubstr("none: no such file"));
  for (const fs::path& path : {folder.path(), folder / "pipe"}) {
    EXPECT_THAT(error_message(ErrorCode::kBadInput, [&] { (void)read_text_file(path); }),
                HasSubstr(path.string() + ": not a regular file"));
  }
}

TEST(ReadTextFile, RefusesFilesAboveTheLimitAndTakesThoseAtIt) {
  const TemporaryFolder folder;
  write_file(folder / "x", "12345");
  EXPECT_EQ(read_text_file(folder / "x", 5), "12345");
  EXPECT_THAT(error_message(ErrorCode::kBadInput, [&] { (void)read_text_file(folder / "x", 4); }),
              HasSubstr("5 bytes, more than the 4 allowed"));
}

TEST(OutputFile, UnwrittenPartsAreZeroAndTheOrderOfWritesDoesNotMatter) {
  const TemporaryFolder folder;
  const OutputFile file(folder / "x", 8);
  file.write_at(6, bytes_of("gh"));
  file.write_at(0, bytes_of("ab"));
  file.sync();
  EXPECT_EQ(read_file(folder / "x"), std::string("ab\0\0\0\0gh", 8));
}

TEST(OutputFile, ThreadsMayWriteAtTheSameTime) {
  const TemporaryFolder folder;
  constexpr size_t kThreads = 4;
  constexpr size_t kPart = 10000;
  const OutputFile file(folder / "x", kThreads * kPart);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&file, i] {
      const std::string byte(1, static_cast<char>('a' + i));
      for (size_t at = 0; at < kPart; ++at) file.write_at(i * kPart + at, bytes_of(byte));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::string expected;
  for (size_t i = 0; i < kThreads; ++i) expected += std::string(kPart, static_cast<char>('a' + i));
  EXPECT_EQ(read_file(folder / "x"), expected);
}

TEST(OutputFile, CreateStartsAnewAndReopenContinues) {
  const TemporaryFolder folder;
  write_file(folder / "x", "old content");
  {
    const OutputFile file(folder / "x", 4);
    file.write_at(0, bytes_of("AB"));
  }
  EXPECT_EQ(read_file(folder / "x"), std::string("AB\0\0", 4));
  const OutputFile file(folder / "x", 4, OutputFile::Mode::kReopen);
  file.write_at(2, bytes_of("CD"));
  EXPECT_EQ(read_file(folder / "x"), "ABCD");
}

TEST(OutputFile, WritesOutsideItsLengthAreABug) {
  const TemporaryFolder folder;
  const OutputFile file(folder / "x", 4);
  for (const uint64_t offset : {uint64_t{3}, uint64_t{5}, UINT64_MAX}) {
    error_message(ErrorCode::kInternal, [&] { file.write_at(offset, bytes_of("AB")); });
  }
  EXPECT_EQ(fs::file_size(folder / "x"), 4U);
}

TEST(OutputFile, AFolderThatDoesNotExistIsAnIoErrorWithThePath) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_message(ErrorCode::kIo, [&] { const OutputFile x(folder / "no" / "x", 1); }),
              HasSubstr("no/x: No such file or directory"));
}

TEST(OutputFile, AFullDiskIsSaidInAWord) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "this system has no /dev/full";
  const OutputFile file("/dev/full", 4, OutputFile::Mode::kReopen);
  EXPECT_THAT(error_message(ErrorCode::kIo, [&] { file.write_at(0, bytes_of("A")); }),
              HasSubstr("the disk is full while writing /dev/full"));
}

TEST(WriteTextFile, ReplacesALongerFile) {
  const TemporaryFolder folder;
  write_text_file(folder / "x", "long content");
  write_text_file(folder / "x", "short");
  EXPECT_EQ(read_file(folder / "x"), "short");
}

TEST(CopyFileSynced, CopiesTheContentBehindALink) {
  const TemporaryFolder folder;
  write_file(folder / "blob", std::string("a\0b", 3));
  fs::create_symlink("blob", folder / "link");
  copy_file_synced(folder / "link", folder / "copy");
  EXPECT_FALSE(fs::is_symlink(folder / "copy"));
  EXPECT_EQ(read_file(folder / "copy"), std::string("a\0b", 3));
  error_message(ErrorCode::kBadInput, [&] { copy_file_synced(folder / "none", folder / "x"); });
}

TEST(FreeDiskBytes, AsksTheNearestFolderThatExists) {
  const TemporaryFolder folder;
  EXPECT_GT(free_disk_bytes(folder.path()), 0U);
  EXPECT_GT(free_disk_bytes(folder / "not" / "made" / "yet"), 0U);
}

}  // namespace
}  // namespace llmq::formats

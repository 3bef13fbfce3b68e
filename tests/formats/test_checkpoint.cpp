#include "formats/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "formats/error.h"
#include "tests/convert/checkpoint_writer.h"
#include "tests/tools/test_files.h"

namespace llmq::formats {
namespace {

namespace fs = std::filesystem;
using test::error_message;
using test::OrderedJson;
using test::RawTensor;
using test::TemporaryFolder;
using test::write_file;
using testing::AllOf;
using testing::HasSubstr;

const std::string kIndex = "model.safetensors.index.json";
const std::string kFirst = "model-00001-of-00002.safetensors";
const std::string kSecond = "model-00002-of-00002.safetensors";

std::vector<RawTensor> three_tensors() {
  return {{"a", "I8", {2}, "aa"}, {"b", "BF16", {1, 2}, "bbbb"}, {"c", "I8", {1}, "c"}};
}

std::string text_of(const StoredTensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

std::string refusal(const fs::path& folder) {
  return error_message(ErrorCode::kBadInput, [&] { (void)Checkpoint::open(folder); });
}

void expect_three_tensors(const Checkpoint& checkpoint) {
  ASSERT_EQ(checkpoint.tensors().size(), 3U);
  for (const RawTensor& tensor : three_tensors()) {
    const StoredTensor& stored = checkpoint.at(tensor.name);
    EXPECT_EQ(dtype_name(stored.dtype), tensor.dtype);
    EXPECT_EQ(stored.shape, tensor.shape);
    EXPECT_EQ(text_of(stored), tensor.bytes);
    EXPECT_EQ(checkpoint.find(tensor.name), &stored);
  }
  EXPECT_EQ(checkpoint.size_bytes(), 7U);
}

class CheckpointFolder : public testing::Test {
 protected:
  // Two shards with a changed index.
  void write_sharded(const std::function<void(OrderedJson& weight_map)>& change) const {
    test::write_sharded_checkpoint(folder_.path(), OrderedJson::object(), three_tensors(), 2);
    auto index = OrderedJson::parse(test::read_file(folder_ / kIndex));
    change(index["weight_map"]);
    write_file(folder_ / kIndex, index.dump());
  }

  TemporaryFolder folder_;
};

TEST_F(CheckpointFolder, OneFileUnderAnyNameIsOpened) {
  write_file(folder_ / "anything.safetensors", test::safetensors_file(three_tensors()));
  const Checkpoint checkpoint = Checkpoint::open(folder_.path());
  expect_three_tensors(checkpoint);
  EXPECT_FALSE(checkpoint.index_file().has_value());
  EXPECT_EQ(checkpoint.files(), std::vector<std::string>{"anything.safetensors"});
  EXPECT_EQ(checkpoint.folder(), folder_.path());
}

TEST_F(CheckpointFolder, ShardsOfAnIndexAreOneCheckpoint) {
  write_sharded([](OrderedJson&) {});
  const Checkpoint checkpoint = Checkpoint::open(folder_.path());
  expect_three_tensors(checkpoint);
  EXPECT_EQ(checkpoint.index_file(), kIndex);
  EXPECT_EQ(checkpoint.files(), (std::vector<std::string>{kFirst, kSecond}));
  EXPECT_EQ(checkpoint.at("b").file_index, 0U);
  EXPECT_EQ(checkpoint.at("c").file_index, 1U);
}

TEST_F(CheckpointFolder, FilesThatTheIndexDoesNotNameAreLeftAlone) {
  write_sharded([](OrderedJson&) {});
  write_file(folder_ / "consolidated.safetensors", "not even a weight file");
  expect_three_tensors(Checkpoint::open(folder_.path()));
}

// A download cache keeps every file as a link to a blob in another folder.
TEST_F(CheckpointFolder, LinksToFilesElsewhereAreFollowed) {
  write_sharded([](OrderedJson&) {});
  const TemporaryFolder cache;
  const fs::path snapshot = cache / "snapshots";
  fs::create_directory(snapshot);
  for (const std::string& name : {kIndex, kFirst, kSecond}) {
    fs::create_symlink(folder_ / name, snapshot / name);
  }
  expect_three_tensors(Checkpoint::open(snapshot));
  fs::create_directory_symlink(snapshot, cache / "latest");
  expect_three_tensors(Checkpoint::open(cache / "latest"));
}

TEST_F(CheckpointFolder, MovingItKeepsTheTensors) {
  write_file(folder_ / "x.safetensors", test::safetensors_file(three_tensors()));
  Checkpoint checkpoint = Checkpoint::open(folder_.path());
  const Checkpoint moved = std::move(checkpoint);
  expect_three_tensors(moved);
}

TEST_F(CheckpointFolder, MissingTensorIsNullOrAnErrorWithItsName) {
  write_file(folder_ / "x.safetensors", test::safetensors_file(three_tensors()));
  const Checkpoint checkpoint = Checkpoint::open(folder_.path());
  EXPECT_EQ(checkpoint.find("d"), nullptr);
  EXPECT_THAT(error_message(ErrorCode::kBadInput, [&] { (void)checkpoint.at("d"); }),
              AllOf(HasSubstr(folder_.path().string()), HasSubstr("tensor d is missing")));
}

TEST_F(CheckpointFolder, FolderThatIsNoneOrHoldsNothingIsNamed) {
  EXPECT_THAT(refusal(folder_ / "none"), HasSubstr("no such folder"));
  write_file(folder_ / "file", "");
  EXPECT_THAT(refusal(folder_ / "file"), HasSubstr("no such folder"));
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("holds no .safetensors file"));
}

TEST_F(CheckpointFolder, PicklesAreRefusedWithWhatToDo) {
  write_file(folder_ / "pytorch_model.bin", "");
  EXPECT_THAT(refusal(folder_.path()),
              AllOf(HasSubstr("PyTorch .bin"), HasSubstr("save the model as safetensors")));
}

TEST_F(CheckpointFolder, SeveralFilesWithoutIndexAreRefused) {
  write_file(folder_ / "a.safetensors", test::safetensors_file(three_tensors()));
  write_file(folder_ / "b.safetensors", test::safetensors_file(three_tensors()));
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("2 weight files (a.safetensors, ...)"));
}

TEST_F(CheckpointFolder, SeveralIndexesAreRefusedByName) {
  write_sharded([](OrderedJson&) {});
  write_file(folder_ / "other.safetensors.index.json", "{}");
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("(" + kIndex + ", other.safetensors.index.json)"));
}

TEST_F(CheckpointFolder, IndexThatIsNoneIsRefused) {
  for (const char* text : {"", "[]", "{}", R"({"weight_map":[]})"}) {
    write_file(folder_ / kIndex, text);
    EXPECT_THAT(refusal(folder_.path()), HasSubstr(kIndex));
  }
  write_file(folder_ / kIndex, R"({"weight_map":{"a":1}})");
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("tensor a: its file is not a string"));
}

TEST_F(CheckpointFolder, IndexMayOnlyNameFilesOfItsFolder) {
  const TemporaryFolder elsewhere;
  write_file(elsewhere / "x.safetensors", test::safetensors_file(three_tensors()));
  const std::vector<std::string> names = {elsewhere / "x.safetensors",
                                          "../x.safetensors",
                                          "sub/x.safetensors",
                                          "./x.safetensors",
                                          "..",
                                          ".",
                                          ""};
  for (const std::string& name : names) {
    write_sharded([&](OrderedJson& map) { map["c"] = name; });
    EXPECT_THAT(refusal(folder_.path()),
                HasSubstr("\"" + name + "\", which is outside the folder"));
  }
}

TEST_F(CheckpointFolder, MissingShardIsNamed) {
  write_sharded([](OrderedJson&) {});
  fs::remove(folder_ / kSecond);
  EXPECT_THAT(refusal(folder_.path()), HasSubstr(kSecond + ", which is missing"));
}

TEST_F(CheckpointFolder, IndexAndShardsMustHoldTheSameTensors) {
  write_sharded([](OrderedJson& map) { map["ghost"] = kFirst; });
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("tensor ghost is in " + kFirst));
  write_sharded([](OrderedJson& map) { map["a"] = kSecond; });
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("tensor a is in " + kSecond));
  write_sharded([](OrderedJson& map) { map.erase("b"); });
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("tensor b of " + kFirst + " is not in the index"));
}

TEST_F(CheckpointFolder, TensorInTwoShardsIsRefusedWithBoth) {
  write_sharded([](OrderedJson&) {});
  const std::vector<RawTensor> again = {{"c", "I8", {1}, "c"}, {"a", "I8", {2}, "AA"}};
  write_file(folder_ / kSecond, test::safetensors_file(again));
  EXPECT_THAT(refusal(folder_.path()),
              AllOf(HasSubstr(kSecond), HasSubstr("tensor a is also in " + kFirst)));
}

TEST_F(CheckpointFolder, DamageInsideAFileNamesTheFile) {
  write_sharded([](OrderedJson&) {});
  write_file(folder_ / kSecond, "short");
  EXPECT_THAT(refusal(folder_.path()), HasSubstr(kSecond + ": 5 bytes are too few"));
}

}  // namespace
}  // namespace llmq::formats

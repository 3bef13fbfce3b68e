#include "runtime/evaluate/random_text.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

namespace llmq::runtime {
namespace {

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111eb;
  return x ^ (x >> 31U);
}

using Words = std::array<std::string_view, 16>;

constexpr Words kQualities{"quiet", "old",  "small", "happy", "tall",   "brown", "gentle", "busy",
                           "young", "kind", "tired", "brave", "clever", "slow",  "bright", "warm"};
constexpr Words kBeings{"baker", "farmer", "cat",    "dog",   "teacher", "bird", "sailor", "child",
                        "horse", "singer", "miller", "nurse", "painter", "fox",  "guard",  "cook"};
constexpr Words kDeeds{"waits", "sings", "sleeps", "walks",  "rests", "works", "plays", "hides",
                       "reads", "looks", "smiles", "stands", "sits",  "runs",  "stays", "dances"};
constexpr Words kPlaces{"river", "bridge", "garden", "house",  "tree",   "market", "mill", "hill",
                        "lake",  "road",   "barn",   "window", "forest", "well",   "sea",  "wall"};

std::string_view pick(const Words& words, SeededNumbers& numbers) {
  return words[static_cast<size_t>(numbers.below(words.size()))];
}

}  // namespace

SeededNumbers::SeededNumbers(uint64_t seed, uint64_t stream)
    : state_(mix(seed + kGolden) ^ mix(~stream)) {}

uint64_t SeededNumbers::next() {
  state_ += kGolden;
  return mix(state_);
}

uint64_t SeededNumbers::below(uint64_t bound) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64U);
}

std::string filler_sentence(SeededNumbers& numbers) {
  // Named, because the order in which arguments are evaluated is the compiler's.
  const auto quality = pick(kQualities, numbers);
  const auto being = pick(kBeings, numbers);
  const auto deed = pick(kDeeds, numbers);
  const auto place_quality = pick(kQualities, numbers);
  const auto place = pick(kPlaces, numbers);
  return fmt::format("The {} {} {} near the {} {}. ", quality, being, deed, place_quality, place);
}

std::string random_uuid(SeededNumbers& numbers) {
  const uint64_t high = numbers.next();
  const uint64_t low = numbers.next();
  return fmt::format("{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", high >> 32U, (high >> 16U) & 0xffffU,
                     high & 0xfffU, 0x8000U | ((low >> 48U) & 0x3fffU), low & 0xffffffffffffU);
}

}  // namespace llmq::runtime

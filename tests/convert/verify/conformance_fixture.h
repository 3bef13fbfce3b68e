#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "convert/verify/conformance.h"
#include "tests/convert/verify/static_folder.h"

namespace llmq::convert {

/// Writes folders and checks them.
class ConformanceTest : public testing::Test {
 protected:
  std::map<std::string, RuleResult> check(
      const test::StaticFolder& contents,
      const std::optional<std::filesystem::path>& source = std::nullopt) {
    std::filesystem::remove_all(folder_ / "out");
    contents.write(folder_ / "out");
    std::map<std::string, RuleResult> rules;
    for (RuleResult& rule : check_conformance(folder_ / "out", source, team_)) {
      rules[rule.name] = rule;
    }
    return rules;
  }
  void expect_conforms(const test::StaticFolder& contents) {
    for (const auto& [name, rule] : check(contents)) EXPECT_TRUE(rule.ok) << name << rule.detail;
  }
  /// Only these rules are broken, and the first of them says this.
  void expect_broken(const test::StaticFolder& contents, const std::vector<std::string>& names,
                     const std::string& words) {
    for (const auto& [name, rule] : check(contents)) {
      const bool is_expected = std::find(names.begin(), names.end(), name) != names.end();
      EXPECT_EQ(rule.ok, !is_expected) << name << ": " << rule.detail;
      if (name == names.front()) {
        EXPECT_THAT(rule.detail, testing::HasSubstr(words));
      }
    }
  }

  test::TemporaryFolder folder_;
  quant::ThreadTeam team_{2};
};

}  // namespace llmq::convert

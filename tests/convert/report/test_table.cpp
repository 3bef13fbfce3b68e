#include "convert/report/table.h"

#include <gtest/gtest.h>

#include "formats/error.h"
#include "tests/tools/test_files.h"

namespace llmq::convert {
namespace {

TEST(Table, PadsTextLeftAndNumbersRightUnderARule) {
  Table table({"name", "n", "size"});
  table.add({"a", "5", "1.50 kB"});
  table.add({"longer", "1000", "20 B"});
  EXPECT_EQ(table.text(),
            "name       n     size\n"
            "------  ----  -------\n"
            "a          5  1.50 kB\n"
            "longer  1000     20 B\n");
}

TEST(Table, OneWordInAColumnMakesItText) {
  Table table({"x", "y"});
  table.add({"10", "z"});
  table.add({"none", "z"});
  EXPECT_EQ(table.text(), "x     y\n----  -\n10    z\nnone  z\n");
}

TEST(Table, SignsAndEmptyCellsAreNumbers) {
  Table table({"value"});
  table.add({"-1.5"});
  table.add({""});
  table.add({"+10"});
  EXPECT_EQ(table.text(), "value\n-----\n -1.5\n\n  +10\n");
}

TEST(Table, MissingCellsAreEmptyAndTooManyAreABug) {
  Table table({"a", "b", "c"});
  table.add({"x"});
  EXPECT_EQ(table.text(), "a  b  c\n-  -  -\nx\n");
  test::error_message(formats::ErrorCode::kInternal, [&] { table.add({"1", "2", "3", "4"}); });
}

TEST(Table, HeadingAloneIsATable) {
  EXPECT_EQ(Table({"ab", "c"}).text(), "ab  c\n--  -\n");
}

TEST(Table, CharactersCountInsteadOfBytes) {
  Table table({"café", "n"});
  table.add({"e", "1"});
  EXPECT_EQ(table.text(), "café  n\n----  -\ne     1\n");
}

}  // namespace
}  // namespace llmq::convert

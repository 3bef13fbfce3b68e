#!/usr/bin/env bash
# Builds the project and runs its tests. See usage below.
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
exec 2>&1
source tests/tools/setup.sh

usage() {
  cat <<TXT
bash tests/run.sh             build the release preset, run every test that is not labelled slow or
                              accuracy
bash tests/run.sh --ci        the same, and: the accuracy suite, include, format and clang-tidy checks,
                              the fuzzers for ${LLMQ_FUZZ_SECONDS:-10} s each, the tests under
                              AddressSanitizer and UBSan
bash tests/run.sh --nightly   the same as --ci, and: the slow tests, the tests under ThreadSanitizer
Missing Debian packages are installed by name (root or sudo) or printed with the line to run.
Environment: LLMQ_TEST_DATA (folder of outside data), LLMQ_FUZZ_SECONDS (seconds per fuzzer).
TXT
}

mode=plain
case "${1:-}" in
  "") ;;
  --ci) mode=ci ;;
  --nightly) mode=nightly ;;
  -h | --help) usage; exit 0 ;;
  *) usage; exit 2 ;;
esac

# --- steps: each prints a heading, none stops those after it that do not build on it --------------
failed_steps=()
n_passed=0
n_failed=0
n_skipped=0

elapsed() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }

# step NAME COMMAND...: runs the command under a heading and remembers whether it failed.
step() {
  local name=$1 status=0
  shift
  printf '\n== [%s] %s\n' "$(elapsed)" "$name"
  "$@" || status=$?
  if ((status != 0)); then
    printf '== [%s] FAILED: %s\n' "$(elapsed)" "$name"
    failed_steps+=("$name")
  fi
  return "$status"
}

# check NAME COMMAND...: a step that counts as one test.
check() {
  if step "$@"; then n_passed=$((n_passed + 1)); else n_failed=$((n_failed + 1)); fi
}

# junit_total FILE ATTRIBUTE: the number that the first line of ctest's report gives.
junit_total() {
  grep -m1 -oE "(^|[[:space:]])$2=\"[0-9]+\"" "$1" | grep -oE '[0-9]+'
}

# run_ctest PRESET CTEST_ARGUMENT...: runs the suite of a build and adds to the totals.
run_ctest() {
  local preset=$1 report status=0 total failures skipped
  shift
  report=$PWD/build/ctest-$preset.xml
  rm -f "$report"
  "${personality[@]}" ctest --test-dir "build/$preset" --parallel "$(llmq_jobs)" --no-tests=error \
    --output-on-failure --output-junit "$report" "$@" | grep -vE '^ *[0-9]+/[0-9]+ Test .* Passed |^ *Start '
  status=${PIPESTATUS[0]}
  if [[ -f $report ]]; then
    total=$(junit_total "$report" tests)
    failures=$(junit_total "$report" failures)
    skipped=$(($(junit_total "$report" skipped) + $(junit_total "$report" disabled)))
    n_passed=$((n_passed + total - failures - skipped))
    n_failed=$((n_failed + failures))
    n_skipped=$((n_skipped + skipped))
  fi
  return "$status"
}

# cxx_files: every C++ file of the project, one a line.
cxx_files() {
  git ls-files --cached --others --exclude-standard -- '*.cpp' '*.h' 2>/dev/null ||
    find convert quant formats runtime tests samples \( -name '*.cpp' -o -name '*.h' \)
}

check_format() { cxx_files | xargs clang-format-14 --dry-run -Werror; }

# Static analysis of our own translation units; headers are covered through them.
check_tidy() {
  local database=build/release/compile_commands.json out=build/tidy list
  [[ -f $database ]] || { echo "$database is missing"; return 1; }
  rm -rf "$out"
  mkdir -p "$out"
  # Without the precompiled headers, so that each file must include what it needs (and is read faster).
  sed -E 's/ -Winvalid-pch -include [^ ]*cmake_pch\.hxx//' "$database" >"$out/compile_commands.json"
  list=$(cxx_files | grep -E '^(formats|quant|runtime|convert|tests/tools)/.*\.cpp$')
  # Output goes to a file per source, so that parallel runs do not mix and failures can be listed.
  tidy_one() {
    local log=$2/${1//\//_}.log
    # The database was written for GCC, whose warning flags clang does not all know.
    clang-tidy-14 --quiet --extra-arg=-Wno-unknown-warning-option -p "$2" "$1" >"$log" 2>&1 || echo "$1" >>"$2/failed"
  }
  export -f tidy_one
  xargs -P "$(llmq_jobs)" -I{} bash -c 'tidy_one "$1" "$2"' _ {} "$out" <<<"$list"
  echo "$(wc -l <<<"$list") files checked"
  [[ -f $out/failed ]] || return 0
  local file
  while read -r file; do
    echo "-- $file"
    grep -E 'warning:|error:' "$out/${file//\//_}.log" | sort -u | head -n 20
  done <"$out/failed"
  return 1
}

# Each fuzzer runs for a while from a copy of its corpus; what makes one fail is kept in build/.
run_fuzzers() {
  export LLMQ_FUZZ_SECONDS=${LLMQ_FUZZ_SECONDS:-10} artifacts=$PWD/build/fuzz-artifacts work
  mkdir -p "$artifacts"
  work=$(mktemp -d)
  fuzz_one() {
    local binary=$1 name status=0
    name=$(basename "$binary")
    [[ -f $binary && -x $binary ]] || return 0
    mkdir -p "$work/$name"
    cp -r "tests/fuzz/corpus/$name/." "$work/$name/" 2>/dev/null
    "$binary" -max_total_time="$LLMQ_FUZZ_SECONDS" -rss_limit_mb=2048 -malloc_limit_mb=1024 \
      -timeout=10 -max_len=65536 -print_final_stats=1 -artifact_prefix="$artifacts/$name-" \
      "$work/$name" >"$work/$name.log" 2>&1 || status=1
    # In one piece, so that fuzzers that run side by side do not mix.
    echo "-- $name"$'\n'"$(if ((status)); then tail -n 60 "$work/$name.log"; else
      grep -E 'stat::(number_of_executed_units|peak_rss_mb)' "$work/$name.log"; fi)"
    return "$status"
  }
  export -f fuzz_one
  local status=0
  printf '%s\n' build/asan-ubsan/tests/fuzz/fuzz_* |
    xargs -P "$(llmq_jobs)" -I{} bash -c 'fuzz_one "$1"' _ {} || status=1
  rm -rf "$work"
  return "$status"
}

# build_preset PRESET [TARGET...]
build_preset() {
  local preset=$1
  shift
  llmq_configure "$preset" && llmq_build "$preset" "$@"
}

# ThreadSanitizer of GCC 12 cannot place its shadow where the kernel randomizes addresses widely.
without_aslr() {
  local status=0
  if setarch -R true 2>/dev/null; then personality=(setarch -R); fi
  "$@" || status=$?
  personality=()
  return "$status"
}

# --- what is run ------------------------------------------------------------------------------------
packages=("${LLMQ_BUILD_PACKAGES[@]}")
[[ $mode == plain ]] || packages+=("${LLMQ_CI_PACKAGES[@]}")
step "Debian packages" llmq_need_packages "${packages[@]}" || exit 1

if [[ $mode != plain ]]; then
  check "includes point down" bash tests/tools/check_includes.sh .
  check "clang-format" check_format
fi

release_excludes=slow
[[ $mode == plain ]] && release_excludes='slow|accuracy'
# What takes minutes under a sanitizer and runs code that other tests run as well waits for the night.
sanitized_excludes=(-LE 'slow|accuracy')
[[ $mode == nightly ]] || sanitized_excludes=(-LE 'slow|accuracy|script' -E Interrupt)
if step "build: release" build_preset release; then
  # What takes longest and finds most comes first.
  if [[ $mode != plain ]] &&
    step "build: AddressSanitizer, UBSan and fuzzers with clang" build_preset asan-ubsan all fuzzers; then
    step "tests: AddressSanitizer and UBSan" run_ctest asan-ubsan "${sanitized_excludes[@]}"
    check "fuzzers" run_fuzzers
  fi
  step "tests: release" run_ctest release -LE "$release_excludes"
  [[ $mode == plain ]] || check "clang-tidy" check_tidy
  if [[ $mode == nightly ]]; then
    step "tests: slow" run_ctest release -L slow --no-tests=ignore
    if step "build: ThreadSanitizer" without_aslr build_preset tsan; then
      step "tests: ThreadSanitizer" without_aslr run_ctest tsan -LE 'slow|accuracy'
    fi
  fi
fi

# A step that failed without a failing test in it (a build, say) must still show in the last line.
((${#failed_steps[@]} > 0 && n_failed == 0)) && n_failed=${#failed_steps[@]}
echo
for name in "${failed_steps[@]}"; do echo "failed step: $name"; done
echo "$n_passed passed, $n_failed failed, $n_skipped skipped in $(elapsed)"
((${#failed_steps[@]} == 0))

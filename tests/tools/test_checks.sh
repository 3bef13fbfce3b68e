#!/usr/bin/env bash
# Proves that check_includes.sh and check_isa_symbols.sh accept what is right and name each kind of
# violation. Usage: test_checks.sh C++_COMPILER
set -u
compiler=${1:?}
tools=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
check=$tools/check_includes.sh
root=$(mktemp -d)
trap 'rm -rf "${root%/build}"' EXIT
cd "$root" || exit 2
mkdir -p formats quant/kernels/dot convert
failures=0

put() { printf '%s\n' "${@:2}" >"$1"; }

# expect NAME PATTERN: the check must fail with a line that matches; an empty pattern: must pass.
expect() {
  local output status=0
  output=$(bash "$check" "$root" 2>&1) || status=$?
  if [[ -z $2 && $status == 0 && -z $output ]]; then return; fi
  if [[ -n $2 && $status != 0 ]] && grep -qE "$2" <<<"$output"; then return; fi
  echo "FAILED: $1 (status $status): $output"
  failures=$((failures + 1))
}

clean() {
  put formats/error.h '#pragma once' '#include <string>'
  put formats/error.cpp '#include "formats/error.h"'
  put quant/kernels/dot/dot.h '#pragma once' '#include <cstdint>'
  put quant/kernels/dot/dot_avx2.cpp '#include <immintrin.h>' '#include "quant/kernels/dot/dot.h"'
  put quant/affine.cpp '#include "formats/error.h"' '#include <vector>'
  put convert/main.cpp '#include "quant/kernels/dot/dot.h"'
}

clean
expect "clean tree" ""
put formats/error.cpp '#include "quant/kernels/dot/dot.h"'
expect "include that points up" '^formats/error.cpp:1: .*a storey above'
clean
put quant/affine.cpp '' '#include "../formats/error.h"'
expect "relative include" '^quant/affine.cpp:2: .*from the repository root'
clean
put quant/affine.cpp '#include "formats/eror.h"'
expect "missing header" '^quant/affine.cpp:1: .*does not exist'
clean
put quant/affine.cpp '#include "affine.h"'
expect "include by bare name" '^quant/affine.cpp:1: .*does not start at a folder'
clean
put quant/kernels/dot/dot_avx2.cpp '#include <immintrin.h>' '#include <algorithm>'
expect "library header in an instruction set file" '^quant/kernels/dot/dot_avx2.cpp:2: <algorithm>'
clean
put quant/kernels/dot/dot.h '#include <vector>'
expect "library header through the family header" '^quant/kernels/dot/dot.h:1: <vector> reaches'
clean
put quant/kernels/dot/dot_avx2.cpp '#include "formats/error.h"'
expect "foreign header in an instruction set file" 'only headers of quant/kernels'

# objects GENERIC_FUNCTION ISA_FUNCTION: two objects, each with one inline function.
objects() {
  local folder=llmq_quant.dir/kernels/dot
  mkdir -p build/$folder
  put generic.cpp "inline int $1(int x) { return x * x; }" "int (*use)(int) = $1;"
  put wide.cpp "inline int $2(int x) { return x * x; }" "int (*use)(int) = $2;"
  "$compiler" -c generic.cpp -o build/$folder/dot.cpp.o
  "$compiler" -mavx2 -c wide.cpp -o build/$folder/dot_avx2.cpp.o
}

check=$tools/check_isa_symbols.sh
root=$root/build
objects square square_wide
expect "inline functions of their own" ""
objects square square
expect "inline function shared with an instruction set" '^square\(int\): compiled for .*avx2'

echo "$((10 - failures)) passed, $failures failed"
((failures == 0))

#!/usr/bin/env bash
# From a fresh clone to a quantized and verified checkpoint: installs what is missing, builds,
# writes a small random Qwen2 checkpoint, quantizes it to W8A16 and verifies what was written.
# Usage: bash samples/quickstart.sh      (everything goes to build/)
set -eu -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/tools/setup.sh

llmq_need_packages "${LLMQ_BUILD_PACKAGES[@]}"
echo "building llmq ..."
llmq_configure release
llmq_build release llmq make_checkpoint

llmq=build/release/llmq
work=build/quickstart
rm -rf "$work"
mkdir -p "$work"
build/release/tests/make_checkpoint --config samples/tiny-qwen2.json --out "$work/float" --seed 1
echo
"$llmq" quant -src "$work/float" -dst "$work/w8a16" -type w8a16
# The table says what the rules found; the exit code whether they hold.
"$llmq" verify "$work/w8a16" --source "$work/float" >"$work/verify.txt"
echo "compared with $work/float: $(grep -c ' yes ' "$work/verify.txt") rules hold"

#!/usr/bin/env bash
# From a fresh clone to a quantized and verified checkpoint: installs what is missing, builds,
# writes a small random Qwen2 checkpoint, quantizes it to W8A16, verifies it, prints one table.
# Usage: bash samples/quickstart.sh [FOLDER]   (default build/quickstart)
set -eu -o pipefail
work=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/../build/quickstart}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/tools/setup.sh
llmq_need_packages "${LLMQ_BUILD_PACKAGES[@]}"
llmq_configure release
llmq_build release llmq make_checkpoint || exit 1

llmq=build/release/llmq
rm -rf "$work/float" "$work/w8a16"
mkdir -p "$work"
build/release/tests/make_checkpoint --config samples/tiny-qwen2.json --out "$work/float" --seed 1
"$llmq" quant -src "$work/float" -dst "$work/w8a16" -type w8a16
"$llmq" verify "$work/w8a16" --source "$work/float"

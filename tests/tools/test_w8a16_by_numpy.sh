#!/usr/bin/env bash
# Recomputes with numpy every scale and code that llmq writes for W8A16, on a random model and, where they lie
# at hand, on real ones in each dtype. Exit 77 (skipped) without Debian's python3-numpy.
# Usage: test_w8a16_by_numpy.sh LLMQ MAKE_CHECKPOINT
set -eu -o pipefail
llmq=$1
make_checkpoint=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
models=${LLMQ_TEST_DATA:-$root/../shared/data}/models
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! /usr/bin/python3 -c 'import numpy' 2>/dev/null; then
  echo "skipped: /usr/bin/python3 has no numpy"
  exit 77
fi

# quantize_and_check SOURCE [quant option...]: quantizes to a new folder and compares the bytes.
quantize_and_check() {
  local source=$1
  shift
  rm -rf "$work/out"
  "$llmq" quant -src "$source" -dst "$work/out" "$@" --log-level quiet >/dev/null
  local symmetry=()
  case " $* " in *" -w_sym False "*) symmetry=(--asymmetric) ;; esac
  /usr/bin/python3 "$here/check_w8a16.py" "${symmetry[@]}" "$source" "$work/out"
}

for dtype in float32 float16 bfloat16; do
  rm -rf "$work/random"
  "$make_checkpoint" --config "$here/tiny-qwen2.json" --out "$work/random" --dtype "$dtype"
  quantize_and_check "$work/random" -type w8a16
  quantize_and_check "$work/random" -type w8a16 -w_sym False
  quantize_and_check "$work/random" -type qwen_w8a16 -part_file_size 0.001
done

for name in stories260k stories260k-qwen2; do
  if [ ! -d "$models/$name" ]; then
    echo "not checked: $models/$name is absent"
    continue
  fi
  quantize_and_check "$models/$name" -type w8a16
  for dtype in float16 bfloat16; do
    rm -rf "$work/cast"
    "$llmq" convert "$models/$name" "$work/cast" --dtype "$dtype" --log-level quiet >/dev/null
    quantize_and_check "$work/cast" -type w8a16
  done
done

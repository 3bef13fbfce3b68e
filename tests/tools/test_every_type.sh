#!/usr/bin/env bash
# Every type on a tiny random model of every family, and every algorithm on each: `llmq quant`, `llmq verify` and
# `llmq eval` (in both phases where the type has two) succeed, or quant refuses with one sentence, exit code 2, and
# nothing written. Where Debian's python3-numpy is, check_ascend.py reads each folder, too. What may be refused is listed here; anything else that is refused is a failure. Prints a table of the
# KL divergence from the float model.
# Usage: test_every_type.sh LLMQ MAKE_CHECKPOINT
set -eu -o pipefail
llmq=$1
make_checkpoint=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The golden models' configurations by family; their tokens become those of a tokenizer at hand.
declare -A golden=([qwen]=qwen [qwen2]=qwen2-tied [qwen2_moe]=qwen2-moe [qwen3]=qwen3-head-dim [qwen3_moe]=qwen3-moe
  [llama]=llama-biases [mistral]=mistral-window)
families="qwen qwen2 qwen2_moe qwen3 qwen3_moe llama mistral"
for family in $families; do
  sed -E 's/"vocab_size": [0-9]+/"vocab_size": 459/' "$here/../golden/${golden[$family]}/config.json" >"$work/config.json"
  # Types that keep layers 0 to 4 float are to find a sixth one.
  case $family in llama | mistral) layers=6 ;; *) layers=0 ;; esac
  "$make_checkpoint" --config "$work/config.json" --out "$work/$family" --std 0.15 --layers $layers
  cp "$here/../runtime/tokenizer/goldens/small_byte_level.json" "$work/$family/tokenizer.json"
done
cat >"$work/texts.jsonl" <<'TEXTS'
{"prompt": "What is a number? The model answers in words."}
{"prompt": "The same text is quantized into the wrong number, and the right one into 16 bits."}
{"prompt": "Eight weights and 1029 scales; 4090 letters, [0, 2]"}
{"prompt": "def add(a, b):\n    return a + b  # of the rows that were read"}
TEXTS
echo "A letter that was read twice is worth the number of its words, as the model has 3 layers and the same text again." \
  >"$work/text.txt"
cat >"$work/rotate.json" <<'RECIPE'
{"name": "rotated", "keep_float": ["lm_head"], "rotate": true,
 "rules": [{"match": "*", "scheme": "W8A8_MIX", "method": "gptq"}]}
RECIPE
cat >"$work/rotate_head.json" <<'RECIPE'
{"name": "rotated_head", "rotate": true, "rules": [{"match": "*", "scheme": "W8A8"}]}
RECIPE

has_numpy=no
/usr/bin/python3 -c 'import numpy' 2>/dev/null && has_numpy=yes
failures=0
# A guard against wrong execution, not a measure of accuracy: the models are tiny and random.
max_kl=0.5
# cell TEXT: the next column of the table.
cell() { printf ' %-9s' "$1"; }

# try FAMILY REFUSABLE OPTION...: one cell; REFUSABLE is "may" where exit code 2 is right.
try() {
  local family=$1 refusable=$2 out="$work/out" code=0
  shift 2
  rm -rf "$out"
  "$llmq" quant -src "$work/$family" -dst "$out" -calib "$work/texts.jsonl" --threads 1 "$@" \
    >"$work/log" 2>"$work/errors" </dev/null || code=$?
  if [ $code = 2 ] && [ "$refusable" = may ] && [ ! -e "$out" ] && [ "$(grep -c '^error: ' "$work/errors")" = 1 ] &&
    [ -z "$(find "$work" -maxdepth 1 -name '.*llmq*' -print -quit)" ]; then
    cell refused
    return
  fi
  if [ $code != 0 ]; then
    cell "FAIL $code"
    failures=$((failures + 1))
    echo "$family $*: quant: $(tail -1 "$work/errors")" >>"$work/failed"
    return
  fi
  local phases=(prefill) phase
  if grep -q W8A8_MIX "$out/quant_model_description.json"; then phases=(prefill decode); fi
  local command=verify
  "$llmq" verify "$out" --threads 1 >"$work/log" 2>"$work/errors" || code=$?
  if [ $code = 0 ] && [ $has_numpy = yes ]; then
    command=check_ascend.py
    /usr/bin/python3 "$here/check_ascend.py" "$out" >"$work/errors" 2>&1 || code=$?
  fi
  for phase in "${phases[@]}"; do
    [ $code = 0 ] || break
    command=eval
    "$llmq" eval --model_path "$out" --reference "$work/$family" --text "$work/text.txt" --context 64 \
      --phase "$phase" --threads 1 --max-kl "$max_kl" --json >"$work/log" 2>"$work/errors" || code=$?
  done
  if [ $code = 0 ]; then
    cell "$(printf %.1e "$(sed -nE 's/^ *"kl": ([0-9.e-]+).*/\1/p' "$work/log")")"
  else
    cell "FAIL $code"
    failures=$((failures + 1))
    echo "$family $*: $command: $(tail -1 "$work/errors")" >>"$work/failed"
  fi
}

# row NAME REFUSABLE_FAMILIES OPTION...: one line of the table.
row() {
  local name=$1 refusable=" $2 " family
  shift 2
  printf '%-34s' "$name"
  for family in $families; do
    if [[ $refusable == *" $family "* || $refusable == " all " ]]; then try "$family" may "$@"; else try "$family" not "$@"; fi
  done
  echo
}

printf '%-34s' type
for family in $families; do cell "$family"; done
echo
types=$({ "$llmq" plan -src "$work/qwen" -type none 2>&1 || true; } | sed -nE 's/^  ([a-z0-9_.]+) .*/\1/p')
[ "$(wc -w <<<"$types")" -ge 22 ] || { echo "no list of types"; exit 1; }
for type in $types; do
  # A type made for other families is used, with a warning, where all of its patterns match.
  case $type in
    qwen_* | qwencode_*) row "$type" "" -type "$type" ;;
    qwen3_moe_*) row "$type" "" -type "$type" ;;
    *pdmix) row "$type" "qwen qwen2_moe qwen3_moe" -type "$type" ;;
    llama*70b*) row "$type" "qwen qwen2 qwen2_moe qwen3 qwen3_moe" -type "$type" ;;
    qwen2* | llama* | *c8) row "$type" "qwen" -type "$type" ;;
    *) row "$type" "" -type "$type" ;;
  esac
done
for method in m1 m2 m3 m4 m6; do
  row "w8a8 -anti_method $method" "" -type w8a8 -anti_method $method
done
row "w8a8 --method gptq" "" -type w8a8 --method gptq -disable_names lm_head
row "w8a8 --method ssz" "" -type w8a8 --method ssz -act_method 3
row "w8a8_dynamic gptq, m4" "" -type w8a8_dynamic --method gptq -anti_method m4
row "w8a8s -do_smooth" "" -type w8a8s -do_smooth True
row "w4a16 -anti_method m3" "" -type w4a16 -anti_method m3
row "w8a8_dynamic, C8" "qwen" -type w8a8_dynamic -use_kvcache_quant True
row "w8a16, FAQuant" "qwen" -type w8a16 -use_fa_quant True
row "w8a8 -disable_level L3" "" -type w8a8 -disable_level L3 -act_method 2
row "W8A8_MIX rotated, gptq" "qwen2_moe qwen3_moe" --recipe "$work/rotate.json"
row "W8A8 rotated with its head" "qwen2_moe qwen3_moe" --recipe "$work/rotate_head.json"
if [ "$failures" != 0 ]; then
  echo "$failures failures:"
  cat "$work/failed"
  exit 1
fi

#!/usr/bin/env bash
# From a fresh clone to a table: installs what is missing, builds, quantizes the trained sample model
# (samples/pico) to W8A16 and W8A8, verifies what was written, and runs all three.
# Usage: bash samples/quickstart.sh      (everything goes to build/)
set -eu -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/tools/setup.sh

llmq_need_packages "${LLMQ_BUILD_PACKAGES[@]}"
echo "building llmq ..."
llmq_configure release
llmq_build release llmq

llmq=build/release/llmq
source_model=samples/pico
work=build/quickstart
rm -rf "$work"
mkdir -p "$work"

# number FILE KEY: the first number that stands under this key of a JSON file.
number() { grep -m1 -oE "\"$2\": *[-+0-9.eE]+" "$1" | grep -oE '[-+0-9.eE]+$'; }
# mean FILE KEY: the mean of all numbers under this key.
mean() {
  grep -oE "\"$2\": *[-+0-9.eE]+" "$1" | grep -oE '[-+0-9.eE]+$' |
    awk '{ sum += $1; n += 1 } END { print n ? sum / n : 0 }'
}

# measure NAME FOLDER [EVAL_OPTION...]: runs a model and keeps what it measured.
measure() {
  local name=$1 folder=$2
  shift 2
  "$llmq" eval --model_path "$folder" --text "$source_model/story.txt" --context 512 \
    --passkey 512 --depths 5 --seeds 10 --json --log-level warning "$@" >"$work/$name.json"
  "$llmq" bench --model_path "$folder" --case_pair "[[512,128]]" --json --log-level warning \
    >"$work/$name-bench.json"
}

# row NAME SIZE_BYTES BITS: a line of the table.
row() {
  local file=$work/$1.json kl=- agreement=- change=-
  if grep -q '"kl"' "$file"; then
    kl=$(printf '%.5f' "$(number "$file" kl)")
    agreement=$(awk -v share="$(number "$file" top1_agreement)" 'BEGIN { printf "%.1f %%", 100 * share }')
    change=$(awk -v a="$(number "$file" perplexity)" -v b="$(number "$work/bfloat16.json" perplexity)" \
      'BEGIN { printf "%+.3f %%", 100 * (a / b - 1) }')
  fi
  printf '%-9s %9s %6s %11.3f %10s %9s %11s %9.0f %% %9.0f\n' "$1" \
    "$(awk -v bytes="$2" 'BEGIN { printf "%.2f MB", bytes / 1e6 }')" "$(printf '%.1f' "$3")" \
    "$(number "$file" perplexity)" "$change" "$kl" "$agreement" \
    "$(awk -v share="$(mean "$file" accuracy)" 'BEGIN { print 100 * share }')" \
    "$(number "$work/$1-bench.json" decode_tokens_per_s)"
}

measure bfloat16 "$source_model"
for type in w8a16 w8a8; do
  echo
  "$llmq" quant -src "$source_model" -dst "$work/$type" -type "$type" --log-level warning
  # The table says what the rules found; the exit code whether they hold.
  "$llmq" verify "$work/$type" --source "$source_model" >"$work/verify-$type.txt"
  echo "compared with $source_model: $(grep -c ' yes ' "$work/verify-$type.txt") rules hold"
  measure "$type" "$work/$type" --reference "$source_model"
done

report=$work/w8a16/llmq_report.json
source_bytes=$(number "$report" source_bytes)
echo
echo "samples/pico, read from the files just written (a story of $(number "$work/w8a8.json" n_tokens) tokens; passkeys hidden in 512):"
printf '%-9s %9s %6s %11s %10s %9s %11s %11s %9s\n' model size bits perplexity change KL "same top-1" passkeys tokens/s
row bfloat16 "$source_bytes" "$(awk -v b="$source_bytes" -v n="$(number "$report" parameters)" 'BEGIN { print 8 * b / n }')"
for type in w8a16 w8a8; do
  report=$work/$type/llmq_report.json
  # The report lists sizes of tensors before those of the whole.
  row "$type" "$(stat -c %s "$work/$type"/*.safetensors | awk '{ sum += $1 } END { print sum }')" \
    "$(number "$report" bits_per_weight)"
done

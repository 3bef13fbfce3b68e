#!/usr/bin/env bash
# Recomputes with numpy every tensor that llmq writes for static W8A8, from the ranges that it found, for each way of
# finding them, on small trained models in each dtype and on a random one with biases. The same bytes must come from
# the saved statistics, from another number of threads and from every instruction set of this machine.
# Exit 77 (skipped) without Debian's python3-numpy or where no model with a tokenizer lies at hand.
# Usage: test_w8a8_by_numpy.sh LLMQ MAKE_CHECKPOINT
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
sources=()
for source in "$models/stories260k" "$models/stories260k-qwen2" "$root/samples/pico"; do
  if [ -d "$source" ]; then sources+=("$source"); else echo "not checked: $source is absent"; fi
done
if [ ${#sources[@]} = 0 ]; then
  echo "skipped: no model to calibrate"
  exit 77
fi

# quantize SOURCE NAME [quant option...]: quantizes to $work/NAME, a new folder.
quantize() {
  local source=$1 name=$2
  shift 2
  rm -rf "${work:?}/$name"
  "$llmq" quant -src "$source" -dst "$work/$name" "$@" --log-level quiet </dev/null >/dev/null
}

# same_files NAME: $work/NAME holds the weights, description and config of $work/out, byte for byte.
same_files() {
  local file
  diff <(cd "$work/out" && ls) <(cd "$work/$1" && ls)
  for file in "$work/out/"*.safetensors* "$work/out/"{config,quant_model_description}.json; do
    cmp "$file" "$work/$1/${file##*/}"
  done
}

# Few and short samples: what is compared does not depend on how many there are.
calibration=(--calib-samples 6 --calib-length 96)

# quantize_and_check SOURCE METHOD [--dtype DTYPE] [quant option...]: quantizes to $work/out with statistics in
# $work/statistics.json, compares the bytes, and those that come from the statistics alone.
quantize_and_check() {
  local source=$1 method=$2 expected=()
  shift 2
  if [ "${1:-}" = --dtype ]; then expected=(--dtype "$2"); fi
  echo "$source, act_method $method $*"
  rm -f "$work/statistics.json"
  quantize "$source" out -type w8a8 -act_method "$method" "${calibration[@]}" --save-stats "$work/statistics.json" "$@"
  /usr/bin/python3 "$here/check_w8a8.py" --symmetric-row-parallel --source "$source" --quantized "$work/out" \
    --stats "$work/statistics.json" --act-method "$method" "${expected[@]}"
  quantize "$source" replayed -type w8a8 -act_method "$method" --stats "$work/statistics.json" "$@"
  same_files replayed
}

# same_everywhere SOURCE: files and statistics do not depend on threads and instruction set.
same_everywhere() {
  local source=$1 isa threads options
  options=(-type w8a8 -act_method 2 "${calibration[@]}")
  quantize "$source" out "${options[@]}" --save-stats "$work/statistics.json" --threads 2
  while read -r isa threads; do
    echo "$source, $isa, $threads thread(s)"
    LLMQ_ISA=$isa quantize "$source" other "${options[@]}" --save-stats "$work/other.json" --threads "$threads"
    same_files other
    cmp "$work/statistics.json" "$work/other.json"
  done <<<"$isa_and_threads"
}

isa_and_threads=$("$llmq" info --json | /usr/bin/python3 -c '
import json, sys
names = json.load(sys.stdin)["instruction_sets"]
print("\n".join(f"{name} {threads}" for name in names for threads in (1, 2)))')

for source in "${sources[@]}"; do
  for method in 1 2 3; do
    quantize_and_check "$source" "$method"
  done
  same_everywhere "$source"
  for dtype in float16 bfloat16; do
    rm -rf "$work/cast"
    "$llmq" convert "$source" "$work/cast" --dtype "$dtype" --log-level quiet >/dev/null
    # An option that repeats the model's own dtype also tells the checker what to expect.
    for method in 1 2 3; do
      quantize_and_check "$work/cast" "$method" --dtype "$dtype"
    done
  done
done
quantize_and_check "${sources[0]}" 2 --dtype bfloat16 -part_file_size 0.0001

# A random model with biases on q, k and v, sizes that no vector length divides, and its own head.
vocabulary=$(/usr/bin/python3 -c '
import json, sys
print(json.load(open(sys.argv[1] + "/config.json"))["vocab_size"])' "${sources[0]}")
cat >"$work/random.json" <<JSON
{
  "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
  "hidden_size": 92, "intermediate_size": 147, "num_hidden_layers": 2,
  "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_act": "silu",
  "vocab_size": $vocabulary, "max_position_embeddings": 512, "rms_norm_eps": 1e-06,
  "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
  "bos_token_id": 1, "eos_token_id": 2
}
JSON
for dtype in float32 float16 bfloat16; do
  rm -rf "$work/random"
  "$make_checkpoint" --config "$work/random.json" --out "$work/random" --dtype "$dtype" --std 0.1
  cp "${sources[0]}"/tokenizer* "$work/random/"
  quantize_and_check "$work/random" 2
  quantize_and_check "$work/random" 3 --dtype "${dtype/32/16}" -disable_names none
done
same_everywhere "$work/random"

# Without the recipe's list of linears that stay float: down_proj, and a head that is tied.
quantize_and_check "${sources[0]}" 3 --dtype bfloat16 -disable_names lm_head
quantize_and_check "${sources[0]}" 1 --dtype float16 -disable_names '*.o_proj,model.layers.1.*'
quantize_and_check "${sources[0]}" 2 --dtype bfloat16 -disable_names none

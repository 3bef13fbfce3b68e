#!/usr/bin/env bash
# Reads folders as other tools write them: conformance by numpy, `llmq verify`, and the distance to the float model.
# Exit 77 (skipped) without Debian's python3-numpy or the data. Usage: test_foreign_folders.sh LLMQ
set -eu -o pipefail
llmq=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=${LLMQ_TEST_DATA:-$here/../../../shared/data}
model=$data/models/stories260k
text=${LLMQ_TEST_TEXT:-$data/texts/tinystories_sample.txt}
if ! /usr/bin/python3 -c 'import numpy' 2>/dev/null || [ ! -d "$model" ] || [ ! -f "$text" ]; then
  echo "skipped: needs /usr/bin/python3 with numpy, $model and $text"
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

kl_of() {
  "$llmq" eval --model_path "$1" --reference "$model" --text "$text" --context 256 --max-tokens 2000 --json \
    --log-level quiet | /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["kl"])'
}

# Each folder has codes by the same rule as one of llmq's own types, so its distance to the float model is that type's,
# up to which linears are quantized.
group=$(/usr/bin/python3 -c "import re; print(re.search(r'^GROUP = (\d+)', open('$here/make_msmodelslim_folders.py').read(), re.M)[1])")
declare -A bound
for type in w8a8 w8a8_dynamic w8a16; do
  "$llmq" quant -src "$model" -dst "$work/$type" -type $type -disable_names "lm_head,*.down_proj" --log-level quiet \
    >/dev/null
  bound[$type]=$(kl_of "$work/$type")
done
"$llmq" quant -src "$model" -dst "$work/w4a16" -type w4a16 --method round -disable_names "lm_head,*.down_proj" --log-level quiet \
  >/dev/null
bound[w4a16]=$(kl_of "$work/w4a16")
"$llmq" quant -src "$model" -dst "$work/w4a16_group" -type w4a16 -group_size "$group" --method round -disable_names "lm_head,*.down_proj" --log-level quiet \
  >/dev/null
bound[w4a16_group]=$(kl_of "$work/w4a16_group")
/usr/bin/python3 "$here/make_msmodelslim_folders.py" --ranges "$work/w8a8" "$model" "$work/foreign"
for folder in "$work"/foreign/*; do
  name=$(basename "$folder")
  case $name in
    *w4a16_group) type=w4a16_group ;;
    *w4a16) type=w4a16 ;;
    *w8a16) type=w8a16 ;;
    *dynamic | *mix) type=w8a8_dynamic ;;
    *) type=w8a8 ;;
  esac
  /usr/bin/python3 "$here/check_ascend.py" --plain --source "$model" "$folder"
  "$llmq" verify "$folder" >/dev/null
  kl=$(kl_of "$folder")
  echo "$name: KL $kl, llmq's $type ${bound[$type]}"
  /usr/bin/python3 -c "import sys; sys.exit(not 0.5 * ${bound[$type]} <= $kl <= 2 * ${bound[$type]})"
done

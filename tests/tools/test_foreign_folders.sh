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

"$llmq" quant -src "$model" -dst "$work/w8a8" -type w8a8 --log-level quiet >/dev/null
/usr/bin/python3 "$here/make_msmodelslim_folders.py" --ranges "$work/w8a8" "$model" "$work/foreign"
# The same model's folders by llmq set the measure: as near to the float model, twice the noise allowed.
bound8=$(kl_of "$work/w8a8")
for folder in "$work"/foreign/*8*; do
  /usr/bin/python3 "$here/check_ascend.py" --plain --source "$model" "$folder"
  "$llmq" verify "$folder" >/dev/null
  kl=$(kl_of "$folder")
  echo "$(basename "$folder"): KL $kl, llmq's W8A8 $bound8"
  /usr/bin/python3 -c "import sys; sys.exit(not $kl <= 2 * $bound8)"
done

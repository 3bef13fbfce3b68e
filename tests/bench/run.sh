#!/usr/bin/env bash
# tests/bench/run.sh [--quick] [--models] [OUT]: builds the benchmarks, runs them and prints, as
# markdown, the table of docs/performance.md with the share of each limit measured in the same run.
# Results stay in OUT (default build/bench-results). --quick shortens what is measured; --models adds
# `llmq bench` on synthetic models of three shapes, three schemes, two kinds of KV cache, four depths.
# Run it on an otherwise idle machine. Takes about 40 minutes, with --models ten more.
set -eu -o pipefail
cd "$(dirname "$0")/../.."
quick=0 models=0 out=build/bench-results
for word in "$@"; do
  case $word in
    --quick) quick=1 ;;
    --models) models=1 ;;
    *) out=$word ;;
  esac
done
build=build/bench
mkdir -p "$out"
rm -f "$out"/*.json
exec 3>&1 1>&2  # the table alone goes to standard output

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLMQ_BUILD_BENCHMARKS=ON >"$out/cmake.log"
grep -o 'oneDNN.*not found.*' "$out/cmake.log" || true
cmake --build "$build" --target llmq benchmarks
llmq=$build/convert/llmq
[[ -x $llmq ]] || llmq=$build/llmq

sets=$("$llmq" info --json | python3 -c 'import json, sys
print(*(s for s in json.load(sys.stdin)["instruction_sets"] if s != "scalar"))')
filter=()
[[ $quick == 0 ]] || filter=(--benchmark_min_time=0.02)
for program in "$build"/tests/bench/bench_*; do
  [[ -f $program && -x $program ]] || continue
  name=$(basename "$program")
  if [[ $name == bench_w8a8sc ]]; then  # prints a table of its own, that of docs/w8a8sc.md
    "$program" >"$out/$name.txt"
    continue
  fi
  for set in $sets; do
    # Other libraries choose by themselves; they are compared with the widest set.
    [[ $name != bench_peer_* || $set == "${sets##* }" ]] || continue
    echo "$name, $set"
    LLMQ_ISA=$set "$program" "${filter[@]}" --benchmark_out="$out/$name@$set.json" \
      --benchmark_out_format=json >"$out/$name@$set.txt" || echo "$name failed with $set"
  done
done

bench_shape() {  # NAME TYPE CASES DEPTHS BATCHES [OPTIONS...]
  echo "llmq bench, $1"
  "$llmq" bench --shape qwen2.5-1.5b -type "$2" --kv int8 --case_pair "$3" --depth "$4" \
    --batch_size "$5" --json "${@:6}" >"$out/part.json"
  python3 - "$out/part.json" "$out/llmq_$1.json" <<'PY'
import json, pathlib, sys
part, whole = (pathlib.Path(name) for name in sys.argv[1:])
rows = json.loads(whole.read_text()) if whole.exists() else []
whole.write_text(json.dumps(rows + json.loads(part.read_text())))
PY
  rm "$out/part.json"
}
prompt=2048
[[ $quick == 0 ]] || prompt=256
bench_shape all_w8a8 qwen_w8a8 "[[$prompt,0]]" 0 1 -disable_names lm_head
bench_shape all_w8a8 qwen_w8a8 "[[1,16]]" 0,4096,32768 1 -disable_names lm_head
bench_shape all_w8a8 qwen_w8a8 "[[1,16]]" 0 1,8 -disable_names lm_head
bench_shape qwen_w8a8 qwen_w8a8 "[[$prompt,16]]" 0 1

{
  echo "Measured by tests/bench/run.sh on $("$llmq" info --json | python3 -c 'import json, sys
info = json.load(sys.stdin)
print(info["threads"], "threads,", info["active_instruction_set"])'):"
  echo
  echo '```'
  "$llmq" bench --limits
  echo '```'
  echo
  python3 tests/bench/bar.py "$out"
  if [[ $models == 1 ]]; then
    for shape in qwen2.5-0.5b qwen2.5-1.5b qwen3-0.6b; do
      for type in qwen_w8a8 qwen_w8a16 qwen_w4a16; do
        for kv in bf16 int8; do
          echo
          echo '```'
          "$llmq" bench --shape "$shape" -type "$type" --kv "$kv" --case_pair "[[128,16]]" \
            --depth 0,4096,16384,32768
          echo '```'
        done
      done
    done
  fi
} >&3

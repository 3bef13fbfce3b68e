#!/usr/bin/env bash
# check_isa_symbols.sh BUILD_FOLDER: proves that no inline function was compiled with the flags of one
# instruction set and with other flags too. The linker keeps one of such copies for the whole program,
# and on a lesser CPU the wider one ends it with an illegal instruction.
# Prints the symbols in question and exits 1 if there are any.
set -eu -o pipefail
build=${1:?usage: check_isa_symbols.sh BUILD_FOLDER}

objects=$(find "$build" -path '*llmq_*.dir*' -name '*.cpp.o' | sort)
[[ -n $objects ]] || { echo "no object files in $build"; exit 2; }
grep -qE '[/_](avx2|avxvnni|avx512|avx512vnni|avx512vbmi2|amx)\.cpp\.o$' <<<"$objects" ||
  { echo "no object file of an instruction set in $build"; exit 2; }

# A weak function ('W') is one that several objects may define.
xargs nm --defined-only --demangle --print-file-name <<<"$objects" | awk '
  {
    if (!match($0, /\.cpp\.o:/)) next
    object = substr($0, 1, RSTART + 5)
    rest = substr($0, RSTART + RLENGTH)
    if (split(rest, field, " ") < 3 || field[2] != "W") next
    name = rest
    sub(/^[0-9a-f]+ W /, "", name)
    flags = "generic"
    if (match(object, /[\/_](avx2|avxvnni|avx512|avx512vnni|avx512vbmi2|amx)\.cpp\.o$/)) {
      flags = substr(object, RSTART, RLENGTH)
      gsub(/^[\/_]|\.cpp\.o$/, "", flags)
    }
    if (!((name, flags) in seen)) {
      seen[name, flags] = 1
      sets[name] = sets[name] " " flags
      count[name]++
    }
  }
  END {
    for (name in count) if (count[name] > 1) { print name ": compiled for" sets[name]; failed = 1 }
    exit failed
  }'

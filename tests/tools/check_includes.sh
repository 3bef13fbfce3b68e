#!/usr/bin/env bash
# check_includes.sh ROOT: the storeys of the project, checked by what each file includes.
#   - quoted includes start at the repository root (formats/..., never ../...) and exist
#   - they only point down: convert -> runtime -> quant -> formats
#   - a file compiled for one instruction set includes intrinsics, <cstdint>, <cstddef> and kernel
#     headers that keep the same rule, so that no inline library code is compiled into it
# Prints one line per violation, "file:line: reason", and exits 1 if there is any.
set -u
cd "${1:?usage: check_includes.sh ROOT}" || exit 2

files=$(find . -name build -prune -o -name '.?*' -prune -o \( -name '*.cpp' -o -name '*.h' \) -print |
  sed 's|^\./||' | sort)
[[ -n $files ]] || { echo "no C++ files under $PWD"; exit 2; }

program=$(cat <<'AWK'
function storey_rank(path) {
  if (path ~ /^formats\//) return 1
  if (path ~ /^quant\//) return 2
  if (path ~ /^runtime\//) return 3
  if (path ~ /^convert\//) return 4
  if (path ~ /^(tests|samples)\//) return 5
  return 0
}
function folder(path) { sub(/\/[^\/]*$/, "", path); return path }
function complain(file, line, reason) {
  print file ":" line ": " reason
  failed = 1
}
function exists(path,   discard, status) {
  if (path in known) return known[path]
  status = (getline discard < path)
  close(path)
  known[path] = (status >= 0)
  return known[path]
}
FNR == 1 { seen[FILENAME] = 1 }
/^[ \t]*#[ \t]*include/ {
  n = ++n_includes[FILENAME]
  line_of[FILENAME, n] = FNR
  if (match($0, /"[^"]*"/)) {
    target = substr($0, RSTART + 1, RLENGTH - 2)
    quoted[FILENAME, n] = target
    if (target ~ /(^|\/)\.\.?\//) {
      complain(FILENAME, FNR, "include from the repository root, not \"" target "\"")
    } else if (!storey_rank(target)) {
      complain(FILENAME, FNR, "\"" target "\" does not start at a folder of the project")
    } else if (!exists(target)) {
      complain(FILENAME, FNR, "\"" target "\" does not exist")
    } else if (storey_rank(target) > storey_rank(FILENAME)) {
      complain(FILENAME, FNR, folder(FILENAME) " must not include \"" target "\", a storey above it")
    }
  } else if (match($0, /<[^>]*>/)) {
    system_header[FILENAME, n] = substr($0, RSTART + 1, RLENGTH - 2)
  }
}
# Follows the quoted includes of an instruction set's file; each must keep the rule as well.
function check_isa(file, origin,   i, target) {
  if ((file, origin) in visited) return
  visited[file, origin] = 1
  for (i = 1; i <= n_includes[file]; i++) {
    if ((file, i) in system_header) {
      target = system_header[file, i]
      if (target !~ /^(cstdint|cstddef|[a-z0-9]*intrin\.h)$/)
        complain(file, line_of[file, i], "<" target "> reaches " origin ", which may include only intrinsics, <cstdint> and <cstddef>")
    } else if ((file, i) in quoted) {
      target = quoted[file, i]
      if (target !~ /^quant\/kernels\//)
        complain(file, line_of[file, i], "\"" target "\" reaches " origin ", which may include only headers of quant/kernels")
      else
        check_isa(target, origin)
    }
  }
}
END {
  for (file in seen)
    if (file ~ /(^|[\/_])(avx2|avxvnni|avx512|avx512vnni|avx512vbmi2|amx)\.cpp$/ && storey_rank(file) < 5) check_isa(file, file)
  exit failed
}
AWK
)
xargs awk "$program" <<<"$files"

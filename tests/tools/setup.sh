# Shell functions shared by tests/run.sh and samples/quickstart.sh; meant to be sourced, from bash,
# with the repository root as the working directory.

# What the project is built and tested with, as Debian 12 names it.
LLMQ_BUILD_PACKAGES=(cmake ninja-build g++ pkg-config zlib1g-dev nlohmann-json3-dev libcli11-dev
  libfmt-dev libeigen3-dev libpcre2-dev libutf8proc-dev libgtest-dev libgmock-dev python3-numpy libopenmpi-dev)
# What the checks of tests/run.sh --ci need on top of it.
LLMQ_CI_PACKAGES=(clang clang-format clang-tidy libclang-rt-14-dev libomp-dev openmpi-bin)

# Words put before a command that builds or tests; tests/run.sh sets them where a sanitizer needs it.
personality=()

llmq_jobs() { nproc 2>/dev/null || echo 2; }

# llmq_need_packages NAME...: makes sure that the named Debian packages are installed. Installs what
# is missing as root or with sudo; without either it prints the line to run and returns 1. On a
# system without dpkg it trusts the reader, because the configure step names what it cannot find.
llmq_need_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "not a Debian system: make sure that the equivalents of these are installed: $*"
    return 0
  fi
  local name missing=()
  for name in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
  done
  ((${#missing[@]})) || return 0
  echo "missing Debian packages: ${missing[*]}"
  local as_root=()
  if [[ $(id -u) != 0 ]]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo)
    elif command -v sudo >/dev/null && [[ -t 0 ]]; then
      as_root=(sudo)
    else
      echo "not root and no sudo without a question; run this and start again:"
      echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
      return 1
    fi
  fi
  echo "installing: ${missing[*]}"
  local log
  log=$(mktemp)
  if "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update >"$log" 2>&1 &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y \
      --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
    rm -f "$log"
    return 0
  fi
  tail -n 20 "$log"
  rm -f "$log"
  echo "apt-get could not install: ${missing[*]}"
  return 1
}

# llmq_configure PRESET [CMAKE_ARGUMENT...]: configures build/PRESET, quietly unless it fails.
llmq_configure() {
  local preset=$1 log launcher=()
  shift
  if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    export CCACHE_SLOPPINESS=pch_defines,time_macros  # else nothing with a precompiled header is kept
  fi
  mkdir -p build
  log=build/configure-$preset.log
  if ! cmake --preset "$preset" "${launcher[@]}" "$@" >"$log" 2>&1; then
    cat "$log"
    return 1
  fi
}

# llmq_build PRESET [TARGET...]: builds the targets, or all, of a configured preset.
llmq_build() {
  local preset=$1
  shift
  local targets=()
  (($#)) && targets=(--target "$@")
  # Only what is worth reading: ninja writes a line for every file where it has no terminal.
  "${personality[@]}" cmake --build "build/$preset" --parallel "$(llmq_jobs)" "${targets[@]}" 2>&1 |
    grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking|Running|Re-running|Generating)'
  return "${PIPESTATUS[0]}"
}

# shellcheck shell=bash
# Sourced by the scripts of deploy/: what GNU, BSD and macOS do differently, and the settings in .env. bash 3.2 is enough.

# within SECONDS COMMAND …: gives up after so many seconds where timeout(1) is installed.
within() {
  local seconds=$1
  shift
  if command -v timeout >/dev/null; then timeout "$seconds" "$@"; else "$@"; fi
}

# The absolute path of a file or folder that need not exist; links in its folder are resolved.
absolute() {
  local folder name
  if [ -d "$1" ]; then (cd -- "$1" && pwd -P); return; fi
  folder=$(dirname -- "$1") name=$(basename -- "$1")
  if [ -d "$folder" ]; then folder=$(cd -- "$folder" && pwd -P)
  elif [ "${folder#/}" = "$folder" ]; then folder=$(pwd -P)/$folder; fi
  printf '%s/%s\n' "${folder%/}" "$name"
}

# shellcheck disable=SC2012  # stat differs between GNU and BSD; a folder's name is not parsed
owner() { ls -ldn -- "$1" | awk '{ print $3 ":" $4 }'; }

digest() {
  if command -v sha256sum >/dev/null; then sha256sum -- "$1" 2>/dev/null; else shasum -a 256 -- "$1" 2>/dev/null; fi | cut -d ' ' -f 1
}

# in_file NAME: the value in .env of the current folder, without quotes and comment.
in_file() {
  sed -n "s/^$1=//p" .env 2>/dev/null | tail -n 1 | sed -E "s/[[:space:]]+#.*//; s/[[:space:]]+\$//; s/^\"(.*)\"\$/\1/; s/^'(.*)'\$/\1/"
}

# setting NAME DEFAULT: the environment wins over .env.
setting() {
  local value=${!1:-$(in_file "$1")}
  echo "${value:-${2:-}}"
}

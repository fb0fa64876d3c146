#!/usr/bin/env bash
# Classify a folder from cron or systemd and end with the job's own exit code, which make turns into 2.
#
#   deploy/predict.sh INPUT OUTPUT.csv|OUTPUT.parquet [flags of predict_batch]
#
# OUTPUT may hold what date(1) fills in: /srv/out/%F.csv. Away from a terminal it prints one line when all went well;
# RUNS_DIR/logs has the rest. REPORT=1 writes a page beside the table, INCREMENTAL=1 classifies only contents that no run into
# this folder has seen (.seen.sqlite there); 0, no, false or nothing switch them off. RUNNER, DATA_DIR, RUNS_DIR: as in .env.
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# shellcheck source=deploy/portable.sh
. "$project/deploy/portable.sh"

fail() { echo "error: $2" >&2; exit "$1"; }
is_on() { case ${1:-} in "" | 0 | [Nn]o | [Ff]alse) return 1 ;; esac; }

[[ $# -ge 2 && -n $1 && -n $2 ]] || fail 2 "usage: deploy/predict.sh INPUT OUTPUT.csv|OUTPUT.parquet [flags of predict_batch]"
[ -e "$1" ] || fail 2 "INPUT $1 does not exist"
input=$(absolute "$1") output=$2
shift 2
[[ $output != *%* ]] || output=$(date +"$output")
mkdir -p -- "$(dirname -- "$output")" || fail 1 "the folder of OUTPUT $output cannot be made"
output=$(absolute "$output")
stem=${output%.csv} stem=${stem%.parquet}
quiet=() page='' seen=''
if is_on "${REPORT:-}"; then page=$stem.html; fi
if is_on "${INCREMENTAL:-}"; then seen=$(dirname -- "$output")/.seen.sqlite; fi
[ -t 1 ] || quiet=(--quiet)
cd "$project"

runner=$(setting RUNNER)
[ -n "$runner" ] || { within 10 docker info >/dev/null 2>&1 && runner=docker || runner=local; }
case $runner in
docker)
  [[ $input$output != *:* ]] || fail 2 "a path with ':' cannot be mounted: $input, $output"
  within 20 docker info >/dev/null 2>&1 || fail 1 "no container engine answers (docker info); deploy/doctor.sh says more"
  image=$(setting IMAGE cxr-jobs:local) label=$(setting SELINUX)
  docker image inspect "$image" >/dev/null 2>&1 || fail 1 "there is no image $image: run make setup"
  for name in DATA_DIR RUNS_DIR; do [ -z "${!name:-}" ] || export "$name=$(absolute "${!name}")"; done
  inside=/input
  [ -d "$input" ] || inside=/input/$(basename -- "$input")
  command=(docker compose --progress quiet run --rm -v "$input:$inside:ro${label:+,$label}" -v "$(dirname -- "$output"):/output${label:+:$label}" predict_batch
    --input "$inside" --output "/output/$(basename -- "$output")" ${page:+--report "/output/$(basename -- "$page")"} ${seen:+--incremental "/output/$(basename -- "$seen")"})
  ;;
local)
  python=${PYTHON:-.venv/bin/python}
  command -v "$python" >/dev/null || fail 1 "no container engine answers and there is no $python: run make setup"
  export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184
  command=("$python" -m jobs.predict_batch --input "$input" --output "$output" ${page:+--report "$page"}
    ${seen:+--incremental "$seen"})
  ;;
*) fail 2 "RUNNER is docker or local, not $runner" ;;
esac

# A signal is passed on, and the wait goes on until the job has ended.
"${command[@]}" ${quiet[@]+"${quiet[@]}"} "$@" <&0 &
job=$!
trap 'kill -TERM "$job" 2>/dev/null || true' TERM
trap 'kill -INT "$job" 2>/dev/null || true' INT
code=0
wait "$job" 2>/dev/null || code=$? # without bash's own words about a job that was killed
while kill -0 "$job" 2>/dev/null; do code=0; wait "$job" 2>/dev/null || code=$?; done
[ "$code" -ne 137 ] || echo "error: killed (137): out of memory? raise MEMORY in .env" >&2
exit "$code"

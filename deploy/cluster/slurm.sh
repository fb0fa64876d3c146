#!/usr/bin/env bash
# A Ray cluster for the time of one Slurm job, and predict_batch on it: sbatch --nodes 4 deploy/cluster/slurm.sh INPUT OUTPUT [flags]
#
# The project folder, INPUT, OUTPUT and RUNS_DIR lie on a file system that every node mounts. PYTHON has the packages of
# requirements.lock, requirements-torch.txt and requirements-ray.lock; for Apptainer: PYTHON="apptainer exec cxr.sif python".
# The same command goes on where a job was stopped: --requeue, or submit it again.
#SBATCH --job-name=cxr-predict
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: sbatch --nodes N slurm.sh INPUT OUTPUT [flags of predict_batch]" >&2; exit 2; }
input=$1 output=$2
shift 2
cd "${PROJECT:-$SLURM_SUBMIT_DIR}"
read -ra python <<<"${PYTHON:-.venv/bin/python}"
ray=("${python[@]}" -m ray.scripts.scripts)
port=${RAY_PORT:-6379}
cores=${SLURM_CPUS_ON_NODE:-$(nproc)}
# Other users of the machine must not be able to join.
RAY_AUTH_TOKEN=$("${python[@]}" -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0 GRPC_ENABLE_FORK_SUPPORT=0 PYTHONPATH=$PWD
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184

head=${SLURMD_NODENAME:-$(hostname)}
address=${HEAD_ADDRESS:-$(hostname --all-ip-addresses | cut -d' ' -f1)} # one that the other nodes reach
common=(--disable-usage-stats --block --num-cpus "$cores")
start_head() { "${ray[@]}" start --head --node-ip-address "$address" --port "$port" --include-dashboard=false "${common[@]}"; }
start_head >"${TMPDIR:-/tmp}/ray-head-$SLURM_JOB_ID.log" 2>&1 &
trap '"${ray[@]}" stop --force >/dev/null 2>&1 || true' EXIT
until "${ray[@]}" health-check --address "$address:$port" >/dev/null 2>&1; do sleep 2; done
if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
  srun --nodes $((SLURM_JOB_NUM_NODES - 1)) --ntasks $((SLURM_JOB_NUM_NODES - 1)) --exclude "$head" --export ALL \
    "${ray[@]}" start --address "$address:$port" "${common[@]}" >"${TMPDIR:-/tmp}/ray-workers-$SLURM_JOB_ID.log" 2>&1 &
fi
RAY_ADDRESS="$address:$port" "${python[@]}" -m jobs.predict_batch --cluster auto --input "$input" --output "$output" "$@" &
job=$!
trap 'kill -TERM "$job"' TERM # rows are kept; the job ends within the grace period
code=0
wait "$job" || code=$?
while kill -0 "$job" 2>/dev/null; do code=0; wait "$job" || code=$?; done
exit "$code"

#!/usr/bin/env bash
# Test on another Python than the one in .venv: a throwaway venv from the same locks, the fast tests, the chain on a few films.
#
#   [CHAIN=no] deploy/test-python.sh 3.13 [flags of pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$1
shift
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

# Outside of this folder there is no .venv that make could take for the one it is to make. Code 1 of tar: a file changed
# meanwhile, such as a cache of the tests that run beside this.
{ tar -cf - --exclude='./.venv' --exclude='./.git' --exclude='./.make' --exclude='./data' --exclude='./runs' --exclude='*_cache' \
  --exclude=__pycache__ . || [ $? -eq 1 ]; } | tar -C "$copy" -xf -
cd "$copy"
mkdir -p data runs
make --no-print-directory .venv/installed-dev PYTHON_VERSION="$version"
.venv/bin/python --version
.venv/bin/python -m pytest -q -n 2 -m 'not slow' "$@"
[ "${CHAIN:-yes}" = yes ] || exit 0
make --no-print-directory all RUNNER=local DATASET=phantom BACKBONE=efficientnet_lite0 WEIGHTS= \
  INGEST_ARGS='--phantom_films 60' SPLIT_ARGS='--val_fraction 0.2 --test_fraction 0.2' \
  TRAIN_A_ARGS='--epochs 1' TRAIN_B_ARGS='--epochs 1'

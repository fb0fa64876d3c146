#!/usr/bin/env bash
# Print the Python that the local runner is installed with: the newest supported one on this machine that has venv.
#
#   deploy/python.sh [3.12]    that version alone
#
# A .venv of a supported version is kept: then it is .venv/bin/python. Exit code 1, with what to install, where there is none.
set -uo pipefail

SUPPORTED="3.13 3.12 3.11 3.14" # in this order: 3.14 has all wheels, no test ran on it
# In use already, and a version that is wanted: brought up to date, not replaced.
KEPT=.venv/bin/python
wanted=${1:-}
case " $SUPPORTED " in
*" ${wanted:-3.13} "*) ;;
*) echo "error: PYTHON_VERSION is one of $SUPPORTED, not $wanted" >&2; exit 2 ;;
esac

# A name that does not run (the shim of a version manager) and an interpreter without venv are passed over.
fits() { "$1" -c "import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$2')" >/dev/null 2>&1; }

for version in ${wanted:-$SUPPORTED}; do
  ! fits "$KEPT" "$version" || { echo "$KEPT"; exit 0; }
done

without_venv=""
for version in ${wanted:-$SUPPORTED}; do
  for python in "python$version" "${PYENV_ROOT:-${HOME:-/nowhere}/.pyenv}"/versions/"$version".*/bin/python \
    /opt/homebrew/bin/"python$version" /usr/local/bin/"python$version" python3 python; do
    if fits "$python" "$version"; then
      command -v "$python"
      exit 0
    fi
    ! "$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" >/dev/null 2>&1 || without_venv=$version
  done
done

if [ -n "$without_venv" ]; then
  echo "error: Python $without_venv is here without its module venv: apt-get install python$without_venv-venv, or the like" >&2
else
  found=$(python3 -c 'import platform; print("python3 is", platform.python_version())' 2>/dev/null)
  echo "error: Python ${wanted:-3.11, 3.12 or 3.13} with venv is needed; ${found:-there is no python3}." \
    "Install one (apt-get install python3-venv, dnf install python3.12, brew install python@3.13, uv python install 3.13), or a container engine." >&2
fi
exit 1

#!/usr/bin/env bash
# Look the pinned packages up in PyPI's database of known vulnerabilities. pip-audit comes and goes with a throwaway venv.
# Without a network: says so within seconds, and how old the lock is. Exit code: pip-audit's, 1 when nothing could be looked up.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

. deploy/portable.sh
python=$(deploy/python.sh) || exit 1
code=1 skipped=0 pinned=0
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
log=$venv/log
reachable=no

if { "$python" -m venv "$venv/env" &&
  within "${AUDIT_SECONDS:-60}" "$venv/env/bin/pip" install -q --retries 0 --timeout 5 --disable-pip-version-check pip-audit; } >"$log" 2>&1; then
  within "${AUDIT_SECONDS:-60}" "$venv/env/bin/pip-audit" --no-deps --disable-pip --timeout 5 --progress-spinner off \
    -r requirements.lock -r requirements-torch.txt >"$log" 2>&1
  code=$?
  # pip-audit calls a package that the index does not know "skipped", and its exit code 0: a mirror without the database
  # would pass everything. So 0 counts only when packages were looked up.
  skipped=$(grep -c 'could not be audited' "$log")
  pinned=$(cat requirements.lock requirements-torch.txt | grep -cE '^[A-Za-z0-9._-]+==')
  if grep -qE '^(Found|No known) ' "$log" && [ "$skipped" -lt "$pinned" ]; then reachable=yes; fi
fi
if [ "$reachable" = yes ]; then
  cat "$log"
  [ "$skipped" = 0 ] || echo "$skipped of $pinned packages are unknown to the database: look them up by hand."
  [ "$code" = 0 ] || echo "Raise the versions in requirements.txt, run make lock and make test, then build the image again."
  exit "$code"
fi

changed=$(git log -1 --format=%ct -- requirements.lock 2>/dev/null)
[ -n "$changed" ] || changed=$(date -r requirements.lock +%s)
days=$((($(date +%s) - changed) / 86400))
echo "not audited: the package index or its database of vulnerabilities cannot be reached from here."
echo "requirements.lock was last changed on $(date -d "@$changed" +%F 2>/dev/null || date -r "$changed" +%F), $days days ago."
echo "Run make audit where there is a network; older than 90 days: make lock there, and bring the new image here."
exit 1

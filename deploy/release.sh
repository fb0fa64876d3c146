#!/usr/bin/env bash
# Give the committed state a version: lib.__version__ (its one place), a section of CHANGELOG.md, a commit, a tag.
#
#   deploy/release.sh 1.2.3
#
# Nothing leaves this machine: push the commit and the tag afterwards. The next image carries the version as a label.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() { echo "error: $1" >&2; exit 2; }

version=${1:-}
[[ $version =~ ^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$ ]] \
  || fail "VERSION is MAJOR.MINOR.PATCH, not '$version': make release VERSION=1.2.3"
if [ -n "$(git status --porcelain)" ]; then fail "uncommitted changes (git status): commit or stash them first"; fi
if git rev-parse -q --verify "refs/tags/v$version" >/dev/null; then fail "the tag v$version exists already"; fi
unreleased=$(awk '/^## /{inside = /^## \[Unreleased\]/; next} inside && /^- /{n++} END{print n + 0}' CHANGELOG.md)
[ "$unreleased" -gt 0 ] || fail "CHANGELOG.md has no line under '## [Unreleased]'"

sed -i -E "s/^__version__ = \"[^\"]*\"/__version__ = \"$version\"/" lib/__init__.py
grep -q "^__version__ = \"$version\"" lib/__init__.py || fail "lib/__init__.py has no line __version__ = \"…\""
sed -i "s/^## \[Unreleased\].*/## [Unreleased]\n\n## [$version] - $(date -u +%F)/" CHANGELOG.md
git add lib/__init__.py CHANGELOG.md
git diff --cached --quiet || git commit -q -m "Release $version"
git tag -a "v$version" -m "cxr-jobs $version"
echo "v$version is committed and tagged; push both: git push --follow-tags"

#!/usr/bin/env bash
# What the container engine does with users and labels, and the settings in .env that go with it: a line NAME=value each, after
# "# kind" for rootless, userns (user-namespace remapping), selinux, podman. Prints nothing where no engine answers.
set -uo pipefail
# shellcheck source=deploy/portable.sh
. "$(dirname "${BASH_SOURCE[0]}")/portable.sh"

security=$(within 20 docker info --format '{{range .SecurityOptions}}{{.}} {{end}}' 2>/dev/null) ||
  security=$(within 20 docker info --format '{{if .Host.Security.Rootless}}name=rootless {{end}}{{if .Host.Security.SELinuxEnabled}}name=selinux{{end}}' 2>/dev/null) ||
  exit 0
names=$(docker --version 2>/dev/null; docker version --format '{{range .Server.Components}}{{.Name}} {{end}}' 2>/dev/null)

case $names in *[Pp]odman*) echo "# podman" ;; esac
case $security in
*name=rootless*) printf '%s\n' "# rootless" UID=0 GID=0 ;; # root in the container is the caller outside
*name=userns*) printf '%s\n' "# userns" USERNS=host ;;     # else UID in the container is nobody's outside
esac
case $security in
*name=selinux*) [ "$(getenforce 2>/dev/null)" = Disabled ] || printf '%s\n' "# selinux" SELINUX=z ;;
esac

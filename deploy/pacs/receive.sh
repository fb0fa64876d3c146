#!/usr/bin/env bash
# Receive films from a PACS or a modality into the inbox: a DICOM store (dcmtk's storescp) until it is stopped.
#
#   deploy/pacs/receive.sh INBOX [PORT] [AE_TITLE]        11112, CXRJOBS
#
# A film arrives in INBOX/.receiving and is moved into INBOX when it is whole, so that no run reads half of one. Names are
# generated: what a sender writes into its header never becomes a file name. Any called title is accepted: who may reach the port
# is a matter of the firewall.
set -euo pipefail

if [ $# -lt 1 ] || [ ! -d "$1" ]; then
  echo "usage: deploy/pacs/receive.sh INBOX [PORT] [AE_TITLE]; INBOX is a folder that exists" >&2
  exit 2
fi
command -v storescp >/dev/null || { echo "error: storescp is missing: apt-get install dcmtk" >&2; exit 1; }
inbox=$(cd -- "$1" && pwd -P) port=${2:-11112} title=${3:-CXRJOBS}
case $inbox in *[\'\"\#\ ]*) echo "error: INBOX $inbox must hold no space, quote or #" >&2; exit 2 ;; esac

mkdir -p "$inbox/.receiving"
# What a power failure left half received: the sender has no confirmation of it and sends it again.
find "$inbox/.receiving" -type f -delete
umask 027
exec storescp --aetitle "$title" --output-directory "$inbox/.receiving" --unique-filenames --filename-extension .dcm \
  --accept-all --bit-preserving --fork --acse-timeout 60 --dimse-timeout 120 \
  --exec-on-reception "mv -- '#p/#f' '$inbox/#f'" "$port"

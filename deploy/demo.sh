#!/usr/bin/env bash
# The end of make demo: what its two models scored, and which pages to open.
#
#   deploy/demo.sh RUNS_DIR NAME_OF_THE_OTHER_HOSPITAL
set -euo pipefail
fair=$1 confounded=$1/confounded elsewhere=external/$2

verdict() { sed -n '/"verdict": {/,/}/s/.*"level": "\(.*\)".*/\1/p' "$1/metrics.json"; }
macro_f1() { awk -F '[:,]' '/"macro_f1": \{/ { found = 1 } found && /"value"/ { printf "%.2f", $2; exit }' "$1/metrics.json"; }

cat <<END

Two models of the same chests. Macro-F1 at home, and at another hospital that neither has seen:

                                              verdict      at home   elsewhere
  all films from one hospital                 $(printf '%-12s %7s %11s' "$(verdict "$fair/evaluation")" "$(macro_f1 "$fair/evaluation")" "$(macro_f1 "$fair/$elsewhere")")
  the films of each class from a hospital     $(printf '%-12s %7s %11s' "$(verdict "$confounded/evaluation")" "$(macro_f1 "$confounded/evaluation")" "$(macro_f1 "$confounded/$elsewhere")")

In the second set exposure, borders and markers give the class away, so that its score at home says nothing about lungs.
The verdict tells the two apart before any film from elsewhere is there. Open in a browser:

  $fair/report.html
  $confounded/report.html
  $fair/$elsewhere/report.html
  $fair/predictions/test.html    (triage: the films that ask for a review come first)
END

#!/usr/bin/env bash
# Look this machine over before the night does: a line per finding, ok, warn or fail, and what to do.
# Needs bash and the usual tools of Linux or macOS; changes nothing. Exit code 0 when nothing failed, else 1. Credentials are never shown.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. deploy/portable.sh

failed=0
ok() { printf 'ok    %s\n' "$*"; }
warn() { printf 'warn  %s\n' "$*"; }
fail() { printf 'fail  %s\n' "$*"; failed=$((failed + 1)); }
gigabytes() { awk -v kb="$1" 'BEGIN { printf "%.1f GB", kb / 1e6 }'; }

data=$(setting DATA_DIR data) runs=$(setting RUNS_DIR runs) image=$(setting IMAGE cxr-jobs:local)
backbone=$(setting BACKBONE efficientnet_b0)
# UID is bash's own variable: .env says who the containers run as, and make writes it there.
uid=$(in_file UID) gid=$(in_file GID)
uid=${uid:-1000} gid=${gid:-1000}
engine=no

check_settings() {
  if [ ! -e .env ]; then
    warn ".env is missing, defaults hold: make setup writes it"
    return
  fi
  if grep -q $'\r' .env; then
    fail ".env has Windows line ends, which end up in every value: sed -i 's/\r\$//' .env"
  fi
  local name unknown=0
  while IFS= read -r name; do
    # What compose.yaml hands to the cluster as it is (AWS_*) has no line in .env.example.
    grep -q "^$name=" .env.example || grep -qE "^  $name:( |\$)" compose.yaml || { warn ".env: unknown name $name, it has no effect (names: .env.example)"; unknown=1; }
  done < <(sed -nE 's/^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*=.*/\2/p' .env | sort -u | grep -vx IMAGE)
  if grep -nvE '^[[:space:]]*(#.*)?$|^[A-Za-z_][A-Za-z0-9_]*=' .env | cut -d : -f 1 | grep -q .; then
    warn ".env: line $(grep -nvE '^[[:space:]]*(#.*)?$|^[A-Za-z_][A-Za-z0-9_]*=' .env | cut -d : -f 1 | paste -sd ' ' -) is not NAME=value without spaces"
  elif [ "$unknown" = 0 ]; then
    ok ".env: every name is known"
  fi
  case $(ls -l .env) in ????------*) return ;; esac
  ! { has_credentials || grep -qE '^(AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|RAY_AUTH_TOKEN)=.' .env; } || warn ".env holds credentials and others can read it: chmod 600 .env"
}

has_credentials() { local name; for name in KAGGLE_API_TOKEN KAGGLE_KEY; do [ -z "$(setting $name '')" ] || return 0; done; [[ $(setting HTTPS_PROXY '') == *@* ]]; }

check_engine() {
  local wanted; wanted=$(setting RUNNER '')
  if [ "$wanted" = local ]; then
    check_venv
    return
  fi
  if within 20 docker info >/dev/null 2>&1; then
    engine=yes
    ok "container engine $(docker version --format '{{.Server.Version}}' 2>/dev/null) answers"
  elif [ -z "$wanted" ] && [ -e .venv/installed ]; then
    warn "no container engine answers; jobs run in .venv (RUNNER=local in .env says so for good)"
    check_venv
    return
  else
    fail "no container engine answers (docker info): start it, let this user use it (group docker), or set RUNNER=local in .env"
    return
  fi
  local compose; compose=$(docker compose version --short 2>/dev/null | sed 's/^v//')
  if [ -z "$compose" ]; then
    fail "docker compose is missing: install the compose plugin, 2.20 or later"
  elif [ "$(printf '%s\n' 2.20 "$compose" | sort -V | head -n 1)" != 2.20 ]; then
    fail "docker compose $compose is too old: 2.20 or later is needed"
  else
    ok "docker compose $compose"
  fi
  check_kind
  check_image
}

# Rootless, remapped users, SELinux, Podman: what is set in .env against what the engine wants.
check_kind() {
  local kind="" name value have
  while read -r line; do
    case $line in
    "# podman") warn "engine: Podman, on which no test ran" ;;
    "# rootless") kind="runs without root: UID and GID 0 in the containers are you outside" ;;
    "# userns") kind="remaps users: UID in the containers is another number outside" ;;
    "# selinux") kind="is confined by SELinux: films need a label that containers may read" ;;
    *=*)
      name=${line%%=*} value=${line#*=} have=$(in_file "$name")
      if [ "$have" = "$value" ]; then ok "engine $kind; .env has $line"
      else fail "the engine $kind: set $line in .env (now ${have:-empty})"; fi
      ;;
    esac
  done < <(deploy/engine.sh)
}

check_venv() {
  if [ -x .venv/bin/python ] && [ -e .venv/installed ]; then
    if [ -z "$(find requirements.lock requirements-torch.txt -newer .venv/installed 2>/dev/null)" ]; then
      ok ".venv is installed"
    else
      warn ".venv is older than requirements.lock: make setup"
    fi
  else
    local python
    if python=$(deploy/python.sh 2>&1); then fail "there is no .venv: make setup RUNNER=local (with $python)"
    else fail "there is no .venv; ${python#error: }"; fi
  fi
}

check_image() {
  local made; made=$(docker image inspect -f '{{.Created}}' "$image" 2>/dev/null)
  if [ -z "$made" ]; then
    fail "there is no image $image: make setup, or docker load on a closed network"
    return
  fi
  local newer; newer=$(find Dockerfile requirements-torch.txt requirements.lock lib jobs -type f -not -path '*/__pycache__/*' -newermt "$made" 2>/dev/null | head -n 1)
  if [ -z "$newer" ]; then ok "image $image, made $made"; else warn "image $image is older than $newer: make image"; fi
}

check_posture() {
  [ "$engine" = yes ] || return
  local networks; networks=$(docker compose --profile jobs config 2>/dev/null | awk '/^  [a-z_]+:$/ { job = $1 } /network_mode:/ { print job $2 }')
  if [ -z "$networks" ]; then
    fail "compose.yaml and .env do not go together: docker compose --profile jobs config says why"
  elif grep -v '^ingest:' <<<"$networks" | grep -qv ':none$'; then
    fail "a job other than ingest has a network: $(tr '\n' ' ' <<<"$networks")restore compose.yaml"
  else
    ok "network: none for every job, $(sed -n 's/^ingest://p' <<<"$networks") for ingest (INGEST_NETWORK=none closes it)"
  fi
}

# May UID:GID write there? Only root can try as somebody else; others compare owner and mode.
may_write() {
  if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    setpriv --reuid "$uid" --regid "$gid" --clear-groups test -w "$1"
  else
    [ -w "$1" ] && { [ "$(id -u)" = "$uid" ] || [ "$(setting RUNNER '')" = local ]; }
  fi
}

check_folder() {
  local name=$1 folder=$2
  if [ ! -d "$folder" ]; then
    warn "$name $folder does not exist: make setup makes it"
    return
  fi
  if may_write "$folder"; then ok "$name $folder: $uid:$gid may write"
  else fail "$name $folder belongs to $(owner "$folder"), containers run as $uid:$gid: set UID and GID in .env, or chown"; fi
  local free; free=$(df -Pk -- "$folder" | awk 'NR == 2 { print $4 }')
  if [ "$free" -lt 1000000 ]; then fail "$name $folder: $(gigabytes "$free") free, jobs refuse to start: free some space (make clean-cache) or move $name"
  elif [ "$free" -lt 10000000 ]; then warn "$name $folder: $(gigabytes "$free") free; a large set with its cache needs more than 10 GB"
  else ok "$name $folder: $(gigabytes "$free") free"; fi
}

# Without AVX2 the libraries compute with what there is (tried on an emulated CPU), at a fraction of the speed.
check_cpu() {
  local flags; flags=" $(sed -n 's/^flags[[:space:]]*: //p' "${CPUINFO:-/proc/cpuinfo}" 2>/dev/null | head -n 1) "
  if [ "$flags" = "  " ]; then ok "CPU: $(uname -m), $(getconf _NPROCESSORS_ONLN 2>/dev/null || echo "?") cores"
  elif [[ $flags != *" avx2 "* ]]; then warn "CPU: no AVX2, jobs will be slow: let the virtual machine show its host's CPU (type host), or use a newer machine"
  elif [[ $flags == *" amx_bf16 "* || $flags == *" avx512_bf16 "* ]]; then ok "CPU: AVX2, and bf16 for PRECISION=auto"
  else ok "CPU: AVX2"; fi
}

check_memory() {
  local free limit; free=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo 2>/dev/null) limit=$(setting MEMORY 0)
  [ -n "$free" ] || return
  if [ "$free" -lt 500000 ]; then fail "memory: $(gigabytes "$free") available, too little to predict without risk: end something else"
  elif [ "$free" -lt 2000000 ]; then warn "memory: $(gigabytes "$free") available, enough to predict, little to train"
  else ok "memory: $(gigabytes "$free") available"; fi
  case $limit in
  0 | *[gG]) ;;
  *[mM]) [ "${limit%[mM]}" -ge 512 ] 2>/dev/null || warn "MEMORY=$limit is little: a job that needs more ends with 137" ;;
  *) warn "MEMORY=$limit: write 4g or 512m" ;;
  esac
}

check_model() {
  local model=$runs/model card name wanted found=0 broken=0
  if [ -s "$runs/models/promoted.json" ]; then
    name=$(sed -nE 's/^ +"([^"/]+@[0-9a-f]+)",?$/\1/p' "$runs/models/promoted.json" | tail -n 1)
    model=$runs/models/${name:-none}
  fi
  card=$model/model.json
  if [ ! -e "$card" ]; then
    warn "no model in $model: train one (make all), or bring the folder from elsewhere; until then nothing is predicted"
    return
  fi
  while read -r name wanted; do
    found=$((found + 1))
    [ "$(digest "$model/$name")" = "$wanted" ] || { fail "model: $model/$name is missing or not what model.json says: restore the folder from a backup"; broken=1; }
  done < <(sed -nE 's/^ +"([^"/]+\.(bin|xml|npz|json))": "([0-9a-f]{64})",?$/\1 \3/p' "$card")
  if [ "$found" = 0 ]; then fail "model: $card is damaged: restore the folder from a backup"
  elif [ "$broken" = 0 ]; then ok "model $(sed -nE 's/^  "backbone": "(.*)",/\1/p' "$card"): $found files are what model.json says"; fi
}

check_weights() {
  local file=$data/cache/weights/$backbone.pth record=$data/cache/weights/$backbone.json wanted
  if [ ! -e "$record" ]; then
    warn "no ImageNet weights of $backbone in $data/cache/weights: only training needs them, make ingest brings them"
    return
  fi
  wanted=$(sed -nE 's/.*"sha256": "([0-9a-f]{64})".*/\1/p' "$record")
  if [ -n "$wanted" ] && [ "$(digest "$file")" = "$wanted" ]; then ok "weights of $backbone are whole"
  else fail "weights: $file is not what $record says: delete both, make ingest"; fi
}

check_data() {
  local name
  for name in raw/manifest.csv split.csv; do
    if [ -s "$data/$name" ]; then ok "$data/$name is there"; else warn "no $data/$name: only training needs it, make split writes it"; fi
  done
}

check_credentials() {
  if has_credentials; then ok "Kaggle credentials: present"; else ok "Kaggle credentials: none (only private sets need them)"; fi
  local file; file=$(setting KAGGLE_JSON '')
  local bundle; bundle=$(setting CA_BUNDLE '')
  if [ -n "$bundle" ]; then
    if grep -q -- '-----BEGIN CERTIFICATE-----' "$bundle" 2>/dev/null; then ok "CA_BUNDLE: certificates are there"
    else fail "CA_BUNDLE $bundle is no file of certificates in PEM form"; fi
  fi
  if [ -z "$file" ]; then return; fi
  if [ -f "$file" ]; then ok "KAGGLE_JSON: the file is there"; else fail "KAGGLE_JSON names a file that does not exist"; fi
}

check_leftovers() {
  local folder found held=0 lock
  for folder in "$data" "$runs"; do
    [ -d "$folder" ] || continue
    found=$(find "$folder" -maxdepth 3 -name '.*.partial' -mmin +60 2>/dev/null | wc -l)
    if [ "$found" = 0 ]; then ok "$folder: nothing unfinished"
    else warn "$folder: $found unfinished files or folders (.*.partial) older than an hour: a run was killed; the next one clears them, or delete them when no job runs"
    fi
    lock=$folder/.lock
    if [ -e "$lock" ] && command -v flock >/dev/null && ! flock -n -s "$lock" true 2>/dev/null; then
      held=1
      warn "$lock is held: a job is at work, another one ends with 75 (a file that nobody holds is harmless)"
    fi
  done
  [ "$held" = 1 ] || ok "no lock of data or runs is held"
  # A start without an end is a run that is under way, or was killed: 137, power.
  local log started ended
  for log in "$runs"/logs/*.jsonl; do
    [ -e "$log" ] || continue
    started=$(grep '"event": "start"' "$log" | tail -n 1 | sed -nE 's/.*"run": "([0-9a-f]+)".*/\1/p')
    [ -n "$started" ] || continue
    ended=$(grep "\"event\": \"end\".*\"run\": \"$started\"" "$log")
    if [ -z "$ended" ]; then warn "$log: the last run ($started) has no end: it is under way, or was killed (out of memory?)"
    elif ! grep -qE '"exit_code": (0|3),' <<<"$ended"; then warn "$log: the last run ended with$(sed -nE 's/.*"exit_code":( [0-9]+).*/\1/p' <<<"$ended"), the lines before say why"; fi
  done
}

check_settings
check_engine
check_posture
check_folder DATA_DIR "$data"
check_folder RUNS_DIR "$runs"
check_cpu
check_memory
check_model
check_weights
check_data
check_credentials
check_leftovers
if [ "$failed" = 0 ]; then echo "nothing failed"; else echo "$failed failed"; exit 1; fi

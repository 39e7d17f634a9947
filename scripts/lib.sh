# lib.sh - sourced by the other scripts: what a bare Debian or Ubuntu machine lacks, installed or started once.
# Nothing here is needed where the packages are there and the Docker Engine answers.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${MINIK8S_VENV:-$ROOT/.venv}
export PATH=$PATH:/usr/sbin:/sbin

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need COMMAND:PACKAGE... - install the packages whose command (or /path) is missing.
need() {
  local missing=() pair unit
  for pair in "$@"; do
    case ${pair%%:*} in
      /*) compgen -G "${pair%%:*}" >/dev/null || missing+=("${pair##*:}") ;;
      *) command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}") ;;
    esac
  done
  [ ${#missing[@]} = 0 ] && return 0
  [ "$(id -u)" = 0 ] || die "missing packages: ${missing[*]}; install them, or run this as root"
  command -v apt-get >/dev/null || die "missing: ${missing[*]}; this is no Debian or Ubuntu, install them by hand"
  say "installing ${missing[*]}"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq install -y --no-install-recommends \
    "${missing[@]}" >/dev/null
  # Where systemd runs, these packages start servers, now and at each boot; only their programs are wanted.
  [ ! -d /run/systemd/system ] || for unit in etcd nginx prometheus munge slurmctld slurmdbd slurmd mariadb ssh; do
    [[ " ${missing[*]}" != *" "?(open)"$unit"* ]] || systemctl -q disable --now "$unit" || true
  done
}

# need_venv LOCKFILE - a virtual environment with exactly what the lock file names, and minik8s itself.
need_venv() {
  local lock=$ROOT/$1 stamp
  command -v python3 >/dev/null || need python3:python3
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "minik8s needs Python 3.11 or newer: $(python3 -V)"
  stamp=$VENV/.$1.$(sha256sum "$lock" | cut -c1-16)
  [ -e "$stamp" ] || install_venv "$1" "$stamp"
  # Where PYTHONDONTWRITEBYTECODE is set, each start of an agent would compile all of it again: 0.7 s of processor time.
  "$VENV/bin/python" -m compileall -qq "$ROOT/minik8s" || true
}

install_venv() {
  if [ ! -x "$VENV/bin/pip" ]; then
    python3 -c 'import ensurepip' 2>/dev/null || need /missing:python3-venv
    say "making a virtual environment in $VENV"
    python3 -m venv "$VENV"
  fi
  say "installing the packages of $1"
  "$VENV/bin/pip" -q --disable-pip-version-check install --require-hashes -r "$ROOT/$1"
  "$VENV/bin/pip" -q --disable-pip-version-check install --no-deps --no-build-isolation -e "$ROOT"
  touch "$2"
}

# need_docker - an Engine that answers; where none does, containerd and dockerd are started, detached.
# Pids of what was started are in STARTED, so that the caller may end it.
STARTED=()
need_docker() {
  need dockerd:docker.io nft:nftables iptables:iptables ip:iproute2
  need docker:docker-cli  # comes with docker.io up to Debian 12
  docker version >/dev/null 2>&1 && return 0
  [ "$(id -u)" = 0 ] || die "the Docker Engine does not answer: start it, or run this as root"
  if [ -d /run/systemd/system ]; then
    systemctl start docker && return 0
  fi
  local log=${MINIK8S_DOCKER_LOG:-/var/log/minik8s-dockerd.log}
  say "starting the Docker Engine (log: $log)"
  if [ ! -S /run/containerd/containerd.sock ] || ! ctr version >/dev/null 2>&1; then
    setsid containerd >>"$log" 2>&1 </dev/null & STARTED+=($!)
    for _ in $(seq 100); do ctr version >/dev/null 2>&1 && break; sleep 0.1; done
  fi
  rm -f /run/docker.pid
  setsid dockerd --containerd /run/containerd/containerd.sock >>"$log" 2>&1 </dev/null & STARTED+=($!)
  for _ in $(seq 200); do docker version >/dev/null 2>&1 && return 0; sleep 0.1; done
  tail -n 5 "$log" >&2
  die "the Docker Engine did not start: see $log"
}

# end_started - end what need_docker started, the last one first.
end_started() {
  local index pid
  for ((index = ${#STARTED[@]} - 1; index >= 0; index--)); do
    pid=${STARTED[index]}
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  done
}

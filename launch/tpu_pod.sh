#!/usr/bin/env bash
# Installs and runs the program on every host of a TPU pod slice; the hosts find each other.
#   launch/tpu_pod.sh [--dry_run] NAME ZONE --config=experiments/deep1m.py --workdir=/mnt/runs/deep1m
#   launch/tpu_pod.sh [--dry_run] NAME ZONE follow    shows what runs there, from its first line
#   launch/tpu_pod.sh [--dry_run] NAME ZONE stop      SIGTERM: it saves and ends
# The run does not depend on this terminal: Ctrl-C only stops following. The run directory, and
# --config.data.dir where the set is not embedded, must be seen by all hosts (Filestore, a mounted
# bucket). After a preemption the same command resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
run() { "$@"; }
if [ "${1:-}" = --dry_run ]; then
  run() { echo "${@@Q}"; }
  shift
fi
if [ $# -lt 3 ] || { [[ " $* " != *" --workdir="* ]] && [[ "${*:3}" != @(follow|stop) ]]; }; then
  echo "error: expected NAME ZONE follow, stop or --config=… --workdir=… [--config.field=value …]" >&2
  exit 2
fi
name=$1 where=("--zone=$2" --worker=all)
shift 2
on_all_hosts() { run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --command="$1"; }

# On a host sigah/run.pid is the shell around the program, which leaves its exit code in run.code.
running='pid=$(cat sigah/run.pid 2>/dev/null) && grep -qs sigah_jax.main "/proc/$pid/cmdline"'
if [ "$1" = stop ]; then
  stop="pkill -TERM -P \$pid; tail -n 1 --pid=\$pid -f sigah/run.log"
  on_all_hosts "if $running; then $stop; else echo 'nothing runs here'; fi"
  exit
fi
if [ "$1" != follow ]; then
  code=$(mktemp -d)
  trap 'rm -r "$code"' EXIT
  tar --exclude=__pycache__ -czf "$code/sigah.tar.gz" \
    sigah_jax experiments launch pyproject.toml README.md LICENSE NOTICE
  setup="if $running; then echo 'error: a run is there; give follow or stop' >&2; exit 2; fi"
  setup+="; mkdir -p sigah && tar -xzf sigah.tar.gz -C sigah && cd sigah"
  setup+=" && python3 -m pip install -q --user uv && ~/.local/bin/uv venv --allow-existing --python 3.12"
  setup+=" && ~/.local/bin/uv pip install -q -e '.[tpu]'"
  run gcloud compute tpus tpu-vm scp "$code/sigah.tar.gz" "$name:sigah.tar.gz" "${where[@]}"
  on_all_hosts "$setup"
  on_all_hosts "cd sigah && rm -f run.code && { setsid bash -c '\"\$@\"; echo \$? >run.code' - \
.venv/bin/python -m sigah_jax.main ${*@Q} >run.log 2>&1 </dev/null & echo \$! >run.pid; }"
fi
on_all_hosts 'cd sigah && tail -n +1 --pid="$(cat run.pid)" -f run.log && exit "$(cat run.code)"'

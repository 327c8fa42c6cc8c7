#!/usr/bin/env bash
# Installs and runs the program on every host of a TPU pod slice; the hosts find each other.
#   launch/tpu_pod.sh [--dry_run] NAME ZONE --config=experiments/deep1m.py --workdir=/mnt/runs/deep1m
# The run directory, and --config.data.dir where the set is not embedded, must be seen by all hosts
# (Filestore, a mounted bucket). After a preemption the same command goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
run() { "$@"; }
if [ "${1:-}" = --dry_run ]; then
  run() { echo "${@@Q}"; }
  shift
fi
if [ $# -lt 3 ] || [[ " $* " != *" --workdir="* ]]; then
  echo "error: expected NAME ZONE --config=… --workdir=… [--config.field=value …]" >&2
  exit 2
fi
name=$1 where=("--zone=$2" --worker=all)
shift 2

code=$(mktemp -d)
trap 'rm -r "$code"' EXIT
tar --exclude=__pycache__ -czf "$code/sigah.tar.gz" \
  sigah_jax experiments launch pyproject.toml requirements.txt README.md
setup="mkdir -p sigah && tar -xzf sigah.tar.gz -C sigah && cd sigah"
setup+=" && python3 -m pip install -q --user uv && ~/.local/bin/uv venv --allow-existing --python 3.12"
setup+=" && ~/.local/bin/uv pip install -q -e . 'jax[tpu]'"
run gcloud compute tpus tpu-vm scp "$code/sigah.tar.gz" "$name:sigah.tar.gz" "${where[@]}"
run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --command="$setup"
run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" \
  --command="cd sigah && .venv/bin/python -m sigah_jax.main ${*@Q}"

#!/usr/bin/env bash
# Installs into .venv and runs SiGAH on MNIST, which the package embeds. Arguments go to main.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install -q -e .
.venv/bin/python -m sigah_jax.main --config=experiments/mnist.py "$@"

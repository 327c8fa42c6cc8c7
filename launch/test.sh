#!/usr/bin/env bash
# Sets up .venv if it is not there, then runs the suite, two files at a time. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install -q -e '.[dev]'
.venv/bin/python -m pytest -n 2 --dist loadfile "$@"

"""The suite runs on eight simulated devices unless the caller chose another number."""

import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

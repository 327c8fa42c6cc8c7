"""The suite runs on eight simulated devices unless the caller chose another number."""

import os
import signal

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# a shell's background job ignores Ctrl-C and so would all that it starts; some tests send one
signal.signal(signal.SIGINT, signal.default_int_handler)

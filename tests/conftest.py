"""The suite runs on eight simulated devices unless the caller chose another number."""

import os
import signal

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# a shell's background job ignores Ctrl-C, one under nohup a hang-up, and so would all that they
# start; some tests send them
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

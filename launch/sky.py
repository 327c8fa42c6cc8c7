"""A sweep in a cloud: a SkyPilot task file for each point, for managed jobs on spot machines.

A machine that is taken away is replaced, wherever there is one, and the same command resumes from
the last checkpoint, which lies in a bucket. Data sets may lie in another, of which every machine
gets a copy, for they are memory-mapped. The files are written, and the commands that launch
them printed: machines cost money, so a person starts them.

Not responsible for which points there are: `launch.sweep`.
"""

import json
import shlex
from argparse import Namespace

from launch.local import TERMINATED, Job, check_line

_TASK = """# Written by launch.sweep. {point}
name: {name}
workdir: .
envs:
  SIGAH_DATA: /data
resources:
  accelerators: {accelerators}
  use_spot: true
  job_recovery:
    max_restarts_on_errors: {retries}
    recover_on_exit_codes: [{terminated}]
file_mounts:
  /sweep:
    source: {bucket}
    mode: MOUNT_CACHED
{data}setup: |
  ~/.local/bin/uv venv --allow-existing --python 3.12 ~/sigah
  ~/.local/bin/uv pip install --python ~/sigah/bin/python -e '.[{extra}]'
  ln -sfn /sweep runs
run: |
  {command}
"""
_DATA = """  /data:
    source: {bucket}
    mode: COPY
"""


def task(name: str, job: Job, args: Namespace) -> str:
    """The task file of a point.

    Args:
        args: flags of `launch.sweep`: `accelerators` in SkyPilot's words; `bucket` that holds what
            is below `runs/`; `data_bucket` of the data directory or "", as for MNIST; `retries`
            of a run that breaks, for one that was preempted always starts again.

    Raises:
        BadInput: a line break in the point or its command, whose rest would be YAML of its own.
    """
    for text in (job.name, *job.argv):
        check_line(text)
    return _TASK.format(
        point=job.name,
        name=json.dumps(name),
        accelerators=json.dumps(args.accelerators),
        retries=args.retries,
        terminated=TERMINATED,
        bucket=json.dumps(args.bucket),
        data=_DATA.format(bucket=json.dumps(args.data_bucket)) if args.data_bucket else "",
        extra="tpu" if args.accelerators.startswith("tpu") else "cuda",
        command=f"~/sigah/bin/python {shlex.join(job.argv[1:])}",
    )

"""A sweep on a SLURM cluster: one array script, a task for each point, submitted with sbatch.

SLURM sends a run SIGTERM a minute before the time limit, and at a preemption where the cluster
says so (`PreemptParameters=send_user_signal`). The run then saves and exits with 143, and its task
puts itself into the queue again, up to `MAX_TERMINATIONS` times. At scancel the task itself gets
SIGTERM, and ends. A run that breaks is started again within its task.

Not responsible for which points there are (`launch.sweep`) nor for how a run finds its devices.
"""

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from launch.local import FINAL, MAX_TERMINATIONS, TERMINATED, Job, check_line
from sigah_jax.errors import BadInput
from sigah_jax.files import whole

_SCRIPT = r"""#!/usr/bin/env bash
{name}
#SBATCH --array={indices}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@60
{directory}
{output}
{options}
# Written by launch.sweep: task i is point i.
set -u

case $SLURM_ARRAY_TASK_ID in
{cases}
esac
point="point $SLURM_ARRAY_TASK_ID ($name)"

# The log is locked while this task lives: no second sweep starts the run too.
mkdir -p "$(dirname "$log")"
exec 9>>"$log"
flock --nonblock --conflict-exit-code=75 9
case $? in
  0) ;;
  75) echo "$point: runs in another sweep"; exit 0 ;;
  *)
    echo "$point: $log cannot be locked; it needs a disk with free space and locks (flock)"
    exit {bad_input}
    ;;
esac
if [ -e "$done" ]; then echo "$point: finished before"; exit 0; fi

# srun of SLURM 22.05 and later does not know it otherwise
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
for _ in {{0..{retries}}}; do
  srun --output="$log" --open-mode=append "${{run[@]}}"
  code=$?
  case $code in 0 | {final}) break ;; esac
done
last=$(tail -n 100 "$log" | grep -v -e '^    ' -e '^  File "' | tail -n 1)  # of no traceback
echo "$point: exit code $code, $last ($log)"
if [ $code -eq {terminated} ]; then
  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {max_terminations} ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
  else
    echo "$point: requeued {max_terminations} times, not again; use a longer --time"
  fi
fi
exit $code
"""


def script(name: str, jobs: Mapping[int, Job], options: str, output: Path, retries: int) -> str:
    """The array script of these points.

    Args:
        jobs: by array index.
        options: of sbatch, as on its command line: `"--partition=gpu --gres=gpu:1 --time=4:00:00"`.
        output: directory of what the tasks themselves say; the runs have their logs.
        retries: how often a run that ends otherwise than by `local.FINAL` or 143 is started again.

    Raises:
        BadInput: a line break in an option or a path, whose rest would be a command of the script.
    """
    return _SCRIPT.format(
        name=_option(f"--job-name={name}"),
        indices=",".join(map(str, jobs)),
        directory=_option(f"--chdir={Path.cwd()}"),
        output=_option(f"--output={output / '%A_%a.log'}"),
        options="\n".join(map(_option, _split(options))),
        cases="\n".join(_case(number, job) for number, job in jobs.items()),
        retries=retries,
        final=" | ".join(map(str, (*FINAL, TERMINATED))),
        terminated=TERMINATED,
        bad_input=BadInput.exit_code,
        max_terminations=MAX_TERMINATIONS,
    )


def _split(options: str) -> list[str]:
    try:
        return shlex.split(options)
    except ValueError as e:
        raise BadInput(f"--sbatch={options}: {e}; write it as on sbatch's command line") from e


def _option(text: str) -> str:
    return f"#SBATCH {shlex.quote(check_line(text))}"


def _case(number: int, job: Job) -> str:
    name, log, done = (shlex.quote(str(part)) for part in (job.name, job.log, job.done))
    return f"{number}) name={name} log={log} done={done} run=({shlex.join(job.argv)}) ;;"


def submit(text: str, path: Path) -> str:
    """Writes the script, gives it to sbatch and returns the number of the array job."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.write_text(path, text)
    command = ["sbatch", "--parsable", path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except FileNotFoundError as e:
        raise BadInput(
            f"--executor=slurm: there is no sbatch here; submit {path} on a login node"
        ) from e
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BadInput(f"sbatch {path}: {reason}")
    return done.stdout.strip()

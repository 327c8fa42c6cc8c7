"""What a run writes for people and tools: metrics.jsonl, log lines, progress bar.

Of several processes the first writes rows and lines; for the others these functions do nothing.

Not responsible for checkpoints or pictures.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

from tqdm import tqdm

from sigah_jax.devices import hosts
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.files.progress import LINE_EVERY_SECS
from sigah_jax.process import streams


def read_rows(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl; a last line that was cut off by a kill is left out.

    Raises:
        BadInput: the file cannot be read, or a line is not a row.
    """
    try:
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        if not all(isinstance(row["step"], int) for row in rows):
            raise ValueError("a row has no step")
        return rows
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BadInput(
            f"{path}: damaged ({e}); remove it, then the same command resumes without its rows"
        ) from e


def drop_rows_after(path: Path, step: int) -> None:
    """Removes the rows of steps after `step`, which a resumed run will write again."""
    if not hosts.first():
        return
    rows = [row for row in read_rows(path) if row["step"] <= step]
    whole.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def rows_hash(path: Path) -> str:
    """A hash of the bytes of a metrics.jsonl, which a checkpoint keeps: rows may get lost."""
    held = path.read_bytes() if path.exists() else b""
    return hashlib.blake2b(held, digest_size=16).hexdigest()


def append_row(path: Path, row: dict) -> None:
    """Adds one line to metrics.jsonl."""
    if not hosts.first():
        return
    with whole.naming(path), path.open("a", encoding="utf-8") as f:
        f.write(json.dumps(row) + "\n")


class Log:
    """Lines to stdout and log.txt; on a terminal a progress bar, otherwise a line now and then.

    A context, which closes the file.
    """

    def __init__(self, path: Path):
        self.file = None
        if hosts.first():  # a file name in a line may hold bytes that are not UTF-8
            self.file = path.open("a", encoding="utf-8", errors="backslashreplace")
        self.bar = None
        self.said = 0.0
        self.first = None  # (moment, step) of the first progress, for the time left

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_) -> None:
        self.end_progress()
        if self.file is not None:
            self.file.close()

    def line(self, text: str) -> None:
        """One line for people."""
        if self.file is None:
            return
        with whole.naming(Path(self.file.name)):
            self.file.write(f"{time.strftime('%F %T')} {text}\n")
            self.file.flush()
        with tqdm.external_write_mode(sys.stdout):  # a bar makes place
            streams.show(text)

    def progress(self, step: int, steps: int, fields: dict[str, str]) -> None:
        """Shows where training is; without a terminal, a line now and then.

        The time left is that of the steps to come, of all stages, at the pace of this one.
        """
        if self.file is None:
            return
        now = time.monotonic()
        self.first = self.first or (now, step)
        if sys.stderr.isatty():
            if self.bar is None:
                self.bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)
            self.bar.n = step
            self.bar.set_postfix(fields)
        elif now - self.said > LINE_EVERY_SECS or step == steps:
            self.said = now
            spent, made = now - self.first[0], step - self.first[1]
            left = f"{spent / made * (steps - step):.0f} s" if made else "?"
            shown = "  ".join(f"{k} {v}" for k, v in (fields | {"left": left}).items())
            self.line(f"step {step}/{steps}  {shown}")

    def end_progress(self) -> None:
        """Leaves the bar as it stands; the next stage has a pace of its own."""
        self.first = None
        if self.bar is not None:
            self.bar.close()
            self.bar = None

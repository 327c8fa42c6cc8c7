"""How far a long work is, for people: a bar on a terminal, else a line now and then.

Not responsible for training, whose line tells more: `logs`.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from sigah_jax.process import streams

LINE_EVERY_SECS = 10


@contextlib.contextmanager
def showing(name: str, first: int, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields `show(done)`, to be called often.

    Args:
        first: how much of `total` was done before.
        unit: of both: "row", "B".
    """
    if sys.stderr.isatty():
        options = {"unit": unit, "unit_scale": True, "dynamic_ncols": True}
        with tqdm(total=total, initial=first, desc=name, **options) as bar:
            yield lambda done: bar.update(done - bar.n)
        return
    start = said = time.monotonic()

    def line(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said > LINE_EVERY_SECS and done > first:
            said = now
            left = (now - start) / (done - first) * (total - done)
            have, all_of_it = (tqdm.format_sizeof(v) + f" {unit}" for v in (done, total))
            streams.show(f"{name}: {have} of {all_of_it} ({done / total:.0%}), {left:.0f} s left")

    yield line

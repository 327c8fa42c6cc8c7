"""Stand-ins of the large benchmarks: their shapes and files, made-up vectors.

    python -m sigah_jax.data.synthetic gist1m --dir=/big/disk

They let a machine be tried at full size before the real files are there. Numbers measured on
them say how long a run takes and what memory it needs, and nothing about retrieval on real data.

Shapes: B rows of a block, m intrinsic dimensions, d columns.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sigah_jax.command_line import Parser, command
from sigah_jax.data.benchmarks import BENCHMARKS, STAND_IN, Benchmark
from sigah_jax.data.directory import data_directory
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.formats.raw import write_vectors

INTRINSIC_DIMS = 16  # of the manifold that the rows lie near
CENTRES = 200  # clusters on it
NOISE = 0.02  # standard deviation of a column, relative to that of the manifold
BLOCK_ROWS = 16384


def make_manifold(d: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    """A function `(generator, rows) -> [rows, d] f32` of points near an m-dimensional manifold.

    A Gaussian mixture in m dimensions goes through one random tanh layer: curved, clustered, of
    low intrinsic dimension, as descriptors are. It is the same one at every call.
    """
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CENTRES, INTRINSIC_DIMS), np.float32)
    inner = generator.standard_normal((INTRINSIC_DIMS, 256), np.float32) / 4
    outer = generator.standard_normal((256, d), np.float32) / 16

    def draw(generator: np.random.Generator, rows: int) -> np.ndarray:
        z = centres[generator.integers(0, CENTRES, rows)]
        z = z + 0.5 * generator.standard_normal(z.shape, np.float32)
        noise = generator.standard_normal((rows, d), np.float32)
        return np.tanh(z @ inner) @ outer + NOISE * noise

    return draw


def blocks(draw, part: int, rows: int, unit_length: bool) -> Iterator[np.ndarray]:
    """Blocks of `rows` rows in all, a pure function of the number of the file."""
    for i, start in enumerate(range(0, rows, BLOCK_ROWS)):
        x = draw(np.random.default_rng([0, part, i]), min(BLOCK_ROWS, rows - start))
        if unit_length:  # as Deep1B is
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        yield x


def write_stand_in(name: str, directory: Path, benchmark: Benchmark) -> None:
    """Writes the files of the first layout of `benchmark` into `directory`.

    Raises:
        BadInput: files that are not a stand-in are there, or the disk is too small.
    """
    layout = benchmark.layouts[0]
    sizes = (benchmark.base_rows, benchmark.query_rows, benchmark.learn_rows)
    directory.mkdir(parents=True, exist_ok=True)
    marker = directory / STAND_IN
    if any(directory.iterdir()) and not marker.exists():
        raise BadInput(f"{directory}: holds other files; give another --dir for a stand-in")
    whole.check_room(directory, 4 * benchmark.d * sum(sizes), "give another --dir")
    marker.write_text(f"Synthetic stand-in of {name}, made by sigah_jax.data.synthetic.\n", "utf-8")
    draw = make_manifold(benchmark.d)
    for number, (part, rows) in enumerate(zip(layout, sizes, strict=True), 1):
        path = directory / part.file
        print(f"{path}: {rows} rows of {benchmark.d}", flush=True)
        made = blocks(draw, number, rows, name == "deep1m")
        write_vectors(path, (rows, benchmark.d), np.float32, made)


@command("the same command starts again")
def main() -> None:
    """Exit code: 0, or 2 for bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument(
        "--dir", default="", help="data directory; default $SIGAH_DATA, or ~/.cache/sigah_jax"
    )
    args = parser.parse_args()
    write_stand_in(args.name, data_directory(args.dir) / args.name, BENCHMARKS[args.name])


if __name__ == "__main__":
    sys.exit(main())

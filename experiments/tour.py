"""A tour: vectors in, codes, a search, and a picture of the neighbours found and missed.

    python -m experiments.tour --output=tour.png

Trains on some of the digits that the package embeds, for fewer steps than a real run, so that it
ends within three minutes on two CPU cores. Read `tour` from top to bottom: each step is one call
that works the same on vectors of your own.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import sigah_jax
from sigah_jax.command_line import Parser, command
from sigah_jax.data import mnist
from sigah_jax.errors import BadInput
from sigah_jax.report import drawing
from sigah_jax.retrieval import euclidean

QUERIES = 200
K = 10
SHOWN = 5  # queries of the picture
HIT, MISS = "tab:green", "tab:red"


def tour(rows: int, bits: int, steps: int, output: Path) -> dict[str, float]:
    """Walks from vectors to neighbours and writes the picture; the recall of each way to search.

    Args:
        rows: vectors of the base; the queries are 200 others.
    """
    # 1. Vectors: one row each. These are images of 28 x 28 grey values; yours may be anything.
    x = np.random.default_rng(0).permutation(mnist.load_images())[: rows + QUERIES]
    x, queries = x[QUERIES:].astype(np.float32), x[:QUERIES].astype(np.float32)

    # 2. Train. A real run leaves `changes` out.
    h = sigah_jax.fit(x, bits=bits, changes={"train.steps": steps, "eval.every_steps": steps})

    # 3. Encode the base once, and keep the codes: this is what takes memory.
    codes = h.encode(x)
    print(f"{x.nbytes / len(x):.0f} bytes a vector became {codes.shape[1]}")

    # 4. Search by codes alone, in three ways, and with the vectors at hand.
    ways = {
        "Hamming distance, as in a store of bits": {"by": "hamming"},
        "both codes of a query": {"by": "both"},
        "in stages, the default": {},
        "in stages, the last 100 by the vectors": {"rerank": x},
    }
    _, truth = euclidean.knn(queries, x, K, "cpu")
    recalls = {}
    for name, flags in ways.items():
        _, ids = sigah_jax.search(h, queries, codes, K, **flags)
        found = (ids[:, :, None] == truth[:, None, :]).any(axis=1)  # [Q, K], of the true ones
        recalls[name] = float(found.mean())
        print(f"recall@{K} {recalls[name]:.3f}  {name}")
        if not flags:
            show(queries, x, truth, ids, output)

    # 5. A code can be decoded: the synthetic feature that stands for the vector.
    error = np.mean((h.synthesise(codes[:1000]) - x[:1000]) ** 2) / np.var(x[:1000], axis=0).mean()
    print(f"synthetic features keep {1 - error:.0%} of the variance; picture: {output}")
    return recalls


def show(queries, x, truth, ids, output: Path) -> None:
    """Draws some queries, their true neighbours, and what was found.

    Args:
        queries: `[Q, 784]`; x: `[n, 784]`; truth, ids: `[Q, K]`, true and found rows of x.
    """
    figure = Figure(figsize=(8, 8.6), layout="constrained")
    axes = figure.subplots(2 * SHOWN, K + 1)
    for q in range(SHOWN):
        true, found = axes[2 * q], axes[2 * q + 1]
        draw(true[0], queries[q], "query", "black")
        found[0].set_axis_off()
        for rank in range(K):
            draw(true[1 + rank], x[truth[q, rank]], f"true {rank + 1}", "black")
            hit = ids[q, rank] in truth[q]
            draw(
                found[1 + rank], x[ids[q, rank]], "found" if hit else "other", HIT if hit else MISS
            )
    drawing.save(figure, output)


def draw(axis, pixels, title: str, colour: str) -> None:
    """One image `[784]` with a title above it."""
    axis.imshow(pixels.reshape(mnist.SIDE, mnist.SIDE), cmap="gray_r")
    axis.set_title(title, fontsize=7, color=colour, pad=2)
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_edgecolor(colour)


@command("nothing is kept")
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="vectors of the base")
    parser.add_argument("--bits", type=int, default=64, help="length of the codes")
    parser.add_argument("--steps", type=int, default=800, help="of training; a real run has 4000")
    parser.add_argument("--output", type=Path, default=Path("tour.png"), help="the picture")
    args = parser.parse_args(argv)
    if args.output.suffix != ".png":
        raise BadInput(f"--output={args.output}: the picture is a .png file; end its name so")
    tour(args.rows, args.bits, args.steps, args.output)


if __name__ == "__main__":
    sys.exit(main())

"""Encodes many vectors on a Ray cluster, or on all cores of this machine:

    python -m launch.encode_ray --workdir=runs/… --input vectors/ --column=vector --output=codes

Inputs are Parquet files, Lance data sets (`*.lance`) and every file that `formats.vectors` reads by
rows, such as `.npy`; a directory stands for the files in it. The output is a directory of Parquet
files with a column `code` of W bytes, in the bit order of `numpy.packbits`, beside the other
columns of the input, or `row`, the number of the row in its file, where there are none. The names
of the files sort in the order of the inputs and their rows.

What Ray Data distributes are not rows but fragments: (file, first row, last row). An actor loads
the hasher once, reads a fragment and writes its file of codes itself, under a name that the
fragment decides and that appears whole or not at all. So a fragment that is done twice, because
its worker was lost, is there once, and of data nothing but counts passes Ray's object store.

All nodes must have `sigah_jax[ray]` installed and see the inputs and the output under the same
paths. One run at a time writes an output. A run that resumes verifies the codes of the files that
are there, by the checksums of their pages.

Shapes: n rows, d columns, r rows of a fragment, W packed bytes.

Not responsible for how a row becomes a code (`hasher`), for starting a cluster nor for object
stores.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import contextlib
import itertools
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax

from launch import ray_encoder, ray_inputs
from launch.ray_encoder import LONGEST, Encoder, Options
from launch.ray_inputs import Fragment, list_inputs, open_source, plan
from sigah_jax.command_line import Parser, add_encoder, at_least, command
from sigah_jax.encode import told_of_longer
from sigah_jax.encoder.hasher import to_bytes
from sigah_jax.errors import BadInput, optional
from sigah_jax.files import locks, progress, whole
from sigah_jax.formats.opened import reading_as
from sigah_jax.run import loading

MANIFEST = "_manifest.json"  # readers of Parquet pass over names that begin so
_CONNECT_SECS = 30


@contextlib.contextmanager
def claim(output: Path, of: dict) -> Iterator[None]:
    """Begins an output directory, or resumes one of the same encoder and inputs, under a lock.

    Raises:
        BadInput: it holds something else, cannot be written, or another process writes it.
    """
    path = output / f"{MANIFEST}.lock"
    with contextlib.ExitStack() as stack:
        with whole.telling(output, "name another", flag="--output="):
            output.mkdir(parents=True, exist_ok=True)
            busy = f"--output={output}: another process writes it; wait for it to end"
            stack.enter_context(locks.held(path, busy))
        _check_manifest(output, of)
        yield


def _check_manifest(output: Path, of: dict) -> None:
    """Compares with what the output was begun with, or begins one without codes."""
    manifest = output / MANIFEST
    try:
        with whole.telling(output, "name another", flag="--output="):
            if all(p.name.startswith(MANIFEST) for p in output.iterdir()):  # no codes to be lost
                whole.write_json(manifest, of)
        theirs = whole.read_json(manifest, "name another --output")
    except FileNotFoundError as e:
        raise BadInput(
            f"--output={output}: holds files and no {MANIFEST}; name a new directory"
        ) from e
    for field in of | theirs:
        old, ours = theirs.get(field), of.get(field)
        if old == ours:
            continue
        if field == "inputs":
            pairs = itertools.zip_longest(old if isinstance(old, list) else [], ours)
            old, ours = next((a, b) for a, b in pairs if a != b)
        raise BadInput(
            f"{manifest}: was begun with another {field} ({old}, now {ours}); give the command "
            "that it was begun with, or name another --output"
        )


def encode_inputs(options: Options) -> str:
    """Encodes what is not there yet; returns a line for people.

    Raises:
        BadInput: as `plan`, `open_source`, `claim` and `Encoder.write`; a finished file that is
            damaged, or has bad rows without `skip_bad`; no cluster, or none with room for an actor.
    """
    h = loading.load(options.workdir, options.checkpoint)
    facts, output = h.describe(), options.output
    paths = list_inputs(options.input, output)
    fragments, inputs = plan(paths, options.column, options.fragment_rows)
    open_source(fragments[0], options.column, h.d)
    of = {"encoder": facts["encoder"], "bits": h.bits, "column": options.column}
    of |= {"fragment_rows": options.fragment_rows, "inputs": inputs}
    if h.refinement.mu:
        of["refine"] = facts["refine"]
    with claim(output, of):
        todo = [f for f in fragments if not (output / f.name).exists()]
        pending = set(todo)
        done = [_facts_of(output / f.name, f) for f in fragments if f not in pending]
        bad, longest = sum(bad for bad, _ in done), max((length for _, length in done), default=0)
        if bad and not options.skip_bad:
            raise BadInput(f"{output}: {bad} rows were skipped as bad; use --skip_bad")
        for left in output.glob("_*.partial"):  # of a run that was killed
            left.unlink(missing_ok=True)
        if todo:
            # actors are not where this process is
            theirs = options._replace(output=Path(os.path.abspath(output)))
            more, length = run(theirs, to_bytes(h), todo)
            bad, longest = bad + more, max(longest, length)
    rows = sum(f.stop - f.start for f in fragments)
    skipped = f"; {bad} bad rows have null codes" if bad else ""
    longer = told_of_longer(h, output, longest)
    return f"{output}: {rows} codes of {h.bits} bits in {len(fragments)} files{skipped}{longer}"


def run(options: Options, encoder: bytes, todo: list[Fragment]) -> tuple[int, float]:
    """Encodes fragments on the cluster; returns the number of bad rows and the longest length.

    Args:
        encoder: returned by `hasher.to_bytes`.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext, from_items

    for module in (ray_encoder, ray_inputs):  # `launch` is not installed, and so not on every node
        ray.cloudpickle.register_pickle_by_value(module)
    connect(options.address)
    logging.getLogger("ray.data").setLevel("ERROR")
    DataContext.get_current().enable_progress_bars = False
    actors = min(options.concurrency or _room(ray.nodes(), options), len(todo))
    results = from_items([f._asdict() for f in todo], override_num_blocks=len(todo)).map(
        Encoder,
        fn_constructor_args=(options, encoder),
        compute=ActorPoolStrategy(size=actors),
        num_cpus=options.num_cpus,
        num_gpus=options.num_gpus,
    )
    rows, bad, longest, total = 0, 0, 0.0, sum(f.stop - f.start for f in todo)
    with progress.showing(options.output.name, 0, total, "row") as show:
        for result in results.iter_rows():
            if result["error"]:
                raise BadInput(result["error"])
            rows, bad = rows + result["rows"], bad + result["bad"]
            longest = max(longest, result["longest"])
            show(rows)
    return bad, longest


def connect(address: str) -> None:
    """Joins a cluster, or starts one on this machine; nothing if that has been done."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local Ray would report its use
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": True}
    checkout = str(Path(__file__).parents[1])  # workers import `launch`, which is not installed
    path = os.pathsep.join([checkout, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        if ":" in address:  # Ray itself would knock for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), _CONNECT_SECS).close()
        with warnings.catch_warnings(action="ignore"):  # JAX warns of the processes it starts
            ray.init(address=address, runtime_env={"env_vars": {"PYTHONPATH": path}}, **quiet)
    except (OSError, RuntimeError, ValueError) as e:
        reason = " ".join(str(e).split())
        raise BadInput(f"--address={address}: no cluster to join ({reason}); start one") from e


def _room(nodes: list[dict], options: Options) -> int:
    """How many actors the cluster takes now."""
    needs = {"CPU": options.num_cpus, "GPU": options.num_gpus}
    room = sum(
        min(int(node["Resources"].get(k, 0) // need) for k, need in needs.items() if need)
        for node in nodes
        if node["Alive"]
    )
    if not room:
        raise BadInput(
            f"--num_cpus={options.num_cpus} --num_gpus={options.num_gpus}: no node of the cluster "
            "has as many; use fewer, or --concurrency if it grows"
        )
    return room


def _facts_of(path: Path, fragment: Fragment) -> tuple[int, float]:
    """Rows without a code in a finished file, whose codes are verified, and its longest length.

    Raises:
        BadInput: it is damaged, or not of that fragment.
    """
    import pyarrow.parquet as pq

    rows = bad = 0
    remedy = "remove it, and the same command makes it anew"
    with (
        reading_as("parquet", path, remedy),
        pq.ParquetFile(path, page_checksum_verification=True) as f,
    ):
        for batch in f.iter_batches(columns=["code"]):
            rows, bad = rows + batch.num_rows, bad + batch.column(0).null_count
        longest = float((f.schema_arrow.metadata or {}).get(LONGEST, 0))
    if rows != fragment.stop - fragment.start:
        raise BadInput(
            f"{path}: holds {rows} codes, expected {fragment.stop - fragment.start}; {remedy}"
        )
    return bad, longest


@command("the same command resumes where it stopped")
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input or a full disk, 130 interrupted."""
    parser = Parser(description="Encodes many vectors on a Ray cluster.")
    add = parser.add_argument
    add_encoder(parser)
    add("--input", required=True, nargs="+", help="files, or directories of files")
    add("--column", default="", help="column of vectors, in Parquet and Lance")
    add("--output", required=True, type=Path, help="directory to write")
    add(
        "--skip_bad",
        action="store_true",
        help="write null for rows without a code (NaN; zeros under cosine)",
    )
    add("--fragment_rows", type=at_least(1), default=2**20, help="rows of an output file")
    add("--address", default="local", help="local, auto (the running cluster) or HOST:PORT")
    add("--concurrency", type=at_least(1), help="actors; default as many as fit")
    add("--num_cpus", type=at_least(1), default=1, help="cores of an actor")
    add("--num_gpus", type=at_least(0), default=0, help="GPUs of an actor")
    args = parser.parse_args(argv)
    args.workdir, args.output = (Path(os.path.expanduser(p)) for p in (args.workdir, args.output))
    options = Options(**vars(args))
    optional("ray.data", "encode_ray", "ray")
    print(encode_inputs(options))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # the accelerators are the workers'
    sys.exit(main())

"""Writes the trained encoder for a place that has no training code:

    python -m sigah_jax.export --workdir=runs/… --output=encoder.onnx

- `.onnx`: float32 `vectors [n, d]` in; `codes [n, W]` uint8 of base rows, `query_codes [n, W]` of
  queries and `projections [n, K]` float32 of queries out. Ask for the outputs you need, the others
  are not computed.
- `.stablehlo`: the same three outputs of `jax.export.deserialize(data).call(vectors)`, on cpu, cuda
  and tpu.
- `.npz`: what `Hasher.save` writes: `sigah_jax.load` reads it, and `numpy_encoder.py`, which needs
  numpy alone.

All take vectors as they are, and make of them what the metric of the encoder asks for.
Codes of base rows are not refined, whatever the run chose: see `Hasher.encode`, refine=0. The
`.npz` file keeps what it chose for `sigah_jax.load`.

n is free in all, and may be 0. Before a file gets its name it is run beside the hasher: bits may
differ only where the projection is within `MARGIN` of zero, and are counted.

Shapes: n rows, d columns, P features, K bits, W packed bytes.

Not responsible for rows with NaN: an exported encoder gives them some code.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import functools
import io
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import export as jax_export

from sigah_jax.command_line import Parser, add_encoder, command
from sigah_jax.devices import parallel
from sigah_jax.encoder import hash_functions, numpy_encoder, refining
from sigah_jax.encoder.hasher import Hasher, to_bytes
from sigah_jax.errors import BadInput, optional
from sigah_jax.files import whole
from sigah_jax.retrieval import codes
from sigah_jax.retrieval.metric import TINY, Metric, base_rows, queries_of
from sigah_jax.run import loading, rundir

MARGIN = 1e-5
SAMPLE_ROWS = 4096
PLATFORMS = ("cpu", "cuda", "tpu")
_ONNX = "--output: an .onnx file", "serve"  # what needs a package, and the extra that has it

# codes [n, W] u1 of base rows, of queries, and projections u [n, K] f32 of queries
Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]
OUTPUTS = ("codes", "query_codes", "projections")


class Agreement(NamedTuple):
    """How an exported encoder compares with its hasher."""

    bits: int  # compared
    differ: int  # of them
    largest: float  # |u| of a bit that differs, 0 without any
    drift: float  # largest difference of two u


def plain_arrays(h: Hasher) -> dict[str, np.ndarray]:
    """The arrays of an ONNX graph: u = h_L `out` + `out_bias` + z `linear`, and queries' u, f32.

    z = (x - `mean`) `projection`, h_0 = z √P, h_i+1 = ReLU(h_i `kernel<i>` + `bias<i>`); the √P is
    in the first matrix that h_0 meets. Queries have `query_out` and `query_out_bias` in place of
    `out` and `out_bias`, equal to them without a query head. Without a linear path `linear` holds
    zeros.
    """
    standardiser, net = jax.tree.map(
        np.asarray, (h.params["standardiser"], h.params["gen"]["hash"])
    )
    features, layers = standardiser["projection"].shape[1], len(h.nets.hash.widths)
    scale = np.float32(math.sqrt(features))  # of `HashNetwork`
    arrays = dict(standardiser)  # z is of rows that went through the metric
    for i in range(layers):
        layer = net[f"hidden{i}"]
        kernel = layer["kernel"] if i else layer["kernel"] * scale
        arrays |= {f"kernel{i}": kernel, f"bias{i}": layer["bias"]}
    none = {"kernel": np.zeros((features, h.bits), np.float32)}
    arrays["linear"] = net.get("linear", none)["kernel"]
    out, query_out = net["out"], net["out"]
    if h.query_head:
        query_out = jax.tree.map(np.add, out, net["query_out"])
    for name, layer in (("out", out), ("query_out", query_out)):
        kernel = layer["kernel"] if layers else layer["kernel"] * scale
        arrays |= {name: kernel, f"{name}_bias": layer["bias"]}
    return arrays


def projections(h: Hasher, params: dict, vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """u of vectors as base rows and u as queries, `[n, K] f32` each."""
    points = base_rows(h.metric, vectors)
    base, query, _ = hash_functions.projections(h.nets, params, points)
    if h.metric.added:
        points = queries_of(h.metric, vectors)
        _, query, _ = hash_functions.projections(h.nets, params, points)
    return base, query


def to_stablehlo(h: Hasher) -> bytes:
    """A serialised `jax.export.Exported` of `[n, d] f32 -> Outputs`."""
    params = jax.tree.map(np.asarray, h.params)

    def encode(vectors: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        base, query = projections(h, params, vectors)
        return codes.pack(base > 0), codes.pack(query > 0), query

    # a dimension variable is at least 1, and there may be no rows
    shape = jax_export.symbolic_shape(f"n - 1, {h.d}")
    vectors = jax.ShapeDtypeStruct(shape, np.float32)
    return bytes(jax_export.export(jax.jit(encode), platforms=PLATFORMS)(vectors).serialize())


def to_onnx(h: Hasher) -> bytes:
    """A checked ONNX model of `vectors` to `OUTPUTS`."""
    onnx = optional("onnx", *_ONNX)
    helper, kinds = onnx.helper, onnx.TensorProto
    arrays = plain_arrays(h)
    # a matrix that adds up the bits of each byte: bit 0 is 128
    arrays["places"] = np.zeros((h.bits, codes.packed_bytes(h.bits)), np.float32)
    for bit in range(h.bits):
        arrays["places"][bit, bit // 8] = 128 >> bit % 8
    arrays |= {"zero": np.float32(0), "one": np.float32(1), "tiny": np.asarray(TINY)}
    nodes = []

    def add(kind: str, inputs: list[str], output: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def layers(prefix: str) -> tuple[str, str]:
        """The last hidden layer of base rows or queries, and their linear path."""
        centred = add("Sub", [_points(h.metric, prefix, add), "mean"], f"{prefix}centred")
        z = top = add("MatMul", [centred, "projection"], f"{prefix}z")
        for i in range(len(h.nets.hash.widths)):
            product = add("MatMul", [top, f"kernel{i}"], f"{prefix}product{i}")
            layer = add("Add", [product, f"bias{i}"], f"{prefix}layer{i}")
            top = add("Relu", [layer], f"{prefix}relu{i}")
        return top, add("MatMul", [z, "linear"], f"{prefix}linear_path")

    for prefix, u in (("", "base_projections"), ("query_", "projections")):
        if not prefix or h.metric.added:  # else both are the same points
            top, linear = layers(prefix)
        product = add("MatMul", [top, f"{prefix}out"], f"{prefix}product")
        network = add("Add", [product, f"{prefix}out_bias"], f"{prefix}network")
        bits = add("Greater", [add("Add", [network, linear], u), "zero"], f"{prefix}bits")
        ones = add("Cast", [bits], f"{prefix}ones", to=kinds.FLOAT)
        packed = add("MatMul", [ones, "places"], f"{prefix}bytes")
        add("Cast", [packed], f"{prefix}codes", to=kinds.UINT8)
    used = {name for node in nodes for name in node.input}  # runtimes warn of other arrays
    width = codes.packed_bytes(h.bits)
    graph = helper.make_graph(
        nodes,
        "sigah_encoder",
        [helper.make_tensor_value_info("vectors", kinds.FLOAT, ["n", h.d])],
        [
            helper.make_tensor_value_info("codes", kinds.UINT8, ["n", width]),
            helper.make_tensor_value_info("query_codes", kinds.UINT8, ["n", width]),
            helper.make_tensor_value_info("projections", kinds.FLOAT, ["n", h.bits]),
        ],
        [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items() if name in used],
    )
    # the oldest versions that have all of it: old runtimes refuse newer ones
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=7, producer_name="sigah_jax")
    about = h.describe() | {"refine": refining.NONE._asdict()}  # these codes are plain
    helper.set_model_props(model, {"about": json.dumps(about)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _points(metric: Metric, prefix: str, add: Callable) -> str:
    """Adds the nodes of `metric.base_rows`, or of `queries_of` where there is a prefix."""
    if metric.name == "l2":
        return "vectors"
    if metric.added and not prefix:
        x = add("Div", ["vectors", "largest"], "over_largest")
        squared = add("ReduceSumSquare", [x], "squared", axes=[1], keepdims=1)
        longer = add("Max", [squared, "one"], "longer")
        rows = add("Div", [x, add("Sqrt", [longer], "scale")], "scaled")
        share = add("Div", [squared, longer], "share")
        height = add("Sqrt", [add("Sub", ["one", share], "rest")], "height")
        return add("Concat", [rows, height], "points", axis=1)
    rows = "vectors"
    for kind in ("Max", "L2"):
        sizes = add("Abs", [rows], f"{prefix}sizes_{kind}")
        size = add(f"Reduce{kind}", [sizes], f"{prefix}size_{kind}", axes=[1], keepdims=1)
        size = add("Max", [size, "tiny"], f"{prefix}divisor_{kind}")
        rows = add("Div", [rows, size], f"{prefix}over_{kind}")
    if metric.added:
        height = add("Sub", [size, size], f"{prefix}height")
        rows = add("Concat", [rows, height], f"{prefix}points", axis=1)
    return rows


def run_npz(data: bytes) -> Callable[[np.ndarray], Outputs]:
    """The encoder in bytes of `Hasher.save`."""
    arrays = dict(np.load(io.BytesIO(data)))
    functions = numpy_encoder.encode, numpy_encoder.encode_queries, numpy_encoder.project
    return lambda x: tuple(function(arrays, x) for function in functions)


def run_stablehlo(data: bytes) -> Callable[[np.ndarray], Outputs]:
    """The encoder in bytes of `to_stablehlo`."""
    exported = jax_export.deserialize(bytearray(data))
    return lambda x: tuple(np.asarray(y) for y in exported.call(x))


def run_onnx(data: bytes) -> Callable[[np.ndarray], Outputs]:
    """The encoder in bytes of `to_onnx`, on the CPU."""
    session = optional("onnxruntime", *_ONNX).InferenceSession(
        data, providers=["CPUExecutionProvider"]
    )
    return lambda x: tuple(session.run(OUTPUTS, {"vectors": x}))


FORMATS = {
    ".npz": (to_bytes, run_npz),
    ".stablehlo": (to_stablehlo, run_stablehlo),
    ".onnx": (to_onnx, run_onnx),
}


def export(h: Hasher, path: Path, overwrite: bool) -> Agreement:
    """Writes the encoder to `path`, in the format of its ending, once it agrees with the hasher.

    Raises:
        BadInput: an unknown ending, a library that is missing, an output that exists, a disk that
            refuses, or bits that differ where |u| >= MARGIN.
    """
    if path.suffix not in FORMATS:
        raise BadInput(f"--output={path}: expected a name that ends in {', '.join(FORMATS)}")
    if path.exists() and not overwrite:
        raise BadInput(f"{path}: exists; use --overwrite or another --output")
    write, run = FORMATS[path.suffix]
    data = write(h.portable)
    agreement = compare(h, run(data))
    if agreement.largest >= MARGIN:
        raise BadInput(
            f"{path}: not written: {agreement.differ} of {agreement.bits} bits differ from the "
            f"hasher's, one at |u| = {agreement.largest:.1e}; choose another format"
        )
    with whole.telling(path, "choose another --output"), whole.writing(path) as f:
        f.write(data)
    return agreement


def compare(h: Hasher, run: Callable[[np.ndarray], Outputs]) -> Agreement:
    """Compares codes on the synthetic features of random codes, which lie where the data does."""
    generator = np.random.default_rng(0)
    width = codes.packed_bytes(h.bits)
    x = h.synthesise(generator.integers(0, 256, (SAMPLE_ROWS, width), np.uint8))
    us = [np.asarray(u) for u in jax.jit(functools.partial(projections, h))(h.params, x)]
    *packed, other = run(x)
    ours = h.encode(x, refine=0), h.encode_queries(x)
    differ = [
        np.unpackbits(a ^ b, axis=1, count=h.bits).astype(bool)
        for a, b in zip(packed, ours, strict=True)
    ]
    largest = max(np.abs(u[d]).max(initial=0) for u, d in zip(us, differ, strict=True))
    differing, drift = sum(int(d.sum()) for d in differ), np.abs(other - us[1]).max()
    return Agreement(2 * x.shape[0] * h.bits, differing, float(largest), float(drift))


@command("nothing was written")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input."""
    parser = Parser(description="Writes the trained encoder for other places.")
    add_encoder(parser)
    parser.add_argument("--output", required=True, type=Path, help="*.onnx, *.stablehlo or *.npz")
    parser.add_argument("--overwrite", action="store_true", help="replace --output if it exists")
    args = parser.parse_args(argv)
    args.output = Path(os.path.expanduser(args.output))
    rundir.check_output(args.output, args.workdir)
    h = loading.load(args.workdir, args.checkpoint)
    agreement = export(h, args.output, args.overwrite)
    print(
        f"{args.output}: {h.d} columns to codes of {h.bits} bits; "
        f"{agreement.differ} of {agreement.bits} bits compared differ, all where |u| < {MARGIN:g} "
        f"(largest difference of u {agreement.drift:.1e})"
    )


if __name__ == "__main__":
    sys.exit(main())

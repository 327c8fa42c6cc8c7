"""What a configuration may hold: `validate` names the first field that no run could use.

Not responsible for the fields and their meaning (`config`). Imports neither JAX nor a baseline.
"""

import importlib.util
import math

from sigah_jax.baselines.methods import METHODS
from sigah_jax.config import PRESETS, WEIGHTS, fields_of
from sigah_jax.data.benchmarks import BENCHMARKS
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import metric

SINKS = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # and the packages that they need
# field -> (least, greatest) value
_RANGES = {
    "seed": (0, 2**31 - 1),
    "data.test_queries": (1, math.inf),
    "data.val_queries": (1, math.inf),
    "data.train_rows": (0, math.inf),
    "data.split_seed": (0, 2**31 - 1),
    "data.max_rows": (0, math.inf),
    "model.bits": (1, 4096),
    "model.input_dims": (1, math.inf),
    "model.itq_iterations": (0, 1000),
    "model.ista_steps": (1, 100),
    "model.lam": (0, math.inf),
    "model.straight_through_width": (1e-6, math.inf),
    **{f"loss.{name}": (0, math.inf) for name in WEIGHTS},
    "loss.temperature_bits": (1e-6, math.inf),
    "loss.temperature_synthetic": (1e-6, math.inf),
    "loss.batch_positives": (1, math.inf),
    "loss.neighbours": (1, 64),
    "loss.neighbour_weight": (1e-6, math.inf),
    "loss.batch_positives_synthetic": (1, math.inf),
    "loss.reach_share": (0, 1),
    "apart.below": (0, math.inf),
    "apart.neighbours": (1, 64),
    "apart.neighbour_weight": (1e-6, math.inf),
    "began.gamma": (0, math.inf),
    "began.rate": (0, 1),
    "began.kappa_max": (0, 1),
    "optim.gen_lr": (1e-12, 1),
    "optim.decoder_lr_factor": (1e-6, 1000),
    "optim.dis_lr": (1e-12, 1),
    "optim.final_lr_share": (0, 1),
    "optim.adam_b1": (0, 0.999999),
    "optim.adam_b2": (0, 0.999999),
    "train.steps": (1, math.inf),
    "train.epochs": (0, math.inf),
    "refit.share": (0, 100),
    "refit.epochs": (0, math.inf),
    "refit.reconstruction": (0, math.inf),
    "refine.iterations": (0, 4096),
    "refine.share": (0, 100),
    "train.anchors": (1, math.inf),
    "train.others": (0, math.inf),
    "train.graph_neighbours": (0, math.inf),
    "train.graph_probes": (1, math.inf),
    "train.steps_per_call": (1, math.inf),
    "eval.every_steps": (1, math.inf),
    "eval.block_rows": (1, math.inf),
}
_CHOICES = {
    "preset": PRESETS,
    "data.name": ("mnist", "tiny100k", "vectors", *BENCHMARKS),
    "data.metric": metric.NAMES,
    "engine": ("auto", "cpu", "accelerator"),
    "distributed": ("auto", "on", "off"),
    "model.decoder": ("ista", "linear", "mlp"),
    "train.graph": ("exact", "approximate"),
    "train.gather": ("auto", "devices", "host"),
    "train.matmul_precision": ("default", "high", "highest"),
}


def validate(config, devices: int) -> None:
    """Raises BadInput naming the first field that no run could use.

    Args:
        devices: how many the batch will be split over, those of all processes.
    """
    value = fields_of(config)
    for field, (least, greatest) in _RANGES.items():
        if not least <= value[field] <= greatest:  # NaN fails too
            wanted = f"at least {least}" if greatest == math.inf else f"{least} to {greatest}"
            raise BadInput(f"config.{field}={value[field]}: expected {wanted}")
    for field, choices in _CHOICES.items():
        if value[field] not in choices:
            raise BadInput(f"config.{field}={value[field]!r}: expected one of {choices}")
    for field in ("model.hash_widths", "model.dis_widths"):
        if not all(isinstance(w, int) and w > 0 for w in value[field]):
            raise BadInput(f"config.{field}={value[field]}: expected whole numbers above 0")
    if not config.model.dis_widths:
        raise BadInput("config.model.dis_widths=(): expected a layer at least")
    if not config.model.hash_widths and not config.model.linear_path:
        raise BadInput("config.model.hash_widths=(): expected a layer, or linear_path=True")
    _check_watching(config.sinks, config.profile.steps)
    for name in config.eval.baselines:
        if name not in METHODS:
            raise BadInput(f"config.eval.baselines: {name!r} is none of {tuple(METHODS)}")
    for field in ("base", "queries", "train", "queries_train"):
        given = value[f"data.{field}"]
        if given and config.data.name != "vectors":
            raise BadInput(
                f"config.data.{field}={given}: {config.data.name} has its own files; "
                "use --config=experiments/vectors.py for others"
            )
    if config.data.name == "vectors" and not config.data.base:
        raise BadInput("config.data.base is missing; give your file: --config.data.base=my.npy")
    if config.refine.mu != "auto" and not _is_price(config.refine.mu):
        raise BadInput(f"config.refine.mu={config.refine.mu}: expected auto, or a number above 0")
    m, t = config.model, config.train
    for field in ("model.atoms", "refit.atoms"):
        if value[field] <= m.bits:
            raise BadInput(f"config.{field}={value[field]}: expected more than model.bits={m.bits}")
    if t.anchors % devices:
        raise BadInput(
            f"config.train.anchors={t.anchors}: not divisible by {devices} devices, all processes "
            "together; choose a multiple, or use fewer devices"
        )
    for field, steps in (("train.steps", t.steps), ("eval.every_steps", config.eval.every_steps)):
        if steps % t.steps_per_call:
            raise BadInput(
                f"config.{field}={steps}: expected a multiple of "
                f"train.steps_per_call={t.steps_per_call}"
            )
    weights = {name: config.loss[name] for name in WEIGHTS}
    if not any(weights.values()):
        raise BadInput(f"config.loss: the weights {', '.join(WEIGHTS)} are all 0; raise one")
    kept = weights["ordinal_synthetic"], weights["adversary"], config.refit.reconstruction
    alone = config.refit.share or (config.refine.share and config.refine.iterations)
    if alone and not any(kept):
        raise BadInput(
            "config.refit: no loss of the decoder has a weight; set refit.share=0, refine.share=0"
        )
    ordinal = config.loss.ordinal > 0 or config.loss.ordinal_synthetic > 0
    if t.graph == "approximate" and (config.data.metric == "ip" or config.data.queries_train):
        raise BadInput(
            "config.train.graph=approximate: is of rows that are queries too; with data.metric=ip "
            "or data.queries_train leave it exact"
        )
    if ordinal and not t.graph_neighbours:
        raise BadInput("config.train.graph_neighbours=0: the ordinal losses need a graph")


def _is_price(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _check_watching(sinks: tuple[str, ...], steps: str) -> None:
    """BadInput if a sink is unknown or its package missing, or if steps are no `first:last`."""
    for name in sinks:
        if name not in SINKS:
            raise BadInput(
                f"config.sinks: {name!r} is none of {tuple(SINKS)}; "
                "both are --config.sinks=\"('tensorboard','wandb')\""
            )
        spec = importlib.util.find_spec(SINKS[name])
        if spec is None or spec.origin is None:  # a directory of that name, as W&B leaves, is none
            raise BadInput(
                f"config.sinks: {name} needs {SINKS[name]}; run pip install 'sigah_jax[watch]'"
            )
    first, _, last = steps.partition(":")
    if steps and not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
        raise BadInput(f"config.profile.steps={steps}: expected first:last, from 1 on")

"""The configuration of a run: every field with its meaning and unit, and the presets.

`ours` marks what goes beyond the paper's abstract.

Not responsible for data sets: an experiment file takes `get_config` and fills `data`. Nor for what
no run could use: `config_checks`.
"""

import json
import math

import numpy as np
from ml_collections import config_dict

from sigah_jax.errors import BadInput

PRESETS = ("best", "paper")
DECODER_STAGES = ("refit", "alternation")  # trainings of the decoder alone, in order
WEIGHTS = ("ordinal", "ordinal_synthetic", "reconstruction", "adversary", "quantisation")  # of loss


def get_config(arguments: str = "") -> config_dict.ConfigDict:
    """The base configuration.

    Args:
        arguments: what follows the colon of `--config=FILE:`, a comma list of `preset=best` or
            `preset=paper` and `bits=K`.
    """
    preset, bits = parse_arguments(arguments)
    c = config_dict.ConfigDict()
    c.preset = preset  # the preset that the other values started from
    c.seed = 0  # for initial parameters, batches and baselines; data.split_seed is for the data
    c.engine = "auto"  # search engine: cpu (faiss, numpy), accelerator (JAX), or auto
    c.distributed = "auto"  # join other processes: on, off, or auto (if the environment says so)
    c.sinks = ()  # where metrics are sent too: tensorboard, wandb
    c.profile = config_dict.ConfigDict()
    c.profile.steps = ""  # "10:20" writes a jax.profiler trace of steps 10 to 20

    c.data = config_dict.ConfigDict()
    c.data.name = ""  # set by the experiment
    c.data.dir = ""  # one directory for each data set; "": $SIGAH_DATA, else ~/.cache/sigah_jax
    c.data.base = ""  # for experiments/vectors.py: file of the base; file.hdf5:name for one array
    c.data.queries = ""  # file of test queries; "": test_queries random rows of the base
    c.data.train = ""  # file of training rows; "": the base
    c.data.queries_train = ""  # file of queries to train with; "": the training rows are queries
    c.data.test_queries = 1000  # drawn from the base and removed from it if there is no file
    c.data.val_queries = 500  # validation queries, out of queries_train or of the training rows
    c.data.train_rows = 0  # how many training rows are used, drawn at random; 0: all
    c.data.split_seed = 0  # for these random draws
    c.data.max_rows = 0  # use only this many rows of the base, for a short trial; 0: all
    c.data.metric = "l2"  # what is near: l2, cosine or ip, the inner product; docs/metrics.md

    c.model = config_dict.ConfigDict()
    c.model.bits = bits  # K, code length
    c.model.input_dims = 256  # ours: principal directions kept, at most d
    c.model.hash_widths = (1024,)  # ours: hidden layers of the hash network
    c.model.linear_path = True  # ours: add a linear projection to the ReLU network
    c.model.itq_iterations = 300  # ours: it starts as ITQ's rotation; 0: as a random rotation
    c.model.query_head = True  # ours: queries have a hash function of their own
    c.model.straight_through_width = 3.0  # ours: w; sign(u) has the gradient of w tanh(u/w)
    c.model.decoder = "ista"  # for the ablation also linear, or mlp with `atoms` hidden units
    c.model.atoms = max(512, 4 * bits)  # M, atoms of the sparse code; ours; see also `refit`
    c.model.ista_steps = 2  # T, unrolled iterations; ours
    c.model.lam = 1.0  # λ of every atom at the start; ours: about a quarter of s is non-zero then
    c.model.dis_widths = (256, 64, 256)  # ours: hidden layers of the auto-encoder

    c.loss = config_dict.ConfigDict()  # weights of the terms of L_gen; 0 removes a term
    c.loss.ordinal = 1.0  # ours: soft precision of the Hamming ranking
    c.loss.ordinal_synthetic = 0.3  # ours: the same for distances to synthetic features
    c.loss.reconstruction = 0.1 if bits <= 64 else 0.3  # ‖z - ẑ‖²; ours: more harms short codes
    c.loss.adversary = 0.1  # e(ẑ), the discriminator's error of the synthetic feature
    c.loss.quantisation = 0.01  # ours: (|u| - 1)²
    c.loss.temperature_bits = 0.7 * math.sqrt(bits / 64)  # ours: τ of the ordinal loss, in bits
    c.loss.temperature_synthetic = 0.02  # ours: τ, in squared distance of standardised features
    c.loss.batch_positives = 15  # ours: positives of an anchor from the batch
    c.loss.neighbours = 1  # ours: and from the neighbour graph; several also order one another
    # ours: the weight of an anchor's graph neighbours together; a positive from the batch has 1
    c.loss.neighbour_weight = min(16.0, max(1.0, 32 / bits) ** 2)
    c.loss.batch_positives_synthetic = 8  # ours: of the batch, for synthetic features
    c.loss.reach_share = 0.03  # ours: the nearest share of the columns may be positives

    c.apart = config_dict.ConfigDict()  # ours: for data whose nearest neighbours stand apart
    c.apart.below = 0.8  # they do if `prepare.growth` is below this, as for texts; 0: never
    c.apart.neighbours = 3  # then loss.neighbours is at least this,
    c.apart.neighbour_weight = min(100.0, (640 / bits) ** 2)  # and loss.neighbour_weight this

    c.began = config_dict.ConfigDict()
    # κ reaches its greatest value within 100 steps and stays there, since e(ẑ) stays below γ e(z)
    c.began.gamma = 1.0  # γ, wanted ratio E e(ẑ) / E e(z); above it e(ẑ) is not raised further
    c.began.rate = 0.01  # step of κ
    c.began.kappa_max = 0.3  # ours: 1 ranks the same, see docs/research-log.md

    c.optim = config_dict.ConfigDict()  # Adam, cosine decay
    c.optim.gen_lr = 4e-3
    c.optim.decoder_lr_factor = 3.0  # ours: learning rate of the decoder, over gen_lr
    c.optim.dis_lr = 5e-4  # ours: an eighth of the generator's
    c.optim.final_lr_share = 0.01  # of the initial rate, at the last step
    c.optim.adam_b1 = 0.9
    c.optim.adam_b2 = 0.999

    c.train = config_dict.ConfigDict()
    c.train.steps = 4000  # updates of both nets
    # ours: fewer if the training rows would be read more often than this; 0: however often
    c.train.epochs = 150
    c.train.anchors = 256  # rows of a step that are compared with all rows of the batch
    c.train.others = 2  # random rows beside each anchor
    c.train.graph_neighbours = 64  # k of the neighbour graph of the training set; 0: none
    # exact, or approximate: by an inverted file on the CPU, for a million rows and more
    c.train.graph = "exact"
    c.train.graph_probes = 32  # lists searched at first, twice as many until 95 % are found
    # who gathers the rows of each batch: the devices, which hold all rows; the host; or auto: the
    # host if all rows take more than half of the memory that is free on a device
    c.train.gather = "auto"
    c.train.steps_per_call = 20  # steps in one call of the device, and in a row of metrics.jsonl
    c.train.matmul_precision = "default"  # on GPU and TPU: default, high or highest

    c.refit = config_dict.ConfigDict()  # ours: a larger decoder, trained anew on the final codes
    c.refit.share = 0.3  # its updates, over those of `refit.epochs`; 0: none, the first is kept
    # ours: refit.share and refine.share are shares of train.steps, or of so many passes over the
    # training rows if those are fewer steps; 0: always of train.steps
    c.refit.epochs = 60
    c.refit.atoms = max(2048 if bits < 128 else 4096, 4 * bits)  # M of that decoder
    c.refit.reconstruction = 1.0  # weight of ‖z - ẑ‖² there; other weights and rates stay

    c.refine = config_dict.ConfigDict()  # ours: codes of base rows, by their synthetic features
    c.refine.iterations = 16  # rounds in which bits of a code may flip; 0: codes are not refined
    # updates of the decoder on codes that it refined, over those of `refit.epochs`; ours: more
    # finds more, and below 32 bits the fewer bits, the more
    c.refine.share = max(0.6, round(19.2 / max(16, bits), 2))
    # μ, the price of a flip where |u| = ‖z‖ = 1, in units of ‖z‖²; "auto": the smallest of a short
    # list at which no metric of the validation queries falls
    c.refine.mu = "auto"

    c.eval = config_dict.ConfigDict()
    c.eval.every_steps = 400  # validation and checkpoint
    c.eval.baselines = ("itq", "pca_rr", "lsh")  # measured at the end, beside SiGAH
    c.eval.block_rows = 2048  # rows that a device encodes in a call; more exceed a CPU's caches

    if preset == "paper":  # only what the abstract says
        c.model.input_dims = 4096
        c.model.linear_path = False
        c.model.itq_iterations = 0
        c.model.query_head = False
        c.model.straight_through_width = 1.0
        c.loss.reconstruction = 0.5  # only this and the adversary shape the codes here
        c.loss.ordinal = 0.0
        c.loss.ordinal_synthetic = 0.0
        c.loss.quantisation = 0.0
        c.optim.decoder_lr_factor = 1.0
        c.optim.gen_lr = 5e-4  # at the rates of `best` the codes rank worse (tiny60k: research log)
        c.optim.dis_lr = 1.25e-4
        c.train.epochs = 0
        c.train.graph_neighbours = 0
        c.refit.share = 0.0
        c.refine.iterations = 0
    return c


def first_steps(config, rows: int) -> int:
    """The steps of the first training, of hash network and decoder, on so many training rows.

    `train.steps`, or whole calls of the device up to `train.epochs` passes over the rows: of few
    rows the hash network otherwise learns the rows themselves (research log).
    """
    return _steps(config.train, config.train.epochs, rows)


def decoder_steps(config, rows: int) -> int:
    """The steps of which those of the decoder's own trainings are shares.

    `train.steps`, or fewer by `refit.epochs`: of few rows the decoder otherwise learns the rows
    themselves, so that refinement hardly changes their codes and less is found (research log).
    """
    return _steps(config.train, config.refit.epochs, rows)


def decoder_stages(config, rows: int) -> dict[str, int]:
    """The trainings of the decoder alone, in order, and their steps on so many training rows.

    Steps are whole calls of the device; a stage without any is left out. "refit": a decoder anew,
    on the codes of the hash network; "alternation": the same decoder on codes that it refined.
    """
    call, refined = config.train.steps_per_call, config.refine.iterations > 0
    shares = config.refit.share, config.refine.share * refined
    calls = decoder_steps(config, rows) / call
    steps = [round(share * calls) * call for share in shares]
    return {name: n for name, n in zip(DECODER_STAGES, steps, strict=True) if n}


def batch_rows(train) -> int:
    """How many training rows a step takes in their order: anchors, and the others beside them."""
    return train.anchors * (1 + train.others)


def _steps(train, epochs: float, rows: int) -> int:
    """`train.steps`, or whole calls of the device up to so many passes over the rows, unless 0."""
    if not epochs:
        return train.steps
    calls = math.ceil(epochs * rows / (batch_rows(train) * train.steps_per_call))
    return min(train.steps, calls * train.steps_per_call)


def vectors_config(arguments: str = "") -> config_dict.ConfigDict:
    """The base configuration for files of vectors; `data.base` is left to the caller."""
    c = get_config(arguments)
    c.data.name = "vectors"
    c.data.train_rows = 100_000  # ours: the exact neighbour graph of more takes long on a CPU
    return c


def parse_arguments(arguments: str) -> tuple[str, int]:
    """`"preset=paper,bits=32"` -> ("paper", 32); what is left out is ("best", 64)."""
    values = {"preset": "best", "bits": "64"}
    for item in filter(None, arguments.split(",")):
        name, equals, value = item.partition("=")
        if not equals or name not in values:
            raise BadInput(f"config argument {item!r}: expected preset=… or bits=…")
        values[name] = value
    if values["preset"] not in PRESETS:
        raise BadInput(f"config argument preset={values['preset']}: expected one of {PRESETS}")
    if not values["bits"].isdecimal() or int(values["bits"]) < 1:
        raise BadInput(f"config argument bits={values['bits']}: expected a whole number above 0")
    return values["preset"], int(values["bits"])


def check_field(name: str) -> None:
    """BadInput for a field on which others depend: it is an argument of `get_config`."""
    if name in ("preset", "model.bits"):
        argument = name.removeprefix("model.")
        raise BadInput(
            f"config.{name} cannot be changed, others follow from it; give it as an argument: "
            f"--config=FILE:{argument}=…"
        )


def change(config, name: str, value) -> None:
    """Sets a field by its dotted name; BadInput if there is none, or it has another type."""
    check_field(name)
    value, known = _plain(value), fields_of(config)
    try:
        if name not in known:
            group = any(field.startswith(f"{name}.") for field in known)
            raise KeyError("a group of fields; name one of them" if group else "no such field")
        # of Python, True is an int
        if value is None or isinstance(value, bool) != isinstance(known[name], bool):
            raise TypeError(f"expected {type(known[name]).__name__}")
        if name == "refine.mu" and isinstance(value, int | float):
            value = str(value)
        if isinstance(known[name], tuple) and not isinstance(value, tuple | list):
            value = (value,)  # as the flags of `main` have it
        config.update_from_flattened_dict({name: value})
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        reason = str(e).splitlines()[0].strip("'\"")
        raise BadInput(
            f"config.{name}={value!r}: {reason}; the fields are in sigah_jax/config.py"
        ) from e


def fields_of(tree) -> dict:
    """Dotted name -> value of every field of a config, or of the dict of its `to_dict`."""
    fields = {}
    for name, value in tree.items():
        if isinstance(value, dict | config_dict.ConfigDict):
            fields |= {f"{name}.{field}": inner for field, inner in fields_of(value).items()}
        else:
            fields[name] = value
    return fields


def as_json(config: config_dict.ConfigDict) -> dict:
    """What a config is once it has been written to a JSON file and read: its tuples are lists."""
    return json.loads(json.dumps(config.to_dict()))


def _plain(value):
    """Numbers and arrays of numpy as Python's, also inside a tuple."""
    if isinstance(value, tuple | list):
        return tuple(_plain(v) for v in value)
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

"""The base configuration: arguments, presets, and what `validate` refuses."""

import json
import subprocess
import sys

import numpy as np
import pytest

from sigah_jax import config
from sigah_jax.errors import BadInput
from sigah_jax.training import step


def named(arguments=""):
    c = config.get_config(arguments)
    c.data.name = "mnist"
    return c


def test_arguments_choose_preset_and_bits():
    c = config.get_config("preset=paper,bits=200")
    assert (c.preset, c.model.bits) == ("paper", 200)
    assert c.model.atoms == 800  # 4 · 200, more than the least of 512
    assert config.get_config().model.bits == 64 and config.get_config().preset == "best"


@pytest.mark.parametrize(
    "arguments", ["bits=0", "bits=-8", "bits=1e2", "bits", "preset=fast", "lr=1", "bits=64;"]
)
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(BadInput, match="config argument"):
        config.get_config(arguments)


@pytest.mark.parametrize("preset", config.PRESETS)
@pytest.mark.parametrize("bits", [1, 16, 96, 513])
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_presets_are_valid(preset, bits, devices):
    config.validate(named(f"preset={preset},bits={bits}"), devices)


@pytest.mark.parametrize(
    "field, value",
    [
        ("seed", -1),
        ("engine", "gpu"),
        ("distributed", "yes"),
        ("sinks", ("tensorboard", "csv")),
        ("profile.steps", "20"),
        ("profile.steps", "20:10"),
        ("profile.steps", "0:10"),
        ("data.name", "cifar"),
        ("data.base", "my.npy"),
        ("data.train_rows", -1),
        ("data.metric", "dot"),
        ("data.queries_train", "my.npy"),
        ("model.bits", 0),
        ("model.atoms", 64),
        ("refit.atoms", 64),
        ("refit.share", -0.1),
        ("refit.reconstruction", -1.0),
        ("model.dis_widths", ()),
        ("model.decoder", "transformer"),
        ("eval.baselines", ("itq", "magic")),
        ("model.hash_widths", (0,)),
        ("model.dis_widths", (16, 2.5)),
        ("model.lam", float("nan")),
        ("loss.ordinal", -1.0),
        ("loss.temperature_bits", 0.0),
        ("optim.gen_lr", 0.0),
        ("optim.gen_lr", float("inf")),
        ("optim.decoder_lr_factor", 0.0),
        ("optim.adam_b1", 1.0),
        ("train.steps", 4001),
        ("train.anchors", 100),
        ("train.anchors", 4),  # fewer than devices
        ("train.graph_neighbours", 0),
        ("train.matmul_precision", "bf16"),
        ("eval.every_steps", 30),
    ],
)
def test_a_value_that_no_run_could_use_is_named(field, value):
    c = named()
    node, _, name = field.rpartition(".")
    with c.ignore_type():
        setattr(c[node] if node else c, name, value)
    with pytest.raises(BadInput, match=f"config.{field}") as e:
        config.validate(c, 8)  # 100 anchors do not divide over 8 devices
    assert "\n" not in str(e.value)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    c = named()
    c.sinks = ("tensorboard",)
    monkeypatch.setattr(config, "SINKS", {"tensorboard": "no_such_package"})
    remedy = r"no_such_package; run pip install 'sigah_jax\[watch\]'"
    with pytest.raises(BadInput, match=remedy):
        config.validate(c, 1)


def test_without_a_hidden_layer_the_hash_network_needs_its_linear_path():
    c = named()
    c.model.hash_widths = ()
    config.validate(c, 1)
    c.model.linear_path = False
    with pytest.raises(BadInput, match="linear_path"):
        config.validate(c, 1)


def test_a_training_or_refit_that_has_nothing_to_learn_is_refused():
    assert step.Weights._fields == config.WEIGHTS
    c = named()
    c.loss.update(dict.fromkeys(config.WEIGHTS, 0.0))
    with pytest.raises(BadInput, match=r"config.loss: the weights .* are all 0; raise one"):
        config.validate(c, 1)
    c.loss.ordinal, c.refit.reconstruction = 1.0, 0.0
    with pytest.raises(BadInput, match=r"no loss of the decoder has a weight; set refit.share=0"):
        config.validate(c, 1)
    c.refit.share = c.refine.share = 0.0
    config.validate(c, 1)


def test_a_refit_has_a_share_of_the_steps_in_whole_calls():
    c = named("bits=600")
    assert config.decoder_stages(c) == {"refit": 1200, "alternation": 600}
    c.refine.iterations = 0
    for share, steps, expected in ((0.3, 100, 40), (0.3, 20, 0), (0.0, 4000, 0), (1.0, 60, 60)):
        c.refit.share, c.train.steps = share, steps  # calls of 20 steps
        assert config.decoder_stages(c) == ({"refit": expected} if expected else {})
    assert config.decoder_stages(named("preset=paper")) == {}


def test_a_price_of_flips_is_auto_or_a_number_above_0():
    c = named("")
    for mu in ("auto", "0.01", 0.01, 1):
        config.change(c, "refine.mu", mu)
        config.validate(c, 1)
    for mu in ("0", "-1", "nan", "inf", "much"):
        config.change(c, "refine.mu", mu)
        with pytest.raises(BadInput, match=r"refine.mu=.*: expected auto, or a number above 0"):
            config.validate(c, 1)


def test_what_others_follow_from_is_an_argument_and_no_field():
    for field, argument in (("preset", "preset=…"), ("model.bits", "bits=…")):
        with pytest.raises(BadInput, match=f"config.{field} cannot be changed.*:{argument}"):
            config.change(config.get_config(), field, config.get_config()[field.split(".")[0]])


def test_fields_are_named_by_their_groups_also_those_of_a_plain_dict():
    c = config.get_config()
    fields = config.fields_of(c)
    assert fields["seed"] == 0 and fields["profile.steps"] == "" and fields["model.bits"] == 64
    assert not {"model", "profile"} & fields.keys()
    assert config.fields_of(c.to_dict()) == fields
    for name in ("lr", "optim.lr", "seed.x"):
        with pytest.raises(BadInput, match=rf"config\.{name}=1: no such field"):
            config.change(c, name, 1)


def test_checking_a_config_loads_neither_jax_nor_a_baseline():
    code = "import sys; from sigah_jax import config; c = config.get_config();"
    code += "c.data.name = 'mnist'; config.validate(c, 1); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"numpy", "sigah_jax.baselines.methods"} <= loaded
    assert not {"jax", "flax", "optax", "orbax", "faiss", "scipy", "h5py", "pyarrow"} & loaded
    ours = {name for name in loaded if name.startswith("sigah_jax.baselines.")}
    assert ours == {"sigah_jax.baselines.methods"}


def test_a_group_is_no_field_and_one_value_is_a_tuple_of_one():
    c = config.get_config()
    with pytest.raises(BadInput, match=r"config.train=.*a group of fields"):
        config.change(c, "train", {"steps": 100})
    config.change(c, "model.hash_widths", 512)
    config.change(c, "sinks", "wandb")
    assert c.model.hash_widths == (512,) and c.sinks == ("wandb",)
    config.change(c, "eval.baselines", ("itq", "lsh"))
    assert c.eval.baselines == ("itq", "lsh")


def test_numbers_of_numpy_are_taken_as_pythons():
    c = config.get_config()
    for name, value in {
        "seed": np.int64(3),
        "train.steps": np.array(40),
        "optim.gen_lr": np.float32(0.5),
        "model.query_head": np.bool_(False),
        "model.hash_widths": [np.int32(64), 32],
        "model.dis_widths": np.array([16, 8]),
    }.items():
        config.change(c, name, value)
    assert (c.seed, c.train.steps, c.optim.gen_lr, c.model.query_head) == (3, 40, 0.5, False)
    assert (c.model.hash_widths, c.model.dis_widths) == ((64, 32), (16, 8))
    json.dumps(c.to_dict())  # as the run directory keeps it
    with pytest.raises(BadInput, match=r"config\.seed=2\.5"):
        config.change(c, "seed", np.float64(2.5))


def test_the_neighbours_weight_follows_the_length():
    weights = [config.get_config(f"bits={k}").loss.neighbour_weight for k in (8, 16, 32, 64)]
    assert weights == [16, 4, 1, 1]


def test_reconstruction_weighs_more_in_long_codes():
    weights = [config.get_config(f"bits={k}").loss.reconstruction for k in (16, 64, 65, 128)]
    assert weights == [0.1, 0.1, 0.3, 0.3]
    assert config.get_config("preset=paper,bits=128").loss.reconstruction == 0.5


@pytest.mark.parametrize("field, value", [("metric", "ip"), ("queries_train", "asked.npy")])
def test_where_queries_differ_from_rows_the_graph_is_exact(field, value):
    c = config.vectors_config()
    c.data.base, c.data[field] = "mine.npy", value
    config.validate(c, 1)
    c.train.graph = "approximate"
    with pytest.raises(BadInput, match=r"config\.train\.graph=approximate: .* leave it exact"):
        config.validate(c, 1)

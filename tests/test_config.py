"""The base configuration: arguments and presets, and how fields are set."""

import json

import numpy as np
import pytest

from sigah_jax import config
from sigah_jax.errors import BadInput

MANY = 10**6  # rows


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


def test_a_refit_has_a_share_of_the_steps_in_whole_calls():
    c = named("bits=600")
    assert config.decoder_stages(c, MANY) == {"refit": 1200, "alternation": 2400}
    c.refine.iterations = 0
    for share, steps, expected in ((0.3, 100, 40), (0.3, 20, 0), (0.0, 4000, 0), (1.0, 60, 60)):
        c.refit.share, c.train.steps = share, steps  # calls of 20 steps
        assert config.decoder_stages(c, MANY) == ({"refit": expected} if expected else {})
    assert config.decoder_stages(named("preset=paper"), MANY) == {}


def test_long_codes_have_more_atoms_and_long_and_short_ones_are_trained_longer():
    for bits, expected in (
        (8, (2048, 1.2)),
        (16, (2048, 1.2)),
        (24, (2048, 0.8)),
        (32, (2048, 0.6)),
        (48, (2048, 0.6)),
        (64, (2048, 0.6)),
        (127, (2048, 0.6)),
        (128, (4096, 0.6)),
        (1024, (4096, 0.6)),
        (1500, (6000, 0.6)),
    ):
        c = named(f"bits={bits}")
        assert (c.refit.atoms, c.refine.share) == expected


def test_few_rows_are_read_so_often_and_no_more():
    c = named("")
    # 150 passes over 1,000 rows are 196 batches of 768, and ten calls of 20 steps
    for rows, steps in ((1000, 200), (768, 160), (20_400, 4000), (1_000_000, 4000)):
        assert config.first_steps(c, rows) == steps
    c.train.epochs = 0
    assert config.first_steps(c, 1000) == 4000
    assert config.first_steps(named("preset=paper"), 1000) == 4000


def test_the_decoder_alone_reads_few_rows_less_often():
    c = named("")
    # 60 passes over 10,000 rows are 781 batches of 768, and 40 calls of 20 steps
    for rows, steps in ((10_000, 800), (1000, 80), (51_200, 4000), (1_000_000, 4000)):
        assert config.decoder_steps(c, rows) == steps
    assert config.decoder_stages(c, 10_000) == {"refit": 240, "alternation": 480}
    assert config.decoder_stages(c, 100) == {"alternation": 20}
    c.refit.epochs = 0
    assert config.decoder_steps(c, 1000) == 4000


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


@pytest.mark.parametrize(
    "name, value", [("seed", True), ("train.steps", np.True_), ("model.query_head", 1)]
)
def test_truths_and_numbers_are_told_apart(name, value):
    with pytest.raises(BadInput, match=rf"config\.{name}=(True|1): expected (int|bool)"):
        config.change(config.get_config(), name, value)


def test_the_neighbours_weight_follows_the_length():
    weights = [config.get_config(f"bits={k}").loss.neighbour_weight for k in (8, 16, 32, 64)]
    assert weights == [16, 4, 1, 1]


def test_reconstruction_weighs_more_in_long_codes():
    weights = [config.get_config(f"bits={k}").loss.reconstruction for k in (16, 64, 65, 128)]
    assert weights == [0.1, 0.1, 0.3, 0.3]
    assert config.get_config("preset=paper,bits=128").loss.reconstruction == 0.5

"""What is known of a file of codes, of which some may have been appended."""

import numpy as np
import pytest

from sigah_jax.encoder import code_facts
from sigah_jax.errors import BadInput
from sigah_jax.files import resumable, whole

CODES = np.random.default_rng(0).integers(0, 256, (9, 2), np.uint8)


def source(name):
    return {"input": name, "bytes": 5, "modified_ns": 7, "content": "0a"}


def part(name, rows):
    return {**source(name), "rows": rows, "rows_crc32": resumable.rows_crc32(CODES[:rows])}


@pytest.fixture
def name(tmp_path):
    """Codes of 9 rows in three parts, of 4, 3 and 2."""
    last = part("/c.npy", 9)
    of = source("/c.npy") | {"encoder": "1a", "bits": 16, "rows_are": "base", "refine": 0.5}
    of |= {"metric": "cosine"}
    state = {"of": of | {"refine_iterations": 3}, "rows": 9, "rows_crc32": last["rows_crc32"]}
    state |= {"bad": [1, 5, 8], "earlier": [part("/a.npy", 4), part("/b.npy", 7)]}
    whole.write_json(tmp_path / "codes.npy.json", state)
    return str(tmp_path / "codes.npy")


@pytest.mark.parametrize(
    ("rows", "parts", "bad"), [(9, "abc", [1, 5, 8]), (7, "ab", [1, 5]), (4, "a", [1])]
)
def test_codes_of_the_first_parts_have_the_facts_of_their_rows(name, rows, parts, bad):
    facts = code_facts.read_facts(name, CODES[:rows])
    assert facts.pop("bad").tolist() == bad
    ends = {"a": 4, "b": 7, "c": 9}
    assert facts.pop("parts") == [part(f"/{i}.npy", ends[i]) for i in parts]
    made = {"encoder": "1a", "bits": 16, "rows_are": "base", "refine": 0.5, "refine_iterations": 3}
    assert facts == made | {"metric": "cosine", "longest": 0.0}  # l2 does not ask for it


def test_codes_behind_a_link_have_the_facts_of_their_file(name, tmp_path):
    np.save(name, CODES)
    (tmp_path / "current.npy").symlink_to(name)
    assert code_facts.read_facts(str(tmp_path / "current.npy"), CODES)["bad"].tolist() == [1, 5, 8]


@pytest.mark.parametrize("rows", [8, 5, 3])
def test_codes_that_end_inside_a_part_are_refused(name, rows):
    with pytest.raises(BadInput, match=r"is about \d codes of 2 bytes, .* holds \d of 2"):
        code_facts.read_facts(name, CODES[:rows])


@pytest.mark.parametrize("rows", [9, 7, 4])
def test_a_byte_that_differs_is_refused_in_any_part(name, rows):
    packed = CODES[:rows].copy()
    packed[2, 1] ^= 4
    with pytest.raises(BadInput, match="CRC-32 differs"):
        code_facts.read_facts(name, packed)


def test_an_input_is_told_by_its_path_size_time_and_content():
    parts = [part("/a.npy", 4), part("/b.npy", 7)]
    assert code_facts.rows_of(parts, source("/a.npy")) == (0, 4)
    assert code_facts.rows_of(parts, source("/b.npy")) == (4, 7)
    for field, value in {"input": "/c.npy", "bytes": 6, "modified_ns": 8, "content": "0b"}.items():
        assert code_facts.rows_of(parts, source("/b.npy") | {field: value}) is None


def test_numbers_within_a_range_are_counted():
    assert code_facts.within([1, 5, 8], 1, 8) == 2
    assert code_facts.within([1, 5, 8], 2, 5) == 0
    assert code_facts.within([], 0, 9) == 0

"""The README's tables come from results files, and its commands exist."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sigah_jax.errors import BadInput
from sigah_jax.report import readme

ROOT = Path(__file__).parent.parent


def results(sigah_map):
    return {
        "metrics": {"sigah": {"map": sigah_map}, "itq": {"map": 0.5}},
        "bits": 32,
        "seed": 4,
        "seconds": {"setup": 1.2, "train": 60.4, "evaluate": 7.0},
        "peak_rss_bytes": 1_500_000_000,
        "device": "1 x cpu",
        "commit": "0123456789abcdef",
    }


def test_a_table_is_written_between_its_two_lines(tmp_path):
    (tmp_path / "best.json").write_text(json.dumps(results(0.75)))
    (tmp_path / "paper.json").write_text(json.dumps(results(0.25)))
    start = "before\n<!-- table: best.json paper.json -->\n"
    text = readme.fill(start + "old\n<!-- end -->\nafter", tmp_path)
    assert text.startswith(start) and text.endswith("<!-- end -->\nafter") and "old" not in text
    assert "| SiGAH | **0.750** |" in text and "| SiGAH, preset=paper | 0.250 |" in text
    assert "Seed 4; set-up 1 s, training 60 s, evaluation 7 s, peak memory 1.5 GB" in text
    assert readme.fill(text, tmp_path) == text


def test_what_is_no_results_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    for name in ("a.json", "missing.json"):
        with pytest.raises(BadInput, match=name):
            readme.fill(f"<!-- table: {name} -->\n<!-- end -->", tmp_path)


def test_the_readme_agrees_with_the_results_files():
    command = [sys.executable, "-m", "sigah_jax.report.readme", "README.md", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"\b(?:launch|experiments|sigah_jax|tests|results)/[\w/.]*\w", text)
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module

"""The README's tables come from the cells, and the files that it names exist."""

import re
from pathlib import Path

from experiments import paper_tables

ROOT = Path(__file__).parent.parent


def test_tables_and_pages_agree_with_the_cells(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert paper_tables.main(["--check"]) == 0, capsys.readouterr().out
    for page in ("README.md", "docs/results.md"):
        assert "<!-- table: " in Path(page).read_text()


def test_the_files_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"\b(?:launch|experiments|sigah_jax|tests|results)/[\w/.]*\w", text)
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module

"""The README's tables come from the cells."""

from pathlib import Path

from experiments import paper_tables

ROOT = Path(__file__).parent.parent


def test_tables_and_pages_agree_with_the_cells(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert paper_tables.main(["--check"]) == 0, capsys.readouterr().out
    for page in ("README.md", "docs/results.md"):
        assert "<!-- table: " in Path(page).read_text()

"""The README's tables come from the cells."""

import re
from pathlib import Path

from experiments import paper_tables
from sigah_jax.report import comparison

ROOT = Path(__file__).parent.parent


def test_a_table_is_written_between_its_two_lines():
    start, end = "before\n<!-- table: mnist 64 -->\n", "\n<!-- end -->\nafter"
    text = comparison.fill(f"{start}old\nlines{end}", lambda name: f"that of {name}")
    assert text == f"{start}that of mnist 64{end}"
    assert comparison.fill(text, lambda _: "new") == f"{start}new{end}"
    assert comparison.fill("no table", lambda _: "new") == "no table"


def test_tables_and_readme_agree_with_the_cells(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert paper_tables.main(["--check"]) == 0, capsys.readouterr().out
    assert "<!-- table: mnist 64 -->" in Path("README.md").read_text()


def test_sigah_is_ahead_where_the_readme_says_so():
    text = (ROOT / "README.md").read_text()
    table = re.search(r"<!-- table: best[^\n]*-->\n(.*?)<!-- end -->", text, re.DOTALL)[1]
    pairs = re.findall(r"\| \**([\d.]+)[^|/]* / ([\d.]+) ", table)
    assert len(pairs) == 6 * (table.count("\n") - 2) > 100
    behind = sum(float(sigah) <= float(baseline) for sigah, baseline in pairs)
    clearly = len(pairs) - table.count("**") // 2
    assert f"ahead in {len(pairs) - behind} of {len(pairs)} cells" in text
    assert f"in {clearly} by more than two standard deviations" in text

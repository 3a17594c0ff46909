"""Tables that Markdown and LaTeX read."""

from __future__ import annotations

from timesformer.studies.tables import latex, markdown

TABLES = {
    "": [("run", "top1 %"), ("fold_1", "90.0"), ("mean ± std", "8")],
    "Each | class": [("a\nb", "c"), ("d|e", "")],
}


def test_markdown_is_aligned_and_escaped() -> None:
    lines = markdown("5 folds", TABLES, ["A note."]).splitlines()
    assert lines[:6] == [
        "# 5 folds", "", "| run        | top1 % |", "| ---------- | ------ |", "| fold_1     | 90.0   |",
        "| mean ± std | 8      |",
    ]  # fmt: skip
    assert lines[6:9] == ["", "A note.", ""] and lines[9] == r"## Each \| class"
    assert lines[11:] == ["| a b  | c |", "| ---- | - |", r"| d\|e |   |"]


def test_latex_has_booktabs_and_no_special_letter() -> None:
    text = latex("R&D_1", TABLES, ["50% #1 ~ {x} \\ ^ <"])
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\end{table}") == 2
    assert (
        r"\caption{R\&D\_1. 50\% \#1 \textasciitilde{} \{x\} \textbackslash{} \textasciicircum{} \textless{}}" in text
    )
    assert "run & top1 \\% \\\\\n\\midrule\nfold\\_1 & 90.0 \\\\\nmean $\\pm$ std & 8 \\\\\n" in text
    assert r"\begin{tabular}{lr}" in text

"""Tables for papers and pages: Markdown, and LaTeX with booktabs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
_LATEX |= {"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"}
_LATEX |= {letter: f"\\{letter}" for letter in "&%$#_{}"}


def markdown(title: str, tables: Mapping[str, Sequence[Sequence[str]]], notes: Sequence[str]) -> str:
    """A page with tables, whose columns are aligned as text too.

    Args:
        title: of the page.
        tables: by their headings; the first row of each names the columns.
        notes: paragraphs below the first table.
    """
    parts = [f"# {_cell(title)}"]
    for number, (heading, rows) in enumerate(tables.items()):
        cells = [[_cell(text) for text in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        cells.insert(1, ["-" * width for width in widths])
        table = "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells)
        parts += [*([f"## {_cell(heading)}"] if heading else []), table, *(notes if number == 0 else [])]
    return "\n\n".join(parts) + "\n"


def latex(title: str, tables: Mapping[str, Sequence[Sequence[str]]], notes: Sequence[str]) -> str:
    """One `table` for each of the tables, to be pasted or read with \\input; needs the package booktabs.

    Args:
        title: the first caption.
        tables: as in `markdown`.
        notes: of the first caption too.
    """
    parts = ["% \\usepackage{booktabs}"]
    for number, (heading, rows) in enumerate(tables.items()):
        header, *body = [" & ".join(map(latex_text, row)) + r" \\" for row in rows]
        caption = latex_text(" ".join([f"{title}.", *notes]) if number == 0 else heading)
        start = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
        lines = [rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}", r"\toprule", header, r"\midrule", *body]
        parts.append("\n".join([*start, *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


def latex_text(text: str) -> str:
    """`text` such that LaTeX prints it as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")

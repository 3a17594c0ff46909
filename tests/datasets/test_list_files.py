"""Tables of list files: separator, columns and rows, and the problems that are collected on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.datasets.list_files import Table, raise_problems
from timesformer.utils.errors import DataListError

COLUMNS = {"id": ["video_id", "id"], "path": ["path"], "frame": ["frame_id"]}


def table(folder: Path, text: str | bytes) -> Table:
    (folder / "list.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return Table(str(folder / "list.csv"), COLUMNS, optional=["frame"])


@pytest.mark.parametrize("separator", [" ", ",", "\t", ";"])
def test_columns_are_found_by_name_for_every_separator(tmp_path: Path, separator: str) -> None:
    lines = ["Path id other", "# a.mp4 0 0", "", 'a.mp4 7 ""', f'"b{separator}c.mp4" 8 x']
    found = table(tmp_path, "\r\n".join(lines).replace(" ", separator))
    assert found.separator == separator and found.header == lines[0].replace(" ", separator)
    assert [*found.rows()] == [(4, ["7", "a.mp4", ""]), (5, ["8", f"b{separator}c.mp4", ""])]
    assert [f"{where}: {text}" for where, text, _ in found.problems] == []


def test_the_preferred_name_of_a_column_is_used(tmp_path: Path) -> None:
    assert [*table(tmp_path, "id path video_id\n1 a 2\n").rows()] == [(2, ["2", "a", ""])]


def test_a_table_without_known_columns_has_all_its_lines(tmp_path: Path) -> None:
    found = table(tmp_path, "\ufeffa.mp4 1\rb.mp4 2\n")
    assert found.header == "" and [*found.lines] == [(1, "a.mp4 1"), (2, "b.mp4 2")]


def test_problems_do_not_hide_the_rows_below(tmp_path: Path) -> None:
    found = table(tmp_path, b'id,path\n1,"a.mp4\n2,b.mp4\n3\n\xff,c.mp4\n5,d.mp4\n')
    assert [line for line, _ in found.rows()] == [3, 6]
    assert [f"{where}: {text}" for where, text, _ in found.problems] == [
        "list.csv:2: a quote is not closed: '1,\"a.mp4'",
        "list.csv:4: 1 fields where the header has 2: '3'",
        "list.csv:5: not UTF-8 text (save the list as plain UTF-8): '\\udcff,c.mp4'",
    ]
    with pytest.raises(DataListError, match=r"(?s)^3 problems in .*list.csv:\n  list.csv:2: .*\nCheck it\.$"):
        raise_problems(found.path, found.problems, "Check it.")


def test_a_column_that_is_missing_is_named_with_the_names_it_may_have(tmp_path: Path) -> None:
    with pytest.raises(
        DataListError, match=r"list.csv:2: no column for the id among path, x. Call it one of: video_id,"
    ):
        table(tmp_path, "\npath x\na 1\n")
    with pytest.raises(DataListError, match=r"list.csv is empty"):
        table(tmp_path, "# nothing\n")

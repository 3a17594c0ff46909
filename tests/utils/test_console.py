"""Tables in columns, and numbers with nouns."""

from __future__ import annotations

import io

import pytest

from timesformer.utils.console import columns, count, fit, printable


def test_columns_are_aligned_below_a_header() -> None:
    assert columns([("run", "score"), ("a longer name", "1"), ("b", "")]).split("\n") == [
        "run            score",
        "-------------  -----",
        "a longer name  1",
        "b",
    ]


def test_a_number_and_its_noun_agree() -> None:
    found = [
        count(*pair) for pair in ((1, "step"), (2, "step"), (0, "thread"), (1, "class"), (12, "class"), ("1", "epoch"))
    ]
    assert found == ["1 step", "2 steps", "0 threads", "1 class", "12 classes", "1 epoch"]


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "caf\\udce9 \u00e9"), ("ascii", "caf\\udce9 \\xe9")])
def test_letters_that_a_stream_does_not_take_are_escaped_and_lines_stay_whole(encoding: str, shown: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert fit("caf\udce9 \u00e9" + " word" * 50, stream) == shown + " word" * 50


def test_names_that_are_not_utf8_are_escaped() -> None:
    assert printable("caf\udce9") == "caf\\xe9" and printable("caf\u00e9") == "caf\u00e9"

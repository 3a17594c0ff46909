"""Tables in columns, and numbers with nouns."""

from __future__ import annotations

from timesformer.utils.console import columns, count


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

"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.utils.paths import AS_NAMED, expand_path


def test_home_and_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/mnt/anna")
    monkeypatch.setenv("DATA", "/data")
    for written, path in {
        "~": "/mnt/anna",
        "~/x": "/mnt/anna/x",
        "$DATA/x": "/data/x",
        "a/${DATA}": "a//data",
    }.items():
        assert expand_path(written) == path
    for plain in ("", "x~", "a/~/b", "timm:vit_base", "hf:owner/name@main"):
        assert expand_path(plain) == plain


@pytest.mark.parametrize("path", ["~nobody_here/x", "$NOWHERE/x", "a/${NOWHERE}"])
def test_what_is_not_known_is_named(path: str) -> None:
    with pytest.raises(ValueError, match="is not known here"):
        expand_path(path)


def test_names_of_files_come_back_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("caf\udce9", **AS_NAMED)
    assert (tmp_path / "list.csv").read_bytes() == b"caf\xe9"

"""A registry fills itself when it is first read, and names what is near to an unknown name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from timesformer.utils.errors import ConfigError
from timesformer.utils.registry import Registry

FRUITS = """
import __main__
__main__.FRUITS.register("apple", "pear")("a fruit")
"""


def test_what_registers_is_imported_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("fruit", "orchard_of_a_test")
    monkeypatch.setattr(sys.modules["__main__"], "FRUITS", registry, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "orchard_of_a_test.py").write_text(FRUITS)
    assert "orchard_of_a_test" not in sys.modules
    assert registry.get("pear") == "a fruit" and registry.names() == ("apple", "pear")
    with pytest.raises(ConfigError, match=r"unknown fruit 'pera'. Did you mean 'pear'\? Known: apple, pear.$"):
        registry.get("pera")
    with pytest.raises(ValueError, match="fruit 'apple' is registered twice"):
        registry.register("apple")(None)


@pytest.mark.parametrize(("registry", "name"), [("MODELS", "TimeSformer"), ("DATASETS", "kinetics")])
def test_the_registries_of_the_package_need_no_other_import(registry: str, name: str) -> None:
    code = f"from timesformer.utils.registry import {registry} as r; assert r.get({name!r}) and {name!r} in r.names()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])

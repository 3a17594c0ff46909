"""Defect 1 for all keys: each declared key is read somewhere in the package outside checks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from timesformer.config.defaults import KEYS

PACKAGE = Path(__file__).parents[2] / "timesformer"


def chains(tree: ast.AST) -> Iterator[str]:
    """Every attribute chain such as ``cfg.DATA.MEAN``; a name given to a section stands for it."""
    sections: dict[str, str] = {}

    def dotted(node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            return f"{dotted(node.value)}.{node.attr}"
        return sections.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for name, value in pairs:
                if isinstance(name, ast.Name) and isinstance(value, ast.Attribute) and value.attr.isupper():
                    sections[name.id] = dotted(value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield dotted(node)


def test_defect_01_every_key_is_read() -> None:
    read: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE / "config" and path.name != "config_checks.py":
            for chain in chains(ast.parse(path.read_text())):
                owner, _, name = chain.partition("cfg.")
                if name and (not owner or owner.endswith(".")):
                    read.add(name)
    unread = [key.name for key in KEYS if key.name not in read]
    assert unread == [], f"nothing reads {', '.join(unread)}: use it or remove it from config/defaults.py"


def test_the_scan_sees_chains_and_named_sections() -> None:
    code = "data, n = cfg.DATA, 1\nt = self.cfg.TEST\nf(data.MEAN, t.SPLIT, cfg.RNG_SEED)"
    assert {"cfg.DATA.MEAN", "self.cfg.TEST.SPLIT", "cfg.RNG_SEED"} <= set(chains(ast.parse(code)))

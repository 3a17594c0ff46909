"""What each configuration key means and allows, in words: for messages, `--help` and print_config.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timesformer.config.defaults import KEYS, Key

_KINDS = {
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "int|auto": "auto or a whole number",
    "ints": "a list of whole numbers",
    "floats": "a list of numbers",
    "strs": "a list of texts",
    "size": "a whole number or [height, width]",
    "size|auto": "auto, a whole number or [height, width]",
    "pairs": "a list of pairs of whole numbers",
}


def allowed(key: Key, choices: Sequence[object] = ()) -> str:
    """The values `key` takes, such as ``a number, from 0 to 1``; `choices` replace the key's own."""
    if choices or key.choices:
        return "one of " + ", ".join(map(str, choices or key.choices))
    if key.low is None and key.high is None:
        return _KINDS[key.kind]
    ends = f"at least {key.low:g}" if key.high is None else f"from {key.low or 0:g} to {key.high:g}"
    return f"{_KINDS[key.kind]}, {ends}"


def describe_keys(filters: str | Sequence[str] = (), *, choices: Mapping[str, Sequence[str]] | None = None) -> str:
    """A table of the keys whose name contains one of `filters` (all keys when there is none).

    Two lines a key: name, default and what is allowed, then the meaning.

    Args:
        filters: a substring or several, in any case, such as ``solver`` or ``DATA.CROP``.
        choices: names known only to the caller (of models and datasets), by key.
    """
    filters = [filters] if isinstance(filters, str) else filters
    keys = [key for key in KEYS if not filters or any(part.upper() in key.name for part in filters)]
    width = max((len(key.name) for key in keys), default=0)
    lines = []
    for key in keys:
        values = allowed(key, (choices or {}).get(key.name, ()))
        lines.append(f"{key.name:<{width}}  {key.default!r:<22}  {values}")
        lines.append(f"    {key.meaning}")
    return "\n".join(lines) if lines else f"No key contains {' or '.join(filters)}."

"""Classes that a left-right flip turns into one another: found by their names, and as the label map of the user."""

from __future__ import annotations

import difflib
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import yaml

from timesformer.datasets.records import shorten
from timesformer.utils.errors import ConfigError

# A word and its mirror image. Only English words count without a class that is the partner: "links" is English too.
_OPPOSITES = (
    ("left", "right"),
    ("clockwise", "counterclockwise"),
    ("gauche", "droite"),
    ("links", "rechts"),
    ("izquierda", "derecha"),
    ("sinistra", "destra"),
    ("esquerda", "direita"),
)
_PARTNER = {a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1])}
_CERTAIN = {"left", "right", "clockwise", "counterclockwise"}
_SHORT = {"cw": "clockwise", "ccw": "counterclockwise", "acw": "counterclockwise", "l": "left", "r": "right"}
_COUNTER = re.compile(r"\b(counter|anti)[\W_]*(?=clockwise)")
_SUFFIX = re.compile(rf"(.*?)({'|'.join(sorted(_PARTNER, key=len, reverse=True))})")  # swipeleft
_PREFIX = re.compile(rf"({'|'.join(sorted(_PARTNER, key=len, reverse=True))})(.*)")  # leftswipe
_ROTATION = re.compile(r"(.{3,})(cw|a?ccw?)")  # circlecw, circleccw, circlecc
_NUMBER_IN_FRONT = re.compile(r"^\W*[A-Za-z]{0,3}\d+[\W_]+")  # "G5 " of "G5 V from the left"

Pairs = Sequence[Sequence[int | str]]  # two labels or class names each


@dataclass
class MirrorClasses:
    """Labels of classes whose names speak of a direction."""

    pairs: list[tuple[int, int]] = field(default_factory=list)  # mirror images of each other
    alone: list[int] = field(default_factory=list)  # whose mirror image is no class


def find_mirror_classes(class_names: Sequence[str]) -> MirrorClasses:
    """The classes that are mirror images by name: left and right, clockwise and counter-clockwise, cw and ccw, L and R.

    Numbers in front of names are ignored where the names do not match with them.
    """
    letters = _letters(class_names)
    found, open_labels = MirrorClasses(), dict(enumerate(class_names))
    for prefix in (re.compile("(?!)"), _NUMBER_IN_FRONT):
        words = {label: _words(prefix.sub("", name), letters) for label, name in open_labels.items()}
        labels_of: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for label, parts in words.items():
            labels_of[parts].append(label)
        for label, parts in words.items():
            partners = labels_of.get(mirrored := tuple(_PARTNER.get(part, part) for part in parts), [])
            if mirrored != parts and len(partners) == len(labels_of[parts]) == 1 and label < partners[0]:
                found.pairs.append((label, partners[0]))
        open_labels = {label: open_labels[label] for label in open_labels if label not in chain(*found.pairs)}
    found.pairs.sort()
    found.alone = [label for label, name in open_labels.items() if _has_direction(name)]
    return found


def flip_label_map(pairs: Pairs, class_names: Sequence[str]) -> dict[int, int]:
    """Label to the label it becomes in the mirror, from DATA.FLIP_LABEL_MAP.

    Args:
        pairs: such as ``[["left", "right"], [2, 3], [4, 4]]``; the last is a class that is its own mirror image.
        class_names: in label order; [] when unknown.

    Raises:
        ConfigError: a name that is no class, or a class in two pairs.
    """
    wrong = [item for pair in pairs for item in pair if isinstance(item, str) and item not in class_names]
    if wrong and not class_names:
        raise ConfigError(
            f"DATA.FLIP_LABEL_MAP has class names ({', '.join(shorten(wrong, 5))}), but the names of the classes are "
            "not known. Type DATA.CLASS_NAMES_PATH FILE (one name per line), or labels instead of names"
        )
    if wrong:
        raise ConfigError("DATA.FLIP_LABEL_MAP: " + "; ".join(_no_class(name, class_names) for name in wrong))
    labels = [tuple(class_names.index(item) if isinstance(item, str) else item for item in pair) for pair in pairs]
    result = {a: b for pair in labels for a, b in (pair, pair[::-1])}
    if len(result) < sum(len({*pair}) for pair in labels):
        raise ConfigError(f"DATA.FLIP_LABEL_MAP {format_pairs(pairs)}: a class may occur in one pair only")
    return result


def flip_warnings(class_names: Sequence[str], pairs: Pairs, *, only_mapped: bool) -> list[str]:
    """What is wrong with flipping clips of these classes, by their names, each with what to type.

    Args:
        class_names: in label order.
        pairs: of DATA.FLIP_LABEL_MAP.
        only_mapped: clips of other classes are not flipped (DATA.FLIP_ONLY_MAPPED).
    """
    if only_mapped:
        return []
    mapped, mirrors = flip_label_map(pairs, class_names), find_mirror_classes(class_names)
    missing = [pair for pair in mirrors.pairs if not mapped.keys() & pair]
    alone = [class_names[label] for label in mirrors.alone if label not in mapped]
    warnings = []
    if missing:
        names = [[class_names[label] for label in pair] for pair in missing]
        shown = ", ".join(shorten([f"{left!r} and {right!r}" for left, right in names], 5))
        warnings.append(
            f"DATA.RANDOM_FLIP True turns clips of these classes into one another, and their labels stay: {shown}. "
            f"Type DATA.FLIP_LABEL_MAP {format_pairs([*pairs, *names])} or DATA.RANDOM_FLIP False"
        )
    if alone:
        directed = {*mirrors.alone, *chain(*mirrors.pairs)}
        plain = [[name, name] for label, name in enumerate(class_names) if label not in directed][:1]
        needed = plain and not pairs and not missing
        example = f" DATA.FLIP_LABEL_MAP {format_pairs(plain)}" if needed else ""
        warnings.append(
            f"DATA.RANDOM_FLIP True turns clips of {', '.join(shorten([*map(repr, alone)], 5))} into another gesture, "
            f"which is no class. Type DATA.RANDOM_FLIP False or DATA.FLIP_ONLY_MAPPED True{example} (flips only clips "
            "of classes in DATA.FLIP_LABEL_MAP, where [NAME, NAME] is a class that is its own mirror image)"
        )
    return warnings


def format_pairs(pairs: Pairs) -> str:
    """Pairs as one word of a shell's command line, read as YAML."""
    plain = [list(pair) for pair in pairs]
    text = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"), allow_unicode=True).strip()
    return shlex.quote(text) if set('"$`\\!') & set(text) else f'"{text}"'


def _no_class(name: str, class_names: Sequence[str]) -> str:
    if near := difflib.get_close_matches(name, class_names, n=3, cutoff=0.5):
        return f"{name!r} is no class; did you mean {' or '.join(near)}?"
    return f"{name!r} is no class; the classes are {', '.join(shorten(class_names, 10))}"


def _letters(class_names: Iterable[str]) -> set[str]:
    """ "l" and "r" where they are directions, and no letters of an alphabet such as A, B, ..., L, ..."""
    single = {part for name in class_names for part in _split(name) if len(part) == 1 and part.isalpha()}
    return {"l", "r"} if single == {"l", "r"} else set()


def _split(name: str) -> list[str]:
    """The lower-case words and numbers of a name: swipeLeft_2 has three."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return re.findall(r"\d+|[^\W\d_]+", _COUNTER.sub("counter", spaced))


def _words(name: str, letters: Iterable[str] = ()) -> tuple[str, ...]:
    """The words of a name with its directions as words of `_OPPOSITES`."""
    parts: list[str] = []
    for word in _split(name):
        if word in _SHORT and (len(word) > 1 or word in letters):
            parts.append(_SHORT[word])
        elif match := _ROTATION.fullmatch(word):
            parts += [match[1], "clockwise" if match[2] == "cw" else "counterclockwise"]
        elif match := _SUFFIX.fullmatch(word) or _PREFIX.fullmatch(word):
            parts += filter(None, match.groups())
        else:
            parts.append(word)
    return tuple(parts)


def _has_direction(name: str) -> bool:
    """Whether a name speaks of one direction: "from right to left" does, "left-right" does not, nor "bright"."""
    whole = {*_split(name)}
    found = {word for word in _words(name) if word in _CERTAIN and (word in whole or word.endswith("clockwise"))}
    return bool(found) and ("to" in whole or not any(_PARTNER[word] in found for word in found))

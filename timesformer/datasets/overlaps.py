"""What the lists of a run have in common: files, and people or scenes as far as names of files tell them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from timesformer.datasets.files import RealPaths
from timesformer.datasets.records import VideoList, VideoRecord, in_memory, shorten

# Words before the number of somebody or something that should be in one list only: person03, p07, g01 (of UCF101).
PEOPLE = (
    "subject|subj|sub|person|participant|people|user|actor|signer|volunteer|performer|speaker|patient|student|player"
    "|p|s|u|id"
)
PLACES = "scene|room|location|place|house|kitchen|session|group|g"
_NUMBERED = re.compile(rf"(?<![a-z])({PEOPLE}|{PLACES})[ _-]?([0-9]+)(?![0-9])", re.IGNORECASE)


def overlaps(lists: Mapping[str, VideoList], same: Sequence[str] = ()) -> list[str]:
    """One line for each two of `lists` that share videos, or people or scenes.

    Args:
        lists: by the name of the split.
        same: two of these names are one list on purpose.
    """
    lines: list[str] = []
    for a, b in combinations(lists, 2):
        if {a, b} != {*same}:
            records = [[r for r in lists[split].records if not in_memory(r)] for split in (a, b)]
            lines += _shared_files(a, b, *records) or _shared_people(a, b, *records)
    return lines


def _shared_files(a: str, b: str, ours: Sequence[VideoRecord], theirs: Sequence[VideoRecord]) -> list[str]:
    real_path = RealPaths()
    sources = {real_path(record.path): record for record in ours}
    pairs = [(sources[real], record) for record in theirs if (real := real_path(record.path)) in sources]
    if not pairs:
        return []
    shown = shorten([f"{first.path} ({first.source}, {second.source})" for first, second in pairs], 3)
    return [
        f"{len(pairs)} of {len(theirs)} videos of the {b} list are in the {a} list too: {', '.join(shown)}. "
        f"The score on {b} is then not that of new videos: keep each in one list"
    ]


def _shared_people(a: str, b: str, ours: Sequence[VideoRecord], theirs: Sequence[VideoRecord]) -> Iterator[str]:
    """A line for each word whose numbers are in every path of both lists, and partly the same ones."""
    words, others = _numbers(ours), _numbers(theirs)
    for word in sorted(words.keys() & others.keys(), key=len, reverse=True):
        labels = [words[word].get(number, set()) | others[word].get(number, set()) for number in words[word]]
        shared = sorted(words[word].keys() & others[word].keys(), key=int)
        if shared and any(len(each) > 1 for each in labels):  # else the number may be that of the class
            shown = ", ".join(shorten([f"{word}{number}" for number in shared], 5))
            yield (
                f"the {a} and {b} lists share {len(shared)} of {len(others[word])} names like {shown}. If these are "
                "people or scenes, the score is not that of new ones: keep each in one list; TRAIN.DATASET folder "
                f"does so with FOLDER.SUBJECT_PATTERN '{word}[ _-]?([0-9]+)'"
            )
            return


def _numbers(records: Sequence[VideoRecord]) -> dict[str, dict[str, set[object]]]:
    """The labels of each number of each word that is in every path, unless all numbers are equal."""
    found: dict[str, dict[str, set[object]]] = defaultdict(lambda: defaultdict(set))
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        for word, number in {match[1].lower(): match[2] for match in _NUMBERED.finditer(record.path)}.items():
            found[word][number].add(record.label)
            counts[word] += 1
    return {word: numbers for word, numbers in found.items() if counts[word] == len(records) and len(numbers) > 1}

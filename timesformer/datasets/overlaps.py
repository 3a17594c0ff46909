"""What the lists of a run have in common: files, and people or scenes, known or as far as names of files tell them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
_BY_DESIGN = 0.5  # share of the people of a list that the other has, from which lists are not divided by people


@dataclass(frozen=True)
class Overlap:
    """Something that two lists share.

    Attributes:
        kind: "file"; "subject" or "scene" of the records; "name", a guess from names of files.
        splits: the names of the two lists.
        videos: of each list, those that share it.
        text: the whole message.
    """

    kind: str
    splits: tuple[str, str]
    videos: tuple[list[VideoRecord], list[VideoRecord]]
    text: str


def overlaps(lists: Mapping[str, VideoList], same: Sequence[str] = ()) -> list[Overlap]:
    """What each two of `lists` share: videos, or else people or scenes.

    Args:
        lists: by the name of the split.
        same: two of these names are one list on purpose.
    """
    found: list[Overlap] = []
    for a, b in combinations(lists, 2):
        if {a, b} != {*same}:
            ours, theirs = ([r for r in lists[split].records if not in_memory(r)] for split in (a, b))
            known = [*_shared_groups(a, b, ours, theirs)]
            found += [*_shared_files(a, b, ours, theirs), *known] or _shared_people(a, b, ours, theirs)
    return found


def _shared_files(a: str, b: str, ours: Sequence[VideoRecord], theirs: Sequence[VideoRecord]) -> Iterator[Overlap]:
    real_path = RealPaths()
    sources = {real_path(record.path): record for record in ours}
    pairs = [(sources[real], record) for record in theirs if (real := real_path(record.path)) in sources]
    if pairs:
        shown = shorten([f"{first.path} ({first.source}, {second.source})" for first, second in pairs], 3)
        yield Overlap(
            "file",
            (a, b),
            ([first for first, _ in pairs], [second for _, second in pairs]),
            f"{len(pairs)} of {len(theirs)} videos of the {b} list are in the {a} list too: {', '.join(shown)}. "
            f"The score on {b} is then not that of new videos: keep each in one list",
        )


def _shared_groups(a: str, b: str, ours: Sequence[VideoRecord], theirs: Sequence[VideoRecord]) -> Iterator[Overlap]:
    """People and scenes of both lists; not those that most have in common where the lists are divided by the other."""
    names = {
        kind: [{getattr(record, kind) for record in records} - {""} for records in (ours, theirs)]
        for kind in ("subject", "scene")
    }
    for kind, other in (("subject", "scene"), ("scene", "subject")):
        shared, smaller = set.intersection(*names[kind]), min(map(len, names[kind]))
        divided = all(names[other]) and not set.intersection(*names[other])
        if shared and not (divided and len(shared) >= _BY_DESIGN * smaller):
            of_both = tuple([r for r in records if getattr(r, kind) in shared] for records in (ours, theirs))
            shown = ", ".join(shorten(sorted(shared), 5))
            noun = {"subject": "people", "scene": "scenes"}[kind]
            yield Overlap(
                kind,
                (a, b),
                of_both,  # type: ignore[arg-type]
                f"the {a} and {b} lists share {len(shared)} of {len(names[kind][1])} {noun}: {shown}. "
                f"The score on {b} is then not that of new {noun}: keep each in one list",
            )


def _shared_people(a: str, b: str, ours: Sequence[VideoRecord], theirs: Sequence[VideoRecord]) -> Iterator[Overlap]:
    """Of a word whose numbers are in every path of both lists, and partly the same ones."""
    words, others = _numbers(ours), _numbers(theirs)
    for word in sorted(words.keys() & others.keys(), key=len, reverse=True):
        of_class = all(
            len({record.label for record in words[word][number] + others[word].get(number, [])}) == 1
            for number in words[word]
        )
        shared = sorted(words[word].keys() & others[word].keys(), key=int)
        if shared and not of_class:  # else the number may be that of the class
            shown = ", ".join(shorten([f"{word}{number}" for number in shared], 5))
            yield Overlap(
                "name",
                (a, b),
                tuple([record for number in shared for record in each[word][number]] for each in (words, others)),  # type: ignore[arg-type]
                f"the {a} and {b} lists share {len(shared)} of {len(others[word])} names like {shown}. If these are "
                "people or scenes, the score is not that of new ones: keep each in one list; TRAIN.DATASET folder "
                f"does so with FOLDER.SUBJECT_PATTERN '{word}[ _-]?([0-9]+)'",
            )
            return


def _numbers(records: Sequence[VideoRecord]) -> dict[str, dict[str, list[VideoRecord]]]:
    """The videos of each number of each word that is in every path, unless all numbers are equal."""
    found: dict[str, dict[str, list[VideoRecord]]] = defaultdict(lambda: defaultdict(list))
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        for word, number in {match[1].lower(): match[2] for match in _NUMBERED.finditer(record.path)}.items():
            found[word][number].append(record)
            counts[word] += 1
    return {word: numbers for word, numbers in found.items() if counts[word] == len(records) and len(numbers) > 1}

"""What lists of videos show without opening any: classes that are small or missing, people in two lists, flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timesformer.curation.findings import ERROR, WARNING, Finding, Listed
from timesformer.datasets.balance import AUTO_ABOVE
from timesformer.datasets.mirror import Pairs, find_mirror_classes, flip_label_map, flip_warnings
from timesformer.datasets.overlaps import Overlap, overlaps
from timesformer.datasets.records import VideoList, class_counts, shorten

FEW_TO_TRAIN, FEW_TO_SCORE = 10, 3  # videos of a class, below which it is small


def class_names(lists: Mapping[str, VideoList]) -> list[str]:
    """The names of the classes, of those without names the numbers."""
    names = next((videos.class_names for videos in lists.values() if videos.class_names), [])
    labels = {label for videos in lists.values() for label in class_counts(videos.records)}
    return [*names, *(f"class {label}" for label in range(len(names), max(labels, default=-1) + 1))]


def class_findings(lists: Mapping[str, VideoList], *, balanced: bool = False) -> list[Finding]:
    """Classes that a list lacks, or of which it has few videos, and a training list that is out of balance.

    Args:
        lists: by the name of the split.
        balanced: whether training makes up for classes of different size, which is then no finding.
    """
    names, found = class_names(lists), []
    for split, videos in lists.items():
        training = split not in ("val", "test")
        counts = {name: class_counts(videos.records)[label] for label, name in enumerate(names)}
        few = FEW_TO_TRAIN if training else FEW_TO_SCORE
        if missing := [name for name, number in counts.items() if not number]:
            what = f"no video for {split} of {len(missing)} classes: {', '.join(shorten(missing, 10))}"
            advice = "Add videos of these classes to that list, or leave the classes out of all lists."
            found.append(Finding(ERROR if training else WARNING, "missing classes", what, advice))
        if small := [f"{name} ({number})" for name, number in counts.items() if 0 < number < few]:
            what = f"fewer than {few} videos for {split}: {', '.join(shorten(small, 10))}"
            use = "A model learns little of them" if training else "Their accuracy says little"
            found.append(Finding(WARNING, "small classes", what, f"{use}: record more, or join classes."))
        used = {name: number for name, number in counts.items() if number}
        least, most = (limit(used, key=used.__getitem__, default="") for limit in (min, max))
        if training and used and not balanced and used[most] > AUTO_ABOVE * used[least]:
            what = f"{most} has {used[most]} videos for {split}, {least} has {used[least]}"
            several = any(isinstance(record.label, tuple) for record in videos.records)  # which nothing balances
            remedy = (
                "Record more of the small classes" if several else "TRAIN.BALANCE auto draws each class equally often"
            )
            advice = f"{remedy}. Look at the accuracy of each class, not at the mean."
            settings = {} if several else {"TRAIN.BALANCE": "auto"}
            found.append(Finding(WARNING, "imbalance", what, advice, settings=settings))
    return found


def people_findings(lists: Mapping[str, VideoList]) -> list[Finding]:
    """People and scenes that two lists share; a guess by the names of files is a warning."""
    return [_shared(overlap) for overlap in overlaps(lists) if overlap.kind != "file"]


def _shared(overlap: Overlap) -> Finding:
    pairs = zip(overlap.splits, overlap.videos, strict=True)
    both = [[Listed(split, record) for record in videos] for split, videos in pairs]
    noun = {"subject": "person", "scene": "scene", "name": "person or scene"}[overlap.kind]
    fewer, more = sorted(both, key=len)
    advice = f"Keep each {noun} in one list: move or remove the videos of the smaller side ({fewer[0].split})."
    guessed = overlap.kind == "name"
    check = f"{noun} in two lists" + " (guessed from names)" * guessed
    severity = ERROR if overlap.kind == "subject" else WARNING
    return Finding(severity, check, overlap.text, advice, fewer + more, [] if guessed else fewer)


def flip_findings(names: Sequence[str], pairs: Pairs, *, only_mapped: bool) -> list[Finding]:
    """Classes whose names say that random flips change them; see `flip_warnings`."""
    lines = flip_warnings(names, pairs, only_mapped=only_mapped)
    mapped, mirrors = flip_label_map(pairs, names), find_mirror_classes(names)
    settings: dict[str, object] = {"DATA.RANDOM_FLIP": False}
    if mapped.keys() >= {*mirrors.alone}:  # each class has its mirror image
        missing = [[names[a], names[b]] for a, b in mirrors.pairs if not mapped.keys() & {a, b}]
        settings = {"DATA.FLIP_LABEL_MAP": [*map(list, pairs), *missing]}
    return [Finding(WARNING, "mirrored classes", line, "Set this, or no flips.", settings=settings) for line in lines]


def list_warnings(lists: Mapping[str, VideoList]) -> list[Finding]:
    """What the reading of the lists warned of, but for what `overlaps` says."""
    known = {overlap.text for overlap in overlaps(lists)}
    lines = {line: split for split, videos in lists.items() for line in videos.warnings if line not in known}
    return [Finding(WARNING, "lists", line, "Correct the list or the folder.") for line in lines]

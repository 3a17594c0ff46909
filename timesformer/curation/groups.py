"""Who is in a video and where it was made, by patterns in its path: given, or guessed from numbered words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from timesformer.curation.layouts import Clip, matches
from timesformer.datasets.overlaps import PEOPLE, PLACES


def with_groups(
    clips: Sequence[Clip], *, subject: str | None = None, scene: str | None = None
) -> tuple[list[Clip], dict[str, str]]:
    """The clips with their people and scenes, and where these come from, in words.

    Args:
        clips: as found; what their folders or list say of people and scenes is kept where nothing else is given.
        subject: regular expression that finds the person in a path; "" for none, None to guess.
        scene: likewise.

    Raises:
        DataListError: a pattern is not valid, or a path has no match.
    """
    origins: dict[str, str] = {}
    clips = [*clips]
    for role, given, words in (("subject", subject, PEOPLE), ("scene", scene, PLACES)):
        if given is None and any(getattr(clip, role) for clip in clips):
            origins[role] = "by the folders or lists"
            continue
        names = [clip.name for clip in clips]
        pattern = guess_pattern(names, [clip.label for clip in clips], words) if given is None else given
        found = matches(f"--{role}", pattern, names) if pattern else [""] * len(clips)
        clips = [
            replace(clip, subject=text) if role == "subject" else replace(clip, scene=text)
            for clip, text in zip(clips, found, strict=True)
        ]
        if pattern:
            origins[role] = f"{'guessed' if given is None else 'by'} --{role} '{pattern}'"
    return clips, origins


def guess_pattern(names: Sequence[str], labels: Sequence[str], words: str) -> str:
    """A regular expression for the first of `words` that has a number in every name, "" without one.

    The numbers must be those of people or places: at least two, on average of two videos or more, and some with
    more than one label, for else the number may be that of the class.

    Args:
        names: paths.
        labels: of the same videos.
        words: alternatives of a regular expression.
    """
    for word in words.split("|"):
        pattern = rf"(?i)(?<![a-z])({word}[ _-]?[0-9]+)(?![0-9])"
        found = [re.search(pattern, name) for name in names]
        labels_of: dict[str, set[str]] = defaultdict(set)
        for match, label in zip(found, labels, strict=True):
            labels_of[match[1] if match else ""].add(label)
        several = any(len(each) > 1 for each in labels_of.values())
        if "" not in labels_of and 2 <= len(labels_of) <= len(names) / 2 and several:
            return pattern
    return ""

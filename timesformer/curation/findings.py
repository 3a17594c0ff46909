"""What is wrong with a set of videos: findings as a table, as JSON, and as text to paste."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from timesformer.datasets.records import VideoRecord, shorten
from timesformer.utils.console import columns, printable

ERROR, WARNING = "error", "warning"
MAX_ALIKE = 8  # findings of one check in the table
MAX_VIDEOS = 3  # of a finding in the table
_LINE = re.compile(r"(.+):([0-9]+)")


class Listed(NamedTuple):
    """A video and the split that lists it."""

    split: str
    record: VideoRecord

    def __str__(self) -> str:
        path, source = printable(self.record.path), printable(self.record.source)
        return f"{self.split}: {path}" + (f" ({source})" if source != path else "")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: ERROR or WARNING.
        check: what was looked for, in two or three words.
        what: what was found.
        advice: what to do.
        videos: that it is about.
        remove: those of them that should leave their lists.
        settings: keys of the configuration that mend it.
        likeness: of near duplicates, the share of the movement that they have in common; of labels, the margin.
    """

    severity: str
    check: str
    what: str
    advice: str
    videos: Sequence[Listed] = ()
    remove: Sequence[Listed] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    likeness: float | None = None

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """For JSON."""
        named = {"severity": self.severity, "check": self.check, "what": self.what, "advice": self.advice}
        return {
            **named,
            "likeness": None if self.likeness is None else round(self.likeness, 4),
            "videos": [_video(each, class_names) for each in self.videos],
            "remove": [_video(each, class_names) for each in self.remove],
            "settings": dict(self.settings),
        }


def summary(findings: Sequence[Finding]) -> str:
    """ "2 errors, 1 warning"."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(f"{counts[kind]} {kind}{'' if counts[kind] == 1 else 's'}" for kind in (ERROR, WARNING))


def table(findings: Sequence[Finding]) -> str:
    """The findings in rows, errors first, with the videos of each, and what to do about each check once."""
    ordered = sorted(findings, key=lambda finding: finding.severity)
    by_check: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in ordered:
        by_check[finding.severity, finding.check].append(finding)
    rows = [("severity", "check", "findings", "videos")]
    details = []
    for (severity, check), alike in by_check.items():
        num_videos = len({each.record.path for finding in alike for each in finding.videos})
        rows.append((severity, check, str(len(alike)), str(num_videos or "")))
        details.append(f"\n{severity}: {check}")
        for finding in alike[:MAX_ALIKE]:
            details.append(f"  {finding.what}")
            details += [f"    {line}" for line in shorten([*map(str, finding.videos)], MAX_VIDEOS)]
        details += [f"  ... and {len(alike) - MAX_ALIKE} more: --json has all"] if len(alike) > MAX_ALIKE else []
        details += [f"  -> {advice}" for advice in dict.fromkeys(finding.advice for finding in alike[:MAX_ALIKE])]
    return "\n".join([columns(rows), *details])


def correction(findings: Sequence[Finding]) -> str:
    """What to paste: commands that remove lines from lists or name the files to move away, and settings; or ""."""
    lines: dict[str, set[int]] = defaultdict(set)
    files: list[str] = []
    for each in dict.fromkeys(each for finding in findings for each in finding.remove):
        if match := _LINE.fullmatch(each.record.source):
            lines[match[1]].add(int(match[2]))
        else:
            files.append(each.record.path)
    parts = []
    if lines:
        parts.append("# lines to remove, in the folder of the lists (a copy of each stays as LIST.bak)")
        for name, numbers in lines.items():
            parts.append(f"sed -i.bak '{''.join(f'{number}d;' for number in sorted(numbers))}' {shlex.quote(name)}")
    if files:
        parts.append("# files to move away")
        parts += ["mkdir -p left_out", *(f"mv -n {shlex.quote(path)} left_out/" for path in dict.fromkeys(files))]
    settings: dict[str, dict[str, Any]] = defaultdict(dict)
    for finding in findings:
        for key, value in finding.settings.items():
            section, _, name = key.partition(".")
            settings[section][name] = value
    if settings:
        parts += ["# settings for the YAML file", yaml.safe_dump(dict(settings), sort_keys=False).rstrip()]
    return "\n".join(parts)


def _video(each: Listed, class_names: Sequence[str]) -> dict[str, Any]:
    record = each.record
    labels = record.label if isinstance(record.label, tuple) else (record.label,)
    names = [class_names[label] if 0 <= label < len(class_names) else str(label) for label in labels]
    path = printable(record.path)
    return {"split": each.split, "path": path, "source": printable(record.source), "label": ";".join(names)}

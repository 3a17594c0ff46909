"""A folder of clips to the rows of a manifest: found, copied if wanted, measured, and dealt to splits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from timesformer.curation.facts import Facts, measure
from timesformer.curation.groups import with_groups
from timesformer.curation.layouts import Clip, Found, find_clips
from timesformer.curation.reencode import copy_name, reencode
from timesformer.curation.splitting import assign_splits, extend_splits
from timesformer.datasets.manifest import FILE, ManifestRow, append_rows, read_manifest, write_manifest
from timesformer.datasets.records import VideoRecord
from timesformer.utils.console import count
from timesformer.utils.env import available_cpus
from timesformer.utils.errors import DataListError


@dataclass
class Listing:
    """The manifest after a preparation, and how it came about."""

    found: Found  # its clips with people and scenes
    rows: list[ManifestRow]  # all rows of the manifest
    num_new: int  # those that were added now, the last ones
    unreadable: Mapping[str, str]  # path -> why
    origins: Mapping[str, str]  # "subject", "scene", "split" -> where they come from, in words
    grouped_by: str  # "subject", "scene" or "": what the splits keep together


def list_clips(
    source: str,
    out: str,
    *,
    label: str = "",
    subject: str | None = None,
    scene: str | None = None,
    fractions: tuple[float, float] = (0.15, 0.2),
    seed: int = 0,
    short_side: int | None = None,
    show_progress: bool = False,
) -> Listing:
    """Write `out/videos.csv`, or add to it the videos that it does not list; what it says already stays as it is.

    Args:
        source: the folder of the clips, or a list of them; nothing below it is changed.
        out: the folder to write to.
        label, subject, scene: regular expressions, see `find_clips` and `with_groups`.
        fractions: of the videos for val and for test, where the source has no splits.
        seed: of the splits.
        short_side: pixels of copies in `out/videos`; None: the manifest names the videos where they are.
        show_progress: whether to show progress bars.

    Raises:
        DataListError: `source` has no videos or classes, `out` lies in it, or the manifest does not fit.
    """
    _check_out(source, out)
    found = find_clips(source, label_pattern=label)
    found.clips, origins = with_groups(found.clips, subject=subject, scene=scene)
    manifest = os.path.join(out, FILE)
    known = read_manifest(manifest) if os.path.exists(manifest) else []
    new = _new(found.clips, known, out, copies=bool(short_side))
    os.makedirs(out, exist_ok=True)
    unreadable: dict[str, str] = {}
    if short_side:
        records = [clip.record for clip in new.values()]
        pace = {"processes": available_cpus(), "show_progress": show_progress}
        failures = reencode(records, [*new], short_side=short_side, **pace)  # type: ignore[arg-type]
        unreadable = {clip.record.path: failures[path] for path, clip in new.items() if path in failures}
        copied = [path for path in new if path not in failures]
        new = {path: replace(new[path], record=VideoRecord(path, -1, path)) for path in copied}
    facts = measure([clip.record for clip in new.values()], show_progress=show_progress)
    unreadable |= {path: why for path, why in zip(new, facts, strict=True) if isinstance(why, str)}
    rows = {
        clip.name: ManifestRow(path=_written(path, out), label=clip.label, subject=clip.subject, scene=clip.scene,
                               split=clip.split, **each._asdict())
        for (path, clip), each in zip(new.items(), facts, strict=True) if isinstance(each, Facts)
    }  # fmt: skip
    if not rows and not known:
        path, why = next(iter(unreadable.items()))
        raise DataListError(f"{source}: none of its {count(len(unreadable), 'video')} can be read: {path}: {why}")
    by = next((role for role in ("subject", "scene") if any(getattr(r, role) for r in [*known, *rows.values()])), "")
    splits, origins["split"] = _splits(rows, known, by, fractions=fractions, seed=seed)
    added = [replace(row, split=split) for row, split in zip(rows.values(), splits, strict=True)]
    if known and added:
        append_rows(manifest, added)
    elif added:
        write_manifest(manifest, added)
    return Listing(found, [*known, *added], len(added), unreadable, origins, by)


def _check_out(source: str, out: str) -> None:
    inside = os.path.realpath(source) if os.path.isdir(source) else ""
    if inside and os.path.commonpath([inside, os.path.realpath(out)]) == inside:
        raise DataListError(f"--out {out} lies in {source}, where nothing is changed: name a folder elsewhere")


def _new(clips: Sequence[Clip], known: Sequence[ManifestRow], out: str, *, copies: bool) -> dict[str, Clip]:
    """The clips that are not in the manifest, by the path that it will name.

    Raises:
        DataListError: it names the videos themselves where copies are wanted, or the other way round.
    """
    listed = {os.path.realpath(os.path.join(out, row.path)) for row in known}
    in_place = {clip.record.path: clip for clip in clips}
    copied = {os.path.join(out, "videos", copy_name(clip.name)): clip for clip in clips}
    if any(os.path.realpath(path) in listed for path in (in_place if copies else copied)):
        there, advice = (
            ("the videos themselves", "leave --short-side out") if copies else ("copies", "add --short-side")
        )
        raise DataListError(f"{os.path.join(out, FILE)} lists {there}: {advice}, or name another folder with --out")
    chosen = copied if copies else in_place
    return {path: clip for path, clip in chosen.items() if os.path.realpath(path) not in listed}


def _written(path: str, out: str) -> str:
    """What the manifest says: a copy below its folder relative to it, so that both can move; else the whole path."""
    below = os.path.relpath(path, out).replace(os.sep, "/")
    return os.path.abspath(path) if below.startswith("../") else below


def _splits(
    rows: Mapping[str, ManifestRow],
    known: Sequence[ManifestRow],
    by: str,
    *,
    fractions: tuple[float, float],
    seed: int,
) -> tuple[list[str], str]:
    """The split of each of `rows`, which are by name, and in words where it comes from."""
    columns = [[getattr(row, name) if name else "" for row in rows.values()] for name in ("label", by, "split")]
    val, test = fractions
    if known:
        used = {row.split for row in known} - {""}
        of_group = {getattr(row, by): row.split for row in known if by and row.split}
        of_group.pop("", None)
        of_new = {"val_fraction": val * ("val" in used), "test_fraction": test * ("test" in used)}
        splits = extend_splits([*rows], *columns, split_of_group=of_group, seed=seed, **of_new)  # type: ignore[arg-type]
        return splits, f"as in {FILE}, to which new videos were dealt" if rows else f"as in {FILE}"
    given = {row.split for row in rows.values()} - {""}
    how = f"by {by}, balanced by class" if by else "of each class"
    origin = "of the source" if "val" in given else f"of the source, val from train {how}" if "test" in given else how
    return assign_splits([*rows], *columns, val_fraction=val, test_fraction=test, seed=seed), origin

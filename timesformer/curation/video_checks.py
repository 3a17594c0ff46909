"""What the small frames of videos show: unreadable, constant and copied ones, and those that do not fit the clips."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from timesformer.curation import duplicates
from timesformer.curation.findings import ERROR, WARNING, Finding, Listed
from timesformer.curation.small_videos import SmallVideo, read_small_videos
from timesformer.datasets.inspect import DataReport, span_advice
from timesformer.datasets.opening import sample_record
from timesformer.datasets.records import Failure, VideoRecord
from timesformer.utils.random import numpy_generator
from timesformer.video.clip_spec import ClipSpec
from timesformer.video.frame_samplers import clip_span_sec

FIXED = 8.0  # grey levels: a video that moves little, and none of whose small pixels changes by more, is constant
BLACK = 20.0  # grey levels: the brightest small pixel of a black video
SHOWN_SHARE = 0.5  # of the median video, that the clips of a test should show
_KEPT_LAST = ("", "train", "val", "test")  # of copies in several lists, that of the last one stays


def same_size(records: Sequence[VideoRecord]) -> set[int]:
    """Indices of the videos whose files are as large as another's: only those can have the same content."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        with suppress(OSError):  # one that is missing is named when it is read
            sizes[sum(os.path.getsize(path) for path in record.frames or [record.path])].append(index)
    return {index for indices in sizes.values() if len(indices) > 1 for index in indices}


def unreadable_findings(listed: Sequence[Listed], videos: Sequence[SmallVideo | Failure]) -> list[Finding]:
    """Videos that cannot be read, and what the decoder says of those that can."""
    found = []
    for each, video in zip(listed, videos, strict=True):
        if isinstance(video, Failure):
            advice = "Copy or record them again, or take them out of the list."
            found.append(Finding(ERROR, "unreadable videos", video.cause, advice, [each], [each]))
        elif video.info.warnings:
            advice = "Look at them; encode damaged ones again from the original."
            found.append(Finding(WARNING, "odd files", "; ".join(video.info.warnings), advice, [each]))
    return found


def constant_findings(listed: Sequence[Listed], videos: Mapping[int, SmallVideo]) -> list[Finding]:
    """Videos in which nothing changes."""
    advice, found = "Take them out of the list: a video without movement shows no action.", []
    for index, video in videos.items():
        change = float(np.ptp(video.frames.astype(np.float32), axis=0).max())
        if change <= FIXED and duplicates.movement(video.frames) < duplicates.STILL:
            one = len(video.frames) == 1
            what = "black" if video.frames.max() < BLACK else "a single frame" if one else "the picture never changes"
            found.append(Finding(WARNING, "constant videos", what, advice, [listed[index]], [listed[index]]))
    return found


def copy_findings(
    listed: Sequence[Listed],
    videos: Mapping[int, SmallVideo],
    class_names: Sequence[str],
    *,
    backend: str = "pyav",
    num_processes: int | None = None,
    show_progress: bool = False,
) -> list[Finding]:
    """Exact and near copies, one finding for those that belong together.

    Args:
        listed: all videos.
        videos: the readable ones by index, with `duplicates.NUM_FRAMES` frames.
        class_names: in label order.
        backend, num_processes, show_progress: of reading candidates again.
    """
    parts = {index: (listed[index].record.start_sec, listed[index].record.end_sec) for index in videos}
    exact = duplicates.exact_copies(videos, parts)
    others = {other for _, other in exact}
    candidates = duplicates.find_candidates({index: video for index, video in videos.items() if index not in others})
    again = sorted({index for pair in candidates for index in pair})
    reading = {"backend": backend, "num_processes": num_processes, "show_progress": show_progress}
    records, number = [listed[index].record for index in again], duplicates.NUM_FRAMES_CLOSER
    read = read_small_videos(records, num_frames=number, title="candidates of copies", **reading)  # type: ignore[arg-type]
    closer = {index: video for index, video in zip(again, read, strict=True) if isinstance(video, SmallVideo)}
    likeness = dict.fromkeys(exact, 1.0)
    for shorter, longer in candidates:
        if shorter in closer and longer in closer:
            share = duplicates.similarity(closer[shorter], closer[longer])
            if share >= duplicates.SIMILAR:
                likeness[shorter, longer] = share
    found = []
    for group in duplicates.groups(likeness):
        within = {pair: share for pair, share in likeness.items() if {*pair} <= {*group}}
        members = sorted(group, key=lambda index: (_rank(listed[index]), videos[index].duration_sec, -index))
        kind = "exact copies" if {*within} <= {*exact} else "near copies"
        found.append(_copied([listed[index] for index in members], kind, min(within.values()), class_names))
    return found


def _rank(each: Listed) -> int:
    return _KEPT_LAST.index(each.split) if each.split in _KEPT_LAST else 0


def _copied(members: Sequence[Listed], kind: str, likeness: float, names: Sequence[str]) -> Finding:
    """The finding of copies, of which the last one is kept."""
    labels = {each.record.label: None for each in members}
    splits = {each.split: None for each in members}
    what = f"{len(members)} videos"
    if kind == "near copies":
        what += f", likeness {likeness:.2f}"
    if len(labels) > 1:
        shown = " and ".join(_name(label, names) for label in labels)
        advice = "Look at them: correct the label that is wrong, and keep one of each."
        return Finding(ERROR, f"{kind}, different labels", f"{what}: {shown}", advice, members, (), {}, likeness)
    if len(splits) > 1:
        advice = "Keep one of each, that of the list that is tested: the score is else not that of new videos."
        check, severity = f"{kind} in two lists", ERROR
    else:
        advice, check, severity = "Keep one of each.", kind, WARNING
    return Finding(severity, check, what, advice, members, members[:-1], {}, likeness)


def _name(label: int | tuple[int, ...], names: Sequence[str]) -> str:
    return "+".join(names[each] for each in (label if isinstance(label, tuple) else (label,)))


def length_findings(
    listed: Sequence[Listed], videos: Mapping[int, SmallVideo], spec: ClipSpec, *, num_clips: int | str
) -> list[Finding]:
    """Clips that show frames twice, or less than half of the typical video.

    Args:
        listed: all videos.
        videos: the readable ones by index.
        spec: of the clips.
        num_clips: of a video in a test, or "auto".
    """
    report, sampler = DataReport(len(listed)), spec.frame_sampler()
    for index, video in videos.items():
        record = listed[index].record
        report.add(record, video.info, sample_record(record, video.info, sampler, numpy_generator(index)))
    if not report.durations_sec:
        return []
    rate, settings = spec.sampling_rate, {"DATA.SAMPLING_RATE": "auto"}
    target_fps = 1.0 if rate == "auto" else spec.target_fps
    advice = "See the timing with: timesformer preview"
    if line := span_advice(report, sampling_rate=rate, target_fps=target_fps, num_frames=spec.num_frames):
        return [Finding(WARNING, "clips that repeat frames", line, advice, settings={} if rate == "auto" else settings)]
    if rate == "auto" or num_clips == "auto":
        return []
    span = clip_span_sec(spec.num_frames, float(rate), target_fps)
    median = float(np.median(report.durations_sec))
    if span * int(num_clips) >= SHOWN_SHARE * median:
        return []
    what = (
        f"a clip shows {span:.1f} s and a test {num_clips} of them, of a median video of {median:.1f} s: what tells "
        "the classes apart may lie outside. With DATA.SAMPLING_RATE auto each clip spans the whole video"
    )
    return [Finding(WARNING, "clips that miss most of the video", what, advice, settings=settings)]

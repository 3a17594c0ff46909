"""How many videos of each class, and how many subjects, the lists of a run have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from timesformer.datasets.records import VideoList, class_counts

MOST_CLASSES = 30  # that are listed one by one; of more, the smallest and the largest
NUM_EXTREMES = 5  # smallest classes, and as many of the largest


def count_table(lists: Mapping[str, VideoList], num_classes: int) -> str:
    """Classes in rows, lists in columns, videos in cells; then the sums and, where they are known, the subjects.

    Lists of the same videos share a column.

    Args:
        lists: by the name of the split.
        num_classes: of the model.
    """
    columns: dict[str, VideoList] = {}
    for split, videos in lists.items():
        same = next((name for name, other in columns.items() if other.records == videos.records), None)
        columns[f"{same} = {split}" if same else split] = columns.pop(same) if same else videos
    counted = [class_counts(videos.records) for videos in columns.values()]
    counts = np.array([[count[label] for count in counted] for label in range(num_classes)])  # (K, lists)
    names = next((videos.class_names for videos in lists.values() if videos.class_names), [])
    rows: list[tuple[str, Sequence[object]]] = [("videos of a class", [*columns])]
    for label in _shown(counts):
        if label is None:
            rows.append(("...", [""] * len(columns)))
        else:
            rows.append((names[label] if label < len(names) else f"class {label}", counts[label]))
    for statistic in ("min", "median", "max"):
        rows.append((statistic, [f"{value:g}" for value in getattr(np, statistic)(counts, axis=0)]))
    rows.append(("all videos", [len(videos.records) for videos in columns.values()]))
    subjects = [len({record.subject for record in videos.records} - {""}) for videos in columns.values()]
    if any(subjects):
        rows.append(("subjects", subjects))
    first = max(len(name) for name, _ in rows)
    widths = [max(6, len(name)) for name in columns]
    return "\n".join(
        f"{name:{first}}" + "".join(f"  {cell!s:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for name, cells in rows
    )


def _shown(counts: np.ndarray) -> list[int | None]:
    """The labels to list, None for those left out: all, or the smallest and the largest by the videos of all lists."""
    if len(counts) <= MOST_CLASSES:
        return [*range(len(counts))]
    order = np.argsort(counts.sum(axis=1), kind="stable").tolist()
    return [*order[:NUM_EXTREMES], None, *order[-NUM_EXTREMES:]]

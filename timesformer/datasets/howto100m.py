"""HowTo100M, long-term task classification (TimeSformer paper, section 4.6): long videos or parts of them."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from functools import cache

from timesformer.datasets.kinetics import Kinetics
from timesformer.datasets.list_files import SEPARATORS, Row, base_folder, build_records, read_lines
from timesformer.datasets.records import VIDEO_EXTENSIONS, VideoList, videos_by_stem
from timesformer.utils.errors import DataListError
from timesformer.utils.registry import DATASETS

# What a column may be called, most telling name first.
COLUMNS = {
    "path": ("path", "video_path", "file", "video", "video_id", "vid", "id"),
    "label": ("label", "task_id", "task", "class", "category"),
    "start": ("start", "start_sec", "start_time"),
    "end": ("end", "end_sec", "end_time"),
}


@DATASETS.register("howto100m")
class HowTo100M(Kinetics):
    """Lists with a header of columns known by name (see COLUMNS), or plain lists like those of Kinetics.

    A video id without extension stands for the video file of that name. Start and end are in seconds.
    """

    def read(self, path: str, names: list[str]) -> VideoList:
        """The records of the list file `path`; `names` are the class names (such as task ids)."""
        lines = read_lines(path)
        header = lines[0][1]
        separator = max(SEPARATORS, key=header.count)
        columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=separator))]
        place = {
            what: next((columns.index(name) for name in allowed if name in columns), None)
            for what, allowed in COLUMNS.items()
        }
        if place["path"] is None and place["label"] is None:
            return super().read(path, names)
        for what in ("path", "label"):
            if place[what] is None:
                raise DataListError(
                    f"{path}:{lines[0][0]}: no column for the {what} among {', '.join(columns)}. "
                    f"Call it one of: {', '.join(COLUMNS[what])}"
                )
        rows, problems = [], []
        for number, line in lines[1:]:
            fields = next(csv.reader([line], delimiter=separator))
            text = {what: fields[i].strip() for what, i in place.items() if i is not None and i < len(fields)}
            try:
                if len(fields) != len(columns):
                    raise ValueError(f"{len(fields)} fields where the header has {len(columns)}")
                start, end = float(text.get("start") or 0), float(text.get("end") or 0)
                if start < 0 or (end and end <= start):
                    raise ValueError(f"from {start} to {end} seconds is no part of a video")
                rows.append(Row(number, text["path"], text["label"], start, end))
            except ValueError as error:
                problems.append(f"{os.path.basename(path)}:{number}: {error}: {line[:80]!r}")
        videos = cache(videos_by_stem)

        def join(base: str, name: str) -> str:
            """The path to open: a video id stands for the video file of that name."""
            full = os.path.join(base, name)
            if name.lower().endswith(VIDEO_EXTENSIONS) or os.path.isdir(full):
                return full
            return videos(os.path.dirname(full)).get(os.path.basename(full), f"{full}.mp4")

        paths = [row.path for row in rows]
        base, told = base_folder(paths, list_path=path, prefix=self.prefix, roots=[self.data_dir], join=join)
        found = build_records(
            [replace(row, path=join(base, row.path)) for row in rows],
            list_path=path,
            num_classes=self.num_classes,
            multi_label=self.multi_label,
            label_names=self.label_names(names),
            problems=problems,
        )
        return replace(found, warnings=told + found.warnings)

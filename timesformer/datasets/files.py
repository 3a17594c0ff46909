"""Files and folders as people have them: videos, picture series, system files, links; and what is left out, counted."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

VIDEO_EXTENSIONS = (
    *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"),
    *(
        ".3gp",
        ".3g2",
        ".asf",
        ".divx",
        ".dv",
        ".f4v",
        ".m2ts",
        ".m2v",
        ".mjpeg",
        ".mpe",
        ".mts",
        ".mxf",
        ".ogm",
        ".ogv",
    ),
    *(".qt", ".vob", ".y4m"),
)
PICTURE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# What archives, file managers and network storage leave in folders, besides hidden files.
SYSTEM_NAMES = {
    *("__macosx", "thumbs.db", "desktop.ini", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
    *("$recycle.bin", "system volume information", "lost+found", "__pycache__"),
}
# Of pictures that no camera recorded, and of single ones that stand for a whole folder.
DERIVED = re.compile(r"(?<![a-z])(flow|depth|mask|seg|pose|skeleton|heatmap|thermal|ir)(?![a-z])", re.IGNORECASE)
COVERS = {"cover", "folder", "poster", "preview", "thumb", "thumbnail"}


class LeftOut:
    """What a scan does not use: counted by reason, with the first names."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, *names: str) -> None:
        """Count `names` under `reason`, a noun in the plural."""
        self._names[reason].extend(names)

    def lines(self, where: str) -> list[str]:
        """One line per reason."""
        lines = []
        for reason, names in self._names.items():
            counts = Counter(names)
            shown = [f"{name} ({count})" if count > 1 else name for name, count in counts.most_common(5)]
            more = ", ..." if len(counts) > 5 else ""
            lines += [f"{where}: left out: {len(names)} {reason}: {', '.join(shown)}{more}"] if names else []
        return lines


class RealPaths:
    """Paths to the paths of the files they stand for; each folder is resolved and listed only once."""

    def __init__(self) -> None:
        self._folders: dict[str, tuple[str, set[str]]] = {}  # as written -> real path, names of its links

    def __call__(self, path: str) -> str:
        """The real path of `path`, which need not exist."""
        folder, name = os.path.split(path.rstrip("/"))
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        if folder not in self._folders:
            links: set[str] = set()
            with contextlib.suppress(OSError):
                links = {entry.name for entry in os.scandir(folder or ".") if entry.is_symlink()}
            self._folders[folder] = os.path.realpath(folder), links
        real, links = self._folders[folder]
        full = os.path.join(real, name)
        return os.path.realpath(full) if name in links else full


def natural_key(text: str) -> tuple[list[int | str], str]:
    """Sorting key that puts `frame_2` before `frame_10`."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split("([0-9]+)", text)], text


def is_system_file(path: str) -> bool:
    """Whether a system, not a person, made the file: `._000.mp4` of macOS, something in `__MACOSX`, `Thumbs.db`."""
    *folders, name = path.replace("\\", "/").split("/")
    return name.startswith("._") or not SYSTEM_NAMES.isdisjoint(map(str.lower, (*folders, name)))


def is_ignored(name: str) -> bool:
    """Whether a name in a folder is hidden, or that of a system file."""
    return name[0] == "." or name.lower() in SYSTEM_NAMES


def is_video(name: str) -> bool:
    """Whether a name ends as those of video files do."""
    return name.lower().endswith(VIDEO_EXTENSIONS)


def is_picture(name: str) -> bool:
    """Whether a name ends as those of pictures do."""
    return name.lower().endswith(PICTURE_EXTENSIONS)


def composed(name: str) -> str:
    """A name such that it is equal to itself when another system wrote it (Unicode's form C)."""
    return unicodedata.normalize("NFC", name)


def list_folder(folder: str) -> list[str]:
    """Sorted names in `folder` ("": the working folder); none if it does not exist."""
    return sorted(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else []


def sub_folders(folder: str) -> list[str]:
    """Names of the folders in `folder`, hidden ones and those of systems excluded, in natural order."""
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_ignored(entry.name))
    return sorted(names, key=natural_key)


def videos_by_stem(folder: str) -> dict[str, str]:
    """Path of each video file in `folder` by its name without extension."""
    videos = (name for name in list_folder(folder) if is_video(name) and not is_ignored(name))
    return {os.path.splitext(name)[0]: os.path.join(folder, name) for name in videos}


def walk(top: str, left_out: LeftOut) -> Iterator[tuple[str, list[str]]]:
    """Each real folder from `top` down, once, with its files; both in natural order, links followed."""

    def unreadable(error: OSError) -> None:
        left_out.add("folders that cannot be read", str(error.filename))

    seen = {os.path.realpath(top)}
    for parent, below, files in os.walk(top, followlinks=True, onerror=unreadable):
        kept = []
        for name in sorted(below, key=natural_key):
            if is_ignored(name):
                left_out.add("hidden or system folders", name)
            elif (real := os.path.realpath(os.path.join(parent, name))) in seen:
                left_out.add(
                    "links to folders that are listed already", os.path.relpath(os.path.join(parent, name), top)
                )
            else:
                seen.add(real)
                kept.append(name)
        below[:] = kept
        ignored = [name for name in files if is_ignored(name)]
        left_out.add("hidden or system files", *(name for name in ignored if is_video(name) or name[:2] == "._"))
        yield parent, sorted({*files} - {*ignored}, key=natural_key)


def list_pictures(folder: str, left_out: LeftOut | None = None) -> tuple[str, ...]:
    """Paths of the pictures of the one series in `folder`, hidden files excluded, in natural order.

    Raises:
        ValueError: there are several series, and their names do not say which one a camera recorded.
    """
    names = [n for n in os.listdir(folder) if is_picture(n) and not is_ignored(n)]
    names = [n for n in names if os.path.splitext(n)[0].lower() not in COVERS] or names
    series = picture_series(sorted(names, key=natural_key))
    if len(series) > 1:
        recorded = [pattern for pattern in series if not DERIVED.search(pattern)]
        if len(recorded) != 1:
            found = ", ".join(f"{pattern} ({len(pictures)})" for pattern, pictures in series.items())
            raise ValueError(f"{len(series)} picture series in one folder: {found}. Give each a folder of its own")
        series = {recorded[0]: series[recorded[0]]}
        if left_out is not None:
            left_out.add("pictures of other series", *sorted({*names} - {*series[recorded[0]]}, key=natural_key))
    return tuple(os.path.join(folder, name) for pictures in series.values() for name in pictures)


def picture_series(names: Sequence[str]) -> dict[str, list[str]]:
    """The pictures of each series by its pattern, such as `img_*.jpg`; all in one when no two are of one frame.

    Series are apart when they have frames of the same number (the last one in a name): `img_1.jpg flow_1.jpg`,
    `1.jpg 1.png`, or all of them: `cam1_1.jpg cam1_2.jpg cam2_1.jpg cam2_2.jpg`.
    """

    def frames_by(pattern: str) -> dict[str, dict[int, list[str]]]:
        """Series -> number of the frame -> names; for series of more than one."""
        found: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name in names:
            stem, extension = os.path.splitext(name)
            if numbers := re.findall(r"\d+", stem):
                found[re.sub(pattern, "*", stem) + extension.lower()][int(numbers[-1])].append(name)
        return {key: frames for key, frames in found.items() if sum(map(len, frames.values())) > 1}

    apart = frames_by(r"\d+")
    if not any(apart[a].keys() & apart[b].keys() for a, b in combinations(apart, 2)):
        apart = frames_by(r"\d+(?=\D*$)")
        if any(frames.keys() != apart[next(iter(apart))].keys() for frames in apart.values()):
            apart = {}
    if len(apart) < 2:
        return {"": [*names]}
    return {key: [name for group in frames.values() for name in group] for key, frames in apart.items()}

"""A folder to a manifest: nothing of the source is touched, and a second run keeps all that is there."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.datasets.media import write_video
from timesformer.curation.listing import Listing, list_clips
from timesformer.datasets.manifest import read_manifest
from timesformer.utils.errors import DataListError


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", num_frames=12, fps=12)


@pytest.fixture
def people(tmp_path: Path, video: Path) -> Path:
    """Six people, two classes, two clips each; and a file that is no video."""
    for name in (f"{c}/p{p}_{i}.mp4" for c in ("up", "down") for p in range(6) for i in range(2)):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(video, tmp_path / "clips" / name)
    (tmp_path / "clips/up/p0_9.mp4").write_bytes(b"no video")
    return tmp_path / "clips"


def listed(source: Path, **options: object) -> Listing:
    return list_clips(str(source), str(source.parent / "out"), **options)  # type: ignore[arg-type]


def content(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


def test_rows_facts_and_splits_by_people(people: Path) -> None:
    before = content(people)
    listing = listed(people)
    rows = read_manifest(str(people.parent / "out/videos.csv"))
    assert [row.path for row in rows] == [row.path for row in listing.rows] and len(rows) == 24
    assert rows[0].path == str(people / "down/p0_0.mp4")
    assert (rows[0].label, rows[0].subject, rows[0].duration, rows[0].frames, rows[0].size) == (
        *("down", "p0", 1.0, 12, "64x48"),
    )
    splits = {person: {row.split for row in rows if row.subject == person} for person in {row.subject for row in rows}}
    assert all(len(each) == 1 for each in splits.values())
    assert set().union(*splits.values()) == {"train", "val", "test"} and listing.grouped_by == "subject"
    assert [Path(path).name for path in listing.unreadable] == ["p0_9.mp4"]
    assert content(people) == before


def test_again_keeps_edits_and_adds_what_is_new(people: Path, video: Path) -> None:
    listed(people)
    manifest = people.parent / "out/videos.csv"
    split_of = {row.subject: row.split for row in read_manifest(str(manifest))}
    lines = manifest.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace(",down,", ",turn,").replace(f",{split_of['p0']},", ",,")
    edited = "".join(["# checked on Monday\n", *lines])
    manifest.write_text(edited)
    for name in ("up/p1_7.mp4", "up/p7_1.mp4", "turn/p2_1.mp4"):
        (people / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(video, people / name)
    again = listed(people)
    assert manifest.read_text().startswith(edited) and again.num_new == 3
    added = {Path(row.path).name: (row.label, row.subject, row.split) for row in again.rows[-3:]}
    assert added == {
        "p1_7.mp4": ("up", "p1", split_of["p1"]),
        "p7_1.mp4": ("up", "p7", "train"),
        "p2_1.mp4": ("turn", "p2", split_of["p2"]),
    }
    assert listed(people).num_new == 0 and len(read_manifest(str(manifest))) == 27


def test_copies_move_with_their_folder_and_an_interrupted_run_goes_on(people: Path) -> None:
    out = people.parent / "out"
    (out / "videos/up").mkdir(parents=True)
    write_video(out / "videos/up/p0_0.mp4", num_frames=3)  # of the interrupted run
    listing = listed(people, short_side=32)
    rows = {row.path: row for row in read_manifest(str(out / "videos.csv"))}
    assert len(rows) == 24 and rows["videos/up/p0_0.mp4"].frames == 3 and rows["videos/up/p0_1.mp4"].size == "42x32"
    assert len(listing.unreadable) == 1
    out.rename(people.parent / "moved")
    assert list_clips(str(people), str(people.parent / "moved"), short_side=32).num_new == 0
    with pytest.raises(DataListError, match=r"videos.csv lists copies: add --short-side, or name another folder"):
        list_clips(str(people), str(people.parent / "moved"))
    listed(people)
    with pytest.raises(DataListError, match=r"lists the videos themselves: leave --short-side out"):
        listed(people, short_side=32)


def test_the_split_does_not_depend_on_where_the_folder_is(people: Path, tmp_path: Path) -> None:
    shutil.copytree(people, tmp_path / "elsewhere/x")
    here, there = listed(people, subject=""), listed(tmp_path / "elsewhere/x", subject="")
    assert [row.split for row in here.rows] == [row.split for row in there.rows]
    assert Counter(row.split for row in here.rows)["test"] >= 4


def test_the_output_lies_elsewhere_and_something_can_be_read(people: Path) -> None:
    with pytest.raises(DataListError, match="lies in .*where nothing is changed: name a folder elsewhere"):
        list_clips(str(people), str(people / "prepared"))
    for path in people.rglob("*.mp4"):
        path.write_bytes(b"no video")
    with pytest.raises(DataListError, match="none of its 25 videos can be read: .*mp4: "):
        listed(people)

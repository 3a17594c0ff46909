"""Something-Something v2: annotations, frame lists and video files joined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timesformer.config.defaults import get_cfg
from timesformer.datasets.ssv2 import NumberedFrames, Ssv2, compact
from timesformer.utils.errors import DataListError

HEADER = "original_vido_id video_id frame_id path labels\n"
LABELS = {"Dropping something": "1", "Holding something next to something": "0", "Lifting, so it falls": "2"}
TRAIN = [
    {"id": "74", "label": "dropping a pen", "template": "Dropping [something]"},
    {"id": "9", "label": "holding", "template": "Holding [something] next to [something]"},
    {"id": "100", "label": "lifting", "template": "Lifting, so it falls"},
]


@pytest.fixture
def ssv2(tmp_path: Path) -> Path:
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(LABELS))
    (tmp_path / "something-something-v2-train.json").write_text(json.dumps(TRAIN))
    lines = [f'74 0 {i} 74/74_{i + 1:06d}.jpg ""\n' for i in range(12)]
    lines += [f'9 1 {i} 9/{name}.jpg ""\n' for i, name in ((1, "b"), (0, "a"))]
    lines += ['5 2 0 5/5_000001.jpg ""\n']
    (tmp_path / "train.csv").write_text(HEADER + "".join(lines))
    return tmp_path


def test_frames_in_order_with_labels_through_the_config(ssv2: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["DATA.PATH_TO_DATA_DIR", str(ssv2), "DATA.PATH_PREFIX", "/frames", "MODEL.NUM_CLASSES", 3])
    found = Ssv2.from_config(cfg, "train").load()
    assert found.class_names == [
        "Holding something next to something",
        "Dropping something",
        "Lifting, so it falls",
    ]
    first, second = found.records
    assert (first.path, first.label, first.source) == ("/frames/74", 1, "train.csv:2")
    assert [*first.frames] == [f"/frames/74/74_{i:06d}.jpg" for i in range(1, 13)]
    assert (second.label, [*second.frames]) == (0, ["/frames/9/a.jpg", "/frames/9/b.jpg"])


def test_videos_in_one_file_but_not_the_other_are_reported(ssv2: Path) -> None:
    warnings = Ssv2(data_dir=str(ssv2), split="train", num_classes=3, prefix="/frames").load().warnings
    assert any(line.startswith("1 videos of ") and "have no frames" in line and "ids 100" in line for line in warnings)
    assert any("have no label" in line and "ids 5" in line for line in warnings)


def test_newer_file_names_and_video_files(ssv2: Path) -> None:
    (ssv2 / "labels").mkdir()
    (ssv2 / "something-something-v2-labels.json").rename(ssv2 / "labels" / "labels.json")
    (ssv2 / "something-something-v2-train.json").rename(ssv2 / "labels" / "train.json")
    videos = ssv2 / "20bn-something-something-v2"
    videos.mkdir()
    for name in ("74.webm", "9.mp4"):
        (videos / name).touch()
    found = Ssv2(data_dir=str(ssv2), split="train", num_classes=3, input="videos").load()
    assert [Path(r.path).name for r in found.records] == ["74.webm", "9.mp4", "100.webm"]
    assert [r.label for r in found.records] == [1, 0, 2]


def test_without_test_labels_the_validation_split_is_named(ssv2: Path) -> None:
    (ssv2 / "something-something-v2-test.json").write_text('[{"id": "1"}]')
    with pytest.raises(DataListError) as caught:
        Ssv2(data_dir=str(ssv2), split="test", num_classes=3).load()
    assert "TEST.SPLIT val" in str(caught.value) and "something-something-v2-train.json" in str(caught.value)


def test_test_answers_are_used_where_there_are_any(ssv2: Path) -> None:
    (ssv2 / "test-answers.csv").write_text("12;Lifting, so it falls\n13;Dropping something\n")
    found = Ssv2(data_dir=str(ssv2), split="test", num_classes=3, input="videos", prefix="/videos").load()
    assert [(r.path, r.label) for r in found.records] == [("/videos/12.webm", 2), ("/videos/13.webm", 1)]


def test_problems_are_reported(ssv2: Path) -> None:
    with pytest.raises(DataListError, match=r"3 classes, but MODEL.NUM_CLASSES is 174. Add: MODEL.NUM_CLASSES 3"):
        Ssv2(data_dir=str(ssv2), split="train").load()
    with (ssv2 / "train.csv").open("a") as file:
        file.write('100 3 0\n100 3 x 100/1.jpg ""\n')
    with pytest.raises(DataListError, match=r"train.csv:17: 3 fields where the header has 5: '100 3 0'") as caught:
        Ssv2(data_dir=str(ssv2), split="train", num_classes=3).load()
    assert "train.csv:18: frame_id 'x' is not a whole number: '100 3 x 100/1.jpg" in str(caught.value)
    (ssv2 / "train.csv").write_text("74/1.jpg 3\n")
    with pytest.raises(DataListError, match="original_vido_id video_id frame_id path labels"):
        Ssv2(data_dir=str(ssv2), split="train", num_classes=3).load()
    (ssv2 / "train.csv").unlink()
    with pytest.raises(DataListError, match=r"SSV2\.INPUT videos"):
        Ssv2(data_dir=str(ssv2), split="train", num_classes=3).load()
    (ssv2 / "something-something-v2-train.json").write_text('[{"id": "74", "template": "Juggling [something]"}]')
    with pytest.raises(DataListError, match="id 74: no label 'Juggling something'"):
        Ssv2(data_dir=str(ssv2), split="train", num_classes=3).load()


def test_numbered_frames_are_a_sequence_of_the_same_paths() -> None:
    paths = [f"5/img{i:02d}.jpg" for i in range(8, 12)]
    frames = compact(paths)
    assert isinstance(frames, NumberedFrames)
    assert (len(frames), frames[-1], [*frames], frames[1:3]) == (4, paths[-1], paths, tuple(paths[1:3]))
    assert compact(["5/1.jpg", "5/3.jpg"]) == ("5/1.jpg", "5/3.jpg")
    with pytest.raises(IndexError):
        frames[4]

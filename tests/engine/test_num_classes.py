"""MODEL.NUM_CLASSES auto: the number is found once, where lists are loaded, and everything that follows has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from timesformer.config import load_config
from timesformer.config.load import LoadedConfig
from timesformer.datasets.build import load_list
from timesformer.engine.checkpoint import newest_checkpoint, read_checkpoint
from timesformer.engine.setup import load_run_config
from timesformer.models.build import build_model
from timesformer.utils.errors import ConfigError


def loaded(folder: Path, dataset: str, *words: object) -> LoadedConfig:
    where = ("DATA.PATH_TO_DATA_DIR", folder, "TRAIN.DATASET", dataset, "TEST.DATASET", dataset)
    return load_config(None, [*map(str, (*where, "MODEL.NUM_CLASSES", "auto", *words))])


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def lists(folder: Path, **labels: str) -> None:
    """A list per split; each word is the label of a video."""
    for split, words in labels.items():
        names = [f"{split}{i}.mp4" for i in range(len(words.split()))]
        touch(folder, *names)
        pairs = zip(names, words.split(), strict=True)
        (folder / f"{split}.csv").write_text("".join(f"{name} {label}\n" for name, label in pairs))


@pytest.mark.parametrize("layout", ["{}/{}{}.mp4", "train/{}/{}{}.mp4"])
def test_folders_that_hold_videos_are_classes(tmp_path: Path, layout: str) -> None:
    touch(tmp_path, *(layout.format(name, name, i) for name in ("wave", "clap", "point") for i in range(9)))
    touch(tmp_path, "val/wave/v.mp4" if layout.startswith("train") else "notes/readme.txt")
    cfg = loaded(tmp_path, "folder").cfg
    videos = load_list(cfg, "train")
    assert cfg.MODEL.NUM_CLASSES == 3 and videos.class_names == ["clap", "point", "wave"]
    assert cfg.is_frozen() and yaml.safe_load(cfg.dump())["MODEL"]["NUM_CLASSES"] == 3


def test_lists_have_the_largest_label_of_training(tmp_path: Path) -> None:
    lists(tmp_path, train="0 4 1", val="1 0", test="6")
    cfg = loaded(tmp_path, "kinetics").cfg
    assert len(load_list(cfg, "val").records) == 2 and cfg.MODEL.NUM_CLASSES == 5
    with pytest.raises(Exception, match=r"out of range 0\.\.4"):
        load_list(cfg, "test")
    tested = loaded(tmp_path, "kinetics", "TRAIN.ENABLE", False).cfg
    assert load_list(tested, "test") and tested.MODEL.NUM_CLASSES == 7
    lists(tmp_path, train="0,3 2", val="0")
    several = loaded(tmp_path, "kinetics", "DATA.MULTI_LABEL", True, "MODEL.LOSS_FUNC", "bce_logit").cfg
    assert load_list(several, "train").records[0].label == (0, 3) and several.MODEL.NUM_CLASSES == 4
    with pytest.raises(Exception, match="label -1 is out of range"):
        lists(tmp_path, train="0 -1", val="0")
        load_list(loaded(tmp_path, "kinetics").cfg, "train")


def test_class_names_count(tmp_path: Path) -> None:
    lists(tmp_path, train="wave clap", val="clap")
    (tmp_path / "names.txt").write_text("clap\npoint\nwave\n")
    cfg = loaded(tmp_path, "kinetics", "DATA.CLASS_NAMES_PATH", tmp_path / "names.txt").cfg
    assert [record.label for record in load_list(cfg, "train").records] == [2, 0] and cfg.MODEL.NUM_CLASSES == 3
    touch(tmp_path, "videos/a.mp4")
    folder = loaded(tmp_path, "folder", "DATA.CLASS_NAMES_PATH", tmp_path / "names.txt").cfg
    assert load_list(folder, "train") and folder.MODEL.NUM_CLASSES == 3


@pytest.mark.parametrize(
    ("dataset", "words", "number"),
    [("gestures_wide", [], 99), ("muwiges", [], 12), ("gestures", ["GESTURES.IDLE", 1], 13)],
)
def test_datasets_of_known_classes(tmp_path: Path, dataset: str, words: list[object], number: int) -> None:
    lists(tmp_path, train="0 4 1", val="1 0")
    if dataset == "gestures":
        words = [*words, "GESTURES.NUM_SUBJECTS", "[1,1,1]", "GESTURES.FRAME_SIZE", 16]
        tmp_path = tmp_path / "rendered"
    cfg = loaded(tmp_path, dataset, *words).cfg
    assert load_list(cfg, "train") and cfg.MODEL.NUM_CLASSES == number


def test_a_setting_that_contradicts_the_number_is_refused(tmp_path: Path) -> None:
    lists(tmp_path, train="0 1", val="1")
    cfg = loaded(tmp_path, "kinetics", "DATA.FLIP_LABEL_MAP", "[[2,3]]", "DATA.RANDOM_FLIP", True).cfg
    with pytest.raises(ConfigError, match=r"must be below MODEL.NUM_CLASSES 2\. Type MODEL.NUM_CLASSES 4"):
        load_list(cfg, "train")


def test_without_lists_a_number_is_asked_for() -> None:
    cfg = load_run_config("Own/gestures_cpu").cfg
    assert cfg.MODEL.NUM_CLASSES == "auto"
    with pytest.raises(ConfigError, match="For example MODEL.NUM_CLASSES 10"):
        build_model(cfg)


def test_a_run_saves_the_number(tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    words = ("MODEL.NUM_CLASSES", "auto", "SOLVER.MAX_EPOCH", 1)
    assert (
        run(tmp_path, *words, options=("--check",)) == 0 and "MODEL.NUM_CLASSES auto is 12" in capsys.readouterr().out
    )
    assert run(tmp_path, *words) == 0
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["MODEL"]["NUM_CLASSES"] == 12
    content = read_checkpoint(newest_checkpoint(tmp_path) or "")
    assert "NUM_CLASSES: 12" in content["cfg"]

"""The configuration for clips and a machine: which recipe, and what it needs for these videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from timesformer.config import load_config
from timesformer.config.locate import bundled_configs
from timesformer.curation.recipe import IMAGES, K400, SCRATCH, SMALL, Machine, choose_base, make_settings, render
from timesformer.datasets.manifest import ManifestRow

GPU = {"gpu_gb": 16.0, "cache_gb": 64.0}


def rows(num: int = 100, *, splits: tuple[str, ...] = ("train", "val", "test"), **facts: Any) -> list[ManifestRow]:
    facts = {"duration": 3.0, "fps": 30.0, "frames": 90, "size": "320x240", **facts}
    return [ManifestRow(path=f"{i}.mp4", label="ab"[i % 2], split=splits[i % len(splits)], **facts) for i in range(num)]


@pytest.mark.parametrize(
    ("machine", "num_train", "base"),
    [
        (Machine(), 100, SMALL),
        (Machine(k400_weights="w.pyth", image_weights=True), 100, SMALL),  # no GPU
        (Machine(gpu_gb=8.0, k400_weights="w.pyth"), 100, SMALL),
        (Machine(**GPU, k400_weights="w.pyth", image_weights=True), 100, K400),
        (Machine(**GPU, image_weights=True), 100, IMAGES),
        (Machine(**GPU), 5000, SCRATCH),
        (Machine(**GPU), 100, SMALL),
    ],
)
def test_the_recipe_of_a_machine(machine: Machine, num_train: int, base: str) -> None:
    assert choose_base(machine, num_train)[0] == base


def settings(base: str, videos: list[ManifestRow], machine: Machine | None = None) -> dict[str, Any]:
    found = make_settings(base, videos, machine or Machine(cache_gb=64.0), "/data/out")
    return {name: value for name, (value, _) in found.items()}


@pytest.mark.parametrize("base", [SMALL, K400, IMAGES, SCRATCH])
def test_every_recipe_gives_a_file_that_loads(base: str, tmp_path: Path) -> None:
    found = make_settings(base, rows(), Machine(**GPU, k400_weights="/w: x.pyth"), str(tmp_path / "a: #b"))
    (tmp_path / "config.yaml").write_text(render(base, "a reason: such as this", found, rows()))
    cfg = load_config(tmp_path / "config.yaml").cfg
    assert (cfg.TRAIN.DATASET, cfg.TEST.DATASET, cfg.MODEL.NUM_CLASSES) == ("manifest", "manifest", "auto")
    assert cfg.DATA.PATH_TO_DATA_DIR == str(tmp_path / "a: #b") and cfg.DATA.CROP_MODE == "full"
    assert cfg.TRAIN.CHECKPOINT_FILE_PATH == ("/w: x.pyth" if base == K400 else "")
    assert cfg.MODEL.MODEL_NAME == load_config(base).cfg.MODEL.MODEL_NAME


def test_there_is_a_recipe_for_every_situation() -> None:
    present = {f"Own/{path.stem}" for path in (bundled_configs() / "Own").glob("*.yaml")}
    assert present == {SMALL, K400, IMAGES, SCRATCH}


def test_short_videos_are_seen_whole_and_long_ones_in_parts() -> None:
    assert settings(SMALL, rows())["DATA.SAMPLING_RATE"] == "auto"
    long = settings(K400, rows(duration=45.0, frames=1350))
    assert long["DATA.SAMPLING_RATE"] * 16 / 30.0 == pytest.approx(10, abs=0.3)
    assert long["TEST.NUM_ENSEMBLE_VIEWS"] == 5


def test_videos_of_few_frames() -> None:
    assert "DATA.DIFFERENCE_FRAMES" not in settings(SMALL, rows(frames=33))
    assert settings(SMALL, rows(frames=32))["DATA.DIFFERENCE_FRAMES"] == 3
    assert settings(K400, rows(frames=12))["DATA.NUM_FRAMES"] == 8
    assert "DATA.NUM_FRAMES" not in settings(K400, [*rows(frames=90), *rows(5, frames=3)])  # few of them


def test_upright_videos_exchange_height_and_width() -> None:
    upright = settings(SMALL, rows(size="240x320"))
    assert upright["DATA.TRAIN_CROP_SIZE"] == upright["DATA.TEST_CROP_SIZE"] == [80, 64]
    assert "DATA.TRAIN_CROP_SIZE" not in settings(SMALL, rows()) | settings(K400, rows(size="240x320"))


@pytest.mark.parametrize(("num_train", "batch"), [(200, None), (64, None), (63, 8), (20, 4), (3, 1)])
def test_an_epoch_has_at_least_four_steps_where_that_is_possible(num_train: int, batch: int | None) -> None:
    found = settings(SMALL, rows(num_train, splits=("train",)))
    assert found.get("GLOBAL_BATCH_SIZE") == found.get("TRAIN.BATCH_SIZE") == batch
    assert batch is None or num_train < 4 or num_train // batch >= 4
    assert settings(K400, rows(60, splits=("train",)))["GLOBAL_BATCH_SIZE"] == 8
    assert "TRAIN.BATCH_SIZE" not in settings(K400, rows(60, splits=("train",)))  # 4 already


def test_no_test_list_and_no_room_for_a_cache() -> None:
    assert settings(SMALL, rows(splits=("train", "val")))["TEST.SPLIT"] == "val"
    assert "TEST.SPLIT" not in settings(SMALL, rows())
    assert "DATA_LOADER.CACHE" not in settings(SMALL, rows())
    assert settings(SMALL, rows(), Machine(cache_gb=0.1))["DATA_LOADER.CACHE"] == "none"
    assert settings(SMALL, rows(2000, frames=1000))["DATA_LOADER.CACHE"] == "none"  # more than CACHE_GB


def test_the_image_recipe_has_the_pixel_range_of_its_weights() -> None:
    import timm

    cfg = load_config(IMAGES).cfg
    weights = timm.get_pretrained_cfg(cfg.MODEL.WEIGHTS.removeprefix("timm:"))
    assert (tuple(cfg.DATA.MEAN), tuple(cfg.DATA.STD)) == (weights.mean, weights.std)

"""docs/weights.md, "Fine-tune from a K400 checkpoint": its commands, with a small file in place of the download."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from tests.datasets.media import write_video
from timesformer.cli import convert, train
from timesformer.models.vit import TimeSformer

ROOT = Path(__file__).parents[1]
SMALL = {"embed_dim": 24, "depth": 4, "num_heads": 2}
SMALL_KEYS = "TIMESFORMER.EMBED_DIM 24 TIMESFORMER.DEPTH 4 TIMESFORMER.NUM_HEADS 2 NUM_GPUS 0 DATA_LOADER.NUM_WORKERS 0"
SHORT = "SOLVER.MAX_EPOCH 2"


def commands() -> list[list[str]]:
    """The shell commands of the section, as words."""
    text = (ROOT / "docs/weights.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


def test_the_section_works_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine_tune, convert_words = commands()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    for name in ("grab", "pinch", "point", "swipe", "wave"):
        for i in range(5):
            (tmp_path / "clips" / name).mkdir(parents=True, exist_ok=True)
            write_video(tmp_path / "clips" / name / f"{i}.mp4", num_frames=20 + i)
    released = TimeSformer(img_size=224, num_classes=400, num_frames=8, **SMALL)
    (tmp_path / "weights").mkdir()
    content = {"model_state": released.state_dict(), "epoch": 14, "cfg": "TRAIN:\n  DATASET: kinetics\n"}
    torch.save(content, tmp_path / "weights/TimeSformer_divST_8x32_224_K400.pyth")

    assert fine_tune[:2] == ["timesformer", "train"]
    assert train.main([*fine_tune[2:], *SMALL_KEYS.split(), *SHORT.split()]) == 0
    printed = capsys.readouterr().out
    assert "fine-tuning: a new run from the weights of weights/TimeSformer_divST_8x32_224_K400.pyth" in printed
    assert "100% of the backbone)" in printed and "time_embed 8 -> 16 frames (linear)" in printed
    assert "400 classes in the weights, 5 in the model" in printed
    assert "was trained with" not in printed and "set but not used" not in printed
    assert "top1" in json.loads(Path("output/MuWiGes/TimeSformer_finetune_K400/results.json").read_text())

    assert convert_words[:2] == ["timesformer", "convert"]
    assert convert.main(convert_words[2:]) == 0
    from transformers import TimesformerForVideoClassification

    there = TimesformerForVideoClassification.from_pretrained("my_model")
    assert there.config.id2label[4] == "wave"

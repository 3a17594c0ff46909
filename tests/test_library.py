"""What `import timesformer` offers, and that it is light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import timesformer
from timesformer.models import build_model
from timesformer.utils.errors import ConfigError

ROOT = Path(__file__).parents[1]


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = "import sys, timesformer; assert 'load' in dir(timesformer); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "numpy", "fvcore", "cv2", "av"} & set(done.stdout.split())


def test_everything_exported_is_there() -> None:
    for name in timesformer.__all__:
        assert getattr(timesformer, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        timesformer.lod  # noqa: B018


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("TimeSformer", {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}),
        ("LightTimeSformer", {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}),
        ("r3d_18", {}),
    ],
)
def test_models_by_name(name: str, arguments: dict[str, int]) -> None:
    assert name in timesformer.list_models()
    model = timesformer.create_model(name, num_classes=5, num_frames=4, img_size=32, **arguments).eval()
    assert model.input_shape == (3, 4, 32, 32)
    assert model(torch.zeros(1, *model.input_shape)).shape == (1, 5)


def test_an_unknown_model_names_similar_ones() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'TimeSformer'"):
        timesformer.create_model("Timesformer")


def test_a_model_from_a_configuration() -> None:
    cfg = timesformer.load_config(str(ROOT / "configs/Gestures/LightTimeSformer_demo.yaml")).cfg
    assert build_model(cfg).input_shape == (3, 8, 32, 32)
    assert timesformer.get_cfg().MODEL.MODEL_NAME == "TimeSformer"

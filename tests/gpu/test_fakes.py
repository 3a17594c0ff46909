"""On a simulated GPU no operation mixes devices or waits for a copy: every scheme, precision and recomputation."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu.fakes import CLIP, fake_gpu, model_of, use_form
from timesformer.models import baselines, gpu_kernels  # noqa: F401 (the first registers its models)
from timesformer.models.gpu_kernels import FORMS, pointwise
from timesformer.models.vit import ATTENTION_TYPES, RECOMPUTE
from timesformer.utils.compute import autocast
from timesformer.utils.registry import MODELS
from timesformer.video.clip_spec import ClipSpec

ROOT = Path(__file__).parents[2]
CUDA = torch.device("cuda", 0)


PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def forward(scheme: str, precision: str, recompute: str = "none", form: str = "fused", training: bool = True) -> None:
    """A pass on the simulated GPU."""
    dtype = PRECISIONS[precision]
    with fake_gpu():
        use_form(form, str(dtype or torch.float32).removeprefix("torch."))
        model = model_of(scheme, CUDA, recompute=recompute).train(training)
        spec = ClipSpec(num_frames=4, sampling_rate=1, size=(48, 48))
        with autocast(CUDA, dtype), contextlib.nullcontext() if training else torch.no_grad():
            logits = model(spec.normalize(torch.zeros(2, *CLIP, dtype=torch.uint8, device=CUDA)))
        assert (logits.device, logits.shape, logits.dtype) == (CUDA, (2, 5), dtype or torch.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scheme", ATTENTION_TYPES)
def test_forward_passes(scheme: str, precision: str) -> None:
    for recompute in RECOMPUTE:
        forward(scheme, precision, recompute=recompute)
    forward(scheme, precision, training=False)


@pytest.mark.parametrize("form", FORMS)
def test_forward_passes_with_every_form_of_attention(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(gpu_kernels, "_compile", lambda: pointwise)
    for scheme in ATTENTION_TYPES:
        forward(scheme, "bf16", form=form)


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18"])
def test_convolutional_baselines_get_channels_last(name: str) -> None:
    """The order in which cuDNN multiplies in half precision."""
    last: list[bool] = []
    with fake_gpu():
        with CUDA:
            model = MODELS.get(name)(num_classes=5, num_frames=16, img_size=64).eval()
        convolution = next(module for module in model.modules() if isinstance(module, torch.nn.Conv3d))
        convolution.register_forward_pre_hook(
            lambda module, inputs: last.append(inputs[0].is_contiguous(memory_format=torch.channels_last_3d))
        )
        with torch.no_grad():
            assert model(torch.zeros(2, 3, 16, 64, 64, device=CUDA)).shape == (2, 5)
    assert last == [True]


def test_what_would_wait_is_found() -> None:
    with fake_gpu():
        for work in (lambda x: x.cpu(), lambda x: x + torch.ones(2, device="cpu"), lambda x: x.sum().item()):
            with pytest.raises(Exception, match="between cpu and cuda|same device|_local_scalar_dense"):
                work(torch.ones(2, device=CUDA))


def test_training_steps_with_their_backward_passes() -> None:
    pytest.importorskip("torch.utils.backend_registration")
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no devices in Python")
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, ROOT / "tests/gpu/fakes.py"], capture_output=True, text=True, env=environ, cwd=ROOT
    )
    assert done.stdout == "36 trainings\n", done.stderr[-3000:]

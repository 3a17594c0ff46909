"""A simulated GPU: fake tensors, which have shapes, types and devices but no values, and no copy from or to the host.

Run as a script it takes training steps on the simulated GPU, with their backward passes: torch's autograd asks a driver
for CUDA's devices, so the GPU is there a device of Python (torch's PrivateUse1), which one process cannot take back.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import set_checkpoint_early_stop

from timesformer.datasets.mixing import ClipMixer
from timesformer.datasets.video_dataset import Batch
from timesformer.engine.step import TrainStep
from timesformer.models import gpu_kernels
from timesformer.models.gpu_kernels import FORMS
from timesformer.models.vit import ATTENTION_TYPES, RECOMPUTE, TimeSformer
from timesformer.utils import transfer
from timesformer.video import clip_spec
from timesformer.video.clip_spec import ClipSpec

SIZES: dict[str, Any] = {"img_size": 48, "patch_size": 16, "num_frames": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
SIZES |= {"num_classes": 5, "init": "scratch"}
CLIP = (3, 4, 48, 48)


class NoHostCopies(TorchDispatchMode):
    """Raises where an operation has tensors on two devices, but for numbers (0-dimensional) on the CPU."""

    allowed = False  # inside `to_device`, which copies from page-locked memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor) and x.ndim]
        devices = sorted({tensor.device.type for tensor in tensors})
        assert self.allowed or len(devices) < 2, f"{func} between {' and '.join(devices)}"
        return out


@contextlib.contextmanager
def fake_gpu() -> Iterator[None]:
    """Inside, tensors are fake, and what waits for the GPU raises: a copy, or a look at a value."""
    real = transfer.to_device

    def to_device(tensor: Tensor, device: torch.device) -> Tensor:
        mode.allowed = True
        try:
            return real(tensor, device)
        finally:
            mode.allowed = False

    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(), NoHostCopies() as mode:
        for module in ("utils.transfer", "engine.step", "datasets.mixing"):
            patch.setattr(f"timesformer.{module}.to_device", to_device)
        patch.setattr(clip_spec, "_per_channel", clip_spec._per_channel.__wrapped__)  # which keeps what it has made
        patch.setattr(Tensor, "is_pinned", lambda tensor: False)
        patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
        patch.setattr(torch.cuda, "Stream", lambda device: None)  # clips are given on the device
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(gpu_kernels, "_chosen", {})
        patch.setattr(gpu_kernels, "_noted", {})
        yield


def model_of(
    scheme: str, device: torch.device, *, recompute: str = "none", dtype: torch.dtype = torch.float32
) -> TimeSformer:
    """A small model with stochastic depth, built where it is to be: fake parameters cannot be moved or converted."""
    torch.set_default_dtype(dtype)
    try:
        with device:
            return TimeSformer(**SIZES, attention_type=scheme, recompute=recompute, drop_path_rate=0.2)
    finally:
        torch.set_default_dtype(torch.float32)


def use_form(name: str, dtype: str) -> None:
    """Every attention among few tokens takes this form."""
    shapes = itertools.product(range(1, 65), [SIZES["embed_dim"]], [SIZES["num_heads"]], [dtype], (False, True))
    gpu_kernels.use_forms({gpu_kernels.key(*shape): name for shape in shapes})


def train(device: torch.device, scheme: str, recompute: str, dtype: torch.dtype, form: str) -> None:
    """A step with mixing and clipping."""
    mixer = ClipMixer(num_classes=5, mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, seed=0)
    drawn = itertools.cycle([{"lam": 0.3}, {"box": (8, 0, 24, 16), "lam_adjusted": 0.9}])
    mixer._draw = lambda *_: next(drawn)  # torchvision would draw fake numbers
    # In this thread, where tensors are fake. An exception that passes through autograd would end the process.
    with fake_gpu(), torch.autograd.set_multithreading_enabled(False), set_checkpoint_early_stop(False):
        use_form(form, str(dtype).removeprefix("torch."))
        model = model_of(scheme, device, recompute=recompute, dtype=dtype)
        spec = ClipSpec(num_frames=4, sampling_rate=1, size=(48, 48))
        take_step = TrainStep(
            model,
            torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=False),
            device=device,
            dtype=None,
            normalize=lambda clips: spec.normalize(clips).to(dtype),
            clip_shape=CLIP,
            num_classes=5,
            loss="cross_entropy",
            label_smoothing=0.1,
            clip_grad_norm=1.0,
            mixer=mixer,
        )
        clips, order = torch.zeros(4, *CLIP, dtype=torch.uint8, device=device), [0, 1, 2, 3]
        batch = Batch(clips, order, order, order, [1] * 4, [1.0] * 4, [], [])
        result = take_step([batch], num_samples=4, epoch=0, lr=0.1, global_step=0)
        assert {tensor.device.type for tensor in result.losses} == {device.type}
        assert all(p.grad is not None and p.grad.device == p.device for p in model.parameters())


if __name__ == "__main__":
    from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

    class Module(_DummyBackendModule):
        """What recomputation asks of a device, besides."""

        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

    _setup_privateuseone_for_python_backend("fakegpu", backend_module=Module())
    gpu_kernels.DEVICE = "fakegpu"
    gpu_kernels._compile = lambda: gpu_kernels.pointwise
    cases = [
        *((scheme, "none", torch.float32, "fused") for scheme in ATTENTION_TYPES),
        *itertools.product(ATTENTION_TYPES, RECOMPUTE, [torch.bfloat16], ["fused"]),
        *itertools.product(["divided_space_time", "frame_cls_causal"], ["none"], [torch.bfloat16], FORMS),
    ]
    for case in cases:
        train(torch.device("fakegpu", 0), *case)
    print(f"{len(cases)} trainings", flush=True)
    os._exit(0)  # autograd's threads do not end on a device of Python

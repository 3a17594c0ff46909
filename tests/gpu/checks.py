"""What must hold on a GPU, as functions of a device: tests marked gpu call them, and `benchmarks/gpu_check.py`.

They also run on a CPU, where what only a GPU has (streams, NCCL, fp16) is left out.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.textbook import TextbookTimeSformer
from timesformer.datasets.mixing import ClipMixer
from timesformer.datasets.video_dataset import Batch
from timesformer.distributed.parallel import _wrapped, full_state
from timesformer.engine.step import StepResult, TrainStep
from timesformer.models.vit import TimeSformer, VisionTransformer
from timesformer.utils.compute import PRECISIONS, autocast
from timesformer.video.clip_spec import ClipSpec

SCHEMES = ("divided_space_time", "joint_space_time", "space_only", "sparse_local_global", "axial")
SMALL: dict[str, Any] = {"img_size": 48, "num_classes": 5, "num_frames": 8, "embed_dim": 64, "depth": 3, "num_heads": 2}
CLIP = (3, 8, 48, 48)


def relative(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference of logits and gradients, each over the norm of what is wanted."""
    pairs = zip(found, wanted, strict=True)
    doubles = ((a.detach().cpu().double(), b.detach()) for a, b in pairs)
    return max(float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in doubles)


def results(model: nn.Module, clips: Tensor, precision: str) -> list[Tensor]:
    """Logits and gradients of a loss, those by the names of the parameters."""
    with autocast(clips.device, PRECISIONS[precision]):
        logits = model(clips)
    labels = torch.arange(len(clips), device=clips.device) % 5
    by_name = dict(sorted(model.named_parameters()))
    gradients = torch.autograd.grad(
        F.cross_entropy(logits.to(next(model.parameters()).dtype), labels), [*by_name.values()]
    )
    return [logits, *gradients]


def errors(scheme: str, precision: str, device: torch.device, **sizes: Any) -> tuple[float, float]:
    """Of the model, and of the textbook form in the same precision, against the textbook form in fp64 on the CPU."""
    torch.manual_seed(0)
    model = VisionTransformer(**SMALL | sizes, attention_type=scheme, qkv_bias=True, drop_path_rate=0.0)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.1)
    clips = torch.randn(4, *model.input_shape)
    textbook = TextbookTimeSformer(model)
    wanted = results(copy.deepcopy(textbook).double(), clips.double(), "fp32")
    own, other = (results(form.to(device), clips.to(device), precision) for form in (model, textbook))
    return relative(own, wanted), relative(other, wanted)


def step_of(
    model: nn.Module, device: torch.device, precision: str = "fp32", *, lr: float = 0.01, ema: bool = False
) -> TrainStep:
    """A step with AdamW, mixing, clipping and label smoothing."""
    spec = ClipSpec(num_frames=8, sampling_rate=1, size=(48, 48))
    return TrainStep(
        model,
        torch.optim.AdamW(model.parameters(), lr=lr, fused=True),
        device=device,
        dtype=PRECISIONS[precision],
        normalize=spec.normalize,
        clip_shape=CLIP,
        num_classes=5,
        loss="cross_entropy",
        label_smoothing=0.1,
        clip_grad_norm=1.0,
        mixer=ClipMixer(num_classes=5, mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, seed=0),
        ema=ModelEmaV3(model, decay=0.9) if ema else None,
    )


def small_model(device: torch.device) -> TimeSformer:
    """A small model with stochastic depth, the same at every call."""
    torch.manual_seed(0)
    return TimeSformer(**SMALL, drop_path_rate=0.2, init="scratch").to(device)


def take(take_step: TrainStep, number: int) -> StepResult:
    """Step `number`, of two micro-batches of 4 clips; its random numbers depend on it alone."""
    torch.manual_seed(number)
    generator = torch.Generator().manual_seed(number)
    batches = []
    for half in range(2):
        clips = torch.randint(0, 256, (4, *CLIP), generator=generator).to(torch.uint8)
        order = [8 * number + 4 * half + i for i in range(4)]
        batches.append(Batch(clips, [0, 1, 2, 3], order, order, [1] * 4, [1.0] * 4, [], []))
    return take_step(batches, num_samples=8, epoch=0, lr=0.01, global_step=number)


@contextlib.contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """On a GPU, whatever waits for it raises."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def steps_wait_for_nothing(device: torch.device, precision: str) -> list[float]:
    """Three steps after a first one, which may wait (memory, constants); their losses, looked at afterwards."""
    take_step = step_of(small_model(device), device, precision, ema=True)
    take(take_step, 0)
    with no_waiting(device):
        done = [take(take_step, number) for number in (1, 2, 3)]
    return [result.sums()[0] for result in done]


def resumes_exactly(device: torch.device, precision: str) -> bool:
    """Whether two more steps from a copy of the state give the same losses, to the bit."""

    def run(numbers: range, state: dict[str, Any] | None) -> tuple[list[Tensor], dict[str, Any]]:
        model = small_model(device)
        take_step = step_of(model, device, precision)
        if state is not None:
            model.load_state_dict(state["model"])
            take_step.optimizer.load_state_dict(state["optimizer"])
            take_step.scaler.load_state_dict(state["scaler"])
        losses = [loss for number in numbers for loss in take(take_step, number).losses]
        parts: dict[str, Any] = {"model": model, "optimizer": take_step.optimizer, "scaler": take_step.scaler}
        return losses, copy.deepcopy({name: part.state_dict() for name, part in parts.items()})

    whole, _ = run(range(4), None)
    _, state = run(range(2), None)
    rest, _ = run(range(2, 4), state)
    return all(torch.equal(a, b) for a, b in zip(whole[4:], rest, strict=True))


def one_rank(device: torch.device, strategy: str, folder: Path) -> float:
    """The largest relative difference of weights that two steps make with one process of DDP or FSDP2, and without."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/{strategy}", rank=0, world_size=1)
    try:
        states = []
        for wrap in (False, True):
            model = small_model(device)
            wrapped = _wrapped([model], strategy, device, 1, None) if wrap else model
            take_step = step_of(wrapped, device)
            for number in range(2):
                take(take_step, number)
            states.append(full_state(model.state_dict()))
    finally:
        dist.destroy_process_group()
    return relative([*states[1].values()], [value.cpu().double() for value in states[0].values()])


def infinity_is_skipped(device: torch.device) -> tuple[float, float, float, bool]:
    """fp16 with an infinite loss in the second step: the scale before, after and later; whether weights stayed then."""
    model = small_model(device)
    take_step = step_of(model, device, "fp16")
    take(take_step, 0)
    scales, before, normalize = [take_step.scaler.get_scale()], copy.deepcopy(model.state_dict()), take_step.normalize
    take_step.normalize = lambda clips: normalize(clips) * torch.inf
    take(take_step, 1)
    stayed = all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    scales.append(take_step.scaler.get_scale())
    take_step.normalize = normalize
    assert torch.isfinite(torch.cat(take(take_step, 2).losses)).all()
    return scales[0], scales[1], take_step.scaler.get_scale(), stayed


def too_many_then_few(device: torch.device, *, too_many: int, few: int, evaluated: int, **sizes: Any) -> str:
    """What a pass of too many clips says; afterwards a few train, and many are evaluated (more rows than 65,535)."""
    model = VisionTransformer(**sizes).to(device)
    dtype = torch.bfloat16 if device.type == "cuda" else None

    def train(clips: int) -> None:
        with autocast(device, dtype):
            model(torch.zeros(clips, *model.input_shape, device=device)).float().logsumexp(1).sum().backward()
        model.zero_grad()

    said = ""
    try:
        train(too_many)
    except torch.OutOfMemoryError as error:
        said = str(error).partition(".")[0]
    train(few)
    with torch.no_grad(), autocast(device, dtype):
        logits = model.eval()(torch.zeros(evaluated, *model.input_shape, device=device))
    assert logits.isfinite().all()
    return said


def all_errors(device: torch.device, precisions: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """`errors` of every scheme in every precision."""
    pairs = itertools.product(SCHEMES, precisions)
    return {f"{scheme}, {precision}": errors(scheme, precision, device) for scheme, precision in pairs}


def allowed(precision: str, textbook: float) -> float:
    """The largest error of a form whose textbook's error is `textbook`."""
    return 1e-4 if precision == "fp32" else 2 * textbook

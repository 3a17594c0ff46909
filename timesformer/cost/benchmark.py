"""What a configuration costs: passes of the model and of Hugging Face's, the matrix rate, and loading of data."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.cost.measure import (
    OUT_OF_MEMORY,
    interleaved,
    matrix_product,
    memory_refused,
    peak_bytes,
    saved_for_backward,
)
from timesformer.datasets.build import build_train_loader, load_list
from timesformer.datasets.video_dataset import Batch
from timesformer.engine.compiling import check_compiler, compile_model
from timesformer.engine.kernels import choose_kernels
from timesformer.engine.step import TrainStep
from timesformer.models.build import build_model
from timesformer.models.contract import VideoModel
from timesformer.models.summary import multiply_accumulates, published_multiply_accumulates
from timesformer.models.vit import TimeSformer, VisionTransformer
from timesformer.optim.build import build_optimizer
from timesformer.utils.compute import PRECISIONS, autocast, choose_precision, set_arithmetic
from timesformer.utils.errors import UserError
from timesformer.video.clip_spec import ClipSpec
from timesformer.weights.hugging_face import make_config, to_their_names
from timesformer.weights.layouts import vit_sizes

PROJECT, TRANSFORMERS = "timesformer", "transformers"
# It has space-only attention too, but gives logits for each frame.
HUGGING_FACE_SCHEMES = ("divided_space_time", "joint_space_time")


class HuggingFaceTimeSformer(nn.Module):
    """`TimesformerForVideoClassification` with the weights of one of ours, and our order of dimensions.

    Without dropout, and without stochastic depth: its configuration accepts only whole numbers for that rate.

    Raises:
        UserError: a model that it does not have, or no `transformers`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        vit = model.model if isinstance(model, TimeSformer) else model
        if not isinstance(vit, VisionTransformer):
            name = type(model).__name__
            raise UserError(f"--vs transformers compares TimeSformers, and {name} is none. Leave it out")
        if vit.attention_type not in HUGGING_FACE_SCHEMES:
            raise UserError(
                f"Hugging Face's TimeSformer does not do what {vit.attention_type} does. "
                f"It has TIMESFORMER.ATTENTION_TYPE {' and '.join(HUGGING_FACE_SCHEMES)}"
            )
        try:
            from transformers import TimesformerConfig, TimesformerForVideoClassification
        except ImportError as error:
            raise UserError("--vs transformers needs it installed. Type: pip install transformers") from error
        _, _, height, width = vit.input_shape
        if height != width:
            raise UserError(f"Hugging Face's TimeSformer takes square frames only, not {height} x {width}")
        tensors = vit.state_dict()
        sizes = vit_sizes(tensors) | {"num_heads": vit.num_heads, "img_size": (height, width)}
        config = make_config(sizes, dtype=vit.cls_token.dtype)
        self.model = TimesformerForVideoClassification(TimesformerConfig(**config))
        self.model.load_state_dict(to_their_names(tensors))
        self.to(vit.cls_token.device).train(vit.training)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, T, H, W) -> logits (B, K)."""
        return self.model(clips.transpose(1, 2)).logits


class Workload:
    """The passes of a model over random clips on its device; the model has no values before `allocate`."""

    def __init__(self, cfg: CfgNode, name: str, *, clips: int) -> None:
        self.device = torch.device("cuda" if cfg.NUM_GPUS != 0 and torch.cuda.is_available() else "cpu")
        precision, _ = choose_precision(cfg.PRECISION, self.device)
        set_arithmetic(precision, self.device)
        self.dtype = PRECISIONS[precision]
        self.cfg, self.name, self.num_clips = cfg, name, clips
        self.spec = ClipSpec.from_config(cfg, training=True)
        self.shape = self.spec.input_shape
        self.model, vit = self._build("meta")
        self.facts: dict[str, Any] = {
            "model": name,
            "attention": vit.attention_type if vit else "",
            **dict(zip(("frames", "height", "width"), self.shape[1:], strict=True)),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "published": published_multiply_accumulates(vit) if vit else None,
        }
        self.passes = {"forward": self.forward, "training": self.train}  # training: a whole optimiser step

    def _build(self, device: str | torch.device) -> tuple[nn.Module, VisionTransformer | None]:
        """The model, and the vision transformer that it is or whose weights it has."""
        with torch.device(device):
            model = build_model(self.cfg)
            vit = model.model if isinstance(model, TimeSformer) else None
            return (HuggingFaceTimeSformer(model) if self.name == TRANSFORMERS else model), vit

    def executed(self, name: str) -> int:
        """Multiply-accumulates of a clip in a pass."""
        total = multiply_accumulates(self.model, self.shape, clips=self.num_clips, backward=name == "training")
        return total // self.num_clips

    def allocate(self) -> None:
        """Draw clips, and build the model on the device if it is not there yet."""
        if next(self.model.parameters()).is_meta:
            self.held_before = torch.cuda.memory_allocated() if self.device.type == "cuda" else 0
            self.model, _ = self._build(self.device)
            how: Any = {"setting": self.cfg.MODEL.KERNELS, "device": self.device, "dtype": self.dtype}
            if isinstance(self.model, VideoModel):  # as a run does
                choose_kernels(self.model, clips=self.num_clips, **how)
            if self.cfg.MODEL.COMPILE and self.name == PROJECT:
                check_compiler(self.device)
                compile_model(self.model)
        count, num_classes = self.num_clips, self.cfg.MODEL.NUM_CLASSES
        self.clips = torch.randint(0, 256, (count, 3, self.spec.sampled_frames, *self.spec.size)).to(
            self.device, torch.uint8
        )
        numbers = list(range(count))
        labels = [number % num_classes for number in numbers]
        self.batch = Batch(self.clips, labels, numbers, numbers, [1] * count, [1.0] * count, failures=[], warnings=[])

    def logits(self) -> Tensor:
        """Those of the clips, in the model's mode."""
        with autocast(self.device, self.dtype):
            return self.model(self.spec.normalize(self.clips))

    def forward(self) -> None:
        """The logits, without gradients."""
        self.model.eval()
        with torch.no_grad():
            self.logits()

    def train(self) -> None:
        """One optimiser step, at a learning rate of zero."""
        self.model.train()
        self.take_step([self.batch], num_samples=self.num_clips, epoch=0, lr=0.0, global_step=0)

    @cached_property
    def take_step(self) -> TrainStep:
        """The step of the training loop, without mixing."""
        return TrainStep(
            self.model,
            build_optimizer(self.model, self.cfg),
            device=self.device,
            dtype=self.dtype,
            normalize=self.spec.normalize,
            clip_shape=self.shape,
            num_classes=self.cfg.MODEL.NUM_CLASSES,
            loss=self.cfg.MODEL.LOSS_FUNC,
            label_smoothing=self.cfg.SOLVER.LABEL_SMOOTHING,
            clip_grad_norm=self.cfg.SOLVER.CLIP_GRAD_NORM,
            mixer=None,
        )

    def bytes(self, name: str) -> int:
        """Memory of a pass.

        On a GPU the most that tensors hold, the optimiser's state included. On a CPU, where nothing counts that, the
        parameters and what a training step keeps for its backward pass.
        """
        if self.device.type == "cuda":
            return peak_bytes(self.passes[name], self.device) - self.held_before
        self.model.train()
        weights = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())
        return weights + saved_for_backward(self.logits, self.model)


def measure(cfg: CfgNode, *, vs: str | None, clips: int, train: bool, repeats: int) -> list[dict[str, Any]]:
    """A row for each model and pass of one configuration; what does not fit into the memory has no `clips_per_sec`.

    Args:
        cfg: the configuration.
        vs: `TRANSFORMERS` measures Hugging Face's model as well, if it has the attention scheme.
        clips: of a pass.
        train: measure an optimiser step as well.
        repeats: timed runs of each pass, which take turns with the others and with a product of matrices.
    """
    works: dict[tuple[str, str], Callable[[], object]] = {}
    rows: list[dict[str, Any]] = []
    comparable = cfg.TIMESFORMER.ATTENTION_TYPE in HUGGING_FACE_SCHEMES
    for model in (PROJECT, vs) if vs and comparable else (PROJECT,):
        workload = Workload(cfg, model, clips=clips)
        for name in ("forward", "training") if train else ("forward",):
            row = {**workload.facts, "pass": name, "executed": workload.executed(name), "clips_per_sec": None}
            rows.append(row)
            try:
                with memory_refused(workload.device):
                    workload.allocate()
                    workload.passes[name]()
                    row["bytes"] = workload.bytes(name)
                works[model, name] = workload.passes[name]
            except OUT_OF_MEMORY:
                row["bytes"] = None
                workload.model.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
    multiply, product_macs = matrix_product(workload.device, workload.dtype)
    multiply()
    seconds = interleaved({**works, ("", "product"): multiply}, device=workload.device, repeats=repeats)
    rate = product_macs / statistics.median(seconds["", "product"])
    for row in rows:
        row |= {"matrix_rate": rate, "share": None}
        if times := seconds.get((row["model"], row["pass"])):
            row["clips_per_sec"] = clips / statistics.median(times)
            row["share"] = row["executed"] * row["clips_per_sec"] / rate
    return rows


def loading_rate(cfg: CfgNode, num_batches: int) -> float:
    """Clips per second (wall-clock time) of the training loader, its first batch left out.

    Raises:
        UserError: lists that cannot be used, or of a single batch.
    """
    loader = build_train_loader(cfg, load_list(cfg, "train"))
    batches = (batch for _, of_this_step in loader for batch in of_this_step)
    next(batches)
    start, counts = time.perf_counter(), [len(batch.labels) for batch in islice(batches, num_batches)]
    if not counts:
        raise UserError(
            f"--data needs more than one batch. Type TRAIN.BATCH_SIZE {max(1, loader.sampler.micro_batch // 4)}"
        )
    return sum(counts) / (time.perf_counter() - start)

"""One optimiser step: move, normalise, mix, forward, loss, backward over micro-batches, clip, update."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timesformer.datasets.loader import cut_batch
from timesformer.datasets.mixing import ClipMixer
from timesformer.datasets.video_dataset import Batch, Failure, collate
from timesformer.distributed import group as distributed
from timesformer.distributed.parallel import as_many_on_all, clip_gradients, joins_every_pass, no_gradient_sync
from timesformer.evaluation.metrics import multi_hot
from timesformer.utils.compute import autocast, eval_mode
from timesformer.utils.errors import UserError
from timesformer.utils.memory import SMALLER_CLIP, PassSize, first_line, free_cached, is_out_of_memory, reserved_bytes
from timesformer.utils.transfer import ClipTransfer, to_device

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3


@dataclass
class StepResult:
    """What a step leaves behind; tensors stay on the device until somebody logs them.

    Attributes:
        step: its number in the run, from 1.
        lr: its learning rate.
        losses: one (b,) tensor of per-clip losses for each micro-batch of this process.
        correct: number of clips of this process whose first label was predicted.
        num_clips: clips of this process.
        indices: dataset indices of those clips, in the order of the losses.
        requested: dataset indices of the clips of the step, readable or not.
        grad_norm: gradient norm before clipping; None when it was not computed.
        flags: sums over all processes of `TrainStep.flags`.
    """

    step: int
    lr: float
    losses: list[Tensor] = field(default_factory=list)
    correct: list[Tensor] = field(default_factory=list)
    num_clips: int = 0
    indices: list[int] = field(default_factory=list)
    requested: list[int] = field(default_factory=list)
    grad_norm: Tensor | None = None
    distinct_frames: list[float] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)

    def sums(self) -> tuple[float, float, int]:
        """Sum of the losses, number of right predictions and number of clips; waits for the device."""
        if not self.num_clips:
            return 0.0, 0.0, 0
        return float(torch.cat(self.losses).sum()), float(sum(self.correct)), self.num_clips

    def non_finite(self) -> list[tuple[int, int]]:
        """(step, dataset index) of clips whose loss is NaN or infinite; waits for the device."""
        if not self.losses:
            return []
        bad = ~torch.isfinite(torch.cat(self.losses))
        return [(self.step, index) for index, is_bad in zip(self.indices, bad.tolist(), strict=True) if is_bad]


@dataclass
class StepTotals:
    """What one process adds to a log line: sums over several of its steps, as plain numbers that a checkpoint can hold.

    Steps are noted without waiting for the device, and added by `settle`.

    Attributes:
        loss, correct, distinct_frames: sums over its clips.
        clips: their number.
        non_finite: (step, dataset index) of the clips whose loss is NaN or infinite.
        requested: dataset indices of the clips that were requested.
        failures, warnings: of the readers.
    """

    loss: float = 0.0
    correct: float = 0.0
    clips: int = 0
    distinct_frames: float = 0.0
    non_finite: list[tuple[int, int]] = field(default_factory=list)
    requested: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _noted: list[StepResult] = field(default_factory=list)

    def note(self, result: StepResult) -> None:
        """Take a step into account."""
        self._noted.append(result)

    def settle(self) -> None:
        """Add the steps that were noted, one after the other; waits for the device."""
        for result in self._noted:
            loss, correct, clips = result.sums()
            self.loss += loss
            self.correct += correct
            self.clips += clips
            for distinct in result.distinct_frames:
                self.distinct_frames += distinct
            self.non_finite += result.non_finite()
            self.requested += result.requested
            self.failures += result.failures
            self.warnings += result.warnings
        self._noted = []

    def plain(self) -> dict[str, Any]:
        """Numbers, texts and lists of them; waits for the device."""
        self.settle()
        content = asdict(self)
        del content["_noted"]
        return content

    @classmethod
    def from_plain(cls, *contents: Mapping[str, Any]) -> StepTotals:
        """The sum of what `plain` gave."""
        total = cls()
        for content in contents:
            content = {"requested": content.get("asked"), **content}  # its name in older checkpoints
            for name in ("loss", "correct", "clips", "distinct_frames", "requested", "warnings"):
                setattr(total, name, getattr(total, name) + content[name])
            total.non_finite += [(step, index) for step, index in content["non_finite"]]
            total.failures += [Failure(**failure) for failure in content["failures"]]
        return total


class TrainStep:
    """Callable that takes one optimiser step over the micro-batches of this process.

    The loss is the sum over clips divided by the number of clips of the step over all processes, so that micro-batch
    sizes, process counts and an uneven end of the epoch do not change the gradient.

    When memory runs out, the gradients of the whole step are computed again in smaller pieces (`pass_size`), with the
    same random numbers: as if it had been cut so from the start.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        normalize: Callable[[Tensor], Tensor],
        clip_shape: tuple[int, ...],
        num_classes: int,
        loss: str,
        label_smoothing: float,
        clip_grad_norm: float,
        mixer: ClipMixer | None,
        class_weights: Sequence[float] | None = None,
        ema: ModelEmaV3 | None = None,
        pass_size: PassSize | None = None,
        flags: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.device = device
        self.dtype = dtype
        self.normalize = normalize
        self.clip_shape = clip_shape  # (C, T, H, W)
        self.num_classes = num_classes
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.clip_grad_norm = clip_grad_norm
        self.mixer = mixer
        self.class_weights = None if class_weights is None else torch.tensor(class_weights, device=device)
        self.ema = ema
        self.pass_size = pass_size or PassSize(key="TRAIN.BATCH_SIZE", smallest=1 if mixer is None else 2)
        self.flags = flags  # numbers of this process that each step sums over all processes
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.buffers = [*model.buffers()]
        self.transfer = ClipTransfer(device)
        self.is_first = True

    def __call__(
        self,
        batches: Iterable[Batch],
        *,
        num_samples: int,
        epoch: int,
        lr: float,
        global_step: int,
        seed: int | None = None,
        requested: Sequence[int] = (),
    ) -> StepResult:
        """Take one step.

        Args:
            batches: the micro-batches of this process, at least one (it may be empty).
            num_samples: clips of the step over all processes, as planned.
            epoch: number of the epoch, for the random choices of mixing.
            lr: learning rate of this step; groups with an `lr_scale` take that share of it.
            global_step: optimiser steps of the run before this one, for the warm-up of the average of the weights.
            seed: of dropout and stochastic depth; None: torch's generators go on.
            requested: dataset indices of this process's clips, for the account of what could not be read.

        Raises:
            UserError: not even the smallest pass fits into the memory, or other processes wait for the one that failed.
        """
        if self.is_first and isinstance(self.model, DistributedDataParallel):
            # After its first pass DDP sorts gradients into its buckets again, and then adds them in another order: an
            # empty pass ahead makes the first step after a resume like any other.
            self._join_without_clips()
        self.is_first = False
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        source, kept = iter(batches), [buffer.clone() for buffer in self.buffers]
        read: list[Batch] = []  # for when memory runs out in the middle of them

        def all_batches() -> Iterator[Batch]:
            yield from [*read]
            for batch in source:
                if batch.clips is not None and batch.clips.is_shared():  # of which there may be little
                    batch.clips = batch.clips.clone()
                read.append(batch)
                yield batch

        def compute(clips_per_pass: int) -> StepResult:
            if seed is not None:
                torch.manual_seed(seed)
            for buffer, value in zip(self.buffers, kept if read else (), strict=False):
                buffer.copy_(value)  # running statistics must not count the clips of a failed pass
            result = StepResult(step=global_step + 1, lr=lr, requested=[*requested])
            unit = 1 if self.mixer is None else 2
            pieces = (piece for batch in all_batches() for piece in cut_batch(batch, clips_per_pass, unit))
            self._add_gradients(pieces, result, epoch, scale=distributed.world_size() / num_samples)
            return result

        def most_clips() -> int:
            return max((len(batch.labels) for batch in read), default=0)

        result = self.pass_size.until_it_fits(compute, self.device, most_clips)
        have_read, *result.flags = distributed.totals([result.num_clips, *self.flags()])
        if have_read:
            self._update(result, num_samples / have_read)
            if self.ema is not None:
                self.ema.update(self.model, step=global_step + 1)
        return result

    def find_pass_size(self, clips: int, *, warn: bool) -> None:
        """Halve `clips` until a forward and a backward pass fit, beside the state of the optimiser and a reserve.

        For the memory of this process alone, which takes part in nothing that others wait for; not under FSDP2.

        Args:
            clips: of the largest pass there will be.
            warn: of a smaller one.

        Raises:
            UserError: not even the smallest pass fits.
        """
        model = getattr(self.model, "module", self.model)  # inside DDP
        moments = len(self.optimizer.param_groups[0].get("betas", [0.9])) * (not self.optimizer.state)
        extra = reserved_bytes(self.device) + sum(p.numel() * p.element_size() for p in self.parameters) * moments
        kept = [buffer.clone() for buffer in self.buffers]

        def rehearse(clips_per_pass: int) -> None:
            self.optimizer.zero_grad(set_to_none=True)
            reserve = torch.empty(extra, dtype=torch.uint8, device=self.device)
            with autocast(self.device, self.dtype):
                logits = model(torch.zeros(clips_per_pass, *self.clip_shape, device=self.device))
            logits.float().sum().backward()
            del reserve

        self.pass_size.clips = clips
        self.pass_size.until_it_fits(rehearse, self.device, lambda: clips, warn=warn)
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self.buffers, kept, strict=True):
            buffer.copy_(value)
        free_cached(self.device)

    def _add_gradients(self, batches: Iterable[Batch], result: StepResult, epoch: int, *, scale: float) -> None:
        """Forward and backward passes over the batches; DDP averages gradients over processes, hence the `scale`."""
        self.optimizer.zero_grad(set_to_none=True)
        for batch, is_last in _mark_last(as_many_on_all(self.model, batches, collate([]))):
            result.failures += batch.failures
            result.warnings += batch.warnings
            joins = joins_every_pass(self.model) or (is_last and distributed.world_size() > 1)
            if batch.clips is None and not joins:
                continue
            waited_for = joins or (isinstance(self.model, DistributedDataParallel) and bool(self.buffers))
            with contextlib.nullcontext() if is_last else no_gradient_sync(self.model), _waited_for(waited_for):
                if batch.clips is None:
                    self._join_without_clips()
                    continue
                losses, correct = self._losses(batch.clips, batch, epoch)
                self.scaler.scale(losses.sum() * scale).backward()
            result.losses.append(losses.detach())
            result.correct.append(correct)
            result.num_clips += len(batch.labels)
            result.indices += batch.indices
            result.distinct_frames += batch.distinct_frames

    def _join_without_clips(self) -> None:
        """Backward of zero times an empty clip: the other processes wait for this one's gradients."""
        # Running statistics must not see the empty clip, and no program is compiled for it.
        with eval_mode(self.model), torch.compiler.set_stance("force_eager"):
            zero = self.model(torch.zeros(1, *self.clip_shape, device=self.device)).sum() * 0.0
        self.scaler.scale(zero).backward()

    def _losses(self, uint8_clips: Tensor, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Per-clip losses (b,) and the number of right predictions, ()."""
        clips = self.normalize(self.transfer(uint8_clips))
        targets = truth = self._targets(batch)
        if self.mixer is not None:
            clips, targets = self.mixer(clips, targets, epoch=epoch, positions=batch.positions)
        with autocast(self.device, self.dtype):
            logits = self.model(clips)
        logits = logits.float()
        # The clips predicted right: the highest score is a label of the clip (for mixed clips: the first of the pair).
        correct = truth.gather(1, logits.detach().argmax(dim=1, keepdim=True)).sum()
        if self.loss == "bce_logit":
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
        else:
            losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)
        if self.class_weights is not None:  # of the clip's class, of mixed clips the mean
            losses = losses * (targets @ self.class_weights)
        return losses, correct

    def _targets(self, batch: Batch) -> Tensor:
        """(b, K) targets: one-hot or multi-hot."""
        return to_device(torch.from_numpy(multi_hot(batch.labels, self.num_classes)), self.device)

    def _update(self, result: StepResult, planned_over_read: float) -> None:
        """Clip and apply the gradients; `planned_over_read` corrects the mean for clips that could not be read."""
        self.scaler.unscale_(self.optimizer)
        if planned_over_read != 1.0:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(planned_over_read)
        if self.clip_grad_norm > 0:
            result.grad_norm = clip_gradients(self.parameters, self.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()


@contextlib.contextmanager
def _waited_for(joins: bool) -> Iterator[None]:
    """A pass that other processes may wait for (`joins`) cannot be taken again by this one alone.

    Raises:
        UserError: memory ran out in such a pass.
    """
    try:
        yield
    except RuntimeError as error:
        if not (joins and is_out_of_memory(error)):
            raise
        raise UserError(
            f"{distributed.host_and_rank()}: out of memory in a pass that the other processes wait for "
            f"({first_line(error)}). Type a smaller TRAIN.BATCH_SIZE; a clip needs less with {SMALLER_CLIP}"
        ) from error


def _mark_last(batches: Iterable[Batch]) -> Iterable[tuple[Batch, bool]]:
    """Each batch, and whether it is the last one."""
    iterator = iter(batches)
    current = next(iterator)
    for following in iterator:
        yield current, False
        current = following
    yield current, True

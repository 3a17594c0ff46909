"""`ClipSpec`: what a clip is, from the choice of frames to the model's input; `Views`: how many clips a video gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from timesformer.utils.sizes import height_width
from timesformer.video.frame_samplers import (
    FrameSampler,
    RandomSegmentSampler,
    RandomSpanSampler,
    ShuffledFrames,
    Timing,
    UniformSegmentSampler,
    UniformSpanSampler,
)

if TYPE_CHECKING:  # torch is for who makes a model's input, OpenCV for who transforms frames
    import torch
    from fvcore.common.config import CfgNode
    from torch import Tensor

    from timesformer.video.transforms import EvalTransform, TrainTransform


INPUTS = ("rgb", "difference", "rgb+difference")


def _of(key: str, default: Any) -> Any:
    """A field with its configuration key below DATA."""
    return field(default=default, metadata={"key": key})


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """All that happens to a video before a model sees it; the defaults are those of the released K400 models.

    Training, evaluation, prediction, checkpoints and exported files share it: it makes the frame sampler, the
    transforms, the normalisation and the shape of the model's input.

    Attributes:
        num_frames: T, frames of a clip.
        sampling_rate: a clip spans `sampling_rate * num_frames / target_fps` seconds; "auto" spans the whole video.
        target_fps: frames per second in which `sampling_rate` counts, whatever the rate of the video.
        shuffle_frames: control experiment: the frames of every clip in random order.
        size: (height, width) of the input in pixels.
        crop_mode: "crop" scales the frame and cuts the input out of it; "full" resizes the whole frame.
        short_side: in pixels, to which a frame is scaled before one centre crop; 0: just covers the crop. (Three crops
            always just cover the frame, as in the published test.)
        mean, std: one value per channel in the order the model sees, of pixel values in 0..1.
        input: what the model sees: "rgb", pixels; "difference", motion images (see `motion_images`), each of the
            differences between `difference_frames` + 1 frames, in 1 channel; or "rgb+difference", both, where the
            pixels are those of the last frame of each part, as 4 channels.
        difference_frames: differences that a motion image sums up, unless `input` is "rgb".
        channel_order: "rgb", or "bgr" for models trained on OpenCV's order (the released SSv2 weights).
    """

    num_frames: int = _of("NUM_FRAMES", 8)
    sampling_rate: int | Literal["auto"] = _of("SAMPLING_RATE", 32)
    target_fps: float = _of("TARGET_FPS", 30.0)
    shuffle_frames: bool = _of("SHUFFLE_FRAMES", False)
    size: tuple[int, int] = _of("TEST_CROP_SIZE", (224, 224))
    crop_mode: str = _of("CROP_MODE", "crop")
    short_side: int = _of("TRAIN_JITTER_SCALES", 0)
    mean: tuple[float, ...] = _of("MEAN", (0.45, 0.45, 0.45))
    std: tuple[float, ...] = _of("STD", (0.225, 0.225, 0.225))
    channel_order: str = _of("CHANNEL_ORDER", "rgb")
    input: str = _of("INPUT", "rgb")
    difference_frames: int = _of("DIFFERENCE_FRAMES", 4)

    @classmethod
    def from_config(cls, cfg: CfgNode, *, training: bool = False) -> ClipSpec:
        """The spec of validation and test, or of training clips, whose size may be another one."""
        data = cfg.DATA
        return cls(
            num_frames=data.NUM_FRAMES,
            sampling_rate=data.SAMPLING_RATE,
            target_fps=data.TARGET_FPS if data.SAMPLING_RATE != "auto" else 30.0,
            shuffle_frames=data.SHUFFLE_FRAMES,
            size=height_width(data.TRAIN_CROP_SIZE if training else data.TEST_CROP_SIZE),
            crop_mode=data.CROP_MODE,
            short_side=data.TRAIN_JITTER_SCALES[0] if data.CROP_MODE == "crop" else 0,
            mean=tuple(data.MEAN),
            std=tuple(data.STD),
            channel_order=data.CHANNEL_ORDER,
            input=data.INPUT,
            difference_frames=data.DIFFERENCE_FRAMES if data.INPUT != "rgb" else 4,
        )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ClipSpec:
        """The spec that `to_dict` gave; what `content` lacks has its default.

        Checkpoints of before this class hold the last parts of configuration keys (MEAN, NUM_FRAMES, ...): these are
        understood as well.
        """
        return cls(**known_fields(content))

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers, texts and lists, as checkpoints and JSON files hold them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of a clip as the model gets it."""
        channels = {"rgb": len(self.mean), "difference": 1, "rgb+difference": len(self.mean) + 1}
        return (channels[self.input], self.num_frames, *self.size)

    @property
    def sampled_frames(self) -> int:
        """F, frames of the video that a clip is made of; more than `num_frames` where the model sees differences."""
        return self.num_frames if self.input == "rgb" else self.num_frames * self.difference_frames + 1

    def frame_sampler(
        self, *, training: bool = False, num_clips: int | Literal["auto"] = 1, timing: Timing | None = None
    ) -> FrameSampler:
        """What selects the frames: one random clip per video in training, otherwise `num_clips` fixed ones.

        Args:
            training: draw the clip.
            num_clips: clips in time per video, or "auto": as many as cover it.
            timing: random changes of time in training.
        """
        timing = timing or Timing()
        frames, rate, fps = self.sampled_frames, self.sampling_rate, self.target_fps
        sampler: FrameSampler
        if rate == "auto":  # each clip spans the whole video, so one covers it
            segments = UniformSegmentSampler(frames, 1 if num_clips == "auto" else num_clips)
            sampler = RandomSegmentSampler(frames, timing) if training else segments
        else:  # more frames span the same time
            closer = rate if self.input == "rgb" else rate * self.num_frames / frames
            random = RandomSpanSampler(frames, closer, fps, timing)
            sampler = random if training else UniformSpanSampler(frames, closer, fps, num_clips)
        return ShuffledFrames(sampler) if self.shuffle_frames else sampler

    def eval_transform(self, *, num_crops: int = 1) -> EvalTransform:
        """Frames (T, H, W, 3) to fixed views: 1 centre crop, or 3 along the longer side; full frames have one view."""
        from timesformer.video.transforms import EvalTransform

        return EvalTransform(
            crop_size=self.size,
            num_crops=num_crops,
            crop_mode=self.crop_mode,
            short_side=self.short_side if num_crops == 1 else 0,
        )

    def train_transform(self, **augmentation: Any) -> TrainTransform:
        """Frames (T, H, W, 3) to one random clip; `augmentation` are the other arguments of `TrainTransform`."""
        from timesformer.video.transforms import TrainTransform

        rgb = self.mean if self.channel_order == "rgb" else self.mean[::-1]
        return TrainTransform(crop_size=self.size, crop_mode=self.crop_mode, fill=rgb, **augmentation)

    def normalize(self, clips: Tensor) -> Tensor:
        """uint8 RGB clips (B, 3, F, H, W) -> the model's float32 input (B, C, T, H, W) on the same device.

        F is `sampled_frames`, T `num_frames`. Pixels are (x / 255 - mean) / std; for differences see `motion_images`.
        """
        import torch

        from timesformer.video.motion import motion_images

        assert self.channel_order in ("rgb", "bgr") and clips.dtype == torch.uint8, (self.channel_order, clips.dtype)
        if self.channel_order == "bgr":
            clips = clips.flip(1)
        # a graph that is exported or compiled has them as constants of its own
        per_channel = _per_channel.__wrapped__ if torch.compiler.is_compiling() else _per_channel
        shift, scale = (per_channel(values, clips.device) for values in (self.mean, self.std))
        pixels = clips.to(torch.float32)
        if self.input == "rgb":
            return pixels.sub_(shift).div_(scale)
        motion = motion_images(pixels, self.num_frames)
        if self.input == "difference":
            return motion
        last = pixels[:, :, self.difference_frames :: self.difference_frames]  # of each part
        return torch.cat([last.sub(shift).div_(scale), motion], dim=1)

    def shown(self, clips: Tensor) -> Tensor:
        """uint8 clips (B, 3, F, H, W) as pictures (B, 3, F', H, W) of what the model sees: pixels, motion, or both."""
        if self.input == "rgb":
            return clips
        import torch

        from timesformer.video.motion import motion_images

        motion = motion_images(clips.float(), self.num_frames).mul_(50).add_(80).clamp_(0, 255).to(torch.uint8)
        motion = motion.expand(-1, 3, -1, -1, -1)
        if self.input == "difference":
            return motion
        return torch.cat([clips[:, :, self.difference_frames :: self.difference_frames], motion], dim=2)

    def differences(self, known: Mapping[str, Any], *, frames: bool) -> list[tuple[str, Any, Any]]:
        """(configuration key, value there, value here) for each setting in which `known` is not this spec.

        Compared are normalisation, channel order and crop mode: weights do badly when these change.

        Args:
            known: fields of another spec, not necessarily all (see `known_fields`).
            frames: compare number, rate and span of the frames too, which fine-tuning may change and a test may not.
        """
        names: tuple[str, ...] = ("mean", "std", "channel_order", "input", "difference_frames", "crop_mode")
        names += ("num_frames", "sampling_rate", "target_fps") if frames else ()
        keys = {each.name: f"DATA.{each.metadata['key']}" for each in fields(self)}
        if frames and "auto" in (self.sampling_rate, known.get("sampling_rate", self.sampling_rate)):
            names = tuple(name for name in names if name != "target_fps")  # which an automatic rate does not depend on
        here = ((name, getattr(self, name)) for name in names)
        return [(keys[name], known[name], value) for name, value in here if known.get(name, value) != value]


@dataclass(frozen=True, kw_only=True)
class Views:
    """The clips of a video that are scored, and how their scores are combined; as it is, one centre view.

    Attributes:
        num_clips: clips in time, evenly spaced; "auto": as many as cover the video.
        num_crops: of each clip, 1 (centre) or 3 (left, centre, right, or top to bottom).
        ensemble: "mean" of probabilities, or "sum" or "max" of logits.
    """

    num_clips: int | Literal["auto"] = 1
    num_crops: int = 1
    ensemble: str = "mean"

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Views:
        """The views of the test; whole frames have one crop."""
        crops = cfg.TEST.NUM_SPATIAL_CROPS if cfg.DATA.CROP_MODE == "crop" else 1
        return cls(num_clips=cfg.TEST.NUM_ENSEMBLE_VIEWS, num_crops=crops, ensemble=cfg.DATA.ENSEMBLE_METHOD)

    def __str__(self) -> str:
        return f"{self.num_clips} x {self.num_crops} view{'' if self.num_clips == self.num_crops == 1 else 's'}"


@cache
def _per_channel(values: Sequence[float], device: torch.device) -> Tensor:
    """Values of 0..1 as (C, 1, 1, 1) numbers of 0..255 on the device, copied there once."""
    import torch

    from timesformer.utils.transfer import to_device

    with torch.inference_mode(False):
        return to_device(torch.tensor(values), device).mul(255).view(-1, 1, 1, 1)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


def _are_numbers(values: object) -> bool:
    return isinstance(values, tuple) and all(type(value) in (int, float) for value in values)


# What makes a stored value usable; files of other programs have fields of the same names.
_USABLE: dict[str, Callable[[Any], bool]] = {
    "num_frames": _is_count,
    "sampling_rate": lambda value: value == "auto" or _is_count(value),
    "target_fps": lambda value: type(value) in (int, float) and value > 0,
    "shuffle_frames": lambda value: isinstance(value, bool),
    "size": lambda value: isinstance(value, tuple) and len(value) == 2 and all(map(_is_count, value)),
    "crop_mode": lambda value: value in ("crop", "full"),
    "short_side": lambda value: type(value) is int and value >= 0,
    "mean": _are_numbers,
    "std": _are_numbers,
    "channel_order": lambda value: value in ("rgb", "bgr"),
    "input": lambda value: value in INPUTS,
    "difference_frames": _is_count,
}


def known_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ClipSpec` that `content` has in a usable form, by name; the rest is left out.

    Args:
        content: by the names of the fields, or by the last parts of configuration keys (MEAN, TEST_CROP_SIZE, ...).
    """
    names = {each.metadata["key"]: each.name for each in fields(ClipSpec)} | {name: name for name in _USABLE}
    found: dict[str, Any] = {}
    for key, value in content.items():
        if key == "TRAIN_JITTER_SCALES":
            value = value[0] if isinstance(value, (list, tuple)) and value else None
        name = names.get(key, "")
        if name == "size" and type(value) is int:
            value = (value, value)
        value = tuple(value) if isinstance(value, list) else value
        if name and _USABLE[name](value):
            found[name] = value
    if found.get("crop_mode") == "full":
        found["short_side"] = 0
    return found

"""`explain`: which patches and frames of a video decided, by attention or by covering parts of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from timesformer.datasets.opening import as_record, open_record, sample_record
from timesformer.inference.occlusion import occlusion_in_time, occlusion_map
from timesformer.inference.predictor import Predictor
from timesformer.inference.rollout import gradient_weighted, rollout
from timesformer.models.vit import TimeSformer
from timesformer.utils.compute import autocast
from timesformer.utils.errors import UserError
from timesformer.utils.random import numpy_generator
from timesformer.video.clip_spec import ClipSpec

if TYPE_CHECKING:
    from timesformer.visualization.explanations import Panel

METHODS = ("occlusion", "rollout", "gradient")
_MOST_PLAYED, _AT_A_TIME = 240, 16  # frames of a playback, frames that are decoded together


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """Where a model looked in one view of a video, the centre of its middle clip.

    Attributes:
        method: one of `METHODS`.
        class_name, score: what is explained, and the score that the view gets for it.
        predicted, predicted_score: the class of the view's highest score.
        map: (T, rows, columns) at least 0, sum 1, or all 0 where nothing spoke for the class. T are the pictures that
            the model sees.
        time: (T,) the share of each picture: of the map, or for occlusion what covering the picture costs.
        clip: uint8 (F, H, W, 3), the frames of the view.
        pictures: uint8 (T, H, W, 3), what the model sees of them: pixels or, where it sees both, motion.
        frame_indices: (F,) of the video.
        fps: of the video.
    """

    method: str
    class_name: str
    score: float
    predicted: str
    predicted_score: float
    map: np.ndarray
    time: np.ndarray
    clip: np.ndarray
    pictures: np.ndarray
    frame_indices: np.ndarray
    fps: float

    @property
    def frames(self) -> np.ndarray:
        """uint8 (T, H, W, 3): of the frames that each picture covers the middle one."""
        return self.clip[self._covered.mean(axis=1).astype(int)]

    @property
    def positions(self) -> np.ndarray:
        """(T,) where each picture lies in the video: mean index of the frames that it covers."""
        means: np.ndarray = self.frame_indices[self._covered].mean(axis=1)
        return means

    @property
    def _covered(self) -> np.ndarray:
        """(T, frames of a picture): places in `clip`."""
        return covered_frames(len(self.clip), len(self.map))


def explain(
    predictor: Predictor, video: Any, *, method: str = METHODS[0], class_name: str = "", batch_size: int = 8
) -> Explanation:
    """Explain what `predictor` says of a video.

    Args:
        predictor: of `timesformer.load`.
        video: a file, a folder of pictures, or frames in memory.
        method: "occlusion" for any model; for transformers of this project also "rollout", which is the same for all
            classes, and "gradient".
        class_name: what to explain; empty: the class of the highest score.
        batch_size: clips of a pass, for occlusion.

    Raises:
        UserError: an unknown method or class, or one that this model does not have.
        VideoReadError: the video cannot be read.
    """
    model, spec = predictor.model, predictor.spec
    _check_method(model, method)
    wanted = _label_of(class_name, predictor.class_names) if class_name else None
    clip, indices, fps = _read_view(predictor, video)
    x = spec.normalize(clip[None].to(predictor.device))

    def logits(clips: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(predictor.device, predictor.dtype):
            return model(clips).float()

    scores = probabilities(logits(x), multi_label=predictor.multi_label)[0]
    predicted = int(scores.argmax())
    label = predicted if wanted is None else wanted
    time: Tensor | None = None
    if method == "occlusion":

        def score(clips: Tensor) -> Tensor:  # logarithms: a sure answer may lose little probability
            out = logits(clips)
            return (F.logsigmoid(out) if predictor.multi_label else F.log_softmax(out, dim=1))[:, label]

        how = partial(occlusion_map, score), partial(occlusion_in_time, score)
        relevance, time = (each(x[0], fill_of(x[0], spec), batch_size=batch_size) for each in how)
    else:
        assert isinstance(model, TimeSformer)
        with autocast(predictor.device, predictor.dtype):
            relevance = rollout(model, x) if method == "rollout" else gradient_weighted(model, x, label)
    shares = _shares(relevance)
    return Explanation(
        method=method,
        class_name=predictor.class_names[label],
        score=float(scores[label]),
        predicted=predictor.class_names[predicted],
        predicted_score=float(scores[predicted]),
        map=shares,
        time=shares.sum(axis=(1, 2)) if time is None else _shares(time),
        clip=_as_frames(clip),
        pictures=_as_frames(spec.shown(clip[None])[0])[-len(shares) :],
        frame_indices=indices,
        fps=fps,
    )


def playback(predictor: Predictor, video: Any, explanation: Explanation) -> tuple[np.ndarray, np.ndarray, float]:
    """The video between the first and the last frame of the explained view, cut as the model sees it.

    Returns:
        Frames uint8 (P, H, W, 3), at most 240; their indices in the video (P,); frames per second.
    """
    first, last = explanation.frame_indices.min(), explanation.frame_indices.max()
    played = np.unique(np.linspace(first, last, min(last - first + 1, _MOST_PLAYED)).round().astype(int))
    transform = predictor.spec.eval_transform()
    with open_record(as_record(video), backend="pyav") as reader:
        some = np.array_split(played, -(-len(played) // _AT_A_TIME))
        parts = [_as_frames(transform(reader.read(indices))[0]) for indices in some]
    return np.concatenate(parts), played, explanation.fps * len(played) / float(last - first + 1)


def panel_of(explanations: Mapping[str, Explanation], caption: str) -> Panel:
    """What is drawn of explanations of one clip, by the names of their rows."""
    from timesformer.visualization.explanations import Map, Panel

    maps = [Map(name, each.map, each.time) for name, each in explanations.items()]
    first = next(iter(explanations.values()))
    return Panel(caption, first.frames, first.pictures, maps)


def describe(explanation: Explanation) -> str:
    """The prediction, and what is explained where it is something else."""
    text = f"predicted {explanation.predicted} ({explanation.predicted_score:.2f})"
    if explanation.class_name != explanation.predicted:
        text += f", explained {explanation.class_name} ({explanation.score:.2f})"
    return text


def deciding(time: np.ndarray) -> str:
    """The fewest frames that hold half of the shares, by their numbers from 1."""
    if not time.any():
        return "no frame speaks for it"
    order = (-time).argsort(kind="stable")
    number = int((time[order].cumsum() < 0.5).sum()) + 1
    chosen = sorted(int(index) + 1 for index in order[:number])
    return f"{time[order[:number]].sum():.0%} by frame{'s' * (number > 1)} {' '.join(map(str, chosen))} of {len(time)}"


def covered_frames(num_frames: int, num_pictures: int) -> np.ndarray:
    """Which of `num_frames` frames each picture of the model covers: itself, or for motion images a run of them.

    Returns:
        int64 (num_pictures, frames of a picture).
    """
    if num_frames == num_pictures:
        return np.arange(num_frames)[:, None]
    steps = (num_frames - 1) // num_pictures
    return np.arange(num_pictures)[:, None] * steps + np.arange(steps + 1)


def fill_of(clip: Tensor, spec: ClipSpec) -> Tensor:
    """What covers a part of a clip (C, T, H, W): its mean colour, and in motion images that nothing moves: (C,)."""
    fill = clip.mean(dim=(1, 2, 3))
    if spec.input != "rgb":
        fill[-1] = clip[-1].min()
    return fill


def probabilities(logits: Tensor, *, multi_label: bool) -> Tensor:
    """Scores (B, K) of one view."""
    return logits.sigmoid() if multi_label else logits.softmax(dim=1)


def _read_view(predictor: Predictor, video: Any) -> tuple[Tensor, np.ndarray, float]:
    """The centre view, uint8 (3, F, H, W), the indices of its frames and the video's frames per second."""
    record, spec = as_record(video), predictor.spec
    with open_record(record, backend="pyav") as reader:
        sampler = spec.frame_sampler()
        indices = sample_record(record, reader.info, sampler, numpy_generator(predictor.seed, 0, 0))[0]
        wanted, inverse = np.unique(indices, return_inverse=True)
        frames = reader.read(wanted)[inverse]
        return spec.eval_transform()(frames)[0], indices, float(reader.info.fps)


def _as_frames(clip: Tensor) -> np.ndarray:
    """(C, T, H, W) -> (T, H, W, C)."""
    return clip.numpy().transpose(1, 2, 3, 0)


def _shares(relevance: Tensor) -> np.ndarray:
    """The positive part with sum 1; all 0 where there is none."""
    positive = relevance.detach().float().clamp(min=0).double().cpu().numpy()
    shares: np.ndarray = positive / (positive.sum() or 1.0)
    return shares


def _check_method(model: Any, method: str) -> None:
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}. Allowed: {', '.join(METHODS)}")
    if method != "occlusion" and not isinstance(model, TimeSformer):
        raise UserError(
            f"{method} needs the attention of a transformer of this project, and this model is a "
            f"{type(model).__name__}. Take the method occlusion, which works for any model"
        )


def _label_of(name: str, class_names: list[str]) -> int:
    if name in class_names:
        return class_names.index(name)
    near = difflib.get_close_matches(name, class_names, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    shown = ", ".join(class_names[:20]) + (", ..." if len(class_names) > 20 else "")
    raise UserError(f"the model has no class {name!r}. {hint}Its {len(class_names)} classes: {shown}")

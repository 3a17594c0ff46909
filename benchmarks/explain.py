"""Whether explanations point at the hand and at what counts: rendered gestures, whose hands are known.

    python -m benchmarks.explain output/Gestures/LightTimeSformer_demo --data data/gestures/FOLDER --split val

For each method: the share of the map that lies in the boxes of the hand, over the boxes' share of the area, for clips
that are classified correctly; and what the probability of the true class loses when the strongest fifth of the map's
cells is covered, against a random fifth of them (mean of ten draws), with the p value of a one-sided Wilcoxon test.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy.stats import wilcoxon
from torch.nn import functional as F
from tqdm import tqdm

from timesformer.datasets.gestures import rendering
from timesformer.datasets.gestures.dataset import MANIFEST, SPLITS, Clip, Settings
from timesformer.inference.explain import METHODS, Explanation, covered_frames, explain, fill_of, probabilities
from timesformer.inference.occlusion import cover
from timesformer.inference.predictor import Predictor, load

STRONGEST, DRAWS = 0.2, 10


def main() -> None:
    """Measure and print one line for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="checkpoint or folder of a run on generated gestures")
    parser.add_argument("--data", type=Path, required=True, help=f"the folder of the gestures, with {MANIFEST}")
    parser.add_argument("--split", default="test", choices=SPLITS, help="%(default)s")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, help="all")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th clip (%(default)s)")
    arguments = parser.parse_args()
    manifest = json.loads((arguments.data / MANIFEST).read_text())
    settings = Settings(**{name: manifest[name] for name in Settings._fields})
    predictor = load(arguments.model, device="cpu", precision="fp32")
    clips = [*settings.clips(SPLITS.index(arguments.split))][:: arguments.every]
    for method in arguments.methods:
        rows = [measure(predictor, arguments.data, settings, clip, method) for clip in tqdm(clips, leave=False)]
        print(f"{method:<10} {summary(np.array(rows))}", flush=True)


def measure(predictor: Predictor, folder: Path, settings: Settings, clip: Clip, method: str) -> tuple[float, ...]:
    """Whether the clip is classified correctly, the boxes' shares of map and area, the losses of `deletion`."""
    name = predictor.class_names[clip.label]
    explanation = explain(predictor, str(folder / clip.path), method=method, class_name=name, batch_size=64)
    inside = hand_area(hand_boxes(settings, clip), settings.frame_size, explanation, predictor)
    density = stretched(torch.from_numpy(explanation.map), inside.shape)
    share = float((density * inside).sum() / density.sum()) if density.sum() else 0.0
    losses = deletion(predictor, explanation, clip)
    return float(explanation.predicted == name), share, float(inside.float().mean()), *losses


def hand_boxes(settings: Settings, clip: Clip) -> np.ndarray:
    """Where the hand is drawn in each frame: (T, 4) left, top, right, bottom in pixels of the video."""
    boxes = []
    draw = rendering._hand_layer

    def note(picture: np.ndarray, xy: np.ndarray, *rest: Any) -> np.ndarray:
        length = picture.shape[1] / (2 * rendering.SUPERSAMPLING)
        half = length * np.array([0.4, 0.45])  # of a hand with thumb, without its sleeve
        boxes.append(np.concatenate([xy - half, xy + half]))
        return draw(picture, xy, *rest)

    with mock.patch.object(rendering, "_hand_layer", note):
        rendering.render_clip(settings.seed, *clip[:3], frame_size=settings.frame_size, hard=settings.hard)
    return np.array(boxes)


def hand_area(boxes: np.ndarray, size: tuple[int, int], explanation: Explanation, predictor: Predictor) -> torch.Tensor:
    """Where the hand is in what the model sees, bool (T, H, W), from boxes (all frames, 4) in pixels of the video."""
    y, x = np.mgrid[: size[0], : size[1]]
    left, top, right, bottom = (boxes[explanation.frame_indices, side, None, None] for side in range(4))
    masks = ((x >= left) & (x <= right) & (y >= top) & (y <= bottom)).astype(np.uint8) * 255
    seen = predictor.spec.eval_transform()(np.repeat(masks[..., None], 3, axis=3))[0, 0] > 127  # (F, H, W)
    covered = covered_frames(len(seen), predictor.spec.num_frames)
    return seen[torch.from_numpy(covered)].any(dim=1)


def stretched(cells: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Cells (T, rows, columns) as pixels (T, H, W)."""
    pixels: torch.Tensor = F.interpolate(cells[None].float(), size=shape[1:], mode="nearest")[0]
    return pixels


def deletion(predictor: Predictor, explanation: Explanation, clip: Clip) -> tuple[float, float]:
    """The fall of the true class's probability without the strongest cells, and without as many random ones."""
    uint8 = torch.from_numpy(explanation.clip).permute(3, 0, 1, 2)
    x = predictor.spec.normalize(uint8[None])[0]
    fill, cells = fill_of(x, predictor.spec), torch.from_numpy(explanation.map)
    number = round(STRONGEST * cells.numel())
    generator = np.random.default_rng([clip.split, clip.number, clip.label])
    chosen = [cells.flatten().argsort(descending=True)[:number]]
    chosen += [torch.from_numpy(generator.permutation(cells.numel())[:number]) for _ in range(DRAWS)]
    clips = [x]
    for indices in chosen:
        mask = torch.zeros(cells.numel()).index_fill_(0, indices, 1.0).view_as(cells)
        clips.append(cover(x, stretched(mask, x.shape[1:]) > 0, fill))
    with torch.inference_mode():
        scores = probabilities(predictor.model(torch.stack(clips)), multi_label=False)[:, clip.label]
    losses = scores[0] - scores[1:]
    return float(losses[0]), float(losses[1:].mean())


def summary(rows: np.ndarray) -> str:
    """One line of the table from rows of `measure`."""
    right = rows[rows[:, 0] == 1]
    share, area = right[:, 1].mean(), right[:, 2].mean()
    strongest, random = rows[:, 3], rows[:, 4]
    p = wilcoxon(strongest, random, alternative="greater").pvalue
    above = (right[:, 1] >= 1.5 * right[:, 2]).mean()
    return (
        f"hand {share:.3f} of the map / {area:.3f} of the area = {share / area:.2f} ({above:.0%} of {len(right)} clips "
        f">= 1.5)   fall of the score {strongest.mean():.3f}, at random {random.mean():.3f}, p = {p:.1e}"
    )


if __name__ == "__main__":
    main()

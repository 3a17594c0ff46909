"""Draws what the model is fed: clips after frame sampling, crop and augmentation, one row of frames each.

python tools/preview_data.py --cfg FILE.yaml [--split train] [--num 12] [--out FILE.png] [KEY value ...]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode

from timesformer.datasets.build import build_eval_dataset, build_mixer, build_train_dataset, load_list
from timesformer.datasets.loader import StepBatchSampler
from timesformer.datasets.records import VideoList
from timesformer.datasets.video_dataset import Label, Sample, SampleKey, collate
from timesformer.engine.setup import load_run_config
from timesformer.utils.errors import UserError, exit_status
from timesformer.video.clip_spec import Views
from timesformer.visualization.contact_sheets import save_contact_sheet

Row = tuple[str, np.ndarray]  # caption, frames (T, H, W, 3)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description="Draw what the model is fed.")
    parser.add_argument("--cfg", help="configuration file")
    parser.add_argument("--split", default="train", choices=("train", "val", "test"), help="list to draw from (train)")
    parser.add_argument("--num", type=int, default=12, help="videos to draw (12)")
    parser.add_argument(
        "--epoch", type=int, default=0, help="training epoch, from 0, whose random choices are made (0)"
    )
    parser.add_argument("--mix", action="store_true", help="mixup and CutMix too, as MIXUP.* says (train only)")
    parser.add_argument("--out", type=Path, help="picture to write (OUTPUT_DIR/preview_SPLIT.png)")
    parser.add_argument("overrides", nargs="*", help="KEY value ... in place of the file's values")
    return parser.parse_intermixed_args(argv)


def draw_samples(cfg: CfgNode, videos: VideoList, *, split: str, num: int, epoch: int) -> list[Sample]:
    """Training: the first clips of the epoch. Otherwise videos spread over the list; all views for "test"."""
    if split == "train":
        order = StepBatchSampler(len(videos.records), global_batch=1, micro_batch=1, seed=cfg.RNG_SEED).order(epoch)[
            :num
        ]
        dataset = build_train_dataset(cfg, videos)
    else:
        order = np.unique(np.linspace(0, len(videos.records) - 1, num).astype(int))
        dataset = build_eval_dataset(cfg, videos, views=Views.from_config(cfg) if split == "test" else Views())
    return [dataset[SampleKey(epoch, place, int(index))] for place, index in enumerate(order)]


def rows_of(sample: Sample, videos: VideoList) -> list[Row]:
    """One captioned row per view of the sample."""
    if sample.views is None or sample.frame_indices is None:
        return []
    num_crops = len(sample.views) // len(sample.frame_indices)
    path = Path(videos.records[sample.index].path)
    name = label_name(sample.label, videos.class_names)
    rows = []
    for view, clip in enumerate(sample.views):
        indices = sample.frame_indices[view // num_crops]
        caption = f"{name} | {path.parent.name}/{path.name} | {len(set(indices.tolist()))} distinct frames: "
        rows.append((caption + " ".join(map(str, indices)), clip.permute(1, 2, 3, 0).numpy()))
    return rows


def mixed_rows(cfg: CfgNode, samples: list[Sample], videos: VideoList, epoch: int) -> list[Row]:
    """One captioned row per mixed clip."""
    mixer, batch = build_mixer(cfg), collate(samples)
    if mixer is None:
        raise UserError("--mix draws what MIXUP.* does, but it is off. Add: MIXUP.ENABLED True")
    if batch.clips is None:
        return []
    targets = torch.zeros(len(batch.labels), cfg.MODEL.NUM_CLASSES)
    for target, label in zip(targets, batch.labels, strict=True):
        target[list(label) if isinstance(label, tuple) else label] = 1
    clips, targets = mixer(batch.clips.float(), targets, epoch=epoch, positions=batch.positions)
    names = [
        " + ".join(
            f"{float(row[label]):.2f} {label_name(label, videos.class_names)}"
            for label in row.nonzero().flatten().tolist()
        )
        for row in targets
    ]
    frames = clips.round().to(torch.uint8).permute(0, 2, 3, 4, 1).numpy()
    return list(zip(names, frames, strict=True))


def label_name(label: Label, class_names: list[str]) -> str:
    """The class name of a label, or the number."""
    labels = label if isinstance(label, tuple) else (label,)
    return ", ".join(class_names[each] if class_names else f"label {each}" for each in labels)


def main(argv: list[str] | None = None) -> int:
    """Write the picture and print its path; returns the exit status."""
    return exit_status(lambda: draw(parse_args(argv)))


def draw(args: argparse.Namespace) -> None:
    """Draw what `args` name."""
    if args.mix and args.split != "train":
        raise UserError("only training clips are mixed: leave --mix out, or add --split train")
    cfg = load_run_config(args.cfg, args.overrides).cfg
    videos = load_list(cfg, args.split)
    samples = draw_samples(cfg, videos, split=args.split, num=args.num, epoch=args.epoch)
    for failure in (failure for sample in samples for failure in sample.failures):
        print(f"could not be read: {failure}", file=sys.stderr)
    if args.mix:
        rows = mixed_rows(cfg, samples, videos, args.epoch)
    else:
        rows = [row for sample in samples for row in rows_of(sample, videos)]
    if not rows:
        raise UserError("none of the videos drawn could be read")
    out = args.out or Path(cfg.OUTPUT_DIR) / f"preview_{args.split}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    order = "" if cfg.DATA.CHANNEL_ORDER == "rgb" else " (the model gets blue first; shown in true colours)"
    save_contact_sheet(rows, out, f"{args.split}: what the model is fed{order}")
    print(out)


if __name__ == "__main__":
    sys.exit(main())

"""Draw the clips that the model gets: after frame sampling, crop and augmentation, one row of frames per clip."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.cli.parsers import config_parser, run_command

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

    from timesformer.datasets.records import VideoList
    from timesformer.datasets.video_dataset import Sample
    from timesformer.visualization.contact_sheets import Row


def main(argv: Sequence[str] | None = None) -> int:
    """Write the picture and print its path; returns the exit status."""
    parser = config_parser("preview", "Draw the clips that the model gets, one row of frames per clip.")
    splits = ("train", "val", "test")
    parser.add_argument("--split", default="train", choices=splits, help="list to draw from (%(default)s)")
    parser.add_argument("--num", type=int, default=12, metavar="N", help="videos to draw (%(default)s)")
    parser.add_argument(
        "--epoch", type=int, default=0, metavar="E", help="draw what epoch E draws, from 0 (%(default)s)"
    )
    parser.add_argument("--mix", action="store_true", help="also mixup and CutMix, as MIXUP.* says (train only)")
    parser.add_argument("--out", type=Path, metavar="PNG", help="picture to write (OUTPUT_DIR/preview_SPLIT.png)")
    return run_command(parser, argv, preview)


def preview(arguments: argparse.Namespace) -> None:
    """Draw what the command line requests.

    Raises:
        UserError: nothing to draw, or options that do not fit the configuration.
    """
    from timesformer.datasets.build import load_list
    from timesformer.engine.setup import load_run_config
    from timesformer.utils.errors import UserError
    from timesformer.visualization.contact_sheets import save_contact_sheet

    split, epoch = arguments.split, arguments.epoch
    if arguments.mix and split != "train":
        raise UserError("only training clips are mixed: leave --mix out, or add --split train")
    cfg = load_run_config(arguments.cfg, arguments.overrides).cfg
    videos = load_list(cfg, split)
    samples = draw_samples(cfg, videos, split=split, num=arguments.num, epoch=epoch)
    for failure in (failure for sample in samples for failure in sample.failures):
        print(f"could not be read: {failure}", file=sys.stderr)
    if arguments.mix:
        rows = mixed_rows(cfg, samples, videos, epoch)
    else:
        rows = [row for sample in samples for row in view_rows(sample, videos)]
    if not rows:
        raise UserError("none of the videos drawn could be read")
    out = arguments.out or Path(cfg.OUTPUT_DIR) / f"preview_{split}.png"
    order = "" if cfg.DATA.CHANNEL_ORDER == "rgb" else " (with blue first; shown in true colours)"
    save_contact_sheet(rows, out, f"{split}: clips as the model gets them{order}")
    print(out)


def draw_samples(cfg: CfgNode, videos: VideoList, *, split: str, num: int, epoch: int) -> list[Sample]:
    """Training: the first clips of the epoch. Otherwise videos spread over the list; all views for "test"."""
    import numpy as np

    from timesformer.datasets.build import build_eval_dataset, build_train_dataset
    from timesformer.datasets.loader import StepBatchSampler
    from timesformer.datasets.video_dataset import SampleKey
    from timesformer.video.clip_spec import Views

    num_videos = len(videos.records)
    if split == "train":
        dataset = build_train_dataset(cfg, videos)
        sampler = StepBatchSampler(num_videos, global_batch=1, micro_batch=1, seed=cfg.RNG_SEED)
        indices = sampler.order(epoch)[:num]
    else:
        dataset = build_eval_dataset(cfg, videos, views=Views.from_config(cfg) if split == "test" else Views())
        indices = np.unique(np.linspace(0, num_videos - 1, num).astype(int))
    return [dataset[SampleKey(epoch, position, int(index))] for position, index in enumerate(indices)]


def view_rows(sample: Sample, videos: VideoList) -> list[Row]:
    """One captioned row per view of the sample."""
    from timesformer.visualization.contact_sheets import clip_frames, label_name

    if sample.views is None or sample.frame_indices is None:
        return []
    num_crops = len(sample.views) // len(sample.frame_indices)
    path = Path(videos.records[sample.index].path)
    video = f"{label_name(sample.label, videos.class_names)} | {path.parent.name}/{path.name}"
    rows = []
    for view, clip in enumerate(sample.views):
        indices = sample.frame_indices[view // num_crops].tolist()
        caption = f"{video} | {len(set(indices))} distinct frames: {' '.join(map(str, indices))}"
        rows.append((caption, clip_frames(clip)))
    return rows


def mixed_rows(cfg: CfgNode, samples: list[Sample], videos: VideoList, epoch: int) -> list[Row]:
    """One captioned row per mixed clip."""
    import torch

    from timesformer.datasets.build import build_mixer
    from timesformer.datasets.video_dataset import collate
    from timesformer.evaluation.metrics import multi_hot
    from timesformer.utils.errors import UserError
    from timesformer.visualization.contact_sheets import clip_frames, label_name

    mixer, batch = build_mixer(cfg), collate(samples)
    if mixer is None:
        raise UserError("--mix draws what MIXUP.* does, but it is off. Add: MIXUP.ENABLED True")
    if batch.clips is None:
        return []
    targets = torch.from_numpy(multi_hot(batch.labels, cfg.MODEL.NUM_CLASSES))
    clips, targets = mixer(batch.clips.float(), targets, epoch=epoch, positions=batch.positions)
    rows = []
    for clip, target in zip(clips.round().to(torch.uint8), targets, strict=True):
        shares = ((float(target[label]), label) for label in target.nonzero().flatten().tolist())
        caption = " + ".join(f"{share:.2f} {label_name(label, videos.class_names)}" for share, label in shares)
        rows.append((caption, clip_frames(clip)))
    return rows


if __name__ == "__main__":
    sys.exit(main())

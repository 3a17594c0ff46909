"""Draw the clips that the model gets: after frame sampling, crop and augmentation, one row of frames per clip."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.cli.parsers import config_parser, run_command
from timesformer.utils.errors import UserError

if TYPE_CHECKING:
    from timesformer.datasets.mixing import ClipMixer
    from timesformer.datasets.records import VideoList
    from timesformer.datasets.video_dataset import Sample
    from timesformer.video.clip_spec import ClipSpec
    from timesformer.visualization.contact_sheets import Row


def main(argv: Sequence[str] | None = None) -> int:
    """Write the picture and print its path; returns the exit status."""
    parser = config_parser("preview", "Draw the clips that the model gets, one row of frames per clip.")
    splits = ("train", "val", "test")
    parser.add_argument("--split", default="train", choices=splits, help="list to draw from (%(default)s)")
    parser.add_argument("--num", type=int, default=12, metavar="N", help="videos to draw (%(default)s)")
    parser.add_argument("--epoch", type=int, default=0, metavar="E", help="draw the clips of epoch E, from 0 (0)")
    parser.add_argument("--mix", action="store_true", help="also mixup and CutMix, as MIXUP.* says (train only)")
    parser.add_argument("--out", type=Path, metavar="PNG", help="picture to write (OUTPUT_DIR/preview_SPLIT.png)")
    return run_command(parser, argv, preview)


def preview(arguments: argparse.Namespace) -> None:
    """Draw training clips in the order of the epoch, or videos spread over the list, in the test with all views.

    Raises:
        UserError: nothing to draw, or options that do not fit the configuration.
    """
    import numpy as np

    from timesformer.datasets import build
    from timesformer.datasets.loader import StepBatchSampler
    from timesformer.datasets.video_dataset import SampleKey
    from timesformer.engine.setup import load_run_config
    from timesformer.video.clip_spec import Views
    from timesformer.visualization.contact_sheets import save_contact_sheet

    split, epoch, num = arguments.split, arguments.epoch, arguments.num
    if arguments.mix and split != "train":
        raise UserError("only training clips are mixed: leave --mix out, or add --split train")
    cfg = load_run_config(arguments.cfg, arguments.overrides).cfg
    videos = build.load_list(cfg, split)
    num_videos = len(videos.records)
    if split == "train":
        dataset = build.build_train_dataset(cfg, videos)
        sampler = StepBatchSampler(num_videos, global_batch=1, micro_batch=1, seed=cfg.RNG_SEED)
        indices = sampler.order(epoch)[:num]
    else:
        views = Views.from_config(cfg) if split == "test" else Views()
        dataset = build.build_eval_dataset(cfg, videos, views=views)
        indices = np.unique(np.linspace(0, num_videos - 1, num).astype(int))
    samples = [dataset[SampleKey(epoch, position, int(index))] for position, index in enumerate(indices)]
    for failure in (failure for sample in samples for failure in sample.failures):
        print(f"could not be read: {failure}", file=sys.stderr)
    if arguments.mix:
        mixer = build.build_mixer(cfg)
        if mixer is None:
            raise UserError("--mix draws what MIXUP.* does, but it is off. Add: MIXUP.ENABLED True")
        rows = [*mixed_rows(samples, videos, mixer, epoch, dataset.spec)]
    else:
        rows = [row for sample in samples for row in view_rows(sample, videos, dataset.spec)]
    if not rows:
        raise UserError("none of the videos drawn could be read")
    out = arguments.out or Path(cfg.OUTPUT_DIR) / f"preview_{split}.png"
    order = "" if cfg.DATA.CHANNEL_ORDER == "rgb" else " (with blue first; shown in true colours)"
    save_contact_sheet(rows, out, f"{split}: clips as the model gets them{order}")
    print(out)


def view_rows(sample: Sample, videos: VideoList, spec: ClipSpec) -> Iterator[Row]:
    """One captioned row per view of the sample."""
    from timesformer.visualization.contact_sheets import clip_frames, label_name

    if sample.views is None or sample.frame_indices is None:
        return
    num_crops = len(sample.views) // len(sample.frame_indices)
    path = Path(videos.records[sample.index].path)
    video = f"{label_name(sample.label, videos.class_names)} | {path.parent.name}/{path.name}"
    for view, clip in enumerate(spec.shown(sample.views)):
        indices = sample.frame_indices[view // num_crops].tolist()
        caption = f"{video} | {len(set(indices))} distinct frames: {' '.join(map(str, indices))}"
        yield caption, clip_frames(clip)


def mixed_rows(samples: list[Sample], videos: VideoList, mixer: ClipMixer, epoch: int, spec: ClipSpec) -> Iterator[Row]:
    """One captioned row per mixed clip."""
    import torch

    from timesformer.datasets.video_dataset import collate
    from timesformer.evaluation.metrics import multi_hot
    from timesformer.visualization.contact_sheets import clip_frames, label_name

    batch = collate(samples)
    if batch.clips is None:
        return
    targets = torch.from_numpy(multi_hot(batch.labels, mixer.num_classes))
    clips, targets = mixer(spec.shown(batch.clips).float(), targets, epoch=epoch, positions=batch.positions)
    for clip, target in zip(clips.round().to(torch.uint8), targets, strict=True):
        shares = ((float(target[label]), label) for label in target.nonzero().flatten().tolist())
        caption = " + ".join(f"{share:.2f} {label_name(label, videos.class_names)}" for share, label in shares)
        yield caption, clip_frames(clip)

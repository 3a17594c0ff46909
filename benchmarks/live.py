"""How well `timesformer live` finds gestures in streams of generated people that the model has not seen.

    timesformer train --cfg Gestures/StreamTimeSformer_live
    python -m benchmarks.live output/Gestures/StreamTimeSformer_live --people val     chooses the threshold
    python -m benchmarks.live output/Gestures/StreamTimeSformer_live --people test --thresholds 0.8

Each stream has 12 gestures in random order, with 1 to 3 seconds between two in which the hand rests, wanders or is
out of sight. A found event is right when a gesture of its class overlaps its window and has no other event.
`--pause 0.3` slows the model down and reads the streams in their own time. With `--repeats` each gesture is made twice,
1 second apart, and the recall of the first and of the second ones is printed: a detector that does not arm again after
a gesture misses the second ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

import timesformer
from timesformer.datasets.gestures import streams
from timesformer.datasets.gestures.dataset import DEFAULT_FRAME_SIZE, SPLITS
from timesformer.datasets.gestures.rendering import FPS, write_video
from timesformer.inference.events import Event, EventDetector, Window
from timesformer.inference.live import Watcher
from timesformer.video.capture import Source

Moments = list[tuple[float, list[Window]]]
Pairs = list[tuple[Event, streams.Event]]


def matches(found: Sequence[Event], truth: Sequence[streams.Event]) -> Pairs:
    """Pairs of a found event and its gesture, each used once, in order of time."""
    pairs, free = [], list(truth)
    for event in found:
        for gesture in free:
            if gesture.label == event.label and event.start < gesture.end / FPS and gesture.start / FPS < event.end:
                pairs.append((event, gesture))
                free.remove(gesture)
                break
    return pairs


def detect(moments: Moments, names: Sequence[str], threshold: float) -> list[Event]:
    """The events of scores that are known already."""
    detector = EventDetector(names, threshold)
    found = [detector.update(now, windows) for now, windows in moments]
    return [event for event in [*found, detector.finish(moments[-1][0])] if event is not None]


def repeats(runs: Sequence[tuple[Moments, list[streams.Event]]], pairs: Sequence[Pairs]) -> str:
    """Which of gestures that are made twice in succession were found."""
    firsts = seconds = after_first = total = 0
    for (_, truth), matched in zip(runs, pairs, strict=True):
        found = {gesture for _, gesture in matched}
        for first, second in zip(truth[::2], truth[1::2], strict=True):
            firsts, seconds = firsts + (first in found), seconds + (second in found)
            after_first, total = after_first + ({first, second} <= found), total + 1
    return (
        f"found: {firsts}/{total} first ones, {seconds}/{total} second ones, {after_first}/{firsts} after a found first"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line per threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--people", choices=SPLITS[1:], default="val")
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the rendering")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
    parser.add_argument("--windows", type=float, nargs="+", help="seconds (quartiles of the calibration)")
    parser.add_argument("--stride", type=float, default=0.1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds by which the model is slowed down")
    parser.add_argument("--repeats", action="store_true", help="each gesture twice in succession, 1 s apart")
    parser.add_argument("--hard", action="store_true")
    arguments = parser.parse_args(argv)

    predictor = timesformer.load(arguments.checkpoint)
    known = predictor.calibration
    durations = arguments.windows or (known.durations_sec if known else (1.5, 2.0, 3.0))
    if arguments.pause:
        predictor.model.register_forward_pre_hook(lambda *_: time.sleep(arguments.pause))
    runs: list[tuple[Moments, list[streams.Event]]] = []
    latencies: list[float] = []
    seconds, frames, dropped, scored = 0.0, 0, 0, 0
    for number in tqdm(range(arguments.streams), unit="stream"):
        order = np.random.default_rng(number).permutation(12).tolist()
        order = np.repeat(order[:6], 2).tolist() if arguments.repeats else order
        clip, truth = streams.render_stream(
            *(arguments.seed, SPLITS.index(arguments.people), number, order),
            frame_size=DEFAULT_FRAME_SIZE,
            hard=arguments.hard,
            gap_sec=(1.0, 1.0) if arguments.repeats else streams.GAP_SEC,
        )
        seconds += len(clip) / FPS
        watcher = Watcher(
            predictor,
            EventDetector(predictor.class_names, 0.5),
            durations_sec=durations,
            temperature=known.temperature if known else 1.0,
            stride_sec=arguments.stride,
        )
        moments: Moments = []

        def keep(now: float, windows: list[Window], moments: Moments = moments) -> None:
            moments.append((now, windows))

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stream.avi"
            write_video(path, clip, "mpeg4")
            source = Source(str(path))
            for _ in watcher.watch(source, paced=arguments.pause > 0, seen=keep):
                pass
        runs.append((moments, truth))
        latencies += watcher.statistics.latencies
        frames, dropped = frames + watcher.statistics.frames, dropped + watcher.statistics.dropped
        scored += watcher.statistics.scored

    print(f"{arguments.streams} streams, {seconds:.0f} s, {sum(len(truth) for _, truth in runs)} gestures")
    print(f"{frames} frames, {dropped} dropped, {scored} moments scored, windows {durations}")
    if latencies:
        print(f"from frame to scores: median {1e3 * np.median(latencies):.0f} ms, most {1e3 * max(latencies):.0f} ms")
    if known:
        print(f"calibrated: temperature {known.temperature:.2f}, threshold {known.threshold:.2f}")
    print("| threshold | F1 | precision | recall | false events a minute | decided after the gesture's end, s |")
    print("|---|---|---|---|---|---|")
    for threshold in sorted({*arguments.thresholds}):
        found = [detect(moments, predictor.class_names, threshold) for moments, _ in runs]
        pairs = [matches(events, truth) for events, (_, truth) in zip(found, runs, strict=True)]
        right, events = sum(map(len, pairs)), sum(map(len, found))
        total = sum(len(truth) for _, truth in runs)
        delays = [event.decided - gesture.end / FPS for matched in pairs for event, gesture in matched]
        scores = (2 * right / (events + total), right / max(events, 1), right / total)
        late = f"{np.median(delays):.2f}" if delays else "-"
        print(f"| {threshold:.2f} | {' | '.join(f'{x:.3f}' for x in scores)} | "
              f"{60 * (events - right) / seconds:.2f} | {late} |")  # fmt: skip
        if arguments.repeats:
            print(repeats(runs, pairs))


if __name__ == "__main__":
    main()

"""Copies of videos: the same file, or the same recording encoded, resized or trimmed otherwise.

Two clips of one person in one room look alike in every frame. What a copy shares beyond that is the movement at
every moment, so videos are compared by how their small grey frames change:

    candidates   16 frames of each video, as 8 x 8 pixels less the mean over time. First all pairs: three frames of
                 the shorter video each resemble some frame of the longer one, and the means resemble one another.
                 Then those pairs: at some shift in time, all 16 frames resemble those of the longer video
    similarity   of candidates only, on up to 96 frames of 16 x 16 pixels: the share of the shorter video's movement
                 that the longer one explains at the best shift
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from timesformer.curation.small_videos import SmallVideo

NUM_FRAMES, NUM_FRAMES_CLOSER = 16, 96  # that are read of every video, and of candidates
SMALLEST_PART = 0.5  # of the longer video, that the shorter one must last
# Likeness of copies, chosen on clips that no test uses: copies of generated gestures (48 x 64 pixels) and of real ones
# have 0.89 or more; other real clips at most 0.45, other generated ones at most 0.75.
SIMILAR = 0.85
CODING_ERROR, CODING_SHARE = 10.0, 0.12  # mean squared error of coarse encoding: grey levels squared, of the movement
STILL = 1.0  # grey levels squared: a video that moves less is not compared (encoded frozen ones have 0.3 to 0.8)
NOISE = 1.5  # grey levels squared: the mean squared error of a copy that is encoded poorly
_MOMENTS = np.array([4, 8, 11])  # frames of the shorter video that are looked for in the longer one
_ALIKE_FRAMES, _ALIKE_MEANS, _ALIKE_IN_STEP = 0.45, 0.65, 0.55  # correlations of candidates
_BLOCK, _PAIRS = 32, 4096  # videos that are compared with all, and pairs that are looked at, at a time


def exact_copies(videos: Mapping[int, SmallVideo], parts: Mapping[int, tuple[float, float]]) -> list[tuple[int, int]]:
    """Pairs (first, other) of keys whose files have the same content, and of which the same part is used.

    Args:
        videos: with digests where another file has the same size.
        parts: start and end in seconds, by the same keys.
    """
    same: dict[object, list[int]] = defaultdict(list)
    for key, video in videos.items():
        if video.digest:
            same[video.digest, parts[key]].append(key)
    return [(keys[0], other) for keys in same.values() for other in keys[1:]]


def find_candidates(videos: Mapping[int, SmallVideo]) -> list[tuple[int, int]]:
    """Pairs (shorter, longer) of keys of `videos` that may be copies; still videos are left out.

    Args:
        videos: with `NUM_FRAMES` frames each, or all they have.
    """
    keys = np.array([key for key, video in videos.items() if movement(video.frames) > STILL], np.int64)
    if len(keys) < 2:
        return []
    durations = np.array([videos[key].duration_sec for key in keys.tolist()])
    frames = np.stack([_coarse(videos[key].frames) for key in keys.tolist()])  # (n, T, 64)
    means = frames.mean(axis=1)
    changes = _unit(frames - means[:, None])
    means = _unit(means - means.mean(axis=1, keepdims=True))
    pairs = np.concatenate([*_resembling(changes, means, durations)])
    # of two videos that are equally long, each is the shorter one: once is enough
    pairs = pairs[(durations[pairs[:, 0]] != durations[pairs[:, 1]]) | (pairs[:, 0] < pairs[:, 1])]
    chunks = (pairs[start : start + _PAIRS] for start in range(0, len(pairs), _PAIRS))
    in_step = [chunk[_best_in_step(changes, durations, *chunk.T) > _ALIKE_IN_STEP] for chunk in chunks]
    return [(int(a), int(b)) for chunk in in_step for a, b in keys[chunk]]


def _resembling(changes: np.ndarray, means: np.ndarray, durations: np.ndarray) -> Iterable[np.ndarray]:
    """Rows (shorter, longer), a block of the shorter ones at a time."""
    queries = changes[:, _MOMENTS]  # (n, 3, 64)
    everything = changes.reshape(-1, changes.shape[2]).T  # (64, n * T)
    for start in range(0, len(changes), _BLOCK):
        block = slice(start, start + _BLOCK)
        alike = queries[block].reshape(-1, queries.shape[2]) @ everything  # (b * 3, n * T)
        best = alike.reshape(-1, len(_MOMENTS), len(changes), NUM_FRAMES).max(axis=3).min(axis=1)  # (b, n)
        shorter, longer = durations[block, None], durations[None]
        fits = (shorter <= longer) & (shorter >= SMALLEST_PART * longer)
        fits &= np.arange(len(changes))[block, None] != np.arange(len(changes))
        found = np.argwhere(fits & (best > _ALIKE_FRAMES) & (means[block] @ means.T > _ALIKE_MEANS))
        yield found + np.array([start, 0])


def _best_in_step(changes: np.ndarray, durations: np.ndarray, shorter: np.ndarray, longer: np.ndarray) -> np.ndarray:
    """(m,) mean correlation of the frames of each pair at the best of some shifts in time."""
    alike = changes[shorter] @ changes[longer].transpose(0, 2, 1)  # (m, T, T)
    ratio = (durations[shorter] / durations[longer])[:, None]
    room = 1 - ratio
    starts = np.concatenate([room * np.linspace(0, 1, 9), 0 * room - 0.12, room + 0.12], axis=1)  # (m, shifts)
    frame = np.arange(NUM_FRAMES)
    places = (NUM_FRAMES - 1) * starts[:, :, None] + ratio[:, :, None] * frame  # (m, shifts, T)
    before = np.clip(np.floor(places), 0, NUM_FRAMES - 1).astype(int)
    pair = np.arange(len(alike))[:, None, None]
    values = np.maximum(alike[pair, frame, before], alike[pair, frame, np.minimum(before + 1, NUM_FRAMES - 1)])
    return values.mean(axis=2).max(axis=1)


def similarity(shorter: SmallVideo, longer: SmallVideo) -> float:
    """Share of the shorter video's movement that the longer one explains at the best shift in time, at most 1.

    With b the grey levels of the shorter video and a those of the longer one at the shifted times, up to brightness
    and contrast of the whole: 1 - sum (b - a)^2 / sum (b - mean over time of b)^2, with some noise in the latter, and
    less what coarse encoding explains in the former.
    At a shift that is tried, at least three quarters of the shorter video lie within the longer one.
    """
    step = longer.times_sec[-1] / (len(longer.times_sec) - 1) / 2
    a, b = _resampled(longer, step), _resampled(shorter, step)  # (n, P), (m, P)
    shifts = np.arange(-(len(b) // 4), len(a) - len(b) + len(b) // 4 + 1)
    shifts = shifts[(np.minimum(len(a), shifts + len(b)) - np.maximum(0, shifts)) > 0]
    first, last = np.maximum(0, shifts), np.minimum(len(a), shifts + len(b))  # in a

    def sums(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        running = np.concatenate([[0.0], np.cumsum(values)])
        return running[end] - running[start]

    size = (last - first) * b.shape[1]
    mean_a, mean_b = sums(a.sum(1), first, last) / size, sums(b.sum(1), first - shifts, last - shifts) / size
    square_a = sums((a * a).sum(1), first, last) / size
    square_b = sums((b * b).sum(1), first - shifts, last - shifts) / size
    products = b @ a.T  # (m, n)
    crossed = np.array([np.trace(products, shift) for shift in shifts]) / size
    covariance = np.maximum(crossed - mean_a * mean_b, 0.0)
    error = square_b - mean_b**2 - covariance**2 / np.maximum(square_a - mean_a**2, 1e-6)
    moving = movement(b) + NOISE
    unexplained = np.maximum(error - min(CODING_ERROR, CODING_SHARE * moving), 0.0)
    return float((1 - unexplained / moving).max())


def movement(frames: np.ndarray) -> float:
    """Mean variance over time (T first) of the pixels, in grey levels squared."""
    return float(frames.astype(np.float32).var(axis=0).mean())


def _resampled(video: SmallVideo, step_sec: float) -> np.ndarray:
    """Frames at 0, 1, 2, ... steps, linear between those that are known: float32 (n, P)."""
    frames = video.frames.reshape(len(video.frames), -1).astype(np.float32)
    times = np.arange(0, video.times_sec[-1] + step_sec / 2, step_sec)
    after = np.clip(np.searchsorted(video.times_sec, times), 1, len(frames) - 1)
    start, end = video.times_sec[after - 1], video.times_sec[after]
    share = np.clip((times - start) / (end - start), 0, 1)[:, None].astype(np.float32)
    return frames[after - 1] * (1 - share) + frames[after] * share


def _coarse(frames: np.ndarray) -> np.ndarray:
    """(T, S, S) -> float32 (NUM_FRAMES, S * S / 4): means over 2 x 2 pixels; short videos repeat frames."""
    rows = np.linspace(0, len(frames) - 1, NUM_FRAMES).round().astype(int)
    side = frames.shape[1] // 2
    return (
        frames[rows].astype(np.float32).reshape(NUM_FRAMES, side, 2, side, 2).mean(axis=(2, 4)).reshape(NUM_FRAMES, -1)
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def groups(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Sorted keys that pairs connect, directly or by others."""
    of: dict[int, list[int]] = {}
    for a, b in pairs:
        joined = of.get(a, [a]) if of.get(a) is of.get(b, ()) else [*of.get(a, [a]), *of.get(b, [b])]
        of.update(dict.fromkeys(joined, joined))
    return sorted({id(group): sorted(group) for group in of.values()}.values())

"""Pictures behind the hand: walls, curtains, floors, desks, shelves, plants and nonsense, all procedural."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from timesformer.datasets.gestures.hands import skin_colour

Size = tuple[int, int]  # (height, width) in pixels
Grid = tuple[np.ndarray, np.ndarray]  # surface coordinates of every pixel: float32 (H, W) each


def background(generator: np.random.Generator, size: Size, *, calm: bool) -> np.ndarray:
    """A picture of one of many kinds under uneven light, of one surface if `calm`: uint8 (H, W, 3)."""
    picture = _surface(generator, size)
    if not calm and generator.random() < 0.7:  # another surface begins somewhere: a desk, a door, a blanket
        mask = np.zeros(size, np.uint8)
        _fill(mask, _region(generator, size), 255)
        picture = _blend(picture, _surface(generator, size), mask)
    if not calm and generator.random() < 0.7:
        _objects(generator, picture, int(generator.integers(1, 12)))
    if not calm and generator.random() < 0.3:  # what has the colour of a hand and is none
        for _ in range(generator.integers(1, 4)):
            _blob(generator, picture, skin_colour(generator))
    light = _noise(generator, size, (2, 3)) * generator.uniform(0.0, 0.3) + generator.uniform(0.75, 1.1)
    light += np.float32(generator.uniform(0.0, 0.1)) * _octaves(generator, size)
    picture = cv2.multiply(picture, cv2.cvtColor(light, cv2.COLOR_GRAY2BGR), dtype=cv2.CV_8U)
    if generator.random() < 0.3:  # out of focus
        picture = cv2.GaussianBlur(picture, (0, 0), generator.uniform(0.4, 2.0))
    return picture


def colour(generator: np.random.Generator) -> np.ndarray:
    """RGB in 0..255: most of the world is grey, beige or brown."""
    kind, brightness = generator.random(), 255.0 * generator.random() ** 0.8
    if kind < 0.35:
        return np.clip(brightness + generator.normal(0.0, 6.0, 3), 0.0, 255.0)
    if kind < 0.6:
        return np.array([1.0, generator.uniform(0.7, 0.97), generator.uniform(0.4, 0.9)]) * brightness
    hue = generator.uniform(0.0, 1.0, 3) ** generator.uniform(0.3, 1.5)
    return np.asarray((hue + (hue.mean() - hue) * generator.uniform(0.0, 0.9)) * max(brightness, 60.0))


def _noise(generator: np.random.Generator, size: Size, cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise of about unit variance: float32 (H, W)."""
    coarse = generator.standard_normal(cells, np.float32)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))


def _octaves(generator: np.random.Generator, size: Size) -> np.ndarray:
    """Noise whose strength falls with frequency, as in photographs: float32 (H, W) of about unit variance."""
    fall = generator.uniform(0.5, 0.9)
    cells = (3, 6, 12, 24, 48)
    amplitudes = [fall**octave for octave in range(len(cells))]
    total = sum(a * _noise(generator, size, (n, n + n // 3)) for a, n in zip(amplitudes, cells, strict=True))
    return np.asarray(total / np.linalg.norm(amplitudes), np.float32)


def _surface_grid(generator: np.random.Generator, size: Size) -> Grid:
    """A plane seen from the side, turned and wrinkled; both coordinates go over about 1 in the picture."""
    height, width = size
    x, y = np.meshgrid(
        np.linspace(-0.5, 0.5, width, dtype=np.float32), np.linspace(-0.5, 0.5, height, dtype=np.float32)
    )
    tilt_x, tilt_y = generator.normal(0.0, 0.35, 2).clip(-0.7, 0.7)
    angle = generator.choice([0.0, 0.0, np.pi / 2, generator.uniform(0.0, np.pi)]) + generator.normal(0.0, 0.06)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    depth = 1.0 + np.float32(tilt_x) * x + np.float32(tilt_y) * y
    u, v = (cos * x + sin * y) / depth, (cos * y - sin * x) / depth
    if generator.random() < 0.5:
        wrinkle = generator.uniform(0.01, 0.08)
        u = u + wrinkle * _noise(generator, size, (4, 5))
        v = v + wrinkle * _noise(generator, size, (4, 5))
    return u.astype(np.float32), v.astype(np.float32)


def _edge(generator: np.random.Generator, wave: np.ndarray) -> np.ndarray:
    """A wave in -1..1 as a pattern in 0..1, anything from soft to sharp."""
    return np.asarray(np.clip(0.5 + generator.choice([0.5, 1.5, 6.0]) * wave, 0.0, 1.0), np.float32)


# Patterns: how far each pixel is from a first to a second colour, float32 (H, W) in about 0..1.


def _wall(generator: np.random.Generator, size: Size) -> np.ndarray:
    return np.asarray(0.5 + generator.uniform(0.05, 0.25) * _octaves(generator, size))


def _clouds(generator: np.random.Generator, size: Size) -> np.ndarray:
    return _edge(generator, 0.5 * _octaves(generator, size))


def _stripes(generator: np.random.Generator, size: Size) -> np.ndarray:
    u, v = _surface_grid(generator, size)
    frequency = np.float32(generator.uniform(12.0, 70.0))
    kind = generator.integers(0, 4)  # straight, chevrons, waves, ragged
    if kind == 1:
        u = u + np.float32(generator.uniform(0.3, 1.0)) * np.abs(np.mod(v * generator.uniform(2, 8), 1.0) - 0.5)
    elif kind == 2:
        u = u + np.float32(generator.uniform(0.01, 0.04)) * np.sin(v * np.float32(generator.uniform(10.0, 60.0)))
    elif kind == 3:
        u = u + np.float32(0.03) * _noise(generator, size, (48, 60))
    return _edge(generator, np.sin(frequency * u) + np.float32(generator.uniform(-0.5, 0.5)))


def _folds(generator: np.random.Generator, size: Size) -> np.ndarray:
    """A curtain: upright folds of several widths."""
    u, _ = _surface_grid(generator, size)
    waves = [np.sin(u * np.float32(f) + np.float32(p)) for f, p in generator.uniform((8.0, 0.0), (60.0, 6.3), (3, 2))]
    return np.asarray(0.5 + 0.2 * sum(waves), np.float32)


def _tiles(generator: np.random.Generator, size: Size) -> np.ndarray:
    """Tiles, bricks, a chequered board or a keyboard."""
    u, v = _surface_grid(generator, size)
    rows, columns = generator.uniform(3.0, 16.0, 2)
    row = v * np.float32(rows)
    column = u * np.float32(columns) + np.float32(generator.choice([0.0, 0.5])) * np.mod(np.floor(row), 2.0)
    if generator.random() < 0.3:
        return np.asarray(np.mod(np.floor(row) + np.floor(column), 2.0), np.float32)
    gap = np.minimum(0.5 - np.abs(np.mod(row, 1.0) - 0.5), 0.5 - np.abs(np.mod(column, 1.0) - 0.5))
    grout = np.clip(generator.uniform(6.0, 20.0) * gap, 0.0, 1.0)
    shades = np.mod(np.floor(row) * 7.0 + np.floor(column) * 3.3, 1.0) * generator.choice([0.0, 0.2, 0.5])
    return np.asarray(grout * (1.0 - shades), np.float32)


def _dots(generator: np.random.Generator, size: Size) -> np.ndarray:
    """A regular print of dots or rings."""
    u, v = _surface_grid(generator, size)
    count = np.float32(generator.uniform(4.0, 22.0))
    row, column = v * count, u * count + np.float32(0.5) * np.mod(np.floor(v * count), 2.0)
    distance = np.hypot(np.mod(row, 1.0) - 0.5, np.mod(column, 1.0) - 0.5)
    radius = generator.uniform(0.12, 0.4)
    ring = np.abs(distance - radius) - 0.05 if generator.random() < 0.4 else distance - radius
    return np.asarray(np.clip(0.5 - 6.0 * ring, 0.0, 1.0), np.float32)


def _grain(generator: np.random.Generator, size: Size) -> np.ndarray:
    """Wood or marble."""
    u, v = _surface_grid(generator, size)
    rings = u * generator.uniform(15.0, 60.0) + v * generator.uniform(0.0, 6.0)
    return np.asarray(0.5 + 0.35 * np.sin(rings + generator.uniform(0.5, 3.0) * _octaves(generator, size)), np.float32)


def _cells(generator: np.random.Generator, size: Size) -> np.ndarray:
    """Patches about random points, each of one shade: leaves, stones, camouflage."""
    seeds = np.full(size, 255, np.uint8)
    count = int(generator.integers(12, 160))
    seeds[generator.integers(0, size[0], count), generator.integers(0, size[1], count)] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    shade = generator.uniform(0.0, 1.0, count + 2).astype(np.float32)[labels]
    return cv2.blur(shade * (1.0 - np.float32(generator.uniform(0.0, 0.06)) * distance), (3, 3))


def _leaves(generator: np.random.Generator, size: Size) -> np.ndarray:
    """Many overlapping small ellipses."""
    picture = np.full(size, 90, np.uint8)
    count, large = int(generator.integers(40, 140)), generator.uniform(4.0, 14.0)
    centres = (16 * generator.uniform((0, 0), size[::-1], (count, 2))).astype(int).tolist()
    radii = (16 * large * generator.uniform(0.3, 1.0, (count, 2))).astype(int).tolist()
    turns, shades = generator.uniform(0, 180, count).tolist(), generator.integers(0, 255, count).tolist()
    for centre, radius, turn, shade in zip(centres, radii, turns, shades, strict=True):
        cv2.ellipse(picture, centre, radius, turn, 0, 360, shade, -1, cv2.LINE_8, shift=4)
    return cv2.blur(picture, (3, 3)).astype(np.float32) / 255


def _writing(generator: np.random.Generator, size: Size) -> np.ndarray:
    """Lines of short strokes on a page or a screen."""
    page = np.zeros(size, np.uint8)
    height, width = size
    step = int(generator.integers(5, 14))
    for y in range(step, height, step):
        x = int(generator.integers(2, 20))
        while x < width * 0.9:
            word = int(generator.integers(3, 16))
            cv2.line(page, (x, y), (x + word, y + int(generator.integers(-1, 2))), 255, max(1, step // 4), cv2.LINE_AA)
            x += word + step // 2 + 2
    return page.astype(np.float32) / 255


PATTERNS: dict[Callable[[np.random.Generator, Size], np.ndarray], float] = {
    _wall: 5, _clouds: 2, _stripes: 3, _folds: 2, _tiles: 3, _grain: 2, _cells: 1.5, _leaves: 1.5, _dots: 1,
    _writing: 1,
}  # fmt: skip
_WEIGHTS = np.array([*PATTERNS.values()]) / sum(PATTERNS.values())


def _surface(generator: np.random.Generator, size: Size) -> np.ndarray:
    """One pattern in colours: uint8 (H, W, 3)."""
    pattern = [*PATTERNS][generator.choice(len(PATTERNS), p=_WEIGHTS)](generator, size)
    first, second = colour(generator), colour(generator)
    if generator.random() < 0.5:  # two shades of one colour
        second = first * generator.uniform(0.3, 0.95)
    if generator.random() < 0.5:
        pattern = pattern + np.float32(generator.uniform(0.03, 0.15)) * _octaves(generator, size)
    channels = [cv2.addWeighted(pattern, b - a, pattern, 0.0, a) for a, b in zip(first, second, strict=True)]
    picture = cv2.merge(channels)
    if generator.random() < 0.3:  # patches of other hues
        hue = _noise(generator, size, (4, 5)) * generator.uniform(5.0, 35.0)
        picture = cv2.add(picture, cv2.merge([hue, np.zeros_like(hue), -hue]))
    return np.clip(picture, 0.0, 255.0).astype(np.uint8)


def _region(generator: np.random.Generator, size: Size) -> np.ndarray:
    """Corners (4, 2) of a part of the picture: a side of a line across it, or a quadrangle inside."""
    height, width = size
    if generator.random() < 0.6:  # below, or beside
        level, tilt = generator.uniform(0.2, 0.8), generator.normal(0.0, 0.08)
        corners = np.array([(0.0, level - tilt), (1.0, level + tilt), (1.0, 1.0), (0.0, 1.0)])
        if generator.random() < 0.4:
            corners = corners[:, ::-1]
    else:
        centre, half = generator.uniform(0.15, 0.85, 2), generator.uniform(0.1, 0.4, 2)
        corners = centre + half * [(-1, -1), (1, -1), (1, 1), (-1, 1)] + generator.normal(0.0, 0.04, (4, 2))
    return np.asarray(corners * (width, height))


def _fill(picture: np.ndarray, corners: np.ndarray, value: int | list[float]) -> None:
    cv2.fillPoly(picture, [np.round(16 * corners).astype(np.int32)], value, cv2.LINE_AA, shift=4)


def _blend(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`above` where the mask is 255, `below` where it is 0."""
    share = cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR)
    return cv2.add(cv2.multiply(above, share, scale=1 / 255), cv2.multiply(below, 255 - share, scale=1 / 255))


def _objects(generator: np.random.Generator, picture: np.ndarray, count: int) -> None:
    """Boxes with frames (windows, screens, pictures, cupboards), poles, cables, discs."""
    height, width = picture.shape[:2]
    for kind in generator.integers(0, 5, count):
        tone = colour(generator).tolist()
        if kind < 2:
            corners = _region(generator, (height, width))
            corners = corners.mean(0) + (corners - corners.mean(0)) * generator.uniform(0.2, 1.0)
            _fill(picture, corners, tone)
            inner = corners.mean(0) + (corners - corners.mean(0)) * generator.uniform(0.75, 0.95)
            _fill(picture, inner, colour(generator).tolist())
        elif kind == 2:
            start, end = (16 * generator.uniform(-0.2, 1.2, (2, 2)) * (width, height)).astype(int).tolist()
            cv2.line(picture, start, end, tone, int(generator.integers(1, 7)), cv2.LINE_AA, shift=4)
        elif kind == 3:
            points = generator.uniform(0.0, 1.0, (int(generator.integers(3, 7)), 2)) * (0.4 * width, 0.4 * height)
            _fill(picture, points + generator.uniform(-0.1, 0.8, 2) * (width, height), tone)
        else:
            _blob(generator, picture, np.array(tone))


def _blob(generator: np.random.Generator, picture: np.ndarray, tone: np.ndarray) -> None:
    height, width = picture.shape[:2]
    centre = (16 * generator.uniform(0.0, 1.0, 2) * (width, height)).astype(int).tolist()
    radii = (16 * generator.uniform(0.02, 0.2, 2) * height).astype(int).tolist()
    cv2.ellipse(picture, centre, radii, generator.uniform(0, 180), 0, 360, tone.tolist(), -1, cv2.LINE_AA, shift=4)

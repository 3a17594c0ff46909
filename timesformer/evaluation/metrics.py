"""Scores of predictions: top-k, per class, confusion, mean average precision, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Z = 1.959963984540054  # 95% of a normal distribution lie within so many standard deviations


def topk_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of rows whose label is among the `k` highest scores, in percent.

    Args:
        scores: (n, K).
        labels: (n,) whole numbers.
        k: clipped to K, so that few classes never crash.
    """
    if not len(labels):
        return float("nan")
    best = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, scores.shape[1])]
    return 100.0 * float((best == labels[:, None]).any(axis=1).mean())


def reported_ks(num_classes: int) -> tuple[int, ...]:
    """The k of the reported top-k: 1, and 5 or the largest k below the number of classes that still says something."""
    second = min(5, num_classes - 1)
    return (1, second) if second > 1 else (1,)


def confusion(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K, K) counts, rows are true classes and columns predictions."""
    matrix = np.zeros((scores.shape[1], scores.shape[1]), dtype=np.int64)
    known = (labels >= 0) & (labels < len(matrix))
    np.add.at(matrix, (labels[known], scores[known].argmax(axis=1)), 1)
    return matrix


def per_class_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Accuracy of each class in percent from a confusion matrix; NaN for classes without clips."""
    counts = matrix.sum(axis=1)
    return np.where(counts > 0, 100.0 * np.diag(matrix) / np.maximum(counts, 1), np.nan)


def macro_f1(matrix: np.ndarray) -> float:
    """Mean over the classes that have clips of F1, of recall and precision, in percent; NaN without clips."""
    clips = matrix.sum(axis=1)
    f1 = 2.0 * np.diag(matrix) / np.maximum(clips + matrix.sum(axis=0), 1)
    return 100.0 * float(f1[clips > 0].mean()) if clips.any() else float("nan")


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the classes that have a positive of the average precision, in percent.

    Args:
        scores: (n, K).
        targets: (n, K) of 0 and 1.
    """
    from sklearn.metrics import average_precision_score  # a second to import

    present = targets.any(axis=0)
    if not present.any():
        return float("nan")
    return 100.0 * float(average_precision_score(targets[:, present], scores[:, present], average="macro"))


def accuracy_interval(correct: np.ndarray, people: Sequence[str] = ()) -> tuple[float, float]:
    """95% interval of accuracy, in percent: Wilson's (1927), and by person where persons are known.

    Videos of one person resemble each other, so that n videos say less than n independent ones. The interval by person
    takes the variance between persons and Student's distribution, on the scale of log odds (Korn and Graubard, Survey
    Methodology 24, 1998). It is never narrower than that of independent videos, for persons show no spread where
    everything is right or wrong.

    Of 2,000 simulated experiments with 20 or 30 persons, 12 videos each and an accuracy of 60 to 90% it covers the true
    one in 93 to 97%, with 10 persons in 93 to 97.1%; percentiles of resampled persons cover it in as few as 84%. From
    95% accuracy on, or where persons differ much and have unequal numbers of videos, coverage can fall to 87%.

    Args:
        correct: (n,) whether each video was predicted right.
        people: the person in each video; used if all are known and some have several videos.
    """
    from scipy.special import expit, logit, stdtrit  # scipy.stats takes half a second to import

    n, num_right = len(correct), int(np.sum(correct))
    if not n:
        return float("nan"), float("nan")
    centre = (num_right + Z**2 / 2) / (n + Z**2)
    half = Z * np.sqrt(num_right * (n - num_right) / n + Z**2 / 4) / (n + Z**2)
    low, high, share = max(0.0, centre - half), min(1.0, centre + half), num_right / n
    if by_person(people) and 0 < share < 1:
        person = np.unique(np.asarray(people), return_inverse=True)[1]
        residuals = np.bincount(person, weights=np.asarray(correct) - share)
        num_people = len(residuals)
        error = np.sqrt(num_people / (num_people - 1) * (residuals**2).sum()) / n
        reach = stdtrit(num_people - 1, 0.975) * error / (share * (1 - share))
        low, high = min(low, expit(logit(share) - reach)), max(high, expit(logit(share) + reach))
    return 100.0 * float(low), 100.0 * float(high)


def paired_difference(first: np.ndarray, second: np.ndarray, people: Sequence[str] = ()) -> tuple[float, float, float]:
    """Accuracy of the second minus that of the first on the same videos, and its 95% interval, in points of percent.

    The interval adds one video to either kind of those where the two differ (Bonett and Price, 2012), so that it has a
    width where they never do. Where persons are known it is at least as wide as that of persons drawn with replacement,
    with all their videos and both predictions of each; the percentiles are taken further out for few persons
    (Hesterberg, What Teachers Should Know About the Bootstrap, 2015, section 4.2), without which ten persons cover in
    87 to 91%.

    Args:
        first: (n,) whether each video was predicted right, or how often, from 0 to 1.
        second: (n,) the same of other predictions.
        people: the person in each video.
    """
    from scipy.special import ndtr, stdtrit

    gain = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    if not len(gain):
        return float("nan"), float("nan"), float("nan")
    total = len(gain) + 2
    mean, differing = gain.sum() / total, ((gain**2).sum() + 2) / total
    margin = Z * np.sqrt((differing - mean**2) / total)
    low, high = max(mean - margin, -1.0), min(mean + margin, 1.0)
    if by_person(people):
        person = np.unique(np.asarray(people), return_inverse=True)[1]
        gains, sizes = np.bincount(person, weights=gain), np.bincount(person)
        number = len(sizes)
        drawn = np.random.default_rng(0).integers(number, size=(4000, number))
        resampled = gains[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        further = float(ndtr(np.sqrt(number / (number - 1)) * stdtrit(number - 1, 0.025)))
        spread = np.quantile(resampled, [further, 1 - further])
        low, high = min(low, spread[0]), max(high, spread[1])
    return 100.0 * float(gain.mean()), 100.0 * float(low), 100.0 * float(high)


def by_person(people: Sequence[str]) -> bool:
    """Whether intervals are by person: all are known, and more than one, and some have several videos."""
    return all(people) and 1 < len(set(people)) < len(people)


def multi_hot(labels: Sequence[int | tuple[int, ...]], num_classes: int) -> np.ndarray:
    """(n, K) of 0 and 1 from one label or several per row."""
    targets = np.zeros((len(labels), num_classes), dtype=np.float32)
    for row, label in zip(targets, labels, strict=True):
        row[list(label) if isinstance(label, tuple) else label] = 1
    return targets


def summarize(
    scores: np.ndarray, labels: Sequence[int | tuple[int, ...]], *, multi_label: bool, people: Sequence[str] = ()
) -> dict[str, float]:
    """The numbers that a validation or test line shows, all in percent.

    One label per video: top-1 and top-k, the 95% interval of top-1, mean class accuracy, macro-F1. Several labels: mAP.
    `people` are the persons in the videos; see `accuracy_interval`.
    """
    if multi_label:
        return {"mAP": mean_average_precision(scores, multi_hot(labels, scores.shape[1]))}
    truth = np.asarray(labels, dtype=np.int64)
    result = {f"top{k}": topk_accuracy(scores, truth, k) for k in reported_ks(scores.shape[1])}
    matrix = confusion(scores, truth)
    classes = per_class_accuracy(matrix)
    result["mean_class"] = float(np.nanmean(classes)) if len(truth) else float("nan")
    result["macro_f1"] = macro_f1(matrix)
    low, high = accuracy_interval(scores.argmax(axis=1) == truth, people)
    return {**result, "top1_low": low, "top1_high": high}


def log_loss(scores: np.ndarray, labels: Sequence[int | tuple[int, ...]], *, multi_label: bool) -> float:
    """Mean cross-entropy of probabilities (n, K); with several labels, the mean over classes of the binary one."""
    if not len(labels):
        return float("nan")
    probabilities = np.clip(scores, 1e-12, 1.0)
    if multi_label:
        targets, others = multi_hot(labels, scores.shape[1]), np.clip(1.0 - scores, 1e-12, 1.0)
        return float(-(targets * np.log(probabilities) + (1 - targets) * np.log(others)).mean())
    return float(-np.log(probabilities[np.arange(len(labels)), np.asarray(labels)]).mean())


def show_metrics(metrics: Mapping[str, float]) -> str:
    """One line such as `top1 91.2% [87.5, 94.6]  top5 99.6%  mean class 91.2%  macro F1 91.1%`."""
    parts = []
    for name, value in metrics.items():
        if name == "top1":
            parts.append(f"top1 {value:.1f}% [{metrics['top1_low']:.1f}, {metrics['top1_high']:.1f}]")
        elif name == "macro_f1":
            parts.append(f"macro F1 {value:.1f}%")
        elif name == "mAP" or name == "mean_class" or (name.startswith("top") and name[3:].isdigit()):
            parts.append(f"{name.replace('_', ' ')} {value:.1f}%")
    return "  ".join(parts)

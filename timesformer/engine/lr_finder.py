"""Learning-rate range test: steps of a training at rates that grow, until the loss diverges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from timesformer.datasets.build import build_train_loader, loss_weights
from timesformer.datasets.records import VideoList, fingerprint
from timesformer.engine.setup import Run
from timesformer.engine.start import find_start
from timesformer.engine.training import build_train_step, fit_into_memory
from timesformer.models.build import build_model
from timesformer.optim.build import build_optimizer, freeze_parameters
from timesformer.optim.freezing import set_training_mode
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger
from timesformer.utils.random import step_seed

log = get_logger(__name__)

SMOOTHING = 0.9  # share of the mean so far that a step keeps
DIVERGED = 4.0  # the smoothed loss over its lowest value
FEWEST_STEPS = 10  # before any judgement
BELOW_LOWEST = 10.0  # the rate of the lowest loss over the suggested one
RULE = "a tenth of the rate with the lowest smoothed loss; learning-rate range test, Smith 2017"


@dataclass
class RateSweep:
    """Losses at rates that grow from step to step.

    Attributes:
        rates: of the steps.
        losses: mean over the clips of each step.
        smoothed: their running mean.
        diverged: whether the sweep ended for the loss.
    """

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    diverged: bool = False

    def add(self, rate: float, loss: float) -> None:
        """Take a step into account."""
        if not math.isfinite(loss):
            self.diverged = True
            return
        weights = SMOOTHING ** np.arange(len(self.losses), -1, -1)  # without a bias to the first ones
        self.rates.append(rate)
        self.losses.append(loss)
        self.smoothed.append(float(np.average(self.losses, weights=weights)))
        self.diverged = len(self.losses) >= FEWEST_STEPS and self.smoothed[-1] > DIVERGED * min(self.smoothed)

    def suggestion(self) -> float | None:
        """A tenth of the rate with the lowest smoothed loss; None where the loss has not fallen."""
        lowest = int(np.argmin(self.smoothed)) if self.smoothed else 0
        return self.rates[lowest] / BELOW_LOWEST if lowest >= FEWEST_STEPS - 1 else None


def growing_rates(first: float, last: float, num_steps: int) -> Sequence[float]:
    """`num_steps` rates from `first` to `last`, each the same multiple of the one before it."""
    return np.geomspace(first, last, num_steps).tolist()  # type: ignore[no-any-return]


def sweep_rates(run: Run, videos: VideoList, rates: Sequence[float]) -> RateSweep:
    """Train on the list from where the configuration starts, a step at each rate; writes nothing.

    Args:
        run: one process, whose OUTPUT_DIR holds no checkpoint.
        videos: the training list.
        rates: learning rates of the steps.

    Raises:
        UserError: what a training raises, or not one clip could be read.
    """
    cfg = run.cfg
    loader = build_train_loader(cfg, videos, stop=run.stop)
    model = build_model(cfg)
    find_start(run, model, class_names=videos.class_names, dataset={"train": fingerprint(videos.records)})
    model.to(run.device)
    freeze_parameters(model, cfg)
    take_step = build_train_step(run, model, build_optimizer(model, cfg), loss_weights(cfg, videos))
    fit_into_memory(run, take_step, loader.sampler.micro_batch)
    set_training_mode(model)
    sweep, remaining = RateSweep(), iter(rates)
    for epoch in range(len(rates)):
        loader.set_epoch(epoch)
        for i, (step, batches) in enumerate(loader):
            rate = next(remaining, None)
            if rate is None or sweep.diverged:
                return sweep
            how = {"num_samples": step.num_samples, "epoch": epoch, "lr": rate, "global_step": len(sweep.rates)}
            seed = step_seed(cfg.RNG_SEED, epoch=epoch, step=i, rank=0)
            loss, _, clips = take_step(batches, seed=seed, **how).sums()  # type: ignore[arg-type]
            if not clips:
                raise UserError("not one clip of a step could be read; `timesformer check` lists what is wrong")
            sweep.add(rate, loss / clips)
            log.info("step %3d  rate %.3g  loss %.3f", len(sweep.rates), rate, loss / clips)
    return sweep

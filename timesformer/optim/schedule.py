"""The learning rate as a function of the epoch, a real number: pure arithmetic."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from fvcore.common.param_scheduler import CosineParamScheduler, LinearParamScheduler


def make_schedule(
    *,
    policy: str,
    base_lr: float,
    max_epoch: int,
    cosine_end_lr: float = 0.0,
    steps: Sequence[int] = (),
    relative_lrs: Sequence[float] = (),
    warmup_epochs: float = 0.0,
    warmup_start_lr: float = 0.0,
    scale: float = 1.0,
) -> Callable[[float], float]:
    """A function from the epoch (2.5 is the middle of the third) to the learning rate.

    Args:
        policy: "cosine" goes from `base_lr` to `cosine_end_lr` over `max_epoch` epochs;
            "steps_with_relative_lrs" is `base_lr * relative_lrs[i]` from epoch `steps[i]` on.
        warmup_epochs: first goes linearly from `warmup_start_lr` to the policy's value at their end.
        scale: multiplies every rate, those of the warm-up and the last one too.
    """
    if policy == "cosine":
        cosine = CosineParamScheduler(base_lr, cosine_end_lr)

        def policy_lr(epoch: float) -> float:
            return cosine(epoch / max_epoch)

    else:

        def policy_lr(epoch: float) -> float:
            return base_lr * relative_lrs[bisect_right(steps, epoch) - 1]

    def lr(epoch: float) -> float:
        return scale * (warmup(epoch / warmup_epochs) if epoch < warmup_epochs else policy_lr(epoch))

    warmup = LinearParamScheduler(warmup_start_lr, policy_lr(warmup_epochs))
    return lr

"""Everything a run needs before its first step: configuration, output folder, random state, device, events."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.config.load import LoadedConfig, load_config, unread_keys
from timesformer.datasets.loader import EvalLoader
from timesformer.datasets.records import VideoList, fingerprint
from timesformer.distributed import group as distributed
from timesformer.distributed.launch import Processes
from timesformer.distributed.stop import StopRequest
from timesformer.engine.compiling import check_compiler
from timesformer.engine.events import RunEvents
from timesformer.evaluation.evaluate import Predictions, evaluate
from timesformer.models.config_checks import transformer_problems
from timesformer.utils.compute import PRECISIONS, choose_precision, set_arithmetic
from timesformer.utils.env import collect_versions
from timesformer.utils.errors import ConfigError
from timesformer.utils.logging import get_logger, setup_logging
from timesformer.utils.registry import DATASETS, MODELS
from timesformer.video.clip_spec import ClipSpec
from timesformer.video.variants import Variants

log = get_logger(__name__)


def registered_names() -> dict[str, Sequence[str]]:
    """The models and datasets there are, by the keys that choose them."""
    datasets = DATASETS.names()
    return {"MODEL.MODEL_NAME": MODELS.names(), "TRAIN.DATASET": datasets, "TEST.DATASET": datasets}


def load_run_config(path: str | None, overrides: Sequence[str] = ()) -> LoadedConfig:
    """`load_config` with the registered names of models and datasets, and the checks that belong to a model.

    Raises:
        ConfigError: listing every problem.
    """
    return load_config(path, overrides, choices=registered_names(), checks=(transformer_problems,))


@dataclass
class Run:
    """A configured run on this process.

    Attributes:
        loaded: the configuration with where each value came from.
        processes: rank, world size and device.
        output_dir: where everything is written.
        precision: fp32, bf16 or fp16.
        events: metrics.jsonl and TensorBoard.
        stop: the stop signal that this process got, if any.
        warned: warnings that were logged already.
        remarks: warnings to repeat at the end of the run.
    """

    loaded: LoadedConfig
    processes: Processes
    output_dir: Path
    precision: str
    events: RunEvents
    stop: StopRequest = field(default_factory=StopRequest)
    warned: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)

    def warn_once(self, lines: Iterable[str]) -> None:
        """Log each warning that was not logged before."""
        for line in lines:
            if line not in self.warned:
                self.warned.add(line)
                log.warning("%s", line)

    @property
    def cfg(self) -> CfgNode:
        """The frozen configuration tree."""
        return self.loaded.cfg

    @cached_property
    def spec(self) -> ClipSpec:
        """Of the clips of validation and test."""
        return ClipSpec.from_config(self.cfg)

    def evaluate(
        self, model: nn.Module, loader: EvalLoader, *, ensemble: str, title: str, variants: Variants | None = None
    ) -> Predictions:
        """`evaluate` with the settings of this run."""
        return evaluate(
            model,
            loader,
            spec=self.spec,
            ensemble=ensemble,
            multi_label=self.cfg.DATA.MULTI_LABEL,
            device=self.device,
            dtype=self.dtype,
            views_per_forward=self.views_per_forward,
            title=title,
            stop=self.stop,
            variants=variants,
        )

    @property
    def views_per_forward(self) -> int:
        """Views of a pass of this process in validation and test."""
        return max(1, int(self.cfg.TEST.BATCH_SIZE) // self.processes.local_world_size)

    @property
    def dtype(self) -> torch.dtype | None:
        """That of autocast, None for fp32."""
        return PRECISIONS[self.precision]

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.processes.device


def start_run(loaded: LoadedConfig, processes: Processes, *, writes: bool = True) -> Run:
    """Start the log, seed torch, choose the arithmetic; `writes` is False for a check, which leaves no file.

    Raises:
        ConfigError: this machine cannot compute as PRECISION or MODEL.COMPILE ask for.
    """
    cfg = loaded.cfg
    output_dir = Path(cfg.OUTPUT_DIR)
    is_main = processes.rank == 0
    setup_logging(output_dir if writes else None, is_main)
    for line in loaded.advice:
        log.info("note: %s", line)
    torch.manual_seed(cfg.RNG_SEED + processes.rank)
    sharded = cfg.DIST.STRATEGY == "fsdp"
    precision, why = choose_precision(cfg.PRECISION, processes.device, sharded=sharded)
    if len(found := set(distributed.all_gather(precision))) > 1:
        raise ConfigError(f"PRECISION auto is {' and '.join(sorted(found))} on these devices. Type PRECISION fp32")
    set_arithmetic(precision, processes.device)
    if cfg.MODEL.COMPILE:
        check_compiler(processes.device)
    into = f", output in {output_dir}" if writes else ""
    log.info("%s, %s (%s)%s", processes.summary, precision, why, into)
    board = Path(cfg.TENSORBOARD.LOG_DIR or output_dir / "tensorboard") if cfg.TENSORBOARD.ENABLE else None
    return Run(
        loaded=loaded,
        processes=processes,
        output_dir=output_dir,
        precision=precision,
        events=RunEvents(output_dir, tensorboard_dir=board, is_main=is_main and writes),
    )


def write_provenance(run: Run, lists: Mapping[str, VideoList]) -> None:
    """Write what explains the run's results: settings, versions, fingerprints of the lists.

    `config.yaml`, `versions.json` and `dataset.json` are of the training; a run that only tests writes
    `test_config.yaml` and so on beside them.
    """
    if run.processes.rank != 0:
        return
    prefix = "" if run.cfg.TRAIN.ENABLE else "test_"
    folder = run.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    fingerprints = {split: fingerprint(videos.records) for split, videos in lists.items()}
    (folder / f"{prefix}config.yaml").write_text(run.cfg.dump())
    (folder / f"{prefix}versions.json").write_text(json.dumps(collect_versions(), indent=2) + "\n")
    names = next((videos.class_names for videos in lists.values() if videos.class_names), [])
    if names:
        (folder / "class_names.txt").write_text(
            "".join(f"{' '.join(name.splitlines())}\n" for name in names), encoding="utf-8"
        )
    (folder / f"{prefix}dataset.json").write_text(json.dumps(fingerprints, indent=2) + "\n")


def warn_of_unused_keys(run: Run, *, ignore: Collection[str] = ()) -> None:
    """Warn of keys the user set that nothing has read; call it when everything is built.

    Args:
        run: the run.
        ignore: parts of a run, "training" or "test", that follow later or that this run leaves out.
    """
    if unused := unread_keys(run.loaded, ignore=ignore):
        log.warning("set but not used by this run: %s", ", ".join(unused))

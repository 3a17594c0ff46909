"""What every process of a run does: preflight, then check, or train and test."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from timesformer.config.load import LoadedConfig
from timesformer.datasets.build import load_lists
from timesformer.datasets.loader import worker_faults_explained
from timesformer.datasets.records import fingerprint
from timesformer.distributed.group import on_all_processes
from timesformer.distributed.launch import Processes
from timesformer.distributed.preflight import preflight
from timesformer.engine.check import check
from timesformer.engine.describe import describe_data
from timesformer.engine.run_lock import RunLock
from timesformer.engine.setup import start_run, write_provenance
from timesformer.engine.test import test
from timesformer.engine.train import train
from timesformer.models.kernels import use_kernels
from timesformer.utils.logging import get_logger
from timesformer.utils.memory import memory_explained

log = get_logger(__name__)


def run(processes: Processes, loaded: LoadedConfig, only_check: bool) -> None:
    """Check, or train and test, as the configuration says.

    Raises:
        UserError: whatever the user can mend.
    """
    cfg = loaded.cfg
    output_dir = None if only_check else Path(cfg.OUTPUT_DIR)
    counts_classes = cfg.MODEL.NUM_CLASSES == "auto"
    lists = preflight(
        processes,
        lambda: load_lists(cfg),
        fingerprints=lambda lists: {split: fingerprint(videos.records) for split, videos in lists.items()},
        output_dir=output_dir,
        seconds=cfg.DIST.RENDEZVOUS_SECONDS,
    )
    with ExitStack() as stack:
        if output_dir and cfg.TRAIN.ENABLE:
            lock = RunLock(output_dir)
            on_all_processes(lambda: stack.enter_context(lock) if processes.rank == 0 else None)
        stack.enter_context(worker_faults_explained())
        stack.enter_context(memory_explained())
        stack.callback(use_kernels, {})  # what it chooses is for this run
        this_run = start_run(loaded, processes, writes=not only_check)
        if processes.world_size > 1:
            log.info(
                "preflight: all processes answer, run the same commit, read the same lists and share the output folder"
            )
        if counts_classes:
            log.info("MODEL.NUM_CLASSES auto is %d", cfg.MODEL.NUM_CLASSES)
        describe_data(this_run, lists)
        if only_check:
            check(this_run, lists)
            return
        if cfg.TRAIN.ENABLE:
            train(this_run, lists)
        else:
            write_provenance(this_run, lists)
        if cfg.TEST.ENABLE:
            test(this_run, lists["test"], train_videos=lists.get("train"))
        for remark in this_run.remarks:
            log.warning("%s", remark)
        this_run.events.close()

"""What every process of a run does: read the lists, then check, or train and test."""

from __future__ import annotations

from timesformer.config.load import LoadedConfig
from timesformer.datasets.build import load_lists
from timesformer.engine.check import check
from timesformer.engine.describe import describe_data
from timesformer.engine.launch import Processes
from timesformer.engine.setup import start_run, write_provenance
from timesformer.engine.test import test
from timesformer.engine.train import train


def run(processes: Processes, loaded: LoadedConfig, only_check: bool) -> None:
    """Check, or train and test, as the configuration says.

    Raises:
        UserError: whatever the user can mend.
    """
    lists = load_lists(loaded.cfg)
    this_run = start_run(loaded, processes, writes=not only_check)
    describe_data(this_run, lists)
    if only_check:
        check(this_run, lists)
        return
    if loaded.cfg.TRAIN.ENABLE:
        train(this_run, lists)
    else:
        write_provenance(this_run, lists)
    if loaded.cfg.TEST.ENABLE:
        test(this_run, lists["test"])
    this_run.events.close()

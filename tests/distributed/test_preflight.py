"""What is wrong between two processes is reported by both, with host and rank; else the lists are returned."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from timesformer.datasets.records import VideoList, VideoRecord, fingerprint
from timesformer.distributed import group as distributed
from timesformer.distributed import preflight as module
from timesformer.distributed.launch import Processes
from timesformer.distributed.preflight import preflight
from timesformer.utils.errors import DataListError, UserError

GOOD = {"train": VideoList([VideoRecord("a.mp4", 0, "train.csv:1")])}
OTHER = {"train": VideoList([VideoRecord("b.mp4", 0, "train.csv:1")])}


def fingerprints(lists: dict[str, VideoList]) -> dict[str, str]:
    return {split: fingerprint(videos.records) for split, videos in lists.items()}


def refused(rank: int, pattern: str, lists: Callable[[], dict[str, VideoList]], folder: Path | None) -> UserError:
    """The error of this process; both have one that matches."""
    with pytest.raises(UserError, match=pattern) as error:
        preflight(Processes(rank, rank, 2, 2), lists, fingerprints=fingerprints, output_dir=folder)
    messages = distributed.all_gather((type(error.value), str(error.value)))
    assert messages[0] == messages[1]
    return error.value


def one_of_two(rank: int, folder: str) -> None:
    out, versions = Path(folder) / "out", module.versions
    distributed.join(f"file://{folder}/meeting", rank=rank, world_size=2, hosts_store=False, backend="gloo", seconds=60)

    def unreadable() -> dict[str, VideoList]:
        raise DataListError("there is no train.csv")

    lists = preflight(Processes(rank, rank, 2, 2), lambda: GOOD, fingerprints=fingerprints, output_dir=out)
    assert lists == GOOD
    distributed.barrier()
    assert list(out.iterdir()) == []

    # a list that one cannot read, that nobody can, that is another one
    refused(rank, r"^\S+, rank 1: there is no train.csv$", unreadable if rank else lambda: GOOD, out)
    assert type(refused(rank, "^there is no train.csv$", unreadable, out)) is DataListError
    differ = refused(rank, "the train list: sha256", lambda: OTHER if rank else GOOD, out)
    assert re.search(r"rank 0\)[\s\S]*rank 1\)", str(differ))

    # other code on one node
    module.versions = lambda: versions() | ({"torch": "1.0"} if rank else {})
    refused(rank, r"torch: 1.0 \(\S+, rank 1\)", lambda: GOOD, out)
    module.versions = versions

    # a folder that one cannot write to, and one that the nodes do not share
    (Path(folder) / "file").touch()
    refused(rank, r"rank 1: cannot write into OUTPUT_DIR", lambda: GOOD, Path(folder) / "file/out" if rank else out)
    module.SECONDS_OF_A_SHARED_FOLDER = 0
    unshared = refused(rank, "does not show what rank", lambda: GOOD, Path(folder) / f"node{rank}")
    assert "Set OUTPUT_DIR to a folder that all nodes share" in str(unshared)

    # a process that does not answer
    distributed.barrier()
    module.SECONDS, since = 1, time.monotonic()
    if rank == 0:
        with pytest.raises(UserError, match=r"rank 0: some processes did not answer in time \(.* 1000 ms"):
            preflight(Processes(0, 0, 2, 2), lambda: GOOD, fingerprints=fingerprints, output_dir=out)
        assert time.monotonic() - since < 20
    else:
        dist.new_group(backend="gloo")
        time.sleep(3)
    distributed.barrier()
    dist.destroy_process_group()


def test_two_processes_find_out_what_is_wrong_between_them(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, args=(str(tmp_path),), nprocs=2)


def test_the_first_exchange_between_gpus_gets_the_time_of_the_rendezvous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the other process there is no sum; the wait for it is what is looked at."""
    waits: list[float] = []
    monkeypatch.setattr(module.dist, "new_group", lambda **_: dist.ProcessGroup.__new__(dist.ProcessGroup))
    monkeypatch.setattr(module.dist, "monitored_barrier", lambda *_, **__: None)
    monkeypatch.setattr(module, "_check_sum", lambda processes, seconds: waits.append(seconds))
    monkeypatch.setattr(module, "_check_same", lambda *_: None)
    monkeypatch.setattr(module.dist, "destroy_process_group", lambda group: None)
    for gpus in (0, 2):
        preflight(Processes(0, 0, 2, 2, gpus), lambda: GOOD, fingerprints=fingerprints, output_dir=None, seconds=300)
    assert waits == [10, 300]


def test_one_process_has_nothing_to_agree_on(tmp_path: Path) -> None:
    alone = Processes()
    assert preflight(alone, lambda: GOOD, fingerprints=fingerprints, output_dir=tmp_path / "out") == GOOD
    assert list(tmp_path.iterdir()) == []

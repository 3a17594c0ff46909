"""Jobs: what Slurm gets, the environment of the tasks, a real job on this machine that is preempted and resumes."""

from __future__ import annotations

import builtins
import dis
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace

import pytest
import yaml

from timesformer.cli import submit, train
from timesformer.distributed import launch
from timesformer.engine import run as run_module
from timesformer.engine.setup import load_run_config

ROOT = Path(__file__).parents[2]
CFG = ROOT / "configs/Gestures/LightTimeSformer_demo.yaml"
BATCHES = ["TRAIN.BATCH_SIZE", "8", "GLOBAL_BATCH_SIZE", "16"]


def call(job_dir: Path, *options: object, overrides: list[str] = BATCHES) -> int:
    return submit.main(["--cfg", str(CFG), "--job_dir", str(job_dir), *map(str, options), *overrides])


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


@pytest.mark.parametrize("module", [train, submit, run_module, launch], ids=lambda module: module.__name__)
def test_defect_16_every_name_that_is_used_exists(module: ModuleType) -> None:
    source = Path(str(module.__file__)).read_text()
    for code in codes(compile(source, str(module.__file__), "exec")):
        for instruction in dis.get_instructions(code):
            if instruction.opname == "LOAD_GLOBAL":
                assert hasattr(module, instruction.argval) or hasattr(builtins, instruction.argval), instruction.argval


def test_defect_16_nothing_of_one_site_is_built_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module in (train, submit, run_module, launch):
        assert not re.search(r"learnfair|ip route|/checkpoint/|/private/", Path(str(module.__file__)).read_text())
    assert call(tmp_path, "--dry-run", "--num_gpus", 1) == 0
    requested = set(re.findall(r"#SBATCH --([a-z-]+)", capsys.readouterr().out))
    assert not requested & {"partition", "constraint", "comment", "account", "qos", "nodelist", "mem", "cpus-per-task"}


SCRIPT = """\
2 nodes x 4 tasks, GPU: each task does what this command does; nothing is submitted:

timesformer train --cfg {cfg} OUTPUT_DIR {job_dir} TRAIN.BATCH_SIZE 8 GLOBAL_BATCH_SIZE 16 \
TRAIN.AUTO_RESUME True NUM_SHARDS 2 NUM_GPUS 4

#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --comment='ICML deadline'
#SBATCH --constraint='ib&volta32gb'
#SBATCH --cpus-per-task=9
#SBATCH --gpus-per-node=4
#SBATCH --job-name=k400
#SBATCH --mem=200G
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output={job_dir}/logs/%j_0_log.out
#SBATCH --partition=long
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=600

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output {job_dir}/logs/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=9 \
env -C {job_dir}/code/1 PYTHONPATH={job_dir}/code/1:/other {python} -u -m submitit.core._submit {job_dir}/logs

"""


def test_a_dry_run_prints_the_command_and_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/other")
    options = ["--num_shards", 2, "--num_gpus", 4, "--name", "k400", "--partition", "long", "--timeout", 600]
    options += [
        "--comment",
        "ICML deadline",
        "--use_volta32",
        "--constraint",
        "ib",
        "--account",
        "lab",
        "--qos",
        "high",
    ]
    assert call(tmp_path / "job", *options, "--cpus_per_gpu", 9, "--mem_gb", 200, "--dry-run") == 0
    assert capsys.readouterr().out == SCRIPT.format(
        cfg=CFG, job_dir=tmp_path / "job", python=shlex.quote(sys.executable)
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "overrides", "message"),
    [
        (["--num_gpus", 0], ["SOLVER.BASE_LRATE", "1"], "command line: SOLVER.BASE_LRATE is not a key; did you mean"),
        (["--num_gpus", 3], BATCHES, "TRAIN.BATCH_SIZE 8 cannot be split evenly among the 3 processes of a node"),
        ([], [*BATCHES, "NUM_GPUS", "auto"], "a job needs a number of GPUs. Add: --num_gpus 1"),
        (["--num_gpus", 0, "--num_shards", 2, "--cluster", "local"], BATCHES, "local has one node"),
        (["--num_gpus", 2, "--cluster", "debug"], BATCHES, "debug one process"),
        (["--num_gpus", 0], BATCHES, "there is no sbatch here"),
        (
            ["--num_gpus", 0, "--name", "a\n#SBATCH --exclusive"],
            BATCHES,
            "--name: 'a\\n#SBATCH --exclusive' has a line",
        ),
        (["--num_gpus", 0, "--comment", "a\rb"], BATCHES, "--comment: 'a\\rb' has a line break"),
        (["--num_gpus", 0, "--array-of", "RNG_SEED"], [], "--array-of needs a key and its values"),
        (["--num_gpus", 0, "--array-of", "SEED", 0, 1], BATCHES, "--array-of needs a key and its values"),
        (["--num_gpus", 0, "--array-of", "RNG_SEED", 1, 1], BATCHES, "each value needs its own folder"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_submitted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[object],
    overrides: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert call(tmp_path / "job", *options, overrides=overrides) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("\nerror: ") and message in printed.err
    assert not list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize("accepts", [True, False])
def test_it_says_how_to_follow_the_job_or_why_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], accepts: bool
) -> None:
    sbatch = tmp_path / "bin/sbatch"
    sbatch.parent.mkdir()
    answer = "echo Submitted batch job 4711" if accepts else "echo invalid partition specified: nope >&2; exit 1"
    sbatch.write_text(f"#!/bin/sh\n{answer}\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}{os.pathsep}{os.environ['PATH']}")
    assert call(tmp_path / "job", "--num_gpus", 0, "--num_shards", 2) == (0 if accepts else 1)
    printed = capsys.readouterr()
    if not accepts:
        assert "error: Slurm refused the job" in printed.err and "invalid partition specified: nope" in printed.err
        return
    log = tmp_path / "job/logs/4711_0_log.out"
    assert printed.out.splitlines() == [
        f"submitted job 4711 (timesformer): 2 nodes x 1 task, CPU, results in {tmp_path / 'job'}",
        f"log     {log}",
        f"code    {tmp_path / 'job/code/1'}",
        f"state   timesformer jobs {tmp_path / 'job'}",
        f"follow  tail -F {log}",
        "more    scontrol show job 4711; later: sacct --job 4711 --format State,ExitCode,Reason%30",
        "stop    scancel 4711",
    ]
    assert (log.parent / "4711_submitted.pkl").is_file()


def test_tasks_on_this_machine_know_their_ranks_and_each_job_has_its_port() -> None:
    def environment(job_id: str) -> dict[str, str]:
        return submit.rendezvous(SimpleNamespace(job_id=job_id, global_rank=1, local_rank=1, num_tasks=4))

    first = environment("123456")
    assert first == {**first, "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
    ports = {int(environment(str(job_id))["MASTER_PORT"]) for job_id in range(123456, 123456 + 1000)}
    assert len(ports) == 1000 and min(ports) > 1024 and max(ports) < 32768  # below the system's own choices


def test_a_job_is_a_copy_of_code_and_settings(tmp_path: Path) -> None:
    cfg = tmp_path / "own.yaml"
    cfg.write_text(f"_BASE_: {CFG}\nSOLVER: {{BASE_LR: 3e-3}}\nDATA: {{PATH_LABEL_SEPARATOR: ' '}}\n")
    loaded = load_run_config(str(cfg), [*BATCHES, "NUM_GPUS", "0", "SOLVER.STEPS", "[0, 1]"])
    submit.snapshot(tmp_path / "code/1")
    copied = load_run_config(submit.write_settings(tmp_path / "code/1/job.yaml", loaded))
    assert copied.cfg == loaded.cfg and copied.set_by_user.keys() == loaded.set_by_user.keys()
    for name in ("timesformer/engine/train.py", "tools/run_net.py", "configs/Gestures/LightTimeSformer_demo.yaml"):
        assert (tmp_path / "code/1" / name).read_text() == (ROOT / name).read_text()
    assert "revision" in (tmp_path / "code/1/revision.json").read_text()
    assert not list(tmp_path.rglob("__pycache__"))
    with pytest.raises(FileExistsError):  # what a waiting job will run is never written over
        submit.snapshot(tmp_path / "code/1")


def test_an_installed_package_is_copied_without_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages/timesformer"
    for path in ("__init__.py", "configs/Gestures/demo.yaml", "../tools/of_another_project.py"):
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).touch()
    monkeypatch.setattr(submit, "PACKAGE", package)
    monkeypatch.setattr(submit, "bundled_configs", lambda: package / "configs")
    submit.snapshot(tmp_path / "code/1")
    assert sorted(path.name for path in (tmp_path / "code/1").iterdir()) == ["revision.json", "timesformer"]
    assert (tmp_path / "code/1/timesformer/configs/Gestures/demo.yaml").is_file()
    assert (tmp_path / "code/1/revision.json").read_text() == "null\n"


RUNNING, LEAVING = "JobId=7 JobState=RUNNING PreemptTime=None", "JobId=7 JobState=RUNNING PreemptTime=2024-05-01T00:00"


@pytest.mark.parametrize(
    ("status", "rank", "scontrol", "requeues", "exits"),
    [
        (0, 0, RUNNING, 0, None),
        (75, 0, RUNNING, 1, 75),
        (75, 1, RUNNING, 0, 0),  # else srun would end the first task, which has to requeue
        (143, 0, RUNNING, 0, 143),  # scancel --signal=TERM
        (143, 0, LEAVING.replace("RUNNING", "CANCELLED"), 0, 143),  # scancel
        (143, 0, LEAVING, 1, 143),  # preempted: Slurm takes a job that leaves for failed
        (143, 1, LEAVING, 0, 0),
        (1, 0, LEAVING, 0, 1),
        (1, 1, RUNNING, 0, 1),
    ],
)
def test_the_first_task_requeues_after_the_checkpoint_and_only_then(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    rank: int,
    scontrol: str,
    requeues: int,
    exits: int | None,
) -> None:
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho {scontrol} Restarts=0\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    task = SimpleNamespace(cluster="slurm", job_id="7", global_rank=rank, USR_SIG="USR2")
    monkeypatch.setattr(submit.submitit, "JobEnvironment", lambda: task)
    monkeypatch.setattr(submit, "exit_status", lambda work: status)
    called: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    try:
        if exits is None:
            submit.TrainingJob(str(CFG), str(tmp_path))()
        else:
            with pytest.raises(SystemExit) as ended:
                submit.TrainingJob(str(CFG), str(tmp_path))()
            assert ended.value.code == exits
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert called == [signal.SIGUSR2] * requeues


def test_defect_16_a_job_comes_back_as_the_same_job() -> None:
    job = submit.TrainingJob("code/1/job.yaml", "/here")
    delayed = job.checkpoint()
    assert delayed.function == job and delayed.args == ()


@pytest.mark.slow
def test_defect_16_a_real_job_is_preempted_resumes_and_is_tested(tmp_path: Path) -> None:
    """In the background of this machine; the data-loading worker gets the signal as well."""
    settings = {
        "DATA.PATH_TO_DATA_DIR": tmp_path / "gestures",
        "GESTURES.NUM_SUBJECTS": "[2,1,1]",
        "GESTURES.FRAME_SIZE": "[48,48]",
        "TIMESFORMER.EMBED_DIM": 24,
        "TIMESFORMER.DEPTH": 1,
        "DATA.NUM_FRAMES": 4,
        "SOLVER.MAX_EPOCH": 10,
        "TRAIN.AUTO_RESUME": False,
        "TRAIN.EVAL_PERIOD": 10,
        "TENSORBOARD.ENABLE": False,
        "DATA_LOADER.NUM_WORKERS": 1,
    }
    words = [*BATCHES, *(str(word) for pair in settings.items() for word in pair)]
    command = [sys.executable, "tools/submit.py", "--cfg", str(CFG), "--job_dir", str(tmp_path / "job")]
    command += ["--num_gpus", "0", "--cluster", "local", "--timeout", "30", *words]
    with (tmp_path / "printed.txt").open("w") as printed:  # no pipe: the job would hold it open
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=ROOT, env=environment, stdout=printed, stderr=subprocess.STDOUT, check=False)
    found = re.search(r"submitted job (\d+)", (tmp_path / "printed.txt").read_text())
    assert found, (tmp_path / "printed.txt").read_text()
    number, job_dir = int(found[1]), tmp_path / "job"
    log = job_dir / f"logs/{number}_0_log.out"
    try:
        wait_for(log, lambda: any((job_dir / "checkpoints").glob("*.pyth")))
        (task,) = children(number)
        for process in [*children(task), task]:
            os.kill(process, signal.SIGUSR2)
        wait_for(log, lambda: not children(number) and (job_dir / f"logs/{number}_0_result.pkl").exists())
    finally:
        if children(number):
            os.kill(number, signal.SIGINT)
    text = log.read_text()
    assert text.count("Calling checkpoint method") == text.count(f"Requeued job {number}") == 1
    assert text.index("stopped: by SIGUSR2") < text.index("Calling checkpoint method") < text.index("resuming from")
    assert "Job completed successfully" in text
    epochs = [json.loads(line) for line in (job_dir / "metrics.jsonl").read_text().splitlines()]
    epochs = [row["epoch"] for row in epochs if row["kind"] == "train" and row["epoch"] == int(row["epoch"])]
    assert epochs == [float(epoch) for epoch in range(1, 11)]  # none missing, none twice
    assert json.loads((job_dir / "results.json").read_text())["scored"] == 12
    resolved = yaml.safe_load((job_dir / "config.yaml").read_text())
    assert resolved["TRAIN"]["AUTO_RESUME"] is True and resolved["NUM_GPUS"] == 0


def children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def wait_for(log: Path, done: Callable[[], bool], patience_sec: float = 300.0) -> None:
    deadline = time.monotonic() + patience_sec
    while not done():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "the job never started"
        time.sleep(0.02)

"""Train and test as a Slurm job (submitit), or in the background of this machine.

The configuration is checked before anything is submitted. Code and settings are copied to DIR/code and the job runs
that copy: edits while it waits do not reach it. A job always resumes from the newest checkpoint in OUTPUT_DIR: it is
requeued after its time limit, a preemption or the death of a node, and the same command again resumes it too. What is
not set here is left to Slurm's own defaults: no site is built in.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import exists
from pathlib import Path

import submitit
from fvcore.common.config import CfgNode
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

import timesformer
from timesformer.cli.jobs import note_job, show_job
from timesformer.cli.parsers import config_parser, run_command
from timesformer.config import LoadedConfig
from timesformer.config.defaults import KEY_BY_NAME, get_value, set_value
from timesformer.config.locate import bundled_configs
from timesformer.utils.console import count
from timesformer.utils.env import git_state
from timesformer.utils.errors import RESTART_STATUS, ConfigError, UserError, exit_status

PACKAGE = Path(timesformer.__file__).parent
SIGNAL_SECONDS = 120  # before the time limit


def main(argv: Sequence[str] | None = None) -> int:
    """Check the configuration and submit the job; returns the exit status."""
    return run_command(build_parser(), argv, submit)


def build_parser() -> argparse.ArgumentParser:
    """The options of a job."""
    description = "Train and test as a Slurm job, which resumes after a time limit or preemption."
    parser = config_parser("submit", description, needs="--cfg FILE --job_dir DIR", cfg_required=True)
    add = parser.add_argument
    add("--job_dir", metavar="DIR", type=Path, required=True, help="folder that all nodes see; default OUTPUT_DIR")
    add("--num_shards", metavar="N", type=int, help=argparse.SUPPRESS)  # the key NUM_SHARDS
    add("--num_gpus", metavar="G", type=int, help="tasks, each with a GPU, per node; 0: a task on the CPU")
    add("--name", default="timesformer", help="of the job (%(default)s)")
    add("--timeout", metavar="MIN", type=int, default=4320, help="time limit in minutes (%(default)s)")
    add("--requeue", metavar="N", type=int, default=3, help="restarts after the time limit (%(default)s)")
    clusters = ("slurm", "local", "debug")
    add("--cluster", choices=clusters, default="slurm", metavar="KIND", help="slurm, local (a process here) or debug")
    add("--array-of", nargs="+", metavar=("K", "V"), default=[], help="a job for each value: RNG_SEED 0 1 2")
    add("--no-check", action="store_true", help="submit without reading the lists")
    add("--dry-run", "--dry_run", action="store_true", help="print what would be submitted, and stop")
    for option in ("partition", "account", "qos", "constraint"):
        add(f"--{option}", metavar=option[0].upper(), help=f"sbatch's --{option}")
    add("--comment", help=argparse.SUPPRESS)  # sbatch's too
    add("--use_volta32", action="store_true", help=argparse.SUPPRESS)  # the original's: --constraint volta32gb
    add("--cpus_per_gpu", metavar="N", type=int, help="CPUs per task: DATA_LOADER.NUM_WORKERS + 1")
    add("--mem_gb", metavar="GB", type=int, help="memory per node")
    return parser


@dataclass
class TrainingJob:
    """What submitit stores, and calls in every task of the job."""

    cfg_file: str  # the settings
    folder: str  # the user's: relative paths among the settings start from it

    def __call__(self) -> None:
        """Train and test, then let submitit requeue the job if a signal has stopped it."""
        from timesformer.distributed.launch import launch
        from timesformer.engine.run import run
        from timesformer.engine.setup import load_run_config

        task = submitit.JobEnvironment()
        number = getattr(signal, f"SIG{task.USR_SIG}")
        requeue = signal.getsignal(number)  # submitit's: the engine's own handler saves a checkpoint first
        os.chdir(self.folder)
        if task.cluster == "local":  # there is no srun, which sets it
            os.environ.update(rendezvous(task))
        status = exit_status(lambda: launch((loaded := load_run_config(self.cfg_file)).cfg, run, loaded, False))
        if status == 0:
            return
        stopped = status == RESTART_STATUS or status > 128  # by a signal
        if stopped and task.global_rank > 0:
            sys.exit(0)  # the first task speaks for all: at another failure srun would end it before it has requeued
        if callable(requeue) and (status == RESTART_STATUS or (stopped and is_preempted(task))):
            try:
                requeue(number, None)
            except (UncompletedJobError, subprocess.CalledProcessError) as error:
                if is_requeued(task):
                    print("\nSlurm has requeued the job; it resumes from the checkpoint")
                    sys.exit(status)
                print(f"\nerror: {error} The checkpoint is saved: the same command resumes from it", file=sys.stderr)
        sys.exit(status)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What is to run after the requeue: the same."""
        return submitit.helpers.DelayedSubmission(self)


def is_preempted(task: submitit.JobEnvironment) -> bool:
    """Whether Slurm has stopped this job by SIGTERM, with a grace time; without a requeue it would count as failed."""
    state = show_job(task.job_id) if task.cluster == "slurm" else ""
    return " JobState=RUNNING " in state and re.search(r"\bPreemptTime=\d", state) is not None


def is_requeued(task: submitit.JobEnvironment) -> bool:
    """Whether Slurm itself has put this job back into its queue, or will once it has ended."""
    state = show_job(task.job_id) if task.cluster == "slurm" else ""
    ended = re.search(r" JobState=(PENDING|PREEMPTED|REQUEUED|COMPLETING) ", state)
    return bool(ended) and " Requeue=1 " in state


def rendezvous(task: submitit.JobEnvironment) -> dict[str, str]:
    """The environment by which the tasks of a job on this machine find one another, as torchrun would set it."""
    return {
        "TORCHELASTIC_RUN_ID": task.job_id,  # the tasks end when submitit's process is killed
        "RANK": str(task.global_rank),
        "LOCAL_RANK": str(task.local_rank),
        "WORLD_SIZE": str(task.num_tasks),
        "LOCAL_WORLD_SIZE": str(task.num_tasks),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(10_000 + int(task.job_id) % 20_000),  # jobs on one machine must not share a port
    }


def snapshot(code: Path) -> None:
    """Copy into the new folder `code` what the job runs: the package, tools and configs of a checkout."""
    code.mkdir(parents=True)
    configs = bundled_configs()
    beside = [] if configs.is_relative_to(PACKAGE) else [configs, configs.with_name("tools")]  # none when installed
    for folder in (PACKAGE, *beside):
        shutil.copytree(folder, code / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    (code / "revision.json").write_text(json.dumps(git_state(PACKAGE.parent)) + "\n")


def write_settings(file: Path, loaded: LoadedConfig) -> str:
    """Write what the user has set; the file's path."""
    settings = CfgNode()
    for name in loaded.set_by_user:
        set_value(settings, name, get_value(loaded.cfg, name))
    file.write_text(settings.dump())
    return str(file)


def check_inputs(loaded: LoadedConfig) -> None:
    """Read the lists and look for the files that a job needs: what is wrong is not to wait for a node.

    Raises:
        UserError: what the job would stop at; nothing was submitted.
    """
    from timesformer.datasets.build import load_lists
    from timesformer.weights.sources import is_hub_name

    cfg = loaded.cfg
    wanted = {"TRAIN.CHECKPOINT_FILE_PATH": cfg.TRAIN.ENABLE, "MODEL.WEIGHTS": cfg.TRAIN.ENABLE}
    wanted["TEST.CHECKPOINT_FILE_PATH"] = cfg.TEST.ENABLE
    files = {key: get_value(cfg, key) for key, used in wanted.items() if used}
    local = {key: path for key, path in files.items() if path and not is_hub_name(path)}
    if absent := [f"{key} {path}" for key, path in local.items() if not exists(path)]:
        raise ConfigError(f"{'; '.join(absent)}: no such file. To submit all the same: --no-check")
    if cfg.TRAIN.DATASET.startswith("gestures"):  # the job renders them
        return
    for split, videos in load_lists(cfg).items():
        print(f"{split}: {count(len(videos.records), 'video')}", *videos.warnings, sep="\n  ")


def check_text(arguments: argparse.Namespace) -> None:
    """Refuse control characters: a line break in a name would be a line of the script.

    Raises:
        ConfigError: naming the option.
    """
    for option, value in vars(arguments).items():
        for text in map(str, value if isinstance(value, list) else [value]):
            if re.search(r"[\x00-\x1f\x7f]", text):
                where = "KEY VALUE" if option == "overrides" else f"--{option}"
                raise ConfigError(f"{where}: {text!r} has a line break or another control character. Leave it out")


class Slurm(submitit.SlurmExecutor):
    """submitit's executor for Slurm, which can be made where there is no Slurm, to read its text."""

    @classmethod
    def affinity(cls) -> int:
        """Positive, as if srun were here."""
        return 1

    def text(self) -> str:
        """The script that sbatch gets."""
        return self._make_submission_file_text(self._submitit_command_str, uid="")


def build_executor(arguments: argparse.Namespace, code: Path, *, num_nodes: int, num_gpus: int) -> submitit.Executor:
    """Where and with what the job runs; `code` is the folder that the tasks import from.

    Raises:
        ConfigError: that kind of cluster cannot run so many tasks.
    """
    folder, tasks = arguments.job_dir.resolve() / "logs", max(1, num_gpus)
    if (arguments.cluster != "slurm" and num_nodes > 1) or (arguments.cluster == "debug" and tasks > 1):
        raise ConfigError(
            f"NUM_SHARDS {num_nodes} x NUM_GPUS {num_gpus} do not fit --cluster {arguments.cluster}: "
            "local has one node, debug one process. Add --num_shards 1, or --num_gpus 1"
        )
    if arguments.cluster == "debug":
        return submitit.DebugExecutor(folder)
    # Python looks where it is started before it looks anywhere else, an editable installation included.
    path = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
    python = shlex.join(["env", "-C", str(code), f"PYTHONPATH={path}", sys.executable])
    options = {"max_num_timeout": arguments.requeue, "python": python}
    # Early enough, but not at once: a limit of some minutes has no two to spare.
    common = {"signal_delay_s": min(SIGNAL_SECONDS, 20 * arguments.timeout), "stderr_to_stdout": True}
    if arguments.cluster == "local":
        local = submitit.LocalExecutor(folder, **options)
        local.update_parameters(tasks_per_node=tasks, gpus_per_node=num_gpus, timeout_min=arguments.timeout, **common)
        return local
    features = [arguments.constraint, "volta32gb" if arguments.use_volta32 else None]
    cpus = [] if arguments.cpus_per_gpu is None else [f"--cpus-per-task={arguments.cpus_per_gpu}"]
    slurm = Slurm(folder, **options)
    slurm.update_parameters(
        job_name=arguments.name,
        nodes=num_nodes,
        ntasks_per_node=tasks,
        gpus_per_node=num_gpus or None,
        cpus_per_task=arguments.cpus_per_gpu,
        mem=f"{arguments.mem_gb}G" if arguments.mem_gb else None,
        time=arguments.timeout,
        partition=arguments.partition,
        comment=arguments.comment,
        account=arguments.account,
        qos=arguments.qos,
        constraint="&".join(filter(None, features)) or None,
        wckey=None,  # submitit's own is unknown to clusters that account by it
        additional_parameters={"requeue": True},
        srun_args=["--kill-on-bad-exit=1", *cpus],  # srun does not take over sbatch's CPUs (Slurm 22.05 and later)
        **common,
    )
    return slurm


def submit(arguments: argparse.Namespace) -> None:
    """Check the configuration, submit the job (or print it), and say how to follow it.

    Raises:
        UserError: see `submit_all`.
    """
    from timesformer.engine.setup import load_run_config

    key, values, overrides = split_array(arguments.array_of, arguments.overrides)
    overrides = ["OUTPUT_DIR", str(arguments.job_dir.resolve()), *overrides]
    words = [overrides]
    if key:
        output_dir = load_run_config(arguments.cfg, overrides).cfg.OUTPUT_DIR
        words = [[*overrides, key, value, "OUTPUT_DIR", folder_of(output_dir, key, value)] for value in values]
    submit_all(arguments, words)


def submit_all(arguments: argparse.Namespace, words: Sequence[Sequence[str]]) -> None:
    """Submit one job, or an array of several, on one copy of the code.

    Args:
        arguments: options of `build_parser`.
        words: the settings of each job, on top of `arguments.cfg`; OUTPUT_DIR is among them.

    Raises:
        UserError: the configuration, the options and the cluster do not fit; nothing was submitted.
    """
    from timesformer.engine.setup import load_run_config

    check_text(arguments)
    job_dir = arguments.job_dir.resolve()
    common = ["TRAIN.AUTO_RESUME", "True"]
    for name, value in (("NUM_SHARDS", arguments.num_shards), ("NUM_GPUS", arguments.num_gpus)):
        common += [] if value is None else [name, str(value)]
    words = [[*each, *common] for each in words]
    all_loaded = [load_run_config(arguments.cfg, each) for each in words]
    cfg = all_loaded[0].cfg
    if len({loaded.cfg.OUTPUT_DIR for loaded in all_loaded}) < len(all_loaded):
        raise ConfigError(f"--array-of: each value needs its own folder; found {' '.join(arguments.array_of[1:])}")
    if cfg.NUM_GPUS == "auto":
        raise ConfigError("NUM_GPUS is auto, but a job needs a number of GPUs. Add: --num_gpus 1 (0: the CPU)")
    numbers = (int(path.name) for path in job_dir.glob("code/*") if path.name.isdigit())
    code = job_dir / "code" / str(1 + max(numbers, default=0))
    executor = build_executor(arguments, code, num_nodes=cfg.NUM_SHARDS, num_gpus=cfg.NUM_GPUS)
    shape = (
        f"{count(cfg.NUM_SHARDS, 'node')} x {count(max(1, cfg.NUM_GPUS), 'task')}, {'GPU' if cfg.NUM_GPUS else 'CPU'}"
    )
    if arguments.dry_run:
        print(f"{shape}: each task does what this command does; nothing is submitted:\n")
        for each in words:
            print(shlex.join(["timesformer", "train", "--cfg", arguments.cfg, *each]))
        print(f"\n{executor.text()}" if isinstance(executor, Slurm) else f"\non cluster {arguments.cluster}")
        return
    if arguments.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("there is no sbatch here: submit from a machine of the cluster, or add --cluster local")
    for loaded in () if arguments.no_check else all_loaded:
        check_inputs(loaded)
    snapshot(code)
    in_array = len(words) > 1
    files = [code / f"job{number if in_array else ''}.yaml" for number in range(len(words))]
    work = [TrainingJob(write_settings(*pair), os.getcwd()) for pair in zip(files, all_loaded, strict=True)]
    try:
        submitted = executor.submit_array(work) if in_array else [executor.submit(work[0])]
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"Slurm refused the job: {error}") from error
    for job, loaded in zip(submitted, all_loaded, strict=True):
        output_dir, log = loaded.cfg.OUTPUT_DIR, str(job.paths.stdout)
        note_job(job_dir, job=job.job_id, cluster=arguments.cluster, output_dir=os.path.abspath(output_dir), log=log)
        print(f"submitted job {job.job_id} ({arguments.name}): {shape}, results in {output_dir}")
        print(f"log     {log}")
    print(f"code    {code}")
    print(f"state   timesformer jobs {shlex.quote(str(job_dir))}")
    if arguments.cluster == "debug":
        submitted[0].result()
    else:
        say_how_to_follow(submitted, on_slurm=arguments.cluster == "slurm")


def say_how_to_follow(submitted: Sequence[submitit.Job[None]], *, on_slurm: bool) -> None:
    """Print the commands that show and stop jobs."""
    number = submitted[0].job_id.partition("_")[0]
    print(f"follow  tail -F {shlex.quote(str(submitted[0].paths.stdout))}")
    if on_slurm:
        print(f"more    scontrol show job {number}; later: sacct --job {number} --format State,ExitCode,Reason%30")
        print(f"stop    scancel {number}")
    else:
        print("stop    kill " + " ".join(job.job_id for job in submitted))


def split_array(words: list[str], overrides: list[str]) -> tuple[str, list[str], list[str]]:
    """Key and values of --array-of, and the settings: those too that stand after the values.

    Raises:
        ConfigError: no key, or no value.
    """
    if not words:
        return "", [], overrides
    key, *rest = words
    end = next((index for index, word in enumerate(rest) if word in KEY_BY_NAME), len(rest))
    if key not in KEY_BY_NAME or not end:
        raise ConfigError(f"--array-of needs a key and its values, such as RNG_SEED 0 1 2; found: {' '.join(words)}")
    return key, rest[:end], [*overrides, *rest[end:]]


def folder_of(output_dir: str, key: str, value: str) -> str:
    """The output folder of one value of an array: RNG_SEED_1, or PATH_TO_DATA_DIR_fold1."""
    name = re.sub(r"[^\w.+-]+", "_", os.path.basename(value.rstrip("/")))
    return os.path.join(output_dir, f"{key.rpartition('.')[2]}_{name}")

"""Train and test as a Slurm job: `python tools/submit.py --cfg FILE.yaml --job_dir DIR --num_gpus 8 KEY VALUE ...`."""

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
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import submitit
from fvcore.common.config import CfgNode
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

import timesformer
from timesformer.config.defaults import set_value
from timesformer.config.load import LoadedConfig
from timesformer.distributed.launch import launch
from timesformer.engine.run import run
from timesformer.engine.setup import load_run_config
from timesformer.utils.env import git_state
from timesformer.utils.errors import RESTART_STATUS, ConfigError, UserError, exit_status

ROOT = Path(__file__).resolve().parents[2]
SIGNAL_SECONDS = 120  # before the time limit
EPILOG = """
Nothing is assumed about the cluster: what is not asked for here is left to Slurm's own defaults. Before anything is
submitted the configuration is checked; look at the result with --dry-run. Code and settings are copied to DIR/code, and
the job runs that copy: edits while it waits do not reach it. A job always goes on from the newest checkpoint in
OUTPUT_DIR (TRAIN.AUTO_RESUME True): after a preemption, its time limit or the death of a node it is requeued, and the
same command given again does the same. Example:

  python tools/submit.py --cfg configs/Kinetics/TimeSformer_divST_8x32_224.yaml --job_dir /shared/runs/k400 \\
      --num_shards 2 --num_gpus 8 --cpus_per_gpu 9 --partition PARTITION --timeout 2880 DATA.PATH_TO_DATA_DIR /data/k400
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of the original, without the values of one site, and what any site may ask for."""
    parser = argparse.ArgumentParser(
        description="Train and test a video model as a Slurm job, one task per GPU.",
        usage="%(prog)s --cfg FILE.yaml --job_dir DIR [options] [KEY VALUE ...]",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    job = parser.add_argument_group("the job")
    job.add_argument("--cfg", dest="cfg_file", metavar="FILE.yaml", required=True, help="configuration file")
    job.add_argument("--job_dir", metavar="DIR", type=Path, required=True, help="folder that all nodes see: OUTPUT_DIR "
                     "unless that is among the KEY VALUE words, DIR/logs for what the job says, DIR/code for what it "
                     "runs")  # fmt: skip
    job.add_argument("--num_shards", metavar="N", type=int, help="number of nodes (same as NUM_SHARDS)")
    job.add_argument("--num_gpus", metavar="G", type=int, help="GPUs per node, one task each; 0: one task per node on "
                     "the CPU (same as NUM_GPUS)")  # fmt: skip
    job.add_argument("--name", default="timesformer", help="name of the job (default: %(default)s)")
    job.add_argument("--timeout", metavar="MINUTES", type=int, default=4320, help="time limit (default: %(default)s)")
    job.add_argument("--requeue", metavar="N", type=int, default=3, help="times that the job may come back after its "
                     "time limit; after a preemption it always does (default: %(default)s)")  # fmt: skip
    job.add_argument("--cluster", choices=("slurm", "local", "debug"), default="slurm", help="local: here, in the "
                     "background; debug: in this process, a debugger at errors (default: %(default)s)")  # fmt: skip
    job.add_argument("--dry-run", "--dry_run", action="store_true", help="print what would be submitted, and stop")
    ask = parser.add_argument_group("what to ask of Slurm (sbatch's options of these names)")
    ask.add_argument("--partition", metavar="P")
    ask.add_argument("--comment", metavar="TEXT")
    ask.add_argument("--account", metavar="A")
    ask.add_argument("--qos", metavar="Q")
    ask.add_argument("--constraint", metavar="C", help="features that the nodes must have")
    ask.add_argument("--use_volta32", action="store_true", help="add the constraint volta32gb: what the nodes with "
                     "32 GB GPUs were called where the original comes from; elsewhere use --constraint")  # fmt: skip
    ask.add_argument("--cpus_per_gpu", metavar="N", type=int, help="CPUs per task; Slurm's default is often 1: give "
                     "about DATA_LOADER.NUM_WORKERS + 1")  # fmt: skip
    ask.add_argument("--mem_gb", metavar="M", type=int, help="memory per node in GB")
    job.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration overrides")
    return parser.parse_args(argv)


@dataclass
class TrainingJob:
    """What submitit stores, and calls in every task of the job.

    Attributes:
        cfg_file: the settings.
        folder: where the user was: what relative paths among the settings start from.
    """

    cfg_file: str
    folder: str

    def __call__(self) -> None:
        """Train and test as tools/run_net.py does, then let submitit requeue the job if a signal has stopped it."""
        task = submitit.JobEnvironment()
        number = getattr(signal, f"SIG{task.USR_SIG}")
        requeue = signal.getsignal(number)  # submitit's: the engine's own handler saves a checkpoint first
        os.chdir(self.folder)
        if task.cluster == "local":  # what srun tells its tasks
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
                print(f"\nerror: {error} The checkpoint is saved: the same command goes on from it", file=sys.stderr)
        sys.exit(status)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What is to run after the requeue: the same."""
        return submitit.helpers.DelayedSubmission(self)


def is_preempted(task: submitit.JobEnvironment) -> bool:
    """Whether Slurm has told this job by SIGTERM to leave in its grace time; it takes one that does for failed."""
    if task.cluster != "slurm":
        return False
    show = ["scontrol", "--oneliner", "show", "job", task.job_id]
    told = subprocess.run(show, capture_output=True, text=True, check=False).stdout
    return " JobState=RUNNING " in told and re.search(r"\bPreemptTime=\d", told) is not None


def rendezvous(task: submitit.JobEnvironment) -> dict[str, str]:
    """The environment by which the tasks of a job on this machine find one another, as torchrun would set it."""
    return {
        "RANK": str(task.global_rank),
        "LOCAL_RANK": str(task.local_rank),
        "WORLD_SIZE": str(task.num_tasks),
        "LOCAL_WORLD_SIZE": str(task.num_tasks),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(10_000 + int(task.job_id) % 20_000),  # jobs on one machine must not share a port
    }


def snapshot(code: Path, loaded: LoadedConfig) -> None:
    """Copy into the new folder `code` what the job runs: the package, the tools, and what the user has set."""
    code.mkdir(parents=True)
    no_caches = shutil.ignore_patterns("__pycache__")
    for folder in (Path(timesformer.__file__).parent, ROOT / "tools", ROOT / "configs"):
        shutil.copytree(folder, code / folder.name, ignore=no_caches)
    settings = CfgNode()
    for name in loaded.set_by_user:
        set_value(settings, name, reduce(CfgNode.__getitem__, name.split("."), loaded.cfg))
    (code / "job.yaml").write_text(settings.dump())
    (code / "revision.json").write_text(json.dumps(git_state(ROOT)) + "\n")


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
        UserError: the configuration, the options and the cluster do not fit; nothing was submitted.
    """
    job_dir = arguments.job_dir.resolve()
    overrides = ["OUTPUT_DIR", str(job_dir), *arguments.overrides, "TRAIN.AUTO_RESUME", "True"]
    for key, value in (("NUM_SHARDS", arguments.num_shards), ("NUM_GPUS", arguments.num_gpus)):
        overrides += [] if value is None else [key, str(value)]
    loaded = load_run_config(arguments.cfg_file, overrides)
    cfg = loaded.cfg
    if cfg.NUM_GPUS == "auto":
        raise ConfigError("NUM_GPUS is auto, but a job must ask for a number of GPUs. Add: --num_gpus 1 (0: the CPU)")
    numbers = (int(path.name) for path in job_dir.glob("code/*") if path.name.isdigit())
    code = job_dir / "code" / str(1 + max(numbers, default=0))
    executor = build_executor(arguments, code, num_nodes=cfg.NUM_SHARDS, num_gpus=cfg.NUM_GPUS)
    shape = f"{cfg.NUM_SHARDS} node(s) x {max(1, cfg.NUM_GPUS)} task(s), " + ("GPU" if cfg.NUM_GPUS else "CPU")
    if arguments.dry_run:
        print(f"{shape}: each does what this does, and nothing is submitted:\n")
        print(shlex.join(["python", "tools/run_net.py", "--cfg", arguments.cfg_file, *overrides]))
        print(f"\n{executor.text()}" if isinstance(executor, Slurm) else f"\non cluster {arguments.cluster}")
        return
    if arguments.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("there is no sbatch here: submit from a machine of the cluster, or add --cluster local")
    snapshot(code, loaded)
    try:
        submitted = executor.submit(TrainingJob(str(code / "job.yaml"), os.getcwd()))
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"Slurm refused the job: {error}") from error
    number, log = submitted.job_id, shlex.quote(str(submitted.paths.stdout))
    print(f"submitted job {number} ({arguments.name}): {shape}, results in {cfg.OUTPUT_DIR}")
    print(f"code    {code}\nlog     {submitted.paths.stdout}")
    if arguments.cluster == "slurm":
        print(f"follow  tail -F {log}; squeue --job {number}")
        print(f"state   scontrol show job {number}; later: sacct --job {number} --format State,ExitCode,Reason%30")
        print(f"stop    scancel {number}")
    elif arguments.cluster == "local":
        print(f"follow  tail -F {log}\nstop    kill {number}")
    else:
        submitted.result()


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, or 1 after an error that the user can mend."""
    return exit_status(lambda: submit(parse_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())

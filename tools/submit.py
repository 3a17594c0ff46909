"""Train and test as a Slurm job: `python tools/submit.py --cfg FILE.yaml --job_dir DIR --num_gpus 8 KEY VALUE ...`."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from timesformer.engine.launch import launch
from timesformer.engine.run import run
from timesformer.engine.setup import load_run_config
from timesformer.utils.errors import ConfigError, UserError, exit_status

RESUME = ["TRAIN.AUTO_RESUME", "True"]
EPILOG = """
Nothing is assumed about the cluster: what is not asked for here is left to Slurm's own defaults. Before anything is
submitted the configuration is checked; look at the result with --dry-run. When the job is preempted, or reaches its
time limit (three times at most), it is requeued and goes on from the newest checkpoint in OUTPUT_DIR. FILE.yaml and the
code are read when the job starts: do not edit them while it waits. Example:

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
                     "unless that is among the KEY VALUE words, and DIR/logs for the job's output")  # fmt: skip
    job.add_argument("--num_shards", metavar="N", type=int, help="number of nodes (same as NUM_SHARDS)")
    job.add_argument("--num_gpus", metavar="G", type=int, help="GPUs per node, one task each; 0: one task per node on "
                     "the CPU (same as NUM_GPUS)")  # fmt: skip
    job.add_argument("--name", default="timesformer", help="name of the job (default: %(default)s)")
    job.add_argument("--timeout", metavar="MINUTES", type=int, default=4320, help="time limit (default: %(default)s)")
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
    """What submitit stores, and calls in every task of the job."""

    cfg_file: str
    overrides: list[str]

    def __call__(self) -> None:
        """Join the other tasks, then train and test as tools/run_net.py does."""
        os.environ.update(rendezvous(submitit.JobEnvironment()))
        # Slurm signals a task's whole family: a data-loading worker must not requeue the job once more.
        number = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
        os.register_at_fork(after_in_child=lambda: signal.signal(number, signal.SIG_IGN))
        requeued = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0  # by Slurm itself too: a node died
        loaded = load_run_config(self.cfg_file, self.resumed().overrides if requeued else self.overrides)
        launch(loaded.cfg, run, loaded, False)

    def resumed(self) -> TrainingJob:
        """The same job, going on from its newest checkpoint."""
        already = self.overrides[-len(RESUME) :] == RESUME
        return self if already else TrainingJob(self.cfg_file, self.overrides + RESUME)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What is to run after the requeue; submitit calls this on preemption and shortly before the time limit."""
        return submitit.helpers.DelayedSubmission(self.resumed())


def rendezvous(task: submitit.JobEnvironment) -> dict[str, str]:
    """The environment by which the tasks of a job find one another, as torchrun would set it."""
    number = int(re.sub(r"\D", "", task.job_id))
    return {
        "RANK": str(task.global_rank),
        "LOCAL_RANK": str(task.local_rank),
        "WORLD_SIZE": str(task.num_tasks),
        "MASTER_ADDR": task.hostnames[0] if task.num_nodes > 1 else "localhost",
        "MASTER_PORT": str(10_000 + number % 20_000),  # jobs that share a node must not share a port
    }


class Slurm(submitit.SlurmExecutor):
    """submitit's executor for Slurm, which can be made where there is no Slurm, to read its text."""

    @classmethod
    def affinity(cls) -> int:
        """Positive, as if srun were here."""
        return 1

    def text(self) -> str:
        """The script that sbatch gets."""
        return self._make_submission_file_text(self._submitit_command_str, uid="")


def build_executor(arguments: argparse.Namespace, *, num_nodes: int, num_gpus: int) -> submitit.Executor:
    """Where and with what the job runs.

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
    # Warn early enough, but not at once: a limit of some minutes has no 90 seconds to spare.
    common = {"signal_delay_s": min(90, 20 * arguments.timeout), "stderr_to_stdout": True}
    if arguments.cluster == "local":
        local = submitit.LocalExecutor(folder)
        local.update_parameters(tasks_per_node=tasks, gpus_per_node=num_gpus, timeout_min=arguments.timeout, **common)
        return local
    features = [arguments.constraint, "volta32gb" if arguments.use_volta32 else None]
    slurm = Slurm(folder)
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
        **common,
    )
    return slurm


def submit(arguments: argparse.Namespace) -> None:
    """Check the configuration, submit the job (or print it), and say how to follow it.

    Raises:
        UserError: the configuration, the options and the cluster do not fit; nothing was submitted.
    """
    overrides = ["OUTPUT_DIR", str(arguments.job_dir.resolve()), *arguments.overrides]
    for key, value in (("NUM_SHARDS", arguments.num_shards), ("NUM_GPUS", arguments.num_gpus)):
        overrides += [] if value is None else [key, str(value)]
    cfg = load_run_config(arguments.cfg_file, overrides).cfg
    if cfg.NUM_GPUS == "auto":
        raise ConfigError("NUM_GPUS is auto, but a job must ask for a number of GPUs. Add: --num_gpus 1 (0: the CPU)")
    job = TrainingJob(str(Path(arguments.cfg_file).resolve()), overrides)
    executor = build_executor(arguments, num_nodes=cfg.NUM_SHARDS, num_gpus=cfg.NUM_GPUS)
    shape = f"{cfg.NUM_SHARDS} node(s) x {max(1, cfg.NUM_GPUS)} task(s), " + ("GPU" if cfg.NUM_GPUS else "CPU")
    if arguments.dry_run:
        print(f"{shape}: each does what this does, and nothing is submitted:\n")
        print(shlex.join(["python", "tools/run_net.py", "--cfg", job.cfg_file, *job.overrides]))
        print(f"\n{executor.text()}" if isinstance(executor, Slurm) else f"\non cluster {arguments.cluster}")
        return
    if arguments.cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("there is no sbatch here: submit from a machine of the cluster, or add --cluster local")
    try:
        submitted = executor.submit(job)
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"Slurm refused the job: {error}") from error
    number, slurm = submitted.job_id, arguments.cluster == "slurm"
    print(f"submitted job {number} ({arguments.name}): {shape}, results in {cfg.OUTPUT_DIR}")
    print(f"log     {submitted.paths.stdout}")
    print(f"follow  tail -F {shlex.quote(str(submitted.paths.stdout))}" + (f"; squeue --job {number}" if slurm else ""))
    if arguments.cluster == "debug":
        submitted.result()
    else:
        print(f"stop    {'scancel' if slurm else 'kill -INT'} {number}")


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, or 1 after an error that the user can mend."""
    return exit_status(lambda: submit(parse_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())

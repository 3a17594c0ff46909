"""A throwaway Slurm of two nodes on this machine, for the tests; `python tests/slurm/cluster.py` opens a shell."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "srun": "slurm-client", "munged": "munge"}
CPUS, GPUS = 4, 2  # of a node; the GPUs are device files that nothing can compute on
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")

# No accounting, no control groups, no systemd. Partition `high` takes nodes from `main`, whose jobs get their own
# signal and two minutes; from `quick` it takes them with no word but SIGTERM and KillWait seconds.
CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2,batch_sched_delay=0
ReturnToService=2
SlurmdTimeout=10
KillWait=20
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=120
PartitionName=quick Nodes=ALL PriorityTier=1 GraceTime=0
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


class Cluster:
    """A running Slurm between `with` and its end; root's, and gone without a trace afterwards but for the packages.

    Attributes:
        nodes: names of the two nodes.
        folder: configuration, logs and state.
        environment: in which Slurm's commands find it.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.nodes = [f"test{os.getpid()}n{number}" for number in (1, 2)]
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> Cluster:
        try:
            install_packages()
            self._write_files()
            self._name_nodes(Path("/etc/hosts"), present=True)
            folder = self.folder
            munge = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
            options = [f"--{option}={folder / name}" for option, name in {**munge, "seed-file": "seed"}.items()]
            self.run("munged", "--force", *options)
            self.run("slurmctld")
            for node in self.nodes:
                self.start_node(node)
            self.wait_for_idle(*self.nodes)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        jobs = self.run("squeue", "-h", "-o", "%A", check=False).split()
        if jobs:
            self.run("scancel", "--signal=KILL", "--full", *jobs, check=False)
            self.run("scancel", *jobs, check=False)
            wait_until(lambda: not self.run("squeue", "-h", check=False), 30.0)
        for number in (signal.SIGTERM, signal.SIGKILL):
            kill(self._processes(), number)
            wait_until(lambda: not self._processes(), 10.0, may_fail=number == signal.SIGTERM)
        self._name_nodes(Path("/etc/hosts"), present=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(
        self,
        *command: object,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> str:
        """What a command prints, stripped; it knows this cluster, and runs in the checkout or another `folder`."""
        words, variables = [str(word) for word in command], {**self.environment, **(environment or {})}
        done = subprocess.run(words, env=variables, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0 or not check, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def job(self, number: int) -> dict[str, str]:
        """What `scontrol show job` knows, such as JobState, Reason, ExitCode, Restarts and BatchHost."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.run("scontrol", "-o", "show", "job", number)))

    def wait_for(self, number: int, *states: str, patience_sec: float = 240.0) -> dict[str, str]:
        """The job once it is in one of `states` (or has ended); a requeued job need not sit out its two minutes."""
        given_up = time.monotonic() + patience_sec
        while True:
            job = self.job(number)
            if job["JobState"] in (states or ENDED):
                return job
            assert job["JobState"] not in ENDED and time.monotonic() < given_up, f"waited for {states or ENDED}: {job}"
            if job["JobState"] == "PENDING" and job["Reason"] == "BeginTime":
                self.run("scontrol", "update", f"jobid={number}", "StartTime=now", check=False)
            time.sleep(0.2)

    def wait_for_idle(self, *nodes: str) -> None:
        """Until the nodes have nothing to do."""
        state = ("sinfo", "-h", "-N", "-p", "main", "-n", ",".join(nodes), "-o", "%T")
        wait_until(lambda: self.run(*state).split() == ["idle"] * len(nodes), 60.0)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self.run("slurmd", "-N", node)

    def signal_node(self, node: str, number: int) -> None:
        """Signal the node's daemon and all that it runs: SIGKILL pulls the plug, SIGSTOP is a node that hangs."""
        tasks = self._processes(f"SLURMD_NODENAME={node}")
        keepers = {parent for task in tasks if name_of(parent := parent_of(task)).startswith("slurmstepd")}
        daemon = int((self.folder / f"slurmd-{node}.pid").read_text())
        kill([daemon, *keepers, *tasks], number)  # in this order: nobody is left to report an end

    def signal_tasks(self, job: int, number: int, *which: str) -> None:
        """Signal a job's tasks behind Slurm's back: all, or those with variables such as SLURM_PROCID=1."""
        kill(self._processes(f"SLURM_JOB_ID={job}", "SLURM_STEP_ID=0", *which), number)

    def _write_files(self) -> None:
        folder, ports = self.folder, free_ports(3)
        folder.chmod(0o755)
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o600)
        lines = [CONF.format(folder=folder, host=socket.gethostname().partition(".")[0], port=ports[0])]
        shape = f"NodeHostname=localhost NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory=8000 Gres=gpu:{GPUS} State=UNKNOWN"
        lines += [f"NodeName={node} Port={port} {shape}\n" for node, port in zip(self.nodes, ports[1:], strict=True)]
        (folder / "slurm.conf").write_text("".join(lines))
        for number in range(GPUS):
            os.mknod(folder / f"gpu{number}", 0o20666, os.makedev(1, 3))  # Slurm wants a character device: /dev/null's
        gpus = f"Name=gpu File={folder}/gpu[0-{GPUS - 1}]"
        (folder / "gres.conf").write_text("".join(f"NodeName={node} {gpus}\n" for node in self.nodes))

    def _name_nodes(self, hosts: Path, *, present: bool) -> None:
        """Let the nodes' names resolve, as those of a cluster do; in place: containers mount this file."""
        kept = [line for line in hosts.read_text().splitlines() if not any(node in line for node in self.nodes)]
        new = [f"127.0.0.1 {node}" for node in self.nodes] if present else []
        hosts.write_text("\n".join([*kept, *new]) + "\n")

    def _processes(self, *also: str) -> list[int]:
        """All that this cluster started, or those of them with more variables in common."""
        wanted = {f"SLURM_CONF={self.folder}/slurm.conf", *also}
        return [process for process in processes() if wanted <= set(environ_of(process))]


def install_packages() -> None:
    """Debian's packages, where they are missing; their scripts start nothing."""
    missing = [package for command, package in PACKAGES.items() if shutil.which(command) is None]
    if missing:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_until(done: Callable[[], bool], patience_sec: float, *, may_fail: bool = False) -> None:
    """Ask ten times a second."""
    given_up = time.monotonic() + patience_sec
    while not done():
        if time.monotonic() > given_up:
            assert may_fail, f"not within {patience_sec:g} s"
            return
        time.sleep(0.1)


def kill(targets: Iterable[int], number: int) -> None:
    """Signal processes; some may have ended meanwhile."""
    for process in targets:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def processes() -> list[int]:
    """All of this machine."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def environ_of(process: int) -> list[str]:
    """The variables a process started with, as NAME=VALUE."""
    return _proc(process, "environ").split("\0")


def name_of(process: int) -> str:
    """Its name, 15 letters at most."""
    return _proc(process, "comm").strip()


def parent_of(process: int) -> int:
    """Its parent; 0 when it is gone."""
    return int((re.findall(r"^PPid:\s*(\d+)", _proc(process, "status"), re.MULTILINE) or ["0"])[0])


def _proc(process: int, name: str) -> str:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes().decode(errors="replace")
    except OSError:  # gone meanwhile
        return ""


if __name__ == "__main__":
    with Cluster() as cluster:
        words = sys.argv[1:] or [os.environ.get("SHELL", "/bin/sh")]
        sys.exit(subprocess.run(words, env=cluster.environment, check=False).returncode)

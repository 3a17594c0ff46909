"""The package imports and trains on a CPU where the system or torch lacks something: each absence in a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.conftest import gestures_dir, tiny  # noqa: F401  (fixtures)

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs/Gestures/LightTimeSformer_demo.yaml"

# What makes something absent, before the package is imported.
ABSENCES = {
    "process groups": "del os.setpgid",
    "SIGUSR1 and SIGUSR2": "del signal.SIGUSR1, signal.SIGUSR2",
    "SIGCHLD": "del signal.SIGCHLD",
    "SIGKILL": "del signal.SIGKILL",
    "SIGALRM": "del signal.SIGALRM, signal.setitimer",
    "exit codes": "del os.EX_TEMPFAIL",
    "CPU affinity": "del os.sched_getaffinity",
    "user numbers": "del os.getuid; os.environ['USERNAME'] = 'user'",  # which such a system sets
    "resource": "import psutil; block_import('resource')",  # psutil for Linux needs it
    "torch.distributed": "remove_from_torch('_c10d_init', '_rpc_init', '_dist_autograd_init')",
    "fork": "del os.fork",
    "oneDNN's operators": "import torch; torch.ops.mkldnn = object()",
    "fcntl": "import portalocker; block_import('fcntl')",  # fvcore needs it, and it needs fcntl on this system
    "/proc": "hide('/proc')",
}

PRELUDE = """
import builtins, importlib.machinery, io, os, signal, sys


def block_import(name):
    sys.modules[name] = None  # an import of it is a ModuleNotFoundError


def remove_from_torch(*names):
    '''Have torch find its own library without `names`, as in a build without that part.'''

    class Finder(importlib.machinery.PathFinder):
        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            spec = super().find_spec(fullname, path, target) if fullname == "torch._C" else None
            if spec is not None:
                load = spec.loader.exec_module

                def exec_module(module):
                    load(module)
                    for name in names:
                        delattr(module, name)

                spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Finder)


def hide(folder):
    def no_file(path, *arguments, **options):
        if str(path).startswith(folder):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return open_file(path, *arguments, **options)

    open_file = io.open
    builtins.open = io.open = no_file
"""

IMPORT_ALL = """
import importlib, pkgutil
import timesformer
for module in pkgutil.walk_packages(timesformer.__path__, "timesformer."):
    importlib.import_module(module.name)
"""

TRAIN = """
from timesformer.cli.train import main
sys.exit(main(sys.argv[1:]))
"""


def run(code: str, *arguments: object) -> None:
    command = [sys.executable, "-c", PRELUDE + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("absent", ABSENCES)
def test_every_module_can_be_imported_without(absent: str) -> None:
    run(f"{ABSENCES[absent]}\n{IMPORT_ALL}")


def test_training_on_a_cpu_needs_none_of_them(tmp_path: Path, tiny: list[str]) -> None:  # noqa: F811
    run("\n".join(ABSENCES.values()) + TRAIN, "--cfg", DEMO, *tiny, "SOLVER.MAX_EPOCH", 1, "OUTPUT_DIR", tmp_path)
    assert (tmp_path / "predictions.csv").is_file()

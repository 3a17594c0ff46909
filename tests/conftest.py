"""Settings of every test: one thread a process, no screen, no network, no deadline for a slow machine."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch or numpy is imported
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import settings

settings.register_profile("timesformer", deadline=None, derandomize=True)
settings.load_profile("timesformer")

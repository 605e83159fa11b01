"""The number of threads that numerical libraries use."""

import os
import platform
import sys
from pathlib import Path

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def use_one_thread() -> None:
    """Makes torch and BLAS compute on one thread, unless the environment says how many.

    The operations of narrow models are too short to be divided. A second thread would spin between
    them: on a busy machine the same command then takes ten times as long.
    Training does not need this; its kernel has threads of its own.
    """
    if any(name in os.environ for name in VARIABLES):
        return
    os.environ |= dict.fromkeys(VARIABLES, "1")  # for libraries loaded later
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


def cpu_info(*names: str) -> str:
    """The first entry of /proc/cpuinfo that has such a name; empty where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def processor() -> str:
    """The name of this machine's processor."""
    return cpu_info("model name") or platform.processor() or platform.machine()

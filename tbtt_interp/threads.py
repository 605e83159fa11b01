"""The number of threads that numerical libraries use."""

import os
import sys

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

"""Make threads sleep while they wait, in a process with both torch and MinkowskiEngine."""

import os
import sys

VARIABLES = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}


def share_cores() -> None:
    """Make waiting threads sleep, by starting this process again with that in its environment.

    torch and MinkowskiEngine bring an OpenMP runtime each, and MinkowskiEngine OpenBLAS with a
    third set of threads. By default all of them spin while they wait, and each takes the cores from
    whoever has work: on two cores a training step of MinkUNet takes three times the processor time.
    The runtimes read these variables once, when torch is loaded, which has happened by now. A
    variable that is set already is left as it is.
    """
    if VARIABLES.keys() - os.environ.keys():
        os.execve(sys.executable, sys.orig_argv, VARIABLES | os.environ)

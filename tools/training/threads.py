"""How threads wait for each other in a process that holds both torch and MinkowskiEngine."""

import os


def share_cores() -> None:
    """Make waiting threads sleep; call it before torch is imported.

    torch and MinkowskiEngine bring an OpenMP runtime each, and MinkowskiEngine OpenBLAS with a
    third set of threads. By default all of them spin while they wait, and each takes the cores from
    whoever has work: on two cores a training step of MinkUNet takes three times the processor time.
    A variable that is set already is left as it is.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

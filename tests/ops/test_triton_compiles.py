"""Every Triton kernel compiles for a GPU, which the interpreter does not show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "helpers" / "compile_triton.py"
KERNELS = {
    "make_keys", "slot_moments", "merge_moments", "normalize", "slot_products", "merge_products",
    "row_gradients", "forward", "chunk_moments", "backward", "chunk_products", "gradients",
}


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return the name of each compiled kernel and what it needs, a line for each variant."""
    pytest.importorskip("triton")
    folder = tmp_path_factory.mktemp("triton")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, check=False,
        cwd=folder, env=environment | {"TRITON_CACHE_DIR": str(folder / "cache")})
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.split() for line in done.stdout.splitlines()]


def test_every_kernel_compiles_for_sm_90(compiled):
    assert {name for name, *_ in compiled} == KERNELS


def test_no_kernel_spills_registers(compiled):
    """A frame of 8 bytes is that of a float64 division, which is called."""
    frames = {int(word[6:]) for line in compiled for word in line if word.startswith("STACK:")}
    assert frames <= {0, 8}
    assert all("LOCAL:0" in line for line in compiled)

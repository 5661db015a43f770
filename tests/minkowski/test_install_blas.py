"""Builds with `--blas torch`: torch's matrix products under cblas's names."""

import ctypes
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from geonorm.minkowski.host import host_compiler, prepare_blas

M, N, K = 3, 4, 5
ROW_MAJOR, COLUMN_MAJOR = 101, 102
PLAIN, TRANSPOSED = 111, 112
CODE = """
extern "C" {
#include <cblas.h>
void sgemm(int o, int a, int b, int m, int n, int k, float x, float* p, int i, float* q, int j,
           float y, float* c, int l) {
  cblas_sgemm(CBLAS_ORDER(o), CBLAS_TRANSPOSE(a), CBLAS_TRANSPOSE(b), m, n, k, x, p, i, q, j, y, c,
              l);
}
void dgemm(int o, int a, int b, int m, int n, int k, double x, double* p, int i, double* q, int j,
           double y, double* c, int l) {
  cblas_dgemm(CBLAS_ORDER(o), CBLAS_TRANSPOSE(a), CBLAS_TRANSPOSE(b), m, n, k, x, p, i, q, j, y, c,
              l);
}
void saxpy(int n, float a, float* x, float* y) { cblas_saxpy(n, a, x, 1, y, 1); }
void daxpy(int n, double a, double* x, double* y) { cblas_daxpy(n, a, x, 1, y, 1); }
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> ctypes.CDLL:
    """Compile the products as the installer has MinkowskiEngine compile them."""
    scratch = tmp_path_factory.mktemp("blas")
    for name in ("include", "lib"):
        (scratch / name).mkdir()
    torch_lib = Path(torch.__file__).parent / "lib"
    prepare_blas("torch", scratch, torch_lib)
    file = scratch / "products.so"
    subprocess.run([*host_compiler().split(), "-x", "c++", "-", "-shared", "-fPIC",
                    f"-I{scratch}/include", f"-L{scratch}/lib", "-lopenblas", "-o", file],
                   input=CODE, text=True, check=True)  # fmt: skip
    return ctypes.CDLL(str(file))


@pytest.mark.parametrize("order", [ROW_MAJOR, COLUMN_MAJOR])
@pytest.mark.parametrize(("first", "second"), [*product((PLAIN, TRANSPOSED), repeat=2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_in_every_order(library, order, first, second, dtype) -> None:
    rng = np.random.default_rng(0)
    layout = "C" if order == ROW_MAJOR else "F"

    def matrix(rows, columns, turned=False):
        shape = (columns, rows) if turned else (rows, columns)
        return np.array(rng.normal(size=shape), dtype, order=layout)

    a, b = matrix(M, K, first == TRANSPOSED), matrix(K, N, second == TRANSPOSED)
    c = matrix(M, N)
    left, right = a.T if first == TRANSPOSED else a, b.T if second == TRANSPOSED else b
    expected = 2 * left @ right + c / 2
    real = ctypes.c_float if dtype == np.float32 else ctypes.c_double

    def stride(array):
        return max(array.strides) // array.itemsize

    def pointer(array):
        return array.ctypes.data_as(ctypes.c_void_p)

    function = library.sgemm if dtype == np.float32 else library.dgemm
    function(order, first, second, M, N, K, real(2), pointer(a), stride(a), pointer(b), stride(b),
             real(0.5), pointer(c), stride(c))  # fmt: skip
    np.testing.assert_allclose(c, expected, rtol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sum(library, dtype) -> None:
    x, y = np.arange(5, dtype=dtype), np.ones(5, dtype=dtype)
    real, function = ((ctypes.c_float, library.saxpy) if dtype == np.float32
                      else (ctypes.c_double, library.daxpy))  # fmt: skip
    function(5, real(3), x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p))
    np.testing.assert_array_equal(y, [1, 4, 7, 10, 13])

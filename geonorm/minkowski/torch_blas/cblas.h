// The four products that MinkowskiEngine takes from a BLAS, on the Fortran ones inside libtorch_cpu:
// what `install_minkowski.py --blas torch` builds with in the place of OpenBLAS's cblas.h.
#pragma once

typedef enum { CblasRowMajor = 101, CblasColMajor = 102 } CBLAS_ORDER;
typedef enum { CblasNoTrans = 111, CblasTrans = 112, CblasConjTrans = 113 } CBLAS_TRANSPOSE;

void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*,
            const float*, const int*, const float*, const int*, const float*, float*, const int*);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*,
            const double*, const int*, const double*, const int*, const double*, double*,
            const int*);
void saxpy_(const int*, const float*, const float*, const int*, float*, const int*);
void daxpy_(const int*, const double*, const double*, const int*, double*, const int*);

// A row-major matrix is its transpose in Fortran's order, and (AB)ᵀ = BᵀAᵀ.
#define GEONORM_GEMM(name, type, fortran)                                                         \
  static inline void name(CBLAS_ORDER order, CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b,    \
                          int m, int n, int k, type alpha, const type* a, int lda,                \
                          const type* b, int ldb, type beta, type* c, int ldc) {                  \
    const char first = trans_a == CblasNoTrans ? 'N' : 'T';                                       \
    const char second = trans_b == CblasNoTrans ? 'N' : 'T';                                      \
    if (order == CblasColMajor)                                                                   \
      fortran(&first, &second, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);             \
    else                                                                                          \
      fortran(&second, &first, &n, &m, &k, &alpha, b, &ldb, a, &lda, &beta, c, &ldc);             \
  }

GEONORM_GEMM(cblas_sgemm, float, sgemm_)
GEONORM_GEMM(cblas_dgemm, double, dgemm_)
#undef GEONORM_GEMM

static inline void cblas_saxpy(int n, float alpha, const float* x, int step_x, float* y,
                               int step_y) {
  saxpy_(&n, &alpha, x, &step_x, y, &step_y);
}

static inline void cblas_daxpy(int n, double alpha, const double* x, int step_x, double* y,
                               int step_y) {
  daxpy_(&n, &alpha, x, &step_x, y, &step_y);
}

/* cuBLAS, as far as it is called: matrix products, column-major, on the stub driver's streams. */

#include "stub.h"

CUresult stub_product(Product product, CUstream stream);
int stub_find(const void *address, size_t size);

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13 };

typedef struct {
    bool alive, has_workspace;
    CUstream stream;
} Handle;

CONTROL long live_handles;

CONTROL const char *cublasGetStatusName(int status) {
    return status == INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
           : status == NOT_INITIALIZED ? "CUBLAS_STATUS_NOT_INITIALIZED" : "CUBLAS_STATUS_EXECUTION_FAILED";
}

CONTROL int cublasCreate_v2(Handle **handle) {
    CUcontext context = NULL;
    cuCtxGetCurrent(&context);
    if (!context) return NOT_INITIALIZED;
    *handle = calloc(1, sizeof **handle);
    (*handle)->alive = true;
    live_handles++;
    return SUCCESS;
}

CONTROL int cublasDestroy_v2(Handle *handle) {
    CUcontext context = NULL;
    cuCtxGetCurrent(&context);
    if (!handle->alive || !context) {
        fprintf(stderr, "stub cuBLAS: a handle destroyed %s\n", context ? "twice" : "without a context");
        return NOT_INITIALIZED;
    }
    handle->alive = false;
    live_handles--;
    return SUCCESS;
}

CONTROL int cublasSetMathMode(Handle *handle, int mode) { return handle->alive && !mode ? SUCCESS : INVALID_VALUE; }

CONTROL int cublasSetStream_v2(Handle *handle, CUstream stream) {
    handle->stream = stream;
    handle->has_workspace = false;
    return handle->alive ? SUCCESS : NOT_INITIALIZED;
}

CONTROL int cublasSetWorkspace_v2(Handle *handle, void *workspace, size_t size) {
    handle->has_workspace = stub_find(workspace, size);
    return handle->has_workspace && (size_t)workspace % 256 == 0 ? SUCCESS : INVALID_VALUE;
}

static int gemm(Handle *handle, Product p) {
    if (!handle->alive || !handle->has_workspace) return NOT_INITIALIZED;
    long a_rows = p.a_transposed ? p.k : p.m, b_rows = p.b_transposed ? p.n : p.k;
    if (p.m < 0 || p.n < 0 || p.k < 0 || p.lda < 1 || p.lda < a_rows || p.ldb < 1 || p.ldb < b_rows || p.ldc < 1 ||
        p.ldc < p.m)
        return INVALID_VALUE;
    return stub_product(p, handle->stream) ? EXECUTION_FAILED : SUCCESS;
}

#define GEMM(name, number, is_double)                                                                                  \
    CONTROL int name(Handle *handle, int a_op, int b_op, long m, long n, long k, const number *alpha, const void *a,   \
                     long lda, const void *b, long ldb, const number *beta, void *c, long ldc) {                       \
        return gemm(handle, (Product){is_double, a_op, b_op, m, n, k, lda, ldb, ldc, a, b, c, *alpha, *beta});         \
    }
GEMM(cublasSgemm_v2_64, float, 0)
GEMM(cublasDgemm_v2_64, double, 1)

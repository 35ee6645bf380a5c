/* Kernels, as their cubin describes them: names, parameters, registers, shared memory. A launch calls back. */

#include "stub.h"
#include <elf.h>
#include <math.h>

#define PARAMETERS 256
#define LONGEST 4096 /* name */
#define REGISTERS 65536
#define SHARED_DEFAULT (48 << 10)
#define SHARED_OPT_IN (227 << 10)
#define SHARED_SM (228 << 10)
#define SMS 132

typedef struct Library Library;

typedef struct {
    int magic;
    Library *library;
    char name[LONGEST];
    int count;
    unsigned offset[PARAMETERS], size[PARAMETERS];
    unsigned bytes; /* of all parameters */
    unsigned registers, threads, shared, allowed;
} Kernel;

struct Library {
    int magic;
    bool alive;
    int count;
    Kernel kernels[4];
};

enum { LIBRARY = 0x71B, KERNEL_MAGIC = 0x4E41E1 };
enum { BYTES = 4, MAX_THREADS = 0x05, KPARAM_INFO = 0x17, REGCOUNT = 0x2F }; /* of a record in .nv.info */

struct Launch {
    Kernel *kernel;
    unsigned grid[3], block[3], shared, cooperative;
    CUstream stream;
    char *parameters;
};

typedef int (*Callback)(const Kernel *kernel, const char *name, const unsigned *grid, const unsigned *block,
                        unsigned shared, unsigned cooperative, CUstream stream, const char *parameters, unsigned bytes);
static Callback callback;
long launches, live_libraries;

CONTROL void stub_callback(Callback given) { callback = given; }

/* --- loading */

static void read_info(Kernel *k, unsigned symbol, const unsigned char *at, const unsigned char *end) {
    while (at + 4 <= end) {
        unsigned format = at[0], attribute = at[1], value = at[2] | at[3] << 8;
        const unsigned char *data = at += 4;
        if (format != BYTES) continue;
        at += value;
        if (attribute == MAX_THREADS) memcpy(&k->threads, data, 4);
        if (attribute == REGCOUNT && !memcmp(data, &symbol, 4)) memcpy(&k->registers, data + 4, 4);
        if (attribute == KPARAM_INFO) {
            unsigned short ordinal, offset;
            unsigned packed;
            memcpy(&ordinal, data + 4, 2);
            memcpy(&offset, data + 6, 2);
            memcpy(&packed, data + 8, 4);
            if (ordinal >= PARAMETERS) abort();
            k->offset[ordinal] = offset;
            k->size[ordinal] = packed >> 18;
            if (k->count <= ordinal) k->count = ordinal + 1;
            if (k->bytes < offset + k->size[ordinal]) k->bytes = offset + k->size[ordinal];
        }
    }
}

static CUresult read_cubin(Library *library, const char *image) {
    const Elf64_Ehdr *elf = (const void *)image;
    if (memcmp(elf->e_ident, ELFMAG, SELFMAG)) return violation(CUDA_ERROR_INVALID_IMAGE, "code that is no cubin");
    const Elf64_Shdr *sections = (const void *)(image + elf->e_shoff);
    const char *names = image + sections[elf->e_shstrndx].sh_offset;
    for (int n = 0; n < elf->e_shnum; n++) {
        const char *name = names + sections[n].sh_name;
        if (strncmp(name, ".text.", 6)) continue;
        char info[LONGEST + 16], shared[LONGEST + 16];
        snprintf(info, sizeof info, ".nv.info.%s", name + 6);
        snprintf(shared, sizeof shared, ".nv.shared.%s", name + 6);
        Kernel k = {KERNEL_MAGIC, library, .allowed = SHARED_DEFAULT};
        unsigned symbol = sections[n].sh_info & 0xFFFFFF;
        bool entry = false;
        for (int s = 0; s < elf->e_shnum; s++) {
            const Elf64_Shdr *section = sections + s;
            const unsigned char *data = (const unsigned char *)image + section->sh_offset;
            if (!strcmp(names + section->sh_name, shared)) k.shared = section->sh_size;
            bool own = !strcmp(names + section->sh_name, info);
            entry = entry || own;
            if (own || !strcmp(names + section->sh_name, ".nv.info")) read_info(&k, symbol, data, data + section->sh_size);
        }
        if (!entry) continue;
        if (library->count == 4 || !k.registers) abort();
        snprintf(k.name, sizeof k.name, "%s", name + 6);
        library->kernels[library->count++] = k;
    }
    return CUDA_SUCCESS;
}

API cuLibraryLoadData(CUlibrary *made, const void *code, CUjit_option *options, void **values, unsigned int count,
                      CUlibraryOption *library_options, void **library_values, unsigned int library_count) {
    ENTER_ANYWHERE;
    Library *library = calloc(1, sizeof *library);
    library->magic = LIBRARY;
    library->alive = true;
    CUresult status = read_cubin(library, code);
    if (status) return status;
    live_libraries++;
    *made = (CUlibrary)library;
    return CUDA_SUCCESS;
}

static Library *library_of(CUlibrary handle) {
    Library *l = (Library *)handle;
    if (l && l->magic == LIBRARY && l->alive) return l;
    violation(0, "library %p is used, and is none or is unloaded", (void *)handle);
    return NULL;
}

API cuLibraryUnload(CUlibrary handle) {
    ENTER_ANYWHERE;
    Library *l = library_of(handle);
    if (!l) return CUDA_ERROR_INVALID_HANDLE;
    l->alive = false;
    live_libraries--;
    return CUDA_SUCCESS;
}

API cuLibraryGetKernel(CUkernel *kernel, CUlibrary handle, const char *name) {
    ENTER_ANYWHERE;
    Library *l = library_of(handle);
    for (int n = 0; l && n < l->count; n++)
        if (!strcmp(l->kernels[n].name, name)) return *kernel = (CUkernel)&l->kernels[n], CUDA_SUCCESS;
    return CUDA_ERROR_NOT_FOUND;
}

/* --- what a kernel is */

static Kernel *kernel_of(void *handle) {
    Kernel *k = handle;
    if (k && k->magic == KERNEL_MAGIC && k->library->alive) return k;
    violation(0, "kernel %p is used, and is none or is unloaded", handle);
    return NULL;
}

API cuKernelGetFunction(CUfunction *function, CUkernel kernel) {
    ENTER;
    *function = (CUfunction)kernel;
    return kernel_of(kernel) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

API cuKernelGetName(const char **name, CUkernel kernel) {
    ENTER;
    Kernel *k = kernel_of(kernel);
    if (!k) return CUDA_ERROR_INVALID_HANDLE;
    *name = k->name;
    return CUDA_SUCCESS;
}

static CUresult get_attribute(int *value, CUfunction_attribute attribute, void *handle) {
    Kernel *k = kernel_of(handle);
    if (!k) return CUDA_ERROR_INVALID_HANDLE;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = k->threads ? k->threads : 1024; break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = k->shared; break;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES: *value = 0; break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *value = 0; break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = k->registers; break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = 90; break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = k->allowed; break;
    default: return violation(CUDA_ERROR_INVALID_VALUE, "function attribute %d is not modelled", attribute);
    }
    return CUDA_SUCCESS;
}

API cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
    ENTER;
    return get_attribute(value, attribute, function);
}

API cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel, CUdevice device) {
    ENTER;
    return get_attribute(value, attribute, kernel);
}

API cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel, CUdevice device) {
    ENTER;
    Kernel *k = kernel_of(kernel);
    if (!k || device) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
    if (value < 0 || value + k->shared > SHARED_OPT_IN) return CUDA_ERROR_INVALID_VALUE;
    k->allowed = value;
    return CUDA_SUCCESS;
}

static int resident(const Kernel *k, unsigned threads, size_t shared) {
    unsigned warps = (threads + 31) / 32, per_warp = (k->registers * 32 + 255) / 256 * 256;
    int blocks = 64 / warps;
    int by_registers = REGISTERS / (per_warp * warps), by_shared = SHARED_SM / (shared + k->shared + 1024);
    if (by_registers < blocks) blocks = by_registers;
    if (by_shared < blocks) blocks = by_shared;
    if (shared > k->allowed || (k->threads && threads > k->threads)) return 0;
    return blocks < 32 ? blocks : 32;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads, size_t shared) {
    ENTER;
    Kernel *k = kernel_of(function);
    if (!k || threads < 1) return CUDA_ERROR_INVALID_VALUE;
    *blocks = resident(k, threads, shared);
    return CUDA_SUCCESS;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction function, int threads, size_t shared,
                                                         unsigned int flags) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, shared);
}

/* --- launches */

CUresult run_launch(const Launch *l) {
    const Kernel *k = l->kernel;
    launches++;
    if (!callback) return CUDA_SUCCESS;
    int failed = callback(k, k->name, l->grid, l->block, l->shared, l->cooperative, l->stream, l->parameters, k->bytes);
    return failed ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS;
}

static CUresult launch(CUfunction function, const CUlaunchConfig *c, unsigned cooperative, void **given) {
    Kernel *k = kernel_of(function);
    Stream *stream = stream_of(c->hStream);
    if (!k || !stream) return CUDA_ERROR_INVALID_HANDLE;
    unsigned threads = c->blockDimX * c->blockDimY * c->blockDimZ;
    unsigned long blocks = (unsigned long)c->gridDimX * c->gridDimY * c->gridDimZ;
    if (!blocks || !threads || threads > 1024 || (k->threads && threads > k->threads)) return CUDA_ERROR_INVALID_VALUE;
    if (c->sharedMemBytes > k->allowed || c->sharedMemBytes + k->shared > SHARED_OPT_IN) return CUDA_ERROR_INVALID_VALUE;
    int at_once = resident(k, threads, c->sharedMemBytes);
    if (!at_once) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    if (cooperative && blocks > (unsigned long)at_once * SMS) return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    Launch *l = calloc(1, sizeof *l);
    *l = (Launch){k, {c->gridDimX, c->gridDimY, c->gridDimZ}, {c->blockDimX, c->blockDimY, c->blockDimZ},
                  c->sharedMemBytes, cooperative, c->hStream, calloc(1, k->bytes + 1)};
    for (int n = 0; n < k->count; n++) memcpy(l->parameters + k->offset[n], given[n], k->size[n]);
    return put(stream, (Operation){KERNEL, .launch = l});
}

API cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra) {
    ENTER;
    unsigned cooperative = 0;
    for (unsigned n = 0; n < config->numAttrs; n++)
        if (config->attrs[n].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) cooperative = config->attrs[n].value.cooperative;
    return launch(function, config, cooperative, parameters);
}

API cuLaunchKernel(CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                   unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **parameters,
                   void **extra) {
    ENTER;
    return launch(function, &(CUlaunchConfig){gx, gy, gz, bx, by, bz, shared, stream}, 0, parameters);
}

API cuLaunchCooperativeKernel(CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                              unsigned int by, unsigned int bz, unsigned int shared, CUstream stream,
                              void **parameters) {
    ENTER;
    return launch(function, &(CUlaunchConfig){gx, gy, gz, bx, by, bz, shared, stream}, 1, parameters);
}

/* --- products, for cublas.c */

CONTROL CUresult stub_product(Product product, CUstream handle) {
    ENTER;
    Stream *stream = stream_of(handle);
    return stream ? put(stream, (Operation){PRODUCT, .product = product}) : CUDA_ERROR_INVALID_HANDLE;
}

#define MULTIPLY(name, number, fused)                                                                                  \
    __attribute__((target_clones("fma", "default"))) static void name(const Product *p) {                              \
        const number *a = p->a, *b = p->b;                                                                             \
        for (long j = 0; j < p->n; j++)                                                                                \
            for (long i = 0; i < p->m; i++) {                                                                          \
                number sum = 0, *c = (number *)p->c + i + j * p->ldc;                                                  \
                for (long k = 0; k < p->k; k++)                                                                        \
                    sum = fused(p->a_transposed ? a[k + i * p->lda] : a[i + k * p->lda],                               \
                                p->b_transposed ? b[j + k * p->ldb] : b[k + j * p->ldb], sum);                         \
                *c = (number)p->alpha * sum + (p->beta ? (number)p->beta * *c : 0);                                    \
            }                                                                                                          \
    }
MULTIPLY(multiply_floats, float, fmaf)
MULTIPLY(multiply_doubles, double, fma)

static bool lies_there(const void *matrix, long rows, long columns, long distance, int is_double) {
    long numbers = rows && columns ? (columns - 1) * distance + rows : 0;
    return !numbers || memory_at(matrix, numbers * (is_double ? 8 : 4));
}

CUresult multiply(const Product *p) {
    bool there = lies_there(p->a, p->a_transposed ? p->k : p->m, p->a_transposed ? p->m : p->k, p->lda, p->is_double) &&
                 lies_there(p->b, p->b_transposed ? p->n : p->k, p->b_transposed ? p->k : p->n, p->ldb, p->is_double) &&
                 lies_there(p->c, p->m, p->n, p->ldc, p->is_double);
    if (!there) return violation(CUDA_ERROR_ILLEGAL_ADDRESS, "a product of memory that is not the device's");
    (p->is_double ? multiply_doubles : multiply_floats)(p);
    return CUDA_SUCCESS;
}

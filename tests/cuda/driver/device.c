/* The library's doors, the one device, its context, and errors that a test asks for. */

#define _GNU_SOURCE
#include "stub.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>

long violations;
static pthread_mutex_t lock;
static CUresult broken;

__attribute__((constructor)) static void begin(void) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE); /* Python's collector may call while a kernel runs */
    pthread_mutex_init(&lock, &kind);
}

CUresult violation(CUresult status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("stub driver: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    va_end(arguments);
    violations++;
    return status;
}

/* --- contexts: the primary one, and each thread's stack */

static int primary;
static long retained;
#define PRIMARY ((CUcontext)&primary)
#define DEPTH 64
static __thread CUcontext stack[DEPTH];
static __thread int top;

static CUcontext current(void) { return top ? stack[top - 1] : NULL; }

/* --- calls: counted by name; the next but so many may be told to fail */

typedef struct {
    char name[80];
    long calls, failing_in;
    CUresult status;
} Called;

static Called called[512];

static Called *called_by(const char *name) {
    size_t length = strlen(name); /* the variants of a name are one */
    if (length > 3 && name[length - 3] == '_' && name[length - 2] == 'v') length -= 3;
    Called *c = called;
    while (c->name[0] && (strncmp(c->name, name, length) || c->name[length])) c++;
    if (!c->name[0]) snprintf(c->name, sizeof c->name, "%.*s", (int)length, name);
    return c;
}

CUresult enter(const char *name, bool context) {
    pthread_mutex_lock(&lock);
    Called *c = called_by(name);
    c->calls++;
    if (c->failing_in && !--c->failing_in) return c->status;
    if (!context) return CUDA_SUCCESS;
    if (!current()) return CUDA_ERROR_INVALID_CONTEXT;
    return broken;
}

void leave(int *entered) { pthread_mutex_unlock(&lock); }

void break_context(CUresult status) { broken = status; }

CUresult broken_context(void) { return broken; }

CONTROL void stub_fail(const char *name, long in, CUresult status) {
    called_by(name)->failing_in = in;
    called_by(name)->status = status;
}

CONTROL long stub_calls(const char *name) { return called_by(name)->calls; }

CONTROL long stub_count(const char *what) {
    struct { const char *name; long value; } counts[] = {
        {"streams", live_streams}, {"events", live_events}, {"graphs", live_graphs}, {"pools", live_pools},
        {"executables", live_executables}, {"allocations", live_allocations}, {"libraries", live_libraries},
        {"launches", launches}, {"violations", violations}, {"retained", retained},
    };
    for (size_t n = 0; n < sizeof counts / sizeof *counts; n++)
        if (!strcmp(counts[n].name, what)) return counts[n].value;
    return -1;
}

/* --- addresses of functions: what is unknown gets a function of its own, which says its name */

#define UNKNOWN 1024
static char unknown_names[UNKNOWN][80];

static CUresult unknown(int n) {
    fprintf(stderr, "stub driver: %s is not supported\n", unknown_names[n]);
    return CUDA_ERROR_NOT_SUPPORTED;
}

#define ONE(n) static CUresult unknown_##n(void) { return unknown(0x##n); }
#define SIXTEEN(n) ONE(n##0) ONE(n##1) ONE(n##2) ONE(n##3) ONE(n##4) ONE(n##5) ONE(n##6) ONE(n##7) ONE(n##8) ONE(n##9) \
    ONE(n##a) ONE(n##b) ONE(n##c) ONE(n##d) ONE(n##e) ONE(n##f)
#define MANY(n) SIXTEEN(n##0) SIXTEEN(n##1) SIXTEEN(n##2) SIXTEEN(n##3) SIXTEEN(n##4) SIXTEEN(n##5) SIXTEEN(n##6)      \
    SIXTEEN(n##7) SIXTEEN(n##8) SIXTEEN(n##9) SIXTEEN(n##a) SIXTEEN(n##b) SIXTEEN(n##c) SIXTEEN(n##d) SIXTEEN(n##e)    \
    SIXTEEN(n##f)
MANY(0) MANY(1) MANY(2) MANY(3)
#undef ONE
#define ONE(n) unknown_##n,
static CUresult (*unknown_functions[UNKNOWN])(void) = {MANY(0) MANY(1) MANY(2) MANY(3)};

API cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags,
                     CUdriverProcAddressQueryResult *status) {
    ENTER_ANYWHERE;
    Dl_info self;
    dladdr((void *)stub_count, &self);
    void *library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    static const char *variants[] = {"_v4", "_v3", "_v2", ""};
    char name[96];
    *function = NULL;
    for (int n = 0; n < 4 && !*function; n++) {
        snprintf(name, sizeof name, "%s%s", symbol, variants[n]);
        *function = dlsym(library, name);
    }
    dlclose(library);
    for (int n = 0; n < UNKNOWN && !*function; n++)
        if (!unknown_names[n][0] || !strcmp(unknown_names[n], symbol)) {
            snprintf(unknown_names[n], sizeof unknown_names[n], "%s", symbol);
            *function = (void *)unknown_functions[n];
        }
    if (status) *status = CU_GET_PROC_ADDRESS_SUCCESS;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

/* --- the driver and its errors */

API cuInit(unsigned int flags) {
    ENTER_ANYWHERE;
    return CUDA_SUCCESS;
}

API cuDriverGetVersion(int *version) {
    ENTER_ANYWHERE;
    *version = 13000;
    return CUDA_SUCCESS;
}

#define ERRORS(E)                                                                                                      \
    E(CUDA_SUCCESS) E(CUDA_ERROR_INVALID_VALUE) E(CUDA_ERROR_OUT_OF_MEMORY) E(CUDA_ERROR_NOT_INITIALIZED)              \
    E(CUDA_ERROR_NO_DEVICE) E(CUDA_ERROR_INVALID_DEVICE) E(CUDA_ERROR_INVALID_IMAGE) E(CUDA_ERROR_INVALID_CONTEXT)     \
    E(CUDA_ERROR_INVALID_HANDLE) E(CUDA_ERROR_NOT_FOUND) E(CUDA_ERROR_NOT_READY) E(CUDA_ERROR_ILLEGAL_ADDRESS)         \
    E(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES) E(CUDA_ERROR_LAUNCH_FAILED) E(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE)       \
    E(CUDA_ERROR_NOT_SUPPORTED) E(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) E(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)      \
    E(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) E(CUDA_ERROR_UNKNOWN)

API cuGetErrorName(CUresult error, const char **name) {
    ENTER_ANYWHERE;
#define NAME(e) if (error == e) return *name = #e, CUDA_SUCCESS;
    ERRORS(NAME)
    return *name = NULL, CUDA_ERROR_INVALID_VALUE;
}

API cuGetErrorString(CUresult error, const char **text) {
    return cuGetErrorName(error, text);
}

/* --- the device: a Hopper */

API cuDeviceGetCount(int *count) {
    ENTER_ANYWHERE;
    *count = 1;
    return CUDA_SUCCESS;
}

API cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER_ANYWHERE;
    *device = 0;
    return ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

API cuDeviceGetName(char *name, int length, CUdevice device) {
    ENTER_ANYWHERE;
    snprintf(name, length, "Stub of a Hopper");
    return CUDA_SUCCESS;
}

API cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    ENTER_ANYWHERE;
    memset(uuid, 7, sizeof *uuid);
    return CUDA_SUCCESS;
}

API cuDeviceTotalMem(size_t *bytes, CUdevice device) {
    ENTER_ANYWHERE;
    *bytes = 80ul << 30;
    return CUDA_SUCCESS;
}

API cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    ENTER_ANYWHERE;
    if (device) return CUDA_ERROR_INVALID_DEVICE;
    static const struct { CUdevice_attribute attribute; int value; } known[] = {
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9}, {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132}, {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
        {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
        {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 2048},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 48 << 10},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 227 << 10},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 228 << 10},
        {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 65536},
        {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 65536},
        {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 2147483647}, {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
        {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535}, {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024},
        {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024}, {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
        {CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 1}, {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
        {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1}, {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
        {CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1}, {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 1},
        {CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 1}, {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 3},
        {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 50 << 20}, {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1980000},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, 0}, {CU_DEVICE_ATTRIBUTE_TCC_DRIVER, 0},
        {CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT, 0}, {CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 1},
        {CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, 0}, {CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, 0},
    };
    for (size_t n = 0; n < sizeof known / sizeof *known; n++)
        if (known[n].attribute == attribute) return *value = known[n].value, CUDA_SUCCESS;
    return violation(CUDA_ERROR_INVALID_VALUE, "device attribute %d is not modelled", attribute);
}

/* --- its context */

API cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    ENTER_ANYWHERE;
    retained++;
    *context = PRIMARY;
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRelease(CUdevice device) {
    ENTER_ANYWHERE;
    retained--;
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active) {
    ENTER_ANYWHERE;
    *flags = 0;
    *active = retained > 0;
    return CUDA_SUCCESS;
}

API cuCtxGetCurrent(CUcontext *context) {
    ENTER_ANYWHERE;
    *context = current();
    return CUDA_SUCCESS;
}

API cuCtxSetCurrent(CUcontext context) {
    ENTER_ANYWHERE;
    if (!top) top = 1;
    stack[top - 1] = context;
    if (!context) top--;
    return CUDA_SUCCESS;
}

API cuCtxPushCurrent(CUcontext context) {
    ENTER_ANYWHERE;
    if (context != PRIMARY) return violation(CUDA_ERROR_INVALID_CONTEXT, "push of context %p", (void *)context);
    if (top == DEPTH) return violation(CUDA_ERROR_INVALID_VALUE, "contexts are pushed and never popped");
    stack[top++] = context;
    return CUDA_SUCCESS;
}

API cuCtxPopCurrent(CUcontext *context) {
    ENTER_ANYWHERE;
    if (!top) return violation(CUDA_ERROR_INVALID_CONTEXT, "pop of no context");
    top--;
    if (context) *context = stack[top];
    return CUDA_SUCCESS;
}

API cuCtxGetDevice(CUdevice *device) {
    ENTER;
    *device = 0;
    return CUDA_SUCCESS;
}

API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    ENTER;
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return CUDA_SUCCESS;
}

API cuCtxSynchronize(void) {
    ENTER;
    return run_all();
}

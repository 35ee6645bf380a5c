/* Memory: malloc's, aligned as a device's, all bits set until somebody writes; every address is looked up.

   What is freed in a stream's order is given to the next who asks there for as much, at once, while the stream may be
   far behind: so whoever still uses it on another stream is found out. */

#include "stub.h"

#define ALIGNMENT 512
#define MOST 65536

long live_allocations, live_pools;
static Memory table[MOST];

Memory *memory_at(const void *address, size_t size) {
    const char *begin = address;
    for (Memory *m = table; m < table + MOST; m++)
        if (m->begin && m->begin <= begin && begin + size <= m->begin + m->size) return m;
    return NULL;
}

static CUresult unset(Stream *stream, const Memory *m) {
    if (m->size > 16 << 20) return CUDA_SUCCESS; /* cuBLAS's workspace, say */
    return put(stream, (Operation){SET, .to = m->begin, .size = m->size, .value = 0xFF});
}

static CUresult allocate(void **address, size_t size, bool on_host, Stream *stream) {
    if (!size) return CUDA_ERROR_INVALID_VALUE;
    if (size > 8ul << 30) return CUDA_ERROR_OUT_OF_MEMORY;
    for (Memory *m = table; stream && m < table + MOST; m++)
        if (m->begin && m->freed_on == stream && m->size == size) {
            m->freed_on = NULL;
            live_allocations++;
            *address = m->begin;
            return unset(stream, m);
        }
    size_t whole = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    char *begin = aligned_alloc(ALIGNMENT, whole);
    if (!begin) return CUDA_ERROR_OUT_OF_MEMORY;
    for (Memory *m = table; m < table + MOST; m++)
        if (!m->begin) {
            *m = (Memory){begin, size, on_host, NULL};
            live_allocations++;
            *address = begin;
            if (stream) return unset(stream, m);
            memset(begin, 0xFF, size);
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static void free_memory(Memory *m) {
    run_all();
    live_allocations--;
    free(m->begin);
    m->begin = NULL;
}

CONTROL int stub_find(const void *address, size_t size) {
    Memory *m = memory_at(address, size);
    return m && (!m->freed_on || is_behind(m->freed_on)); /* a stream that is behind may use it until it is freed */
}

/* --- allocation */

static int pool; /* any pool of the process is as good as another */

API cuMemPoolCreate(CUmemoryPool *made, const CUmemPoolProps *wanted) {
    ENTER;
    if (wanted->allocType != CU_MEM_ALLOCATION_TYPE_PINNED || wanted->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
        wanted->location.id != 0)
        return violation(CUDA_ERROR_INVALID_VALUE, "cuMemPoolCreate: not of this device");
    live_pools++;
    *made = (CUmemoryPool)&pool;
    return CUDA_SUCCESS;
}

API cuMemPoolSetAttribute(CUmemoryPool which, CUmemPool_attribute attribute, void *value) {
    ENTER;
    if (attribute != CU_MEMPOOL_ATTR_RELEASE_THRESHOLD || *(cuuint64_t *)value != ~0ull)
        return violation(CUDA_ERROR_INVALID_VALUE, "cuMemPoolSetAttribute: %d", attribute);
    return which == (CUmemoryPool)&pool ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API cuMemPoolTrimTo(CUmemoryPool which, size_t bytes) {
    ENTER;
    return which == (CUmemoryPool)&pool ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t size, CUmemoryPool which, CUstream handle) {
    ENTER;
    Stream *stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (which != (CUmemoryPool)&pool) return violation(CUDA_ERROR_INVALID_VALUE, "no such pool");
    if (is_capturing(stream)) return violation(CUDA_ERROR_NOT_SUPPORTED, "memory in a recording");
    return allocate((void **)address, size, false, stream);
}

API cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
    ENTER;
    Stream *stream = stream_of(handle);
    Memory *m = memory_at((void *)address, 1);
    if (!m || m->freed_on || m->begin != (char *)address)
        return violation(CUDA_ERROR_INVALID_VALUE, "cuMemFreeAsync of %p, which is not memory", (void *)address);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (is_capturing(stream)) return violation(CUDA_ERROR_INVALID_VALUE, "memory freed in a recording");
    m->freed_on = stream;
    live_allocations--;
    return CUDA_SUCCESS;
}

API cuMemAlloc(CUdeviceptr *address, size_t size) {
    ENTER;
    return allocate((void **)address, size, false, NULL);
}

API cuMemFree(CUdeviceptr address) {
    ENTER;
    Memory *m = memory_at((void *)address, 1);
    if (!m || m->freed_on || m->begin != (char *)address)
        return violation(CUDA_ERROR_INVALID_VALUE, "cuMemFree of %p, which is not memory", (void *)address);
    free_memory(m);
    return CUDA_SUCCESS;
}

API cuMemHostAlloc(void **address, size_t size, unsigned int flags) {
    ENTER;
    return allocate(address, size, true, NULL);
}

API cuMemFreeHost(void *address) {
    ENTER;
    Memory *m = memory_at(address, 1);
    if (!m || !m->on_host) return violation(CUDA_ERROR_INVALID_VALUE, "cuMemFreeHost of %p", address);
    free_memory(m);
    return CUDA_SUCCESS;
}

API cuMemHostGetDevicePointer(CUdeviceptr *device, void *address, unsigned int flags) {
    ENTER;
    Memory *m = memory_at(address, 1);
    if (!m || !m->on_host || flags) return CUDA_ERROR_INVALID_VALUE;
    *device = (CUdeviceptr)address;
    return CUDA_SUCCESS;
}

API cuMemGetInfo(size_t *left, size_t *whole) {
    ENTER;
    *left = 79ul << 30;
    *whole = 80ul << 30;
    return CUDA_SUCCESS;
}

API cuMemGetAddressRange(CUdeviceptr *begin, size_t *size, CUdeviceptr address) {
    ENTER;
    Memory *m = memory_at((void *)address, 1);
    if (!m) return CUDA_ERROR_NOT_FOUND;
    if (begin) *begin = (CUdeviceptr)m->begin;
    if (size) *size = m->size;
    return CUDA_SUCCESS;
}

API cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr address) {
    ENTER;
    Memory *m = memory_at((void *)address, 1);
    if (!m) return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)data = 0; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED: *(int *)data = 0; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_CONTEXT: *(CUcontext *)data = NULL; return CUDA_SUCCESS; /* memory of a pool has none */
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *(CUdeviceptr *)data = address; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned int *)data = m->on_host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        return CUDA_SUCCESS;
    default: return violation(CUDA_ERROR_NOT_SUPPORTED, "pointer attribute %d is not modelled", attribute);
    }
}

/* --- copies */

static CUresult copy(Stream *stream, const void *to, const void *from, size_t size, bool staged) {
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    Operation what = {COPY, .to = (char *)to, .from = (char *)from, .size = size, .staged = staged};
    if (staged) { /* pageable memory: the driver has read it when the call returns */
        if (is_capturing(stream)) return violation(CUDA_ERROR_NOT_SUPPORTED, "the host's memory in a recording");
        what.from = malloc(size);
        memcpy(what.from, from, size);
    }
    return put(stream, what);
}

static bool is_device(const void *address, size_t size) {
    Memory *m = memory_at(address, size);
    if (!m || m->freed_on) violation(0, "%p and %zu bytes are not the device's", address, size);
    return m && !m->freed_on;
}

API cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size, CUstream handle) {
    ENTER;
    if (!is_device((void *)to, size)) return CUDA_ERROR_INVALID_VALUE;
    return copy(stream_of(handle), (void *)to, from, size, true);
}

API cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size, CUstream handle) {
    ENTER;
    if (!is_device((void *)from, size)) return CUDA_ERROR_INVALID_VALUE;
    CUresult status = copy(stream_of(handle), to, (void *)from, size, false);
    return status ? status : cuStreamSynchronize(handle); /* pageable memory: it is there when the call returns */
}

API cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream handle) {
    ENTER;
    if (!is_device((void *)to, size) || !is_device((void *)from, size)) return CUDA_ERROR_INVALID_VALUE;
    return copy(stream_of(handle), (void *)to, (void *)from, size, false);
}

API cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size) {
    CUresult status = cuMemcpyHtoDAsync(to, from, size, CU_STREAM_LEGACY);
    return status ? status : cuStreamSynchronize(CU_STREAM_LEGACY);
}

API cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size) { return cuMemcpyDtoHAsync(to, from, size, CU_STREAM_LEGACY); }

API cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t size) {
    return cuMemcpyDtoDAsync(to, from, size, CU_STREAM_LEGACY);
}

API cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream handle) {
    ENTER;
    if (!is_device((void *)to, size)) return CUDA_ERROR_INVALID_VALUE;
    Stream *stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    return put(stream, (Operation){SET, .to = (void *)to, .size = size, .value = value});
}

API cuMemsetD8(CUdeviceptr to, unsigned char value, size_t size) {
    return cuMemsetD8Async(to, value, size, CU_STREAM_LEGACY);
}

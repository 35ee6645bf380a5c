/* A CUDA driver without a device: what its parts share.

   device.c    the library's doors, the one device, its context, errors that a test asks for
   memory.c    memory is malloc's; every address that a call names is looked up
   streams.c   streams, events, graphs: lists of operations, run at once, or as late as the calls allow
   kernels.c   kernels, as their cubin describes them; a launch calls back into Python
   cublas.c    a second library: matrix products on the streams

   One lock is held by every call. A handle is the address of a struct, and no struct is ever freed, so that the use of
   a handle after its end is noticed: on a device it would be the end of the process. */

#include <cuda.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default"))) CUresult
#define CONTROL __attribute__((visibility("default")))

/* Begin a call that needs the current context, or any call. */
#define ENTER ENTERED(true)
#define ENTER_ANYWHERE ENTERED(false)
#define ENTERED(context)                                                                                               \
    __attribute__((cleanup(leave))) int entered = 0;                                                                   \
    CUresult refused = enter(__func__, context);                                                                       \
    if (refused) return refused
CUresult enter(const char *name, bool context);
void leave(int *entered);

/* What a device would not forgive: printed and counted. Returns `status`. */
CUresult violation(CUresult status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* From now on every call fails with this, as after a kernel that failed. */
void break_context(CUresult status);
CUresult broken_context(void);

extern long live_streams, live_events, live_graphs, live_executables, live_pools, live_allocations, live_libraries;
extern long launches, violations;

typedef struct Stream Stream;
typedef struct Launch Launch;
typedef struct Graph Graph;

/* --- operations */

typedef enum { NOTHING, WAIT, COPY, SET, KERNEL, REPLAY, PRODUCT } Kind;

typedef struct {
    int is_double, a_transposed, b_transposed;
    long m, n, k, lda, ldb, ldc;
    const void *a, *b;
    void *c;
    double alpha, beta;
} Product;

typedef struct Operation {
    Kind kind;
    struct Operation *next;
    unsigned long number; /* of its stream */
    Stream *other;        /* WAIT: until this one has done so many */
    unsigned long others_number;
    char *to; /* COPY, SET */
    char *from;
    size_t size;
    int value;
    bool staged; /* `from` is this operation's own */
    Launch *launch;
    Graph *graph;
    Product product;
} Operation;

Stream *stream_of(CUstream handle);          /* NULL: no such stream, which is a violation */
CUresult put(Stream *stream, Operation what); /* on a stream: run now or later, or recorded */
CUresult run_all(void);
bool is_capturing(Stream *stream);
bool is_behind(Stream *stream); /* it runs, or has still to */

/* --- memory */

typedef struct {
    char *begin;
    size_t size;
    bool on_host;
    Stream *freed_on; /* NULL: in use */
} Memory;

Memory *memory_at(const void *address, size_t size); /* NULL: not all of it lies in one allocation */

/* --- kernels */

CUresult run_launch(const Launch *launch);
CUresult multiply(const Product *product);

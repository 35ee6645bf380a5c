/* Streams, events, graphs: lists of operations.

   Eager, an operation runs when it is put on its stream. Lazy, it runs when somebody waits for it and not before, and
   of other streams no more than it waits for itself: an order that is missing shows, as it would on a busy device. */

#include "stub.h"

struct Graph {
    int magic;
    bool alive;
    long users; /* replays that are still to run */
    Operation *first, **last;
};

struct Stream {
    int magic;
    bool alive, blocking, running, invalidated;
    unsigned long put, done;
    Operation *first, **last;
    Graph *capture;
    Stream *next;
};

typedef struct {
    int magic;
    bool alive, timed;
    Stream *stream;
    unsigned long number;
} Event;

enum { STREAM = 0x57AEA4, EVENT = 0xE7E47, GRAPH = 0x64A98, EXECUTABLE = 0xE8EC };

long live_streams, live_events, live_graphs, live_executables;
static bool lazy;
static Stream *streams;
static Stream legacy = {STREAM, true, true}, per_thread = {STREAM, true, true};

__attribute__((constructor)) static void begin(void) {
    legacy.last = &legacy.first;
    per_thread.last = &per_thread.first;
    per_thread.next = &legacy;
    streams = &per_thread;
}

CONTROL void stub_lazy(int on) { lazy = on; }

Stream *stream_of(CUstream handle) {
    if (!handle || handle == CU_STREAM_LEGACY) return &legacy;
    if (handle == CU_STREAM_PER_THREAD) return &per_thread;
    for (Stream *s = streams; s; s = s->next)
        if (s == (Stream *)handle && s->alive) return s;
    violation(0, "stream %p is used, and is none or is destroyed", (void *)handle);
    return NULL;
}

bool is_capturing(Stream *stream) { return stream->capture != NULL; }

bool is_behind(Stream *stream) { return stream->first != NULL; }

/* --- running */

static CUresult run_to(Stream *stream, unsigned long number);

static CUresult run(Operation *o) {
    CUresult status = CUDA_SUCCESS;
    switch (o->kind) {
    case NOTHING: break;
    case WAIT: return run_to(o->other, o->others_number);
    case KERNEL: return run_launch(o->launch);
    case PRODUCT: return multiply(&o->product);
    case SET:
        if (!memory_at(o->to, o->size)) return violation(CUDA_ERROR_ILLEGAL_ADDRESS, "memset of memory that is gone");
        memset(o->to, o->value, o->size);
        break;
    case COPY:
        if (!memory_at(o->to, o->size) && !memory_at(o->from, o->size))
            return violation(CUDA_ERROR_ILLEGAL_ADDRESS, "copy of memory that is gone");
        memmove(o->to, o->from, o->size);
        break;
    case REPLAY:
        for (Operation *r = o->graph->first; r && !status; r = r->next) status = run(r);
        if (!--o->graph->users && !o->graph->alive) o->graph->first = NULL;
    }
    return status;
}

static CUresult run_to(Stream *stream, unsigned long number) {
    CUresult status = CUDA_SUCCESS;
    if (stream->running) return status; /* Python's collector, within a kernel of this very stream */
    stream->running = true;
    while (stream->first && stream->done < number) {
        Operation *o = stream->first;
        status = broken_context(); /* what comes after a kernel that failed is never run */
        if (!status && (status = run(o))) break_context(status);
        stream->first = o->next;
        if (!stream->first) stream->last = &stream->first;
        stream->done = o->number;
        if (o->staged) free(o->from);
        free(o);
    }
    stream->running = false;
    return status;
}

CUresult run_all(void) {
    CUresult status = CUDA_SUCCESS;
    for (Stream *s = streams; s; s = s->next) {
        CUresult failed = run_to(s, s->put);
        status = status ? status : failed;
    }
    return status;
}

static void append(Stream *stream, Operation what) {
    Operation *o = malloc(sizeof *o);
    *o = what;
    o->next = NULL;
    o->number = ++stream->put;
    *stream->last = o;
    stream->last = &o->next;
}

CUresult put(Stream *stream, Operation what) {
    if (stream->capture) {
        Operation *o = malloc(sizeof *o);
        *o = what;
        o->next = NULL;
        *stream->capture->last = o;
        stream->capture->last = &o->next;
        return CUDA_SUCCESS;
    }
    for (Stream *s = streams; s; s = s->next) { /* the legacy stream and the ordinary ones order themselves */
        if (s == stream || !s->blocking || !stream->blocking || (s != &legacy && stream != &legacy)) continue;
        if (s->capture) {
            s->invalidated = true;
            return violation(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the legacy stream is used while another is recorded");
        }
        append(stream, (Operation){WAIT, .other = s, .others_number = s->put});
    }
    append(stream, what);
    return lazy ? CUDA_SUCCESS : run_to(stream, stream->put);
}

/* --- streams */

API cuStreamCreateWithPriority(CUstream *made, unsigned int flags, int priority) {
    ENTER;
    Stream *s = calloc(1, sizeof *s);
    *s = (Stream){STREAM, true, !(flags & CU_STREAM_NON_BLOCKING), .next = streams};
    s->last = &s->first;
    streams = s;
    live_streams++;
    *made = (CUstream)s;
    return CUDA_SUCCESS;
}

API cuStreamCreate(CUstream *made, unsigned int flags) {
    ENTER;
    return cuStreamCreateWithPriority(made, flags, 0);
}

API cuStreamDestroy(CUstream handle) {
    ENTER;
    Stream *s = stream_of(handle);
    if (!s || s == &legacy || s == &per_thread) return CUDA_ERROR_INVALID_HANDLE;
    s->alive = false; /* its work is still done, in its time */
    live_streams--;
    return CUDA_SUCCESS;
}

API cuStreamSynchronize(CUstream handle) {
    ENTER;
    Stream *s = stream_of(handle);
    if (!s) return CUDA_ERROR_INVALID_HANDLE;
    if (s->capture) {
        s->invalidated = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return run_to(s, s->put);
}

API cuStreamQuery(CUstream handle) { return cuStreamSynchronize(handle); }

API cuStreamGetFlags(CUstream handle, unsigned int *flags) {
    ENTER;
    Stream *s = stream_of(handle);
    if (!s) return CUDA_ERROR_INVALID_HANDLE;
    *flags = s->blocking ? CU_STREAM_DEFAULT : CU_STREAM_NON_BLOCKING;
    return CUDA_SUCCESS;
}

API cuStreamGetPriority(CUstream handle, int *priority) {
    ENTER;
    *priority = 0;
    return stream_of(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

API cuStreamGetCtx(CUstream handle, CUcontext *context) {
    ENTER;
    return stream_of(handle) ? cuCtxGetCurrent(context) : CUDA_ERROR_INVALID_HANDLE;
}

/* --- events */

static Event *event_of(CUevent handle) {
    Event *e = (Event *)handle;
    if (e && e->magic == EVENT && e->alive) return e;
    violation(0, "event %p is used, and is none or is destroyed", (void *)handle);
    return NULL;
}

API cuEventCreate(CUevent *made, unsigned int flags) {
    ENTER;
    Event *e = calloc(1, sizeof *e);
    *e = (Event){EVENT, true, !(flags & CU_EVENT_DISABLE_TIMING)};
    live_events++;
    *made = (CUevent)e;
    return CUDA_SUCCESS;
}

API cuEventDestroy(CUevent handle) {
    ENTER;
    Event *e = event_of(handle);
    if (!e) return CUDA_ERROR_INVALID_HANDLE;
    e->alive = false;
    live_events--;
    return CUDA_SUCCESS;
}

API cuEventRecord(CUevent handle, CUstream on) {
    ENTER;
    Event *e = event_of(handle);
    Stream *s = stream_of(on);
    if (!e || !s) return CUDA_ERROR_INVALID_HANDLE;
    if (s->capture) return violation(CUDA_ERROR_NOT_SUPPORTED, "events in a recording are not modelled");
    CUresult status = put(s, (Operation){NOTHING});
    e->stream = s;
    e->number = s->put;
    return status;
}

API cuStreamWaitEvent(CUstream handle, CUevent event, unsigned int flags) {
    ENTER;
    Event *e = event_of(event);
    Stream *s = stream_of(handle);
    if (!e || !s) return CUDA_ERROR_INVALID_HANDLE;
    if (s->capture) return violation(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a recording waits for what is not in it");
    return e->stream ? put(s, (Operation){WAIT, .other = e->stream, .others_number = e->number}) : CUDA_SUCCESS;
}

API cuEventSynchronize(CUevent handle) {
    ENTER;
    Event *e = event_of(handle);
    if (!e) return CUDA_ERROR_INVALID_HANDLE;
    return e->stream ? run_to(e->stream, e->number) : CUDA_SUCCESS;
}

API cuEventQuery(CUevent handle) {
    ENTER;
    Event *e = event_of(handle);
    if (!e) return CUDA_ERROR_INVALID_HANDLE;
    if (!e->stream || e->stream->done >= e->number) return CUDA_SUCCESS;
    CUresult status = run_to(e->stream, e->number); /* done when it is asked next */
    return status ? status : CUDA_ERROR_NOT_READY;
}

API cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    ENTER;
    Event *s = event_of(start), *e = event_of(end);
    if (!s || !e || !s->timed || !e->timed) return CUDA_ERROR_INVALID_HANDLE;
    *milliseconds = 1;
    return CUDA_SUCCESS;
}

/* --- graphs */

static Graph *graph_of(void *handle, int magic) {
    Graph *g = handle;
    if (g && g->magic == magic && g->alive) return g;
    violation(0, "graph %p is used, and is none or is destroyed", handle);
    return NULL;
}

API cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    ENTER;
    Stream *s = stream_of(handle);
    if (!s) return CUDA_ERROR_INVALID_HANDLE;
    if (s == &legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (s->capture) return CUDA_ERROR_ILLEGAL_STATE;
    s->capture = calloc(1, sizeof *s->capture);
    *s->capture = (Graph){GRAPH, true};
    s->capture->last = &s->capture->first;
    return CUDA_SUCCESS;
}

API cuStreamEndCapture(CUstream handle, CUgraph *made) {
    ENTER;
    Stream *s = stream_of(handle);
    if (!s) return CUDA_ERROR_INVALID_HANDLE;
    if (!s->capture) return CUDA_ERROR_ILLEGAL_STATE;
    bool invalidated = s->invalidated;
    *made = invalidated ? NULL : (CUgraph)s->capture;
    s->capture = NULL;
    s->invalidated = false;
    live_graphs += !invalidated;
    return invalidated ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
}

API cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
    ENTER;
    Stream *s = stream_of(handle);
    if (!s) return CUDA_ERROR_INVALID_HANDLE;
    *status = s->capture ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

API cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph handle, unsigned long long flags) {
    ENTER;
    Graph *g = graph_of(handle, GRAPH);
    if (!g) return CUDA_ERROR_INVALID_HANDLE;
    Graph *e = calloc(1, sizeof *e);
    *e = *g;
    e->magic = EXECUTABLE;
    live_executables++;
    *made = (CUgraphExec)e;
    return CUDA_SUCCESS;
}

API cuGraphDestroy(CUgraph handle) {
    ENTER;
    Graph *g = graph_of(handle, GRAPH);
    if (!g) return CUDA_ERROR_INVALID_HANDLE;
    g->alive = false;
    live_graphs--;
    return CUDA_SUCCESS;
}

API cuGraphExecDestroy(CUgraphExec handle) {
    ENTER;
    Graph *e = graph_of(handle, EXECUTABLE);
    if (!e) return CUDA_ERROR_INVALID_HANDLE;
    e->alive = false; /* what is to be replayed still is */
    live_executables--;
    return CUDA_SUCCESS;
}

API cuGraphLaunch(CUgraphExec handle, CUstream on) {
    ENTER;
    Graph *e = graph_of(handle, EXECUTABLE);
    Stream *s = stream_of(on);
    if (!e || !s) return CUDA_ERROR_INVALID_HANDLE;
    if (s->capture) return violation(CUDA_ERROR_NOT_SUPPORTED, "graphs in graphs are not modelled");
    e->users++;
    return put(s, (Operation){REPLAY, .graph = e});
}

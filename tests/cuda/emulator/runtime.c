/* The machine under a translated kernel: threads as fibers, the scheduler, barriers, warps, checked memory.
 *
 * A fiber runs until it meets others (bar.sync, shuffle) or touches memory that others may watch (a volatile, relaxed,
 * acquire or release access, an atomic); there it gives way to the scheduler, which picks by a seeded generator a block,
 * a warp of it and a lane, and stays with a block and a warp for bursts of random length.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SHARED_WINDOW 0x1000000000000000ull /* generic addresses of shared memory */
#define SHARED_BASE 1024u                   /* shared address 0 is nobody's */

typedef struct { uint8_t *begin, *end; uint64_t writable, first_word; } Range; /* of the words of race detection */
typedef struct {
    uint32_t blocks, threads, shared_static, shared_dynamic, resident, races;
    uint64_t seed, steps, stack;
    const uint8_t *parameters;
    Range *ranges;
    uint64_t range_count, words;
} Launch;
enum { FINE, BOUNDS, MISALIGNED, READ_ONLY, DEADLOCK, ENDLESS, DIVERGED, TRAP, STACK, RACE, MEMORY };
typedef struct { int32_t kind, line; uint32_t block, thread; char text[4000]; } Fault;

enum { RUNS, AT_BARRIER, AT_WARP, ENDED };
enum { WARP_SYNC, SHFL_UP, SHFL_DOWN, SHFL_BFLY, SHFL_IDX, VOTE_ALL, VOTE_ANY, VOTE_UNI, VOTE_BALLOT };
enum { NO_REDUCTION, RED_AND, RED_OR, RED_POPC };
typedef struct Block Block;
typedef struct Known Known;
typedef struct { uint32_t runnable, alive; } Warp;
typedef struct {
    void *stack;
    uint8_t *stack_low;
    Block *block;
    Warp *warp;
    uint32_t tid, lane, state, line;
    uint32_t meeting, mask, value, b, c; /* what it waits for, and what it brought */
    uint32_t result, flag;               /* what it takes away */
    uint32_t epoch, warp_epoch, warp_met; /* barriers passed; the epoch of the warp's last */
    uint32_t stamp, fence_epoch, fence_stamp, fence_one, knows;
    Known *own, *seen;                    /* races.c */
} Thread;
typedef struct { uint32_t arrived, wanted; } Barrier;
typedef struct { uint32_t epoch, warp_epoch, stamp, line, block; uint16_t thread; uint8_t bytes, strong; } Touch;
typedef struct { Touch written, read[2]; } Word;
struct Block {
    uint32_t id, alive, runnable, slot, epoch;
    Barrier barriers[16];
    Warp warps[32];
    uint8_t *shared;
    Word *words;
    Known *known;
    Thread *threads;
};

static struct {
    Launch *launch;
    Fault *fault;
    Thread *current;
    void *scheduler;
    Block *blocks;              /* resident ones */
    Block **runnable;           /* those of them that can go on */
    uint8_t **stacks;           /* idle ones: the last that was given back is taken first */
    uint64_t idle;
    uint32_t runnable_count, lanes, warp_count, shared_size;
    int64_t steps;
    uint64_t random;
    uint32_t block_burst, warp_burst, warp;
    Block *block;
    uint32_t last_range;
    Word *words; /* of global memory */
} R;

static void kernel(Thread *t);
static void share_with_block(Thread *t);
static void share_with_warp(Thread *t, uint32_t mask);

/* ---- fibers ---- */
#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
void switch_stack(void **save, void *load) __attribute__((visibility("hidden")));
__asm__(".text\n.hidden switch_stack\n.globl switch_stack\n.type switch_stack,@function\nswitch_stack:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size switch_stack,.-switch_stack\n");
static void *prepare_stack(uint8_t *low, uint64_t size, void (*start)(void)) {
    void **top = (void **)(((uintptr_t)low + size) & ~(uintptr_t)15);
    *--top = NULL; /* start's return address: it never returns */
    *--top = (void *)start;
    for (int k = 0; k < 6; k++) *--top = NULL;
    return top;
}
#else
#include <ucontext.h>
static void switch_stack(void **save, void *load) {
    ucontext_t here;
    *save = &here;
    swapcontext(&here, (ucontext_t *)load);
}
static void *prepare_stack(uint8_t *low, uint64_t size, void (*start)(void)) {
    ucontext_t *context = (ucontext_t *)low; /* the lowest bytes of the stack keep where it starts */
    getcontext(context);
    context->uc_stack.ss_sp = low + sizeof *context;
    context->uc_stack.ss_size = size - sizeof *context;
    context->uc_link = NULL;
    makecontext(context, start, 0);
    return context;
}
#endif

static uint32_t random_below(uint32_t n) { /* xorshift64* */
    R.random ^= R.random >> 12, R.random ^= R.random << 25, R.random ^= R.random >> 27;
    return (uint32_t)(((R.random * 2685821657736338717ull) >> 32) * n >> 32);
}

static void record(int kind, const Thread *t, uint32_t line, const char *format, ...) {
    if (R.fault->kind) return;
    R.fault->kind = kind, R.fault->line = (int32_t)line;
    R.fault->block = t ? t->block->id : 0, R.fault->thread = t ? t->tid : 0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(R.fault->text, sizeof R.fault->text, format, arguments);
    va_end(arguments);
}
static void leave(Thread *t) { switch_stack(&t->stack, R.scheduler); }
#define FAULT(KIND, LINE, ...)                                                                                         \
    do {                                                                                                               \
        record(KIND, t, LINE, __VA_ARGS__);                                                                            \
        leave(t);                                                                                                      \
        __builtin_unreachable();                                                                                       \
    } while (0)

/* ---- who can run ---- */
static void wake(Thread *t) {
    Block *b = t->block;
    t->state = RUNS;
    if (!b->runnable) b->slot = R.runnable_count, R.runnable[R.runnable_count++] = b;
    t->warp->runnable |= 1u << t->lane;
    b->runnable |= 1u << (t->tid / 32);
}
static void sleep_as(Thread *t, uint32_t state) {
    Block *b = t->block;
    t->state = state;
    t->warp->runnable &= ~(1u << t->lane);
    if (t->warp->runnable) return;
    b->runnable &= ~(1u << (t->tid / 32));
    if (b->runnable) return;
    Block *last = R.runnable[--R.runnable_count];
    R.runnable[b->slot] = last, last->slot = b->slot;
}
static uint32_t random_bit(uint32_t mask) {
    uint32_t turn = random_below(32), turned = mask >> turn | (turn ? mask << (32 - turn) : 0);
    return ((uint32_t)__builtin_ctz(turned) + turn) & 31;
}
static Thread *pick(void) {
    if (!R.block_burst || !R.block->runnable) {
        R.block = R.runnable[random_below(R.runnable_count)];
        R.block_burst = 1u << random_below(13);
        R.warp_burst = 0;
    }
    R.block_burst--;
    if (!R.warp_burst || !(R.block->runnable >> R.warp & 1)) {
        R.warp = random_bit(R.block->runnable);
        R.warp_burst = 1u << random_below(8);
    }
    R.warp_burst--;
    return &R.block->threads[32 * R.warp + random_bit(R.block->warps[R.warp].runnable)];
}
static void step(Thread *t, uint32_t line, int64_t cost) {
    if (__builtin_expect((R.steps -= cost) < 0, 0))
        FAULT(ENDLESS, line, "the budget of %llu steps is spent; this thread was the last to run",
              (unsigned long long)R.launch->steps);
}
/* Called before every access that others may watch. A spin costs its block half of its burst. */
static void give_way(Thread *t, uint32_t line) {
    step(t, line, 16);
    R.block_burst >>= 1, R.warp_burst >>= 1;
    leave(t);
}

/* ---- barriers of a block ---- */
static void open_barrier(Block *b, uint32_t id) {
    Barrier *barrier = &b->barriers[id];
    if (!barrier->arrived || barrier->arrived < (barrier->wanted ? barrier->wanted : b->alive)) return;
    uint32_t count = 0, line_of_warp[32] = {0};
    for (uint32_t k = 0; k < R.launch->threads; k++) {
        Thread *t = &b->threads[k];
        if (t->state != AT_BARRIER || t->meeting != id) continue;
        count += t->value != 0;
        uint32_t *line = &line_of_warp[k / 32];
        if (*line && *line != t->line)
            record(DIVERGED, t, t->line, "threads of one warp wait at different bar.sync: lines %u and %u", *line, t->line);
        *line = t->line;
    }
    uint32_t waiting = barrier->arrived;
    b->epoch++;
    for (uint32_t k = 0; k < R.launch->threads; k++) {
        Thread *t = &b->threads[k];
        if (t->state != AT_BARRIER || t->meeting != id) continue;
        t->result = t->c == RED_AND ? count == waiting : t->c == RED_OR ? count > 0 : count;
        t->epoch = b->epoch;
        share_with_block(t);
        wake(t);
    }
    *barrier = (Barrier){0, 0};
}
static uint32_t barrier(Thread *t, uint32_t id, uint32_t count, uint32_t reduction, uint32_t value, uint32_t line) {
    Block *b = t->block;
    if (id > 15) FAULT(DIVERGED, line, "barrier %u: there are 16", id);
    if (count % 32) FAULT(DIVERGED, line, "a barrier of %u threads: whole warps are wanted", count);
    if (b->barriers[id].arrived && b->barriers[id].wanted != count)
        FAULT(DIVERGED, line, "barrier %u: %u threads wanted here, %u by those that wait", id, count, b->barriers[id].wanted);
    step(t, line, 16);
    t->meeting = id, t->c = reduction, t->value = value, t->line = line;
    b->barriers[id].arrived++, b->barriers[id].wanted = count;
    sleep_as(t, AT_BARRIER);
    open_barrier(b, id);
    leave(t);
    return t->result;
}
static void barrier_arrive(Thread *t, uint32_t id, uint32_t count, uint32_t line) {
    if (id > 15 || !count || count % 32) FAULT(DIVERGED, line, "bar.arrive of barrier %u by %u threads", id, count);
    step(t, line, 16);
    t->block->barriers[id].arrived++, t->block->barriers[id].wanted = count;
    open_barrier(t->block, id);
}

/* ---- meetings of a warp ---- */
static Thread *lane_of(Thread *t, uint32_t lane) { return t - t->lane + lane; }
static void shuffle(Thread *t, uint32_t mask) {
    uint32_t b = t->b & 31, clamp = t->c & 31, segment = t->c >> 8 & 31;
    uint32_t highest = (t->lane & segment) | (clamp & ~segment), lowest = t->lane & segment;
    int32_t from = t->meeting == SHFL_UP     ? (int32_t)t->lane - (int32_t)b
                   : t->meeting == SHFL_DOWN ? (int32_t)(t->lane + b)
                   : t->meeting == SHFL_BFLY ? (int32_t)(t->lane ^ b)
                                             : (int32_t)(lowest | (b & ~segment));
    t->flag = t->meeting == SHFL_UP ? from >= (int32_t)highest : from <= (int32_t)highest;
    if (!t->flag) from = (int32_t)t->lane;
    t->result = mask >> from & 1 ? lane_of(t, (uint32_t)from)->value : 0xFFFFFFFFu; /* nobody's value */
}
/* Lets the lanes of `mask` go on if all of them (that live) wait for the same. */
static void open_meeting(Thread *t) {
    uint32_t mask = t->mask & t->warp->alive, ballot = 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        Thread *other = lane_of(t, (uint32_t)__builtin_ctz(rest));
        if (other->state != AT_WARP || other->mask != t->mask || other->meeting != t->meeting) return;
        ballot |= (other->value != 0) << other->lane;
    }
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        Thread *other = lane_of(t, (uint32_t)__builtin_ctz(rest));
        switch (other->meeting) {
        case WARP_SYNC: other->warp_epoch++, other->warp_met = other->epoch; break;
        case VOTE_ALL: other->result = ballot == mask; break;
        case VOTE_ANY: other->result = ballot != 0; break;
        case VOTE_UNI: other->result = ballot == mask || ballot == 0; break;
        case VOTE_BALLOT: other->result = ballot; break;
        default: shuffle(other, mask);
        }
    }
    if (t->meeting == WARP_SYNC) share_with_warp(t, mask);
    for (uint32_t rest = mask; rest; rest &= rest - 1) wake(lane_of(t, (uint32_t)__builtin_ctz(rest)));
}
static uint32_t meet(Thread *t, uint32_t meeting, uint32_t mask, uint32_t value, uint32_t b, uint32_t c, uint32_t line) {
    if (!(mask >> t->lane & 1)) FAULT(DIVERGED, line, "lane %u is not in the mask %08x that it names", t->lane, mask);
    step(t, line, 16);
    t->meeting = meeting, t->mask = mask, t->value = value, t->b = b, t->c = c, t->line = line;
    sleep_as(t, AT_WARP);
    open_meeting(t);
    leave(t);
    return t->result;
}

static void end_thread(Thread *t) {
    Block *b = t->block;
    sleep_as(t, ENDED);
    b->alive--;
    t->warp->alive &= ~(1u << t->lane);
    for (uint32_t id = 0; id < 16; id++) open_barrier(b, id);
    for (uint32_t rest = t->warp->alive; rest; rest &= rest - 1) {
        Thread *other = lane_of(t, (uint32_t)__builtin_ctz(rest));
        if (other->state == AT_WARP) open_meeting(other);
    }
}
static void exit_thread(Thread *t) {
    end_thread(t);
    leave(t);
    __builtin_unreachable();
}
static void fiber(void) {
    Thread *t = R.current;
    kernel(t);
    exit_thread(t);
}

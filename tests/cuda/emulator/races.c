/* Races: two threads touch a word, one of them writing, one of them weakly, and nothing orders the two.
 *
 * A thread's events carry its block's epoch (the barriers of the block that it passed), its warp's epoch, and a stamp of
 * its own, which every release and fence moves on. What is ordered before a thread's next event:
 *
 *     its own events; those of its block's earlier epochs; those of its warp's earlier epochs
 *     what it knows of each block: all events of epochs before `epoch`, and those of one thread up to a stamp
 *
 * A release publishes what a thread knows at an address, an acquire takes it over, and barriers share it within a block.
 * A fence makes later strong writes releases and earlier strong reads acquires. Where the bookkeeping is coarse (several
 * threads of a block publish at one address), it takes more to be ordered than is, so no race is reported that is none.
 */
enum { READ, WRITE, STRONG_READ, STRONG_WRITE };
#define WHOLE_WARP 0x10000u
#define ANY_THREAD 0x20000u

struct Known { uint32_t epoch, one, one_epoch, one_stamp; };
typedef struct { uint64_t address; Known *known; } Published;
static struct { Published *table; uint64_t capacity, count; } P;

static void join(Known *to, const Known *from) {
    for (uint32_t b = 0; from && b < R.launch->blocks; b++) {
        Known *x = &to[b];
        const Known *y = &from[b];
        if (y->epoch > x->epoch) x->epoch = y->epoch;
        if (y->one_epoch > x->one_epoch) x->one = y->one, x->one_epoch = y->one_epoch, x->one_stamp = y->one_stamp;
        else if (y->one_epoch == x->one_epoch && y->one_epoch) {
            if (y->one != x->one) x->one = ANY_THREAD;
            else if (y->one_stamp > x->one_stamp) x->one_stamp = y->one_stamp;
        }
    }
}
static Known *nothing_known(void) { return calloc(R.launch->blocks, sizeof(Known)); }
static const Known *known(const Thread *t) { return t->knows ? t->own : t->block->known; }
static Known *to_learn(Thread *t) {
    if (!t->own) t->own = nothing_known();
    if (!t->knows) {
        memset(t->own, 0, R.launch->blocks * sizeof(Known));
        join(t->own, t->block->known);
        t->knows = 1;
    }
    return t->own;
}
/* at a barrier of the block, for each thread that meets there */
static void share_with_block(Thread *t) {
    if (!t->knows) return;
    if (!t->block->known) t->block->known = nothing_known();
    join(t->block->known, t->own);
    t->knows = 0;
}
static void share_with_warp(Thread *t, uint32_t mask) {
    Known *all = NULL;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        Thread *other = t - t->lane + __builtin_ctz(rest);
        if (other->knows && !all) all = nothing_known();
        if (other->knows) join(all, other->own);
    }
    for (uint32_t rest = mask; rest && all; rest &= rest - 1) join(to_learn(t - t->lane + __builtin_ctz(rest)), all);
    free(all);
}

static Published *published(uint64_t address, int make) {
    if (make && 2 * P.count >= P.capacity) {
        uint64_t old = P.capacity;
        Published *table = P.table;
        P.capacity = old ? 2 * old : 64, P.count = 0, P.table = calloc(P.capacity, sizeof *P.table);
        for (uint64_t k = 0; k < old; k++)
            if (table[k].known) *published(table[k].address, 1) = table[k];
        free(table);
    }
    if (!P.capacity) return NULL;
    uint64_t k = address * 0x9E3779B97F4A7C15ull >> 20 & (P.capacity - 1);
    while (P.table[k].known && P.table[k].address != address) k = (k + 1) & (P.capacity - 1);
    if (P.table[k].known || !make) return P.table[k].known ? &P.table[k] : NULL;
    P.count++;
    return &P.table[k];
}
static void publish(Thread *t, const void *p, uint32_t epoch, uint32_t stamp, uint32_t one) {
    Published *at = published((uint64_t)p, 1);
    if (!at->known) at->address = (uint64_t)p, at->known = nothing_known();
    join(at->known, known(t));
    Known *mine = &at->known[t->block->id];
    if (epoch > mine->epoch) mine->epoch = epoch;
    if (mine->one_epoch == epoch && mine->one != one) mine->one = ANY_THREAD;
    else mine->one = one, mine->one_epoch = epoch, mine->one_stamp = stamp;
}
static void release(Thread *t, const void *p) {
    if (R.launch->races)
        publish(t, p, t->epoch, t->stamp++, t->warp_met == t->epoch ? WHOLE_WARP | t->tid / 32 : t->tid);
}
static void acquire(Thread *t, const void *p) {
    Published *at = R.launch->races ? published((uint64_t)p, 0) : NULL;
    if (at) join(to_learn(t), at->known);
}
static void fence(Thread *t) {
    if (!R.launch->races) return;
    if (t->seen) join(to_learn(t), t->seen), free(t->seen), t->seen = NULL;
    t->fence_epoch = t->epoch, t->fence_stamp = t->stamp++;
    t->fence_one = t->warp_met == t->epoch ? WHOLE_WARP | t->tid / 32 : t->tid;
}
/* a strong write or read that is no release or acquire by itself */
static void write_relaxed(Thread *t, const void *p) {
    if (R.launch->races && t->fence_epoch) publish(t, p, t->fence_epoch, t->fence_stamp, t->fence_one);
}
static void read_relaxed(Thread *t, const void *p) {
    Published *at = R.launch->races ? published((uint64_t)p, 0) : NULL;
    if (!at) return;
    if (!t->seen) t->seen = nothing_known();
    join(t->seen, at->known);
}
static void forget_everything(void) {
    for (uint64_t k = 0; k < P.capacity; k++) free(P.table[k].known);
    free(P.table);
    memset(&P, 0, sizeof P);
}

static int ordered(const Thread *t, const Touch *e) {
    if (e->block == t->block->id) {
        if (e->thread == t->tid || e->epoch < t->epoch) return 1;
        if (e->thread / 32 == t->tid / 32 && e->warp_epoch < t->warp_epoch) return 1;
    }
    const Known *all = known(t);
    if (!all) return 0;
    const Known *k = &all[e->block];
    if (e->epoch < k->epoch) return 1;
    if (e->epoch > k->one_epoch || !k->one_epoch) return 0;
    if (k->one == ANY_THREAD) return 1;
    if (k->one & WHOLE_WARP) return e->thread / 32 == (k->one & 0xFFFF);
    return e->thread == k->one && (e->epoch < k->one_epoch || e->stamp <= k->one_stamp);
}
static void touch_word(Thread *t, Word *w, uint8_t bytes, int access, uint32_t line, const char *place, uint64_t number) {
    const Touch *others[3] = {&w->written, &w->read[0], &w->read[1]};
    int writes = access & 1, strong = access >= STRONG_READ;
    for (int k = 0; k < (writes ? 3 : 1); k++) {
        const Touch *e = others[k];
        if (!e->line || !(e->bytes & bytes) || (e->strong && strong) || ordered(t, e)) continue;
        FAULT(RACE, line, "word %llu of %s: thread %u of block %u %s it at PTX line %u, thread %u of block %u %s it here, and "
              "nothing orders the two", (unsigned long long)number, place, e->thread, e->block, k ? "reads" : "writes", e->line,
              t->tid, t->block->id, writes ? "writes" : "reads");
    }
    Touch mine = {t->epoch, t->warp_epoch, t->stamp, line, t->block->id, (uint16_t)t->tid, bytes, (uint8_t)strong};
    if (writes) {
        w->written = mine;
        return;
    }
    /* two readers are kept, of two warps or blocks where there are: a later writer is unordered with one of them */
    Touch *first = &w->read[0], *second = &w->read[1];
    int alike = first->line && first->block == mine.block && first->thread / 32 == mine.thread / 32;
    if (!first->line || alike) *first = mine;
    else *second = mine;
}

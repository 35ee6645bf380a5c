/* One launch: blocks start, as many at once as are resident, and threads run until all have ended or one is at fault. */
static int start_block(Block *b, uint32_t id) {
    Launch *l = R.launch;
    b->id = id, b->alive = l->threads, b->runnable = 0, b->epoch = 1;
    memset(b->barriers, 0, sizeof b->barriers);
    memset(b->shared, 0xFF, R.shared_size);
    if (b->words) memset(b->words, 0, (R.shared_size / 4 + 4) * sizeof *b->words);
    free(b->known), b->known = NULL;
    for (uint32_t w = 0; w < 32; w++) b->warps[w] = (Warp){0, 0};
    for (uint32_t k = 0; k < l->threads; k++) {
        Thread *t = &b->threads[k];
        free(t->own), free(t->seen);
        memset(t, 0, sizeof *t);
        t->block = b, t->tid = k, t->lane = k % 32, t->warp = &b->warps[k / 32], t->epoch = 1;
        t->warp->alive |= 1u << t->lane;
        wake(t);
    }
    return 1;
}
/* A thread has a stack from its first turn to its end: one that meets nobody leaves it, warm, to the next. */
static void take_turn(Thread *t) {
    if (!t->stack) {
        t->stack_low = R.stacks[--R.idle];
        t->stack = prepare_stack(t->stack_low, R.launch->stack, fiber);
    }
    R.current = t;
    switch_stack(&R.scheduler, t->stack);
    if (t->state == ENDED) R.stacks[R.idle++] = t->stack_low;
}
static void describe_deadlock(void) {
    char *text = R.fault->text;
    size_t room = sizeof R.fault->text, used = 0;
    for (uint32_t s = 0; s < R.launch->resident && used < room - 200; s++) {
        Block *b = &R.blocks[s];
        if (!b->alive) continue;
        used += (size_t)snprintf(text + used, room - used, "%sblock %u:", used ? "; " : "", b->id);
        for (uint32_t k = 0; k < R.launch->threads && used < room - 200; k++) {
            Thread *t = &b->threads[k];
            if (t->state == ENDED) continue;
            uint32_t same = 0, earlier = 0;
            for (uint32_t j = 0; j < R.launch->threads; j++) {
                Thread *o = &b->threads[j];
                int alike = o->state == t->state && o->line == t->line && o->meeting == t->meeting && o->mask == t->mask;
                same += alike, earlier += alike && j < k;
            }
            if (earlier) continue;
            used += (size_t)snprintf(text + used, room - used, " %u threads from %u on wait at %s (PTX line %u)", same, k,
                                     t->state == AT_BARRIER ? "a barrier of the block" : "a meeting of the warp", t->line);
        }
    }
}
/* the translated kernel's own variables, in the table of ranges behind the arrays */
extern Range module_ranges[];
extern const uint32_t module_range_count;

int run(Launch *l, Fault *fault) {
    memset(&R, 0, sizeof R);
    R.launch = l, R.fault = fault, R.steps = (int64_t)l->steps;
    R.random = l->seed * 0x9E3779B97F4A7C15ull + 0x2545F4914F6CDD1Dull;
    R.shared_size = l->shared_static + l->shared_dynamic;
    for (int k = 0; k < 8; k++) random_below(2);
    uint64_t threads = (uint64_t)l->resident * l->threads, words = R.shared_size / 4 + 4;
    Range *ranges = malloc((l->range_count + module_range_count + 1) * sizeof *ranges), *given = l->ranges;
    memcpy(ranges, given, l->range_count * sizeof *ranges);
    memcpy(ranges + l->range_count, module_ranges, module_range_count * sizeof *ranges);
    l->ranges = ranges, l->range_count += module_range_count;
    R.blocks = calloc(l->resident, sizeof *R.blocks);
    R.runnable = calloc(l->resident, sizeof *R.runnable);
    Thread *all = calloc(threads, sizeof *all);
    uint8_t *shared = aligned_alloc(128, ((uint64_t)R.shared_size + 255) / 128 * 128 * l->resident);
    Word *shadow = l->races & 1 ? calloc(words * l->resident, sizeof *shadow) : NULL;
    R.words = l->races & 2 && l->words ? calloc(l->words, sizeof *R.words) : NULL;
    uint32_t *order = malloc(l->blocks * sizeof *order);
    uint8_t *stacks = mmap(NULL, threads * l->stack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    R.stacks = malloc(threads * sizeof *R.stacks);
    if (!ranges || !R.blocks || !R.runnable || !R.stacks || !all || !shared || !order || stacks == MAP_FAILED) {
        record(MEMORY, NULL, 0, "no memory for %llu threads at once", (unsigned long long)threads);
        goto end;
    }
    for (uint64_t k = threads; k--;) R.stacks[R.idle++] = stacks + k * l->stack;
    for (uint32_t k = 0; k < l->blocks; k++) { /* blocks start in any order */
        uint32_t j = random_below(k + 1);
        order[k] = order[j], order[j] = k;
    }
    for (uint32_t s = 0; s < l->resident; s++) {
        Block *b = &R.blocks[s];
        b->threads = all + (uint64_t)s * l->threads;
        b->shared = shared + ((uint64_t)R.shared_size + 255) / 128 * 128 * s;
        b->words = shadow ? shadow + words * s : NULL;
        start_block(b, order[s]);
    }
    R.block = R.blocks;
    uint32_t started = l->resident, ended = 0;
    while (ended < l->blocks) {
        if (!R.runnable_count) {
            record(DEADLOCK, NULL, 0, " ");
            describe_deadlock();
        }
        if (fault->kind) break;
        take_turn(pick());
        Block *b = R.current->block;
        if (!fault->kind && !b->alive) {
            ended++;
            if (started < l->blocks) start_block(b, order[started++]);
        }
    }
end:
    for (uint64_t k = 0; all && k < threads; k++) free(all[k].own), free(all[k].seen);
    for (uint32_t s = 0; R.blocks && s < l->resident; s++) free(R.blocks[s].known);
    forget_everything();
    free(R.words);
    if (stacks != MAP_FAILED) munmap(stacks, threads * l->stack);
    l->ranges = given, l->range_count -= module_range_count;
    free(ranges), free(R.blocks), free(R.runnable), free(R.stacks), free(all), free(shared), free(shadow), free(order);
    return fault->kind;
}

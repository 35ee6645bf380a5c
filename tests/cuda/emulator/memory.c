/* Checked memory: every access lies in an array of the launch, in the block's shared memory, or in the thread's locals. */
static void touch(Thread *t, Word *words, uint64_t at, uint32_t size, int access, uint32_t line, const char *place) {
    for (uint64_t word = at / 4; word <= (at + size - 1) / 4; word++) {
        uint32_t low = word * 4 < at ? (uint32_t)(at & 3) : 0, high = at + size < word * 4 + 4 ? (uint32_t)((at + size) & 3) : 4;
        touch_word(t, &words[word], (uint8_t)((1u << high) - (1u << low)), access, line, place, word);
    }
}
static uint8_t *at_shared(Thread *t, uint64_t address, uint32_t size, int access, uint32_t line) {
    uint64_t offset = (address & ~SHARED_WINDOW) - SHARED_BASE;
    if (__builtin_expect(offset > R.shared_size || R.shared_size - offset < size, 0))
        FAULT(BOUNDS, line, "shared bytes %lld to %lld of %u", (long long)offset, (long long)(offset + size), R.shared_size);
    if (__builtin_expect(offset % size != 0, 0))
        FAULT(MISALIGNED, line, "%u shared bytes at %llu", size, (unsigned long long)offset);
    if (t->block->words) touch(t, t->block->words, offset, size, access, line, "shared memory");
    return t->block->shared + offset;
}
static uint8_t *at_global(Thread *t, uint64_t address, uint32_t size, int access, uint32_t line) {
    uint8_t *p = (uint8_t *)address;
    Launch *l = R.launch;
    const Range *range = &l->ranges[R.last_range];
    if (__builtin_expect(p < range->begin || p + size > range->end, 0)) {
        uint32_t k = 0;
        while (k < l->range_count && (p < l->ranges[k].begin || p + size > l->ranges[k].end)) k++;
        if (k == l->range_count) {
            for (k = 0; k < l->range_count; k++) { /* the nearest array says most */
                int64_t past = p - l->ranges[k].begin, bytes = l->ranges[k].end - l->ranges[k].begin;
                if (past > -65536 && past < bytes + 65536)
                    FAULT(BOUNDS, line, "%s of %u global bytes at byte %lld of array %u, which has %lld",
                          access & 1 ? "a write" : "a read", size, (long long)past, k, (long long)bytes);
            }
            FAULT(BOUNDS, line, "%u global bytes at 0x%llx, in no array of the launch", size, (unsigned long long)address);
        }
        R.last_range = k, range = &l->ranges[k];
    }
    if (__builtin_expect(address % size != 0, 0))
        FAULT(MISALIGNED, line, "%u global bytes at byte %lld of array %u", size, (long long)(p - range->begin), R.last_range);
    if (__builtin_expect((access & 1) && !range->writable, 0))
        FAULT(READ_ONLY, line, "a write into array %u, which is read-only", R.last_range);
    if (R.words && ~range->first_word) {
        char place[16] = "array ";
        place[6] = '0' + R.last_range / 10 % 10, place[7] = '0' + R.last_range % 10, place[8] = 0;
        uint64_t base = (uint64_t)range->begin & 3; /* bytes of the first word that are before the array */
        touch(t, R.words + range->first_word, (uint64_t)(p - range->begin) + base, size, access, line, place);
    }
    return p;
}
static uint8_t *at_local(Thread *t, uint64_t address, uint32_t size, int access, uint32_t line) {
    uint8_t *p = (uint8_t *)address;
    (void)access;
    if (p < t->stack_low || p + size > t->stack_low + R.launch->stack)
        FAULT(BOUNDS, line, "%u local bytes outside of the thread's memory", size);
    if (address % size) FAULT(MISALIGNED, line, "%u local bytes", size);
    return p;
}
static uint8_t *at_generic(Thread *t, uint64_t address, uint32_t size, int access, uint32_t line) {
    if (address & SHARED_WINDOW) return at_shared(t, address, size, access, line);
    if ((uint8_t *)address >= t->stack_low && (uint8_t *)address < t->stack_low + R.launch->stack)
        return at_local(t, address, size, access, line);
    return at_global(t, address, size, access, line);
}

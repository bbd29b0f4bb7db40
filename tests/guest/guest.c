/*
 * guest.c: the freestanding guest of the tests and of bench/: it writes patterns it can check, at a
 * set rate, and checks itself, so that a migration that loses a page is caught inside the guest.
 *
 * On port 0x3f8 it writes
 *   R                      once, when its memory is filled
 *   .                      after a pass over the working set (at most one each dot_ms)
 *   G TSC_US CLOCK_US\n    with gap=1: the longest time between two looks at its clocks has grown
 *   E PAGE WORD GOT WANT\n a word is not what it must be: memory was lost. The guest stops.
 *   U TEXT\n               the command line is wrong. The guest stops.
 *
 * Words of the command line, all optional:
 *   ws=SIZE        working set, rewritten over and over (1M)
 *   fill=SIZE|all  memory filled once and then only checked; holds the working set (= ws)
 *   rate=N|max     pages a second to rewrite; 0: stop (hlt) once ready (max)
 *   write=word|page  what a rewrite changes of a page: 8 bytes or all (word)
 *   content=random|text|zero (random)
 *   sweep=N        filled pages checked whole after each pass (16)
 *   gap=1, dot_ms=N (10)
 *
 * Memory in use begins at 16 MiB and jumps over the hole below 4 GiB. Word k of page p in version v
 * is a hash of the three; word 0 of a page of the working set is its version, the number of the
 * pass that wrote it.
 */
#include "guest.h"

#define PAGE_BYTES   4096ull
#define PAGE_WORDS   512u
#define MEMORY_START (16ull << 20)
#define HOLE_START   (3ull << 30) /* the most RAM below 4 GiB; less where the machine has less */
#define HIGH_START   (4ull << 30)
#define HIGH_GIB_MAX 60u
#define RATE_MAX     (~0ull)
#define BATCH_PAGES  64u /* rewritten between two looks at the clock */
#define GAP_MIN_US   1000u

enum content { CONTENT_RANDOM, CONTENT_TEXT, CONTENT_ZERO };

struct run {
    u64 ws_pages, fill_pages;
    u64 rate; /* pages a second */
    bool whole_page, show_gap;
    enum content content;
    u64 sweep_pages, dot_us;
    u64 low_pages; /* of memory below the hole */
    u64 pass;
    u64 sweep_next;
    u64 written; /* pages since rate_start */
    u64 rate_start_us;
    u64 last_dot_us;
    u64 last_tsc_us, last_clock_us, gap_tsc_us, gap_clock_us;
};

static const char vocabulary[16][8] = {
    {'m', 'i', 'g', 'r', 'a', 't', 'e', ' '}, {'t', 'h', 'e', ' ', 'g', 'u', 'e', 's'},
    {'t', ' ', 'w', 'h', 'i', 'l', 'e', ' '}, {'i', 't', ' ', 'r', 'u', 'n', 's', ','},
    {' ', 'a', 'n', 'd', ' ', 'l', 'o', 's'}, {'e', ' ', 'n', 'o', ' ', 'p', 'a', 'g'},
    {'e', ' ', 'o', 'f', ' ', 'i', 't', '.'}, {'\n', 'o', 'n', 'e', ' ', 'c', 'o', 'p'},
    {'y', ' ', 'o', 'n', 'l', 'y', ' ', 'o'}, {'f', ' ', 'e', 'a', 'c', 'h', ' ', 'V'},
    {'M', ' ', 's', 'h', 'a', 'l', 'l', ' '}, {'e', 'v', 'e', 'r', ' ', 'r', 'u', 'n'},
    {' ', '0', '1', '2', '3', '4', '5', '6'}, {'7', '8', '9', ' ', 't', 'i', 'm', 'e'},
    {' ', 'f', 'o', 'r', ' ', 't', 'e', 'a'}, {' ', 'i', 's', ' ', 'n', 'o', 'w', '\n'},
};

/* ---------------------------------------------------------------- output */

static void put_text(const char *text)
{
    while (*text)
        port_out(COM1, (u8)*text++);
}

static void put_number(u64 number)
{
    char digits[20];
    unsigned count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    port_out(COM1, ' ');
    while (count)
        port_out(COM1, (u8)digits[--count]);
}

static _Noreturn void stop(void)
{
    for (;;)
        __asm__ volatile("hlt"); /* faults into guest_halt of boot.S */
}

static _Noreturn void usage(const char *text)
{
    put_text("U ");
    put_text(text);
    put_text("\n");
    stop();
}

static _Noreturn void corrupted(u64 page, u64 word, u64 got, u64 want)
{
    put_text("E");
    put_number(page);
    put_number(word);
    put_number(got);
    put_number(want);
    put_text("\n");
    stop();
}

/* ---------------------------------------------------------------- memory */

static volatile u64 *page_at(const struct run *run, u64 page)
{
    u64 address = page < run->low_pages ? MEMORY_START + page * PAGE_BYTES
                                        : HIGH_START + (page - run->low_pages) * PAGE_BYTES;
    return (volatile u64 *)address;
}

/* What word @word (not 0 in the working set) of @page must hold in @version. */
static u64 pattern(enum content content, u64 page, u64 word, u64 version)
{
    u64 x = (page << 9 | word) + (version << 40) + 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    if (content == CONTENT_RANDOM)
        return x;
    u64 text = 0;
    if (content == CONTENT_TEXT)
        __builtin_memcpy(&text, vocabulary[x & 15], sizeof(text));
    return text;
}

static void write_page(const struct run *run, u64 page, u64 version)
{
    volatile u64 *words = page_at(run, page);
    if (page < run->ws_pages)
        words[0] = version;
    else
        words[0] = pattern(run->content, page, 0, version);
    for (u64 i = 1; i < PAGE_WORDS; i++)
        words[i] = pattern(run->content, page, i, version);
}

static void check_word(const struct run *run, u64 page, u64 word, u64 version)
{
    u64 want =
        page < run->ws_pages && word == 0 ? version : pattern(run->content, page, word, version);
    u64 got = page_at(run, page)[word];
    if (got != want)
        corrupted(page, word, got, want);
}

/* Maps what lies above 4 GiB with pages of 2 MiB; boot.S did the rest. */
static void map_high(u64 bytes)
{
    static u64 directories[HIGH_GIB_MAX][512] __attribute__((aligned(4096)));
    for (u64 gib = 0; gib < (bytes + (1ull << 30) - 1) >> 30; gib++) {
        for (u64 i = 0; i < 512; i++)
            directories[gib][i] = (HIGH_START + (gib << 30) + (i << 21)) | 0x87;
        page_directory_pointers[4 + gib] = (u64)directories[gib] | 7;
    }
}

/* ---------------------------------------------------------------- clocks and passes */

/* Looks at both clocks, notes the gap since the last look, and returns the time in us. */
static u64 look_at_clocks(struct run *run)
{
    u64 tsc_us = clock_tsc_us(), clock_us = clock_kvm_us();
    if (run->show_gap && run->last_tsc_us) {
        u64 gap_tsc = tsc_us - run->last_tsc_us, gap_clock = clock_us - run->last_clock_us;
        if ((gap_tsc > run->gap_tsc_us && gap_tsc >= GAP_MIN_US) ||
            (gap_clock > run->gap_clock_us && gap_clock >= GAP_MIN_US)) {
            run->gap_tsc_us = gap_tsc > run->gap_tsc_us ? gap_tsc : run->gap_tsc_us;
            run->gap_clock_us = gap_clock > run->gap_clock_us ? gap_clock : run->gap_clock_us;
            put_text("G");
            put_number(run->gap_tsc_us);
            put_number(run->gap_clock_us);
            put_text("\n");
            tsc_us = clock_tsc_us(); /* printing took time of its own */
            clock_us = clock_kvm_us();
        }
    }
    run->last_tsc_us = tsc_us;
    run->last_clock_us = clock_us;
    return tsc_us;
}

static void hold_rate(struct run *run)
{
    u64 now_us = look_at_clocks(run);
    if (run->rate == RATE_MAX)
        return;
    while ((now_us - run->rate_start_us) * run->rate < run->written * 1000000) {
        __asm__ volatile("pause");
        now_us = look_at_clocks(run);
    }
    if (now_us - run->rate_start_us > 1000000) { /* don't make up for a long pause */
        run->rate_start_us = now_us;
        run->written = 0;
    }
}

static void rewrite_working_set(struct run *run)
{
    u64 before = run->pass++;
    u64 body = run->whole_page ? before : 0; /* the version words 1 to 511 are of */
    for (u64 page = 0; page < run->ws_pages; page++) {
        check_word(run, page, 0, before);
        check_word(run, page, 1 + (page + before) % (PAGE_WORDS - 1), body);
        if (run->whole_page)
            write_page(run, page, run->pass);
        else
            *page_at(run, page) = run->pass;
        run->written++;
        if (page % BATCH_PAGES == BATCH_PAGES - 1)
            hold_rate(run);
    }
    hold_rate(run);
}

static void check_filled(struct run *run)
{
    if (run->fill_pages == run->ws_pages)
        return;
    for (u64 i = 0; i < run->sweep_pages; i++) {
        u64 page = run->sweep_next;
        for (u64 word = 0; word < PAGE_WORDS; word++)
            check_word(run, page, word, 0);
        run->sweep_next = page + 1 < run->fill_pages ? page + 1 : run->ws_pages;
    }
}

/* ---------------------------------------------------------------- command line */

static bool starts_with(const char **text, const char *prefix)
{
    const char *at = *text;
    while (*prefix)
        if (*at++ != *prefix++)
            return false;
    *text = at;
    return true;
}

static bool is(const char *text, const char *word)
{
    return starts_with(&text, word) && (*text == 0 || *text == ' ');
}

static u64 parse_number(const char *text)
{
    u64 number = 0;
    if (*text < '0' || *text > '9')
        usage("a number is missing");
    while (*text >= '0' && *text <= '9')
        number = number * 10 + (u64)(*text++ - '0');
    if (*text == 'K' || *text == 'k')
        return number << 10;
    if (*text == 'M')
        return number << 20;
    if (*text == 'G')
        return number << 30;
    return number;
}

static void parse(struct run *run, const char *text)
{
    u64 all = run->fill_pages;
    run->ws_pages = 256;
    run->fill_pages = 0;
    run->rate = RATE_MAX;
    run->sweep_pages = 16;
    run->dot_us = 10000;
    while (*text) {
        if (starts_with(&text, "ws="))
            run->ws_pages = parse_number(text) / PAGE_BYTES;
        else if (starts_with(&text, "fill="))
            run->fill_pages = is(text, "all") ? all : parse_number(text) / PAGE_BYTES;
        else if (starts_with(&text, "rate="))
            run->rate = is(text, "max") ? RATE_MAX : parse_number(text);
        else if (starts_with(&text, "write="))
            run->whole_page = is(text, "page");
        else if (starts_with(&text, "content="))
            run->content = is(text, "text")   ? CONTENT_TEXT
                           : is(text, "zero") ? CONTENT_ZERO
                                              : CONTENT_RANDOM;
        else if (starts_with(&text, "sweep="))
            run->sweep_pages = parse_number(text);
        else if (starts_with(&text, "dot_ms="))
            run->dot_us = parse_number(text) * 1000;
        else if (starts_with(&text, "gap="))
            run->show_gap = parse_number(text) != 0;
        while (*text && *text != ' ')
            text++;
        while (*text == ' ')
            text++;
    }
    if (run->fill_pages < run->ws_pages)
        run->fill_pages = run->ws_pages;
    if (run->fill_pages > all || run->ws_pages == 0)
        usage("ws and fill do not fit into memory");
}

_Noreturn void guest_main(void)
{
    struct run run = {0};
    u64 low = guest_machine.low_bytes < HOLE_START ? guest_machine.low_bytes : HOLE_START;
    u64 high = guest_machine.high_bytes;
    if (high > (u64)HIGH_GIB_MAX << 30)
        high = (u64)HIGH_GIB_MAX << 30;
    if (low <= MEMORY_START)
        usage("at least 17 MiB of memory are needed");
    map_high(high);
    run.low_pages = (low - MEMORY_START) / PAGE_BYTES;
    run.fill_pages = run.low_pages + high / PAGE_BYTES;
    parse(&run, guest_machine.cmdline);
    for (u64 page = 0; page < run.fill_pages; page++)
        write_page(&run, page, 0);
    run.sweep_next = run.ws_pages;
    port_out(COM1, 'R');
    if (run.rate == 0)
        stop();
    run.rate_start_us = run.last_dot_us = look_at_clocks(&run);
    for (;;) {
        rewrite_working_set(&run);
        check_filled(&run);
        u64 now_us = look_at_clocks(&run);
        if (now_us - run.last_dot_us >= run.dot_us) {
            run.last_dot_us = now_us;
            port_out(COM1, '.');
        }
    }
}

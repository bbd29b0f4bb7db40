#include "node-agent/migration/memory_hash.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/cleanup.h"
#include "node-agent/migration/pages.h"

#define PIECE_PAGES 1024u
#define THREADS_MAX 16u

struct work {
    const struct migration_guest *guest;
    uint64_t pages, pieces;
    _Atomic uint64_t next;
    _Atomic bool failed;
    XXH128_canonical_t *hashes; /* of each piece */
};

static int hash_piece(struct work *work, uint64_t piece, XXH3_state_t *state)
{
    uint64_t end = (piece + 1) * PIECE_PAGES;
    if (end > work->pages)
        end = work->pages;
    uint64_t page = page_next_data(work->guest, piece * PIECE_PAGES, end);
    if (XXH3_128bits_reset(state) != XXH_OK)
        return -1;
    while (page < end) {
        const uint8_t *data = work->guest->ram + page * PAGE_BYTES;
        if (page_is_zero(data)) {
            page = page_next_data(work->guest, page + 1, end);
            continue;
        }
        if (XXH3_128bits_update(state, &page, sizeof(page)) != XXH_OK ||
            XXH3_128bits_update(state, data, PAGE_BYTES) != XXH_OK)
            return -1;
        page++;
    }
    XXH128_canonicalFromHash(&work->hashes[piece], XXH3_128bits_digest(state));
    return 0;
}

static void *run_worker(void *argument)
{
    struct work *work = argument;
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        atomic_store(&work->failed, true);
    while (state && !atomic_load(&work->failed)) {
        uint64_t piece = atomic_fetch_add(&work->next, 1);
        if (piece >= work->pieces)
            break;
        if (hash_piece(work, piece, state) < 0)
            atomic_store(&work->failed, true);
    }
    (void)XXH3_freeState(state);
    return NULL;
}

int memory_hash_ram(const struct migration_guest *guest, unsigned threads,
                    uint8_t hash[MEMORY_HASH_BYTES], struct error *err)
{
    struct work work = {.guest = guest, .pages = guest->ram_bytes / PAGE_BYTES};
    work.pieces = (work.pages + PIECE_PAGES - 1) / PIECE_PAGES;
    auto_free XXH128_canonical_t *hashes = calloc(work.pieces + 1, sizeof(*hashes));
    if (!hashes)
        return error_set(err, ERROR_FAILED, "out of memory for the hash of the guest's RAM");
    work.hashes = hashes;
    pthread_t helpers[THREADS_MAX];
    unsigned started = 0;
    while (started + 1 < threads && started < THREADS_MAX &&
           pthread_create(&helpers[started], NULL, run_worker, &work) == 0)
        started++; /* with fewer it only takes longer */
    run_worker(&work);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(helpers[i], NULL);
    if (atomic_load(&work.failed))
        return error_set(err, ERROR_FAILED, "cannot hash the guest's RAM");
    memory_hash_block(hashes, work.pieces * sizeof(*hashes), hash);
    return 0;
}

void memory_hash_block(const void *data, size_t size, uint8_t hash[MEMORY_HASH_BYTES])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, size));
    memcpy(hash, canonical.digest, MEMORY_HASH_BYTES);
}

#include "node-agent/vmm/throttle.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "node-agent/vmm/layout.h"
#include "node-agent/vmm/vcpu_faults.h"

/* A vCPU with less than a quarter of its fair share of the writes is no writer. */
#define WRITER_DIVISOR 4u

struct throttle {
    struct vcpus *vcpus;
    struct vcpu_faults *faults;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool has_thread, quit;
    unsigned percent;
    bool writer[LAYOUT_VCPUS_MAX];
    uint64_t seen[LAYOUT_VCPUS_MAX]; /* faults up to the last call */
};

/* The lock is held; let go while it waits. */
static void wait_cycle(struct throttle *throttle)
{
    int64_t until_ns = clock_monotonic_ns() + (int64_t)THROTTLE_CYCLE_MS * 1000000;
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    int status = 0;
    while (!throttle->quit && status != ETIMEDOUT)
        status = pthread_cond_timedwait(&throttle->changed, &throttle->lock, &until);
}

static void *run_throttle(void *context)
{
    struct throttle *throttle = context;
    (void)pthread_setname_np(pthread_self(), "throttle");
    (void)pthread_mutex_lock(&throttle->lock);
    while (!throttle->quit) {
        int64_t nap_ns = (int64_t)THROTTLE_CYCLE_MS * 10000 * throttle->percent;
        int64_t until_ns = clock_monotonic_ns() + nap_ns;
        for (unsigned i = 0; nap_ns > 0 && i < vcpus_count(throttle->vcpus); i++)
            if (throttle->writer[i])
                vcpus_nap(throttle->vcpus, i, until_ns);
        wait_cycle(throttle);
    }
    (void)pthread_mutex_unlock(&throttle->lock);
    return NULL;
}

struct throttle *throttle_new(struct vcpus *vcpus, struct error *err)
{
    struct throttle *throttle = calloc(1, sizeof *throttle);
    struct vcpu_faults *faults = vcpu_faults_new(vcpus, err);
    if (!throttle || !faults) {
        free(throttle);
        vcpu_faults_free(faults);
        (void)error_errno(err, ENOMEM, "throttle");
        return NULL;
    }
    throttle->vcpus = vcpus;
    throttle->faults = faults;
    pthread_condattr_t clock;
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&throttle->lock, NULL);
    (void)pthread_cond_init(&throttle->changed, &clock);
    (void)pthread_condattr_destroy(&clock);
    return throttle;
}

static int start_thread(struct throttle *throttle, struct error *err)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    throttle->quit = false;
    int status = pthread_create(&throttle->thread, NULL, run_throttle, throttle);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    throttle->has_thread = status == 0;
    return status == 0 ? 0 : error_errno(err, status, "cannot start a thread to slow the guest");
}

static void stop_thread(struct throttle *throttle)
{
    if (!throttle->has_thread)
        return;
    (void)pthread_mutex_lock(&throttle->lock);
    throttle->quit = true;
    (void)pthread_cond_broadcast(&throttle->changed);
    (void)pthread_mutex_unlock(&throttle->lock);
    (void)pthread_join(throttle->thread, NULL);
    throttle->has_thread = false;
}

void throttle_free(struct throttle *throttle)
{
    if (!throttle)
        return;
    stop_thread(throttle);
    (void)pthread_cond_destroy(&throttle->changed);
    (void)pthread_mutex_destroy(&throttle->lock);
    vcpu_faults_free(throttle->faults);
    free(throttle);
}

static void find_writers(struct throttle *throttle)
{
    uint64_t since[LAYOUT_VCPUS_MAX] = {0}, total = 0;
    unsigned count = vcpus_count(throttle->vcpus);
    for (unsigned i = 0; i < count; i++) {
        uint64_t now = vcpu_faults_read(throttle->faults, i);
        since[i] = now - throttle->seen[i];
        throttle->seen[i] = now;
        total += since[i];
    }
    for (unsigned i = 0; i < count; i++)
        throttle->writer[i] = total == 0 || since[i] >= total / count / WRITER_DIVISOR;
}

int throttle_set(struct throttle *throttle, unsigned percent, struct error *err)
{
    (void)pthread_mutex_lock(&throttle->lock);
    find_writers(throttle);
    throttle->percent = percent < THROTTLE_PERCENT_MAX ? percent : THROTTLE_PERCENT_MAX;
    (void)pthread_mutex_unlock(&throttle->lock);
    if (percent == 0)
        stop_thread(throttle);
    return percent == 0 || throttle->has_thread ? 0 : start_thread(throttle, err);
}

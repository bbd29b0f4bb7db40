#include "node-agent/vmm/vcpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/vmm/layout.h"

#define KICK_SIGNAL SIGUSR1

enum wanted { WANT_STOP, WANT_RUN, WANT_QUIT };

struct vcpu {
    struct vcpus *all;
    unsigned index;
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    bool has_thread;
    bool entered; /* KVM_RUN was called; its own thread's */
    _Atomic pid_t tid;
    _Atomic int64_t nap_until_ns; /* 0: none */
};

struct vcpus {
    struct vcpu_host host;
    size_t run_size;
    unsigned count;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    _Atomic int wanted; /* enum wanted; written under the lock, read without */
    _Atomic bool held;  /* likewise: WANT_RUN does not count */
    unsigned parked;    /* threads that wait in park() */
    struct vcpu vcpu[LAYOUT_VCPUS_MAX];
};

/* The signal only has to interrupt KVM_RUN. */
static void on_kick(int signal_number)
{
    (void)signal_number;
}

static void kick(struct vcpu *vcpu)
{
    if (!vcpu->has_thread)
        return;
    /* In this order: a signal that comes before the thread is in KVM_RUN does nothing, but then
     * immediate_exit, set before, makes KVM_RUN return at once. */
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    (void)pthread_kill(vcpu->thread, KICK_SIGNAL);
}

static void end_guest(struct vcpu *vcpu, enum guest_end end, const char *text)
{
    vcpu->all->host.ended(vcpu->all->host.context, end, text);
    vcpus_stop_soon(vcpu->all);
}

static void handle_io(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    for (uint32_t i = 0; i < run->io.count; i++) {
        if (run->io.direction == KVM_EXIT_IO_IN)
            bus_read(vcpu->all->host.ports, run->io.port, data, run->io.size);
        else
            bus_write(vcpu->all->host.ports, run->io.port, data, run->io.size);
        data += run->io.size;
    }
}

static void handle_mmio(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    if (run->mmio.is_write)
        bus_write(vcpu->all->host.mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
    else
        bus_read(vcpu->all->host.mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

static void handle_system_event(struct vcpu *vcpu)
{
    switch (vcpu->run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        end_guest(vcpu, GUEST_POWERED_OFF, "");
        break;
    case KVM_SYSTEM_EVENT_RESET:
        end_guest(vcpu, GUEST_RESET, "");
        break;
    default:
        end_guest(vcpu, GUEST_PANICKED, "the guest reported a crash to KVM");
        break;
    }
}

/* Says where a vCPU stood that KVM could not go on with, and on which bytes. */
static void report_failure(struct vcpu *vcpu, const char *what)
{
    char text[256];
    struct kvm_regs regs = {0};
    (void)ioctl(vcpu->fd, KVM_GET_REGS, &regs);
    int used = snprintf(text, sizeof text, "%s on vCPU %u at rip 0x%llx", what, vcpu->index,
                        (unsigned long long)regs.rip);
    const struct kvm_run *run = vcpu->run;
    bool has_bytes =
        run->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
        run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
        run->emulation_failure.ndata >= 3 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
    unsigned size = has_bytes ? run->emulation_failure.insn_size : 0;
    for (unsigned i = 0; i < size && i < 15 && used > 0 && (size_t)used + 8 < sizeof text; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%s%02x",
                         i ? " " : ", instruction ", run->emulation_failure.insn_bytes[i]);
    end_guest(vcpu, GUEST_FAILED, text);
}

static void handle_exit(struct vcpu *vcpu)
{
    char text[96];
    const struct kvm_run *run = vcpu->run;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        handle_io(vcpu);
        break;
    case KVM_EXIT_MMIO:
        handle_mmio(vcpu);
        break;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        break;
    case KVM_EXIT_SHUTDOWN:
        end_guest(vcpu, GUEST_PANICKED, "triple fault");
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        handle_system_event(vcpu);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        (void)snprintf(text, sizeof text, "KVM internal error %u%s", run->internal.suberror,
                       run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
                           ? " (instruction not emulated)"
                           : "");
        report_failure(vcpu, text);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        (void)snprintf(text, sizeof text, "KVM could not enter the guest (hardware reason 0x%llx)",
                       (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        report_failure(vcpu, text);
        break;
    default:
        (void)snprintf(text, sizeof text, "KVM exit %u is not known", run->exit_reason);
        report_failure(vcpu, text);
        break;
    }
}

/* Enters KVM once and serves what it came back for. */
static void run_once(struct vcpu *vcpu)
{
    vcpu->entered = true;
    if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
        handle_exit(vcpu);
        return;
    }
    if (errno != EINTR && errno != EAGAIN) {
        char text[96];
        (void)snprintf(text, sizeof text, "KVM_RUN failed with errno %d", errno);
        report_failure(vcpu, text);
    }
}

/* The registers are whole only when KVM has taken the answer to the last port or MMIO access: enter
 * it with immediate_exit until it has nothing more to ask. */
static void complete_exit(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    while (vcpu->entered && ioctl(vcpu->fd, KVM_RUN, 0) == 0)
        handle_exit(vcpu);
}

/* Waits until it is wanted; false: for the last time. */
static bool park(struct vcpu *vcpu)
{
    struct vcpus *all = vcpu->all;
    complete_exit(vcpu);
    (void)pthread_mutex_lock(&all->lock);
    all->parked++;
    (void)pthread_cond_broadcast(&all->changed);
    while (atomic_load(&all->wanted) == WANT_STOP ||
           (atomic_load(&all->wanted) == WANT_RUN && atomic_load(&all->held)))
        (void)pthread_cond_wait(&all->changed, &all->lock);
    all->parked--;
    bool go_on = atomic_load(&all->wanted) == WANT_RUN;
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    (void)pthread_mutex_unlock(&all->lock);
    return go_on;
}

/* Out of the guest until its nap is over or something else is wanted. */
static void nap(struct vcpu *vcpu)
{
    struct vcpus *all = vcpu->all;
    int64_t until_ns = atomic_load(&vcpu->nap_until_ns);
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    int status = 0;
    (void)pthread_mutex_lock(&all->lock);
    while (atomic_load(&all->wanted) == WANT_RUN && status != ETIMEDOUT)
        status = pthread_cond_timedwait(&all->changed, &all->lock, &until);
    atomic_store(&vcpu->nap_until_ns, 0);
    if (atomic_load(&all->wanted) == WANT_RUN)
        __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    (void)pthread_mutex_unlock(&all->lock);
}

static void *run_vcpu(void *context)
{
    struct vcpu *vcpu = context;
    char name[16];
    (void)snprintf(name, sizeof name, "vcpu-%u", vcpu->index);
    (void)pthread_setname_np(pthread_self(), name);
    atomic_store(&vcpu->tid, gettid());
    for (;;) {
        bool stop = atomic_load(&vcpu->all->wanted) != WANT_RUN || atomic_load(&vcpu->all->held);
        if (stop && !park(vcpu))
            return NULL;
        if (atomic_load(&vcpu->nap_until_ns) != 0)
            nap(vcpu);
        else
            run_once(vcpu);
    }
}

static int open_vcpu(struct vcpus *vcpus, unsigned index, struct error *err)
{
    struct vcpu *vcpu = &vcpus->vcpu[index];
    *vcpu = (struct vcpu){.all = vcpus, .index = index, .run = MAP_FAILED};
    vcpu->fd = ioctl(vcpus->host.vm_fd, KVM_CREATE_VCPU, (long)index);
    if (vcpu->fd < 0)
        return error_errno(err, errno, "KVM_CREATE_VCPU %u", index);
    vcpus->count = index + 1;
    vcpu->run = mmap(NULL, vcpus->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED)
        return error_errno(err, errno, "cannot map vCPU %u", index);
    return 0;
}

/* Starts the thread with every signal blocked but the kick. */
static int start_thread(struct vcpu *vcpu, struct error *err)
{
    sigset_t blocked, before;
    (void)sigfillset(&blocked);
    (void)sigdelset(&blocked, KICK_SIGNAL);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int status = pthread_create(&vcpu->thread, NULL, run_vcpu, vcpu);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != 0)
        return error_errno(err, status, "cannot start the thread of vCPU %u", vcpu->index);
    vcpu->has_thread = true;
    return 0;
}

struct vcpus *vcpus_new(const struct vcpu_host *host, unsigned count, struct error *err)
{
    int run_size = ioctl(host->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size < (int)sizeof(struct kvm_run)) {
        (void)error_errno(err, errno, "KVM_GET_VCPU_MMAP_SIZE");
        return NULL;
    }
    struct vcpus *vcpus = calloc(1, sizeof *vcpus);
    if (!vcpus) {
        (void)error_errno(err, ENOMEM, "vCPUs");
        return NULL;
    }
    vcpus->host = *host;
    vcpus->run_size = (size_t)run_size;
    (void)pthread_mutex_init(&vcpus->lock, NULL);
    pthread_condattr_t clock;
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&vcpus->changed, &clock);
    (void)pthread_condattr_destroy(&clock);
    struct sigaction action = {.sa_handler = on_kick};
    (void)sigaction(KICK_SIGNAL, &action, NULL);
    for (unsigned i = 0; i < count; i++)
        if (open_vcpu(vcpus, i, err) < 0)
            goto fail;
    for (unsigned i = 0; i < count; i++)
        if (start_thread(&vcpus->vcpu[i], err) < 0)
            goto fail;
    return vcpus;
fail:
    vcpus_free(vcpus);
    return NULL;
}

/* The lock is held. */
static void want(struct vcpus *vcpus, enum wanted wanted)
{
    atomic_store(&vcpus->wanted, (int)wanted);
    (void)pthread_cond_broadcast(&vcpus->changed);
    for (unsigned i = 0; wanted != WANT_RUN && i < vcpus->count; i++)
        kick(&vcpus->vcpu[i]);
}

void vcpus_free(struct vcpus *vcpus)
{
    if (!vcpus)
        return;
    (void)pthread_mutex_lock(&vcpus->lock);
    want(vcpus, WANT_QUIT);
    (void)pthread_mutex_unlock(&vcpus->lock);
    for (unsigned i = 0; i < vcpus->count; i++) {
        struct vcpu *vcpu = &vcpus->vcpu[i];
        if (vcpu->has_thread)
            (void)pthread_join(vcpu->thread, NULL);
        if (vcpu->run != MAP_FAILED)
            (void)munmap(vcpu->run, vcpus->run_size);
        close_fd(&vcpu->fd);
    }
    (void)pthread_cond_destroy(&vcpus->changed);
    (void)pthread_mutex_destroy(&vcpus->lock);
    free(vcpus);
}

unsigned vcpus_count(const struct vcpus *vcpus)
{
    return vcpus->count;
}

int vcpus_fd(const struct vcpus *vcpus, unsigned index)
{
    return vcpus->vcpu[index].fd;
}

pid_t vcpus_tid(const struct vcpus *vcpus, unsigned index)
{
    return atomic_load(&vcpus->vcpu[index].tid);
}

void vcpus_nap(struct vcpus *vcpus, unsigned index, int64_t until_ns)
{
    struct vcpu *vcpu = &vcpus->vcpu[index];
    (void)pthread_mutex_lock(&vcpus->lock);
    if (atomic_load(&vcpus->wanted) == WANT_RUN) {
        atomic_store(&vcpu->nap_until_ns, until_ns);
        kick(vcpu);
    }
    (void)pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_resume(struct vcpus *vcpus)
{
    (void)pthread_mutex_lock(&vcpus->lock);
    /* A stop nobody waited for may still be under way: each thread must have parked before it is
     * let go, or it would run on without its immediate_exit taken back. */
    while (vcpus->parked < vcpus->count)
        (void)pthread_cond_wait(&vcpus->changed, &vcpus->lock);
    want(vcpus, WANT_RUN);
    (void)pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_pause(struct vcpus *vcpus)
{
    (void)pthread_mutex_lock(&vcpus->lock);
    want(vcpus, WANT_STOP);
    while (vcpus->parked < vcpus->count)
        (void)pthread_cond_wait(&vcpus->changed, &vcpus->lock);
    (void)pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_stop_soon(struct vcpus *vcpus)
{
    (void)pthread_mutex_lock(&vcpus->lock);
    if (atomic_load(&vcpus->wanted) == WANT_RUN)
        want(vcpus, WANT_STOP);
    (void)pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_hold(struct vcpus *vcpus, bool held)
{
    (void)pthread_mutex_lock(&vcpus->lock);
    atomic_store(&vcpus->held, held);
    for (unsigned i = 0; held && i < vcpus->count; i++)
        kick(&vcpus->vcpu[i]);
    /* A thread that has not parked yet goes on without: it must not find the kick it was given. */
    for (unsigned i = 0; !held && i < vcpus->count; i++)
        if (atomic_load(&vcpus->wanted) == WANT_RUN)
            __atomic_store_n(&vcpus->vcpu[i].run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    (void)pthread_cond_broadcast(&vcpus->changed);
    (void)pthread_mutex_unlock(&vcpus->lock);
}

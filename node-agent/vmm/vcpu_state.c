#include "node-agent/vmm/vcpu_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/cleanup.h"
#include "node-agent/vmm/cpuid.h"
#include "node-agent/vmm/kvm.h"

#define MSR_TSC          0x10u
#define MSR_TSC_DEADLINE 0x6e0u
#define MSRS_MAX         1024u
#define MSR_CHUNK        64u
#define TSC_TOLERANCE    250u /* ppm a guest's kernel corrects by itself */

/* KVM's structures of fixed size, each with the field of the message it travels in, in the order
 * they are loaded. */
struct fixed {
    const char *name;
    unsigned long get;
    unsigned long set;
    size_t size;
    size_t field; /* offset of the ProtobufCBinaryData in the message */
};

#define FIELD(name) offsetof(Vmpool__State__Vcpu, name)

/* Loading: SET_REGS clears pending exceptions, so it comes early; SREGS brings the APIC base that
 * LAPIC needs. */
static const struct fixed load_first[] = {
    {"MP_STATE", KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state), FIELD(mp_state)},
    {"REGS", KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs), FIELD(regs)},
    {"SREGS", KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs), FIELD(sregs)},
};
static const struct fixed load_second[] = {
    {"XCRS", KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs), FIELD(xcrs)},
    {"DEBUGREGS", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs),
     FIELD(debugregs)},
    {"LAPIC", KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state), FIELD(lapic)},
};
static const struct fixed events = {"VCPU_EVENTS", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
                                    sizeof(struct kvm_vcpu_events), FIELD(events)};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static ProtobufCBinaryData *field_of(Vmpool__State__Vcpu *state, const struct fixed *what)
{
    return (ProtobufCBinaryData *)(void *)((char *)state + what->field);
}

static const ProtobufCBinaryData *const_field_of(const Vmpool__State__Vcpu *state,
                                                 const struct fixed *what)
{
    return (const ProtobufCBinaryData *)(const void *)((const char *)state + what->field);
}

/* ---- MSRs ---- */

/* struct kvm_msrs with room behind it. */
union msrs {
    struct kvm_msrs head;
    uint8_t room[sizeof(struct kvm_msrs) + MSR_CHUNK * sizeof(struct kvm_msr_entry)];
};

int vcpu_state_get_msr(int vcpu_fd, uint32_t index, uint64_t *value)
{
    union msrs one = {.head.nmsrs = 1};
    one.head.entries[0].index = index;
    if (ioctl(vcpu_fd, KVM_GET_MSRS, &one) != 1)
        return -1;
    *value = one.head.entries[0].data;
    return 0;
}

int vcpu_state_set_msr(int vcpu_fd, uint32_t index, uint64_t value)
{
    union msrs one = {.head.nmsrs = 1};
    one.head.entries[0] = (struct kvm_msr_entry){.index = index, .data = value};
    return ioctl(vcpu_fd, KVM_SET_MSRS, &one) == 1 ? 0 : -1;
}

static int list_msrs(struct vcpu_state_format *format, int kvm_fd, struct error *err)
{
    struct kvm_msr_list *list = calloc(1, sizeof *list + MSRS_MAX * sizeof(uint32_t));
    if (!list)
        return error_errno(err, ENOMEM, "list of MSRs");
    format->msrs = list;
    list->nmsrs = MSRS_MAX;
    if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
        return error_errno(err, errno, "KVM_GET_MSR_INDEX_LIST");
    uint32_t kept = 0;
    for (uint32_t i = 0; i < list->nmsrs; i++)
        if (list->indices[i] != MSR_TSC) /* as an offset, by clock_state.c */
            list->indices[kept++] = list->indices[i];
    list->nmsrs = kept;
    return 0;
}

/* Reads a chunk. KVM stops at the first MSR this vCPU has not got; that one is left out. */
static int get_chunk(int vcpu_fd, const uint32_t *indices, uint32_t count,
                     Vmpool__State__Vcpu *state, struct error *err)
{
    union msrs chunk;
    uint32_t done = 0;
    while (done < count) {
        memset(&chunk, 0, sizeof chunk);
        chunk.head.nmsrs = count - done;
        for (uint32_t i = done; i < count; i++)
            chunk.head.entries[i - done].index = indices[i];
        int got = ioctl(vcpu_fd, KVM_GET_MSRS, &chunk);
        if (got < 0)
            return error_errno(err, errno, "KVM_GET_MSRS");
        for (int i = 0; i < got; i++) {
            Vmpool__State__Msr *msr = state->msrs[state->n_msrs++];
            msr->index = chunk.head.entries[i].index;
            msr->value = chunk.head.entries[i].data;
        }
        done += (uint32_t)got;
        if (done < count)
            done++;
    }
    return 0;
}

static int save_msrs(int vcpu_fd, const struct kvm_msr_list *list, Vmpool__State__Vcpu *state,
                     struct error *err)
{
    /* One allocation: the pointers, then what they point to. */
    size_t pointers = list->nmsrs * sizeof(Vmpool__State__Msr *);
    char *block = calloc(1, pointers + list->nmsrs * sizeof(Vmpool__State__Msr) + 1);
    if (!block)
        return error_errno(err, ENOMEM, "MSRs");
    state->msrs = (Vmpool__State__Msr **)(void *)block;
    for (uint32_t i = 0; i < list->nmsrs; i++) {
        state->msrs[i] = (Vmpool__State__Msr *)(void *)(block + pointers) + i;
        vmpool__state__msr__init(state->msrs[i]);
    }
    for (uint32_t i = 0; i < list->nmsrs; i += MSR_CHUNK) {
        uint32_t count = list->nmsrs - i < MSR_CHUNK ? list->nmsrs - i : MSR_CHUNK;
        if (get_chunk(vcpu_fd, list->indices + i, count, state, err) < 0)
            return -1;
    }
    return 0;
}

/* One that KVM refuses is a fault unless it has that value already, as constants have. */
static int set_refused(int vcpu_fd, const struct kvm_msr_entry *entry, struct error *err)
{
    uint64_t value = 0;
    if (vcpu_state_get_msr(vcpu_fd, entry->index, &value) == 0 && value == entry->data)
        return 0;
    return error_set(err, ERROR_CONFLICT, "this host's KVM does not take MSR 0x%x = 0x%llx",
                     entry->index, (unsigned long long)entry->data);
}

static int load_msrs(int vcpu_fd, const Vmpool__State__Vcpu *state, struct error *err)
{
    union msrs chunk;
    size_t next = 0;
    while (next < state->n_msrs) {
        memset(&chunk, 0, sizeof chunk);
        size_t at = next;
        for (; at < state->n_msrs && chunk.head.nmsrs < MSR_CHUNK; at++) {
            const Vmpool__State__Msr *msr = state->msrs[at];
            /* The deadline needs LAPIC and TSC, so it comes late; the TSC never comes from here. */
            if (msr->index != MSR_TSC && msr->index != MSR_TSC_DEADLINE)
                chunk.head.entries[chunk.head.nmsrs++] =
                    (struct kvm_msr_entry){.index = msr->index, .data = msr->value};
        }
        next = at;
        uint32_t done = 0;
        uint32_t total = chunk.head.nmsrs;
        while (done < total) {
            chunk.head.nmsrs = total - done;
            int set = ioctl(vcpu_fd, KVM_SET_MSRS, &chunk);
            if (set < 0)
                return error_errno(err, errno, "KVM_SET_MSRS");
            if ((uint32_t)set == total - done)
                break;
            if (set_refused(vcpu_fd, &chunk.head.entries[set], err) < 0)
                return -1;
            uint32_t past = (uint32_t)set + 1;
            memmove(chunk.head.entries, chunk.head.entries + past,
                    (total - done - past) * sizeof chunk.head.entries[0]);
            done += past;
        }
    }
    return 0;
}

/* ---- whole vCPUs ---- */

int vcpu_state_format_init(struct vcpu_state_format *format, int kvm_fd, int vm_fd,
                           struct error *err)
{
    *format = (struct vcpu_state_format){.xsave_size = sizeof(struct kvm_xsave)};
    int size = kvm_capability(vm_fd, KVM_CAP_XSAVE2);
    if (size > (int)format->xsave_size)
        format->xsave_size = (size_t)size;
    format->scales_tsc = kvm_capability(vm_fd, KVM_CAP_TSC_CONTROL) > 0;
    return list_msrs(format, kvm_fd, err);
}

void vcpu_state_format_free(struct vcpu_state_format *format)
{
    free(format->msrs);
    *format = (struct vcpu_state_format){0};
}

static int get_block(int vcpu_fd, const struct fixed *what, Vmpool__State__Vcpu *state,
                     struct error *err)
{
    ProtobufCBinaryData *field = field_of(state, what);
    field->data = calloc(1, what->size);
    if (!field->data)
        return error_errno(err, ENOMEM, "vCPU state");
    field->len = what->size;
    if (ioctl(vcpu_fd, what->get, field->data) < 0)
        return error_errno(err, errno, "KVM_GET_%s", what->name);
    return 0;
}

static int save_xsave(int vcpu_fd, const struct vcpu_state_format *format,
                      Vmpool__State__Vcpu *state, struct error *err)
{
    state->xsave.data = calloc(1, format->xsave_size);
    if (!state->xsave.data)
        return error_errno(err, ENOMEM, "vCPU state");
    state->xsave.len = format->xsave_size;
    unsigned long request =
        format->xsave_size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;
    if (ioctl(vcpu_fd, request, state->xsave.data) < 0)
        return error_errno(err, errno, "KVM_GET_XSAVE");
    return 0;
}

static int save_cpuid(const struct kvm_cpuid2 *shown, Vmpool__State__Vcpu *state, struct error *err)
{
    state->cpuid.len = shown->nent * sizeof(struct kvm_cpuid_entry2);
    state->cpuid.data = malloc(state->cpuid.len + 1);
    if (!state->cpuid.data)
        return error_errno(err, ENOMEM, "CPUID");
    memcpy(state->cpuid.data, shown->entries, state->cpuid.len);
    return 0;
}

int vcpu_state_save(int vcpu_fd, const struct vcpu_state_format *format,
                    const struct kvm_cpuid2 *shown, Vmpool__State__Vcpu *state, struct error *err)
{
    /* MP_STATE first: reading it takes pending INIT and SIPI, which changes all the rest. */
    for (size_t i = 0; i < COUNT(load_first); i++)
        if (get_block(vcpu_fd, &load_first[i], state, err) < 0)
            return -1;
    if (save_xsave(vcpu_fd, format, state, err) < 0)
        return -1;
    for (size_t i = 0; i < COUNT(load_second); i++)
        if (get_block(vcpu_fd, &load_second[i], state, err) < 0)
            return -1;
    int khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);
    state->tsc_khz = khz > 0 ? (uint32_t)khz : 0;
    if (save_cpuid(shown, state, err) < 0 || save_msrs(vcpu_fd, format->msrs, state, err) < 0)
        return -1;
    /* Events last: what was read before may have queued one. */
    return get_block(vcpu_fd, &events, state, err);
}

void vcpu_state_free(Vmpool__State__Vcpu *state)
{
    for (size_t i = 0; i < COUNT(load_first); i++)
        free(field_of(state, &load_first[i])->data);
    for (size_t i = 0; i < COUNT(load_second); i++)
        free(field_of(state, &load_second[i])->data);
    free(state->events.data);
    free(state->xsave.data);
    free(state->cpuid.data);
    free(state->msrs); /* one block */
}

static int set_block(int vcpu_fd, const struct fixed *what, const Vmpool__State__Vcpu *state,
                     struct error *err)
{
    /* Copied: the message's bytes are not aligned, and KVM may write into what it is given. */
    _Alignas(16) uint8_t block[4096];
    const ProtobufCBinaryData *field = const_field_of(state, what);
    if (field->len != what->size || field->len > sizeof block)
        return error_set(err, ERROR_USAGE, "vCPU %u: its %s have the wrong size", state->index,
                         what->name);
    memcpy(block, field->data, field->len);
    if (ioctl(vcpu_fd, what->set, block) < 0)
        return error_errno(err, errno, "vCPU %u: KVM_SET_%s", state->index, what->name);
    return 0;
}

static int load_cpuid(int vcpu_fd, const struct kvm_cpuid2 *supported, struct kvm_cpuid2 *shown,
                      const Vmpool__State__Vcpu *state, struct error *err)
{
    size_t count = state->cpuid.len / sizeof(struct kvm_cpuid_entry2);
    if (count == 0 || count > CPUID_ENTRIES_MAX ||
        state->cpuid.len % sizeof(struct kvm_cpuid_entry2) != 0)
        return error_set(err, ERROR_USAGE, "vCPU %u: its CPUID has the wrong size", state->index);
    shown->nent = (uint32_t)count;
    memcpy(shown->entries, state->cpuid.data, state->cpuid.len);
    if (cpuid_check_offered(supported, shown, err) < 0)
        return -1;
    if (ioctl(vcpu_fd, KVM_SET_CPUID2, shown) < 0)
        return error_errno(err, errno, "vCPU %u: KVM_SET_CPUID2", state->index);
    return 0;
}

static int load_tsc_khz(int vcpu_fd, const struct vcpu_state_format *format,
                        const Vmpool__State__Vcpu *state, struct error *err)
{
    int khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);
    if (state->tsc_khz == 0 || khz <= 0 || (uint32_t)khz == state->tsc_khz)
        return 0;
    uint64_t here = (uint64_t)khz;
    uint64_t there = state->tsc_khz;
    uint64_t difference = here > there ? here - there : there - here;
    if (!format->scales_tsc && difference * 1000000 / here > TSC_TOLERANCE)
        return error_set(err, ERROR_CONFLICT,
                         "the guest's TSC runs at %u kHz, this host's at %d kHz, and its processor "
                         "can't scale it",
                         state->tsc_khz, khz);
    if (difference * 1000000 / here <= TSC_TOLERANCE)
        return 0;
    if (ioctl(vcpu_fd, KVM_SET_TSC_KHZ, state->tsc_khz) < 0)
        return error_errno(err, errno, "KVM_SET_TSC_KHZ %u", state->tsc_khz);
    return 0;
}

static int load_xsave(int vcpu_fd, const struct vcpu_state_format *format,
                      const Vmpool__State__Vcpu *state, struct error *err)
{
    if (state->xsave.len < sizeof(struct kvm_xsave) || state->xsave.len > format->xsave_size)
        return error_set(err, ERROR_CONFLICT,
                         "vCPU %u: %zu bytes of extended state, this host keeps %zu", state->index,
                         state->xsave.len, format->xsave_size);
    auto_free uint8_t *xsave = calloc(1, format->xsave_size);
    if (!xsave)
        return error_errno(err, ENOMEM, "vCPU state");
    memcpy(xsave, state->xsave.data, state->xsave.len);
    if (ioctl(vcpu_fd, KVM_SET_XSAVE, xsave) < 0)
        return error_errno(err, errno, "vCPU %u: KVM_SET_XSAVE", state->index);
    return 0;
}

int vcpu_state_load(int vcpu_fd, const struct vcpu_state_format *format,
                    const struct kvm_cpuid2 *supported, struct kvm_cpuid2 *shown,
                    const Vmpool__State__Vcpu *state, struct error *err)
{
    if (load_cpuid(vcpu_fd, supported, shown, state, err) < 0 ||
        load_tsc_khz(vcpu_fd, format, state, err) < 0)
        return -1;
    for (size_t i = 0; i < COUNT(load_first); i++)
        if (set_block(vcpu_fd, &load_first[i], state, err) < 0)
            return -1;
    if (load_xsave(vcpu_fd, format, state, err) < 0)
        return -1;
    for (size_t i = 0; i < COUNT(load_second); i++)
        if (set_block(vcpu_fd, &load_second[i], state, err) < 0)
            return -1;
    return load_msrs(vcpu_fd, state, err);
}

int vcpu_state_load_late(int vcpu_fd, const Vmpool__State__Vcpu *state, struct error *err)
{
    for (size_t i = 0; i < state->n_msrs; i++)
        if (state->msrs[i]->index == MSR_TSC_DEADLINE &&
            vcpu_state_set_msr(vcpu_fd, MSR_TSC_DEADLINE, state->msrs[i]->value) < 0)
            return error_set(err, ERROR_CONFLICT, "vCPU %u: KVM does not take the TSC deadline",
                             state->index);
    return set_block(vcpu_fd, &events, state, err);
}

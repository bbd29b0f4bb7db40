/* registers.c: the processor state each boot protocol asks for. */
#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "node-agent/vmm/boot/boot.h"
#include "node-agent/vmm/boot/bzimage.h"

#define BOOT_CS  0x10 /* Linux: __BOOT_CS and __BOOT_DS */
#define BOOT_DS  0x18
#define CR0_PE   (1ull << 0)
#define CR0_ET   (1ull << 4)
#define CR0_PG   (1ull << 31)
#define CR4_PAE  (1ull << 5)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)

/* Segment types of the SDM, volume 3, table 3-1 and 3-2. */
#define TYPE_CODE 0xbu /* execute, read, accessed */
#define TYPE_DATA 0x3u /* read, write, accessed */
#define TYPE_TSS  0xbu /* busy */

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type)
{
    return (struct kvm_segment){.base = 0,
                                .limit = 0xffffffff,
                                .selector = selector,
                                .type = type,
                                .present = 1,
                                .s = 1,
                                .g = 1,
                                .db = 1};
}

/* PVH: 32-bit protected mode, flat, no paging; ebx points to the start info. */
static void set_pvh(struct kvm_sregs *sregs)
{
    sregs->cs = flat_segment(BOOT_CS, TYPE_CODE);
    sregs->ds = sregs->es = sregs->ss = flat_segment(BOOT_DS, TYPE_DATA);
    sregs->fs = sregs->gs = sregs->ds;
    sregs->tr = (struct kvm_segment){.limit = 0x67, .type = TYPE_TSS, .present = 1};
    sregs->cr0 = CR0_PE | CR0_ET;
    sregs->cr4 = 0;
    sregs->efer = 0;
}

/* Linux: 64-bit mode on identity page tables; rsi points to the
 * zero page. */
static void set_linux64(struct kvm_sregs *sregs)
{
    sregs->cs = flat_segment(BOOT_CS, TYPE_CODE);
    sregs->cs.l = 1;
    sregs->cs.db = 0;
    sregs->ds = sregs->es = sregs->ss = flat_segment(BOOT_DS, TYPE_DATA);
    sregs->fs = sregs->gs = sregs->ds;
    sregs->tr = (struct kvm_segment){.limit = 0x67, .type = TYPE_TSS, .present = 1};
    sregs->cr3 = BOOT_PAGE_TABLES;
    sregs->cr4 = CR4_PAE;
    sregs->cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs->efer = EFER_LME | EFER_LMA;
}

int boot_set_registers(int vcpu_fd, const struct boot_entry *entry, struct error *err)
{
    struct kvm_sregs sregs;
    if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return error_errno(err, errno, "KVM_GET_SREGS");
    struct kvm_regs regs = {.rip = entry->address, .rflags = 2};
    if (entry->protocol == BOOT_PVH) {
        set_pvh(&sregs);
        regs.rbx = entry->info;
    } else {
        set_linux64(&sregs);
        regs.rsi = entry->info;
    }
    sregs.gdt.base = BOOT_GDT;
    sregs.gdt.limit = BOOT_GDT_BYTES - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0)
        return error_errno(err, errno, "KVM_SET_SREGS");
    if (ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
        return error_errno(err, errno, "KVM_SET_REGS");
    return 0;
}

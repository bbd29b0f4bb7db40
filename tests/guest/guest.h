/* guest.h: what the parts of the freestanding guest share. It includes nothing but the compiler. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

#define COM1 0x3f8

/* What guest_setup() found out about the machine. */
struct guest_machine {
    u64 low_bytes;  /* end of the RAM that begins at 1 MiB */
    u64 high_bytes; /* RAM from 4 GiB up */
    char cmdline[1024];
};
extern struct guest_machine guest_machine;
extern u64 page_directory_pointers[512]; /* boot.S */

/* setup.c, in ring 0: reads the start info, switches kvmclock on. */
void guest_setup(const void *start_info);
/* guest.c, in ring 3. */
_Noreturn void guest_main(void);

/* setup.c: the guest's two clocks in microseconds. The TSC's frequency is kvmclock's; without
 * kvmclock 1 GHz is assumed and both are the same. */
u64 clock_tsc_us(void);
u64 clock_kvm_us(void);

static inline void port_out(uint16_t port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

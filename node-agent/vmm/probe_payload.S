/*
 * probe_payload.S: instructions a Linux kernel executes in kernel mode, one kind after the other.
 *
 * Runs at PROBE_CODE in 64-bit mode on what probe.c set up. Before each kind its number (an index
 * into probe.c's table) goes to port 0x10, after the last one to port 0x11. rbx points to a page of
 * scratch memory; r15 holds CPUID bits: 0 XSAVE, 1 SMAP.
 */
        .section .rodata
        .code64
        .globl  probe_payload, probe_payload_end, probe_payload_int3, probe_payload_ud2

        .macro  STEP number
        movb    $\number, %al
        outb    %al, $0x10
        .endm

probe_payload:
        STEP    0                       /* rdmsr, wrmsr, swapgs */
        movl    $0xc0000101, %ecx       /* GS base */
        rdmsr
        wrmsr
        swapgs
        swapgs

        STEP    1                       /* flags and interrupts */
        pushfq
        popfq
        cli
        movq    %cr0, %rax
        movq    %rax, %cr0
        movq    %cr3, %rax
        movq    %rax, %cr3
        invlpg  (%rbx)

        STEP    2                       /* descriptor tables */
        sgdt    0x100(%rbx)
        lgdt    0x100(%rbx)
        sidt    0x120(%rbx)
        lidt    0x120(%rbx)
        xorl    %eax, %eax
        lldt    %ax
        str     %ax
        verw    0x180(%rbx)

        STEP    3                       /* cmpxchg16b */
        xorl    %eax, %eax
        xorl    %edx, %edx
        movq    %rbx, %r14
        xorl    %ebx, %ebx
        xorl    %ecx, %ecx
        lock cmpxchg16b (%r14)
        movq    %r14, %rbx

        STEP    4                       /* locked arithmetic */
        lock xaddq %rax, (%rbx)
        lock btsq $5, (%rbx)
        lock cmpxchg8b 0x40(%rbx)
        xchgq   %rax, 0x48(%rbx)
        popcntq %rax, %rax
        bsfq    0x48(%rbx), %rdx

        STEP    5                       /* string moves */
        cld
        leaq    0x800(%rbx), %rdi
        movq    %rbx, %rsi
        movl    $16, %ecx
        rep movsb
        leaq    0x800(%rbx), %rdi
        movl    $8, %ecx
        rep stosq

        STEP    6                       /* int3 and iretq */
        int3

        STEP    7                       /* ud2, as WARN() does */
        ud2

        STEP    8                       /* fxsave, SSE */
        fninit
        fxsave64 0x400(%rbx)
        fxrstor64 0x400(%rbx)
        movdqu  (%rbx), %xmm0
        pxor    %xmm0, %xmm0
        movups  %xmm0, (%rbx)
        ldmxcsr 0x418(%rbx)

        STEP    9                       /* xsetbv, xsave, xrstor */
        testl   $1, %r15d
        jz      1f
        xorl    %ecx, %ecx
        xgetbv
        movl    $3, %eax
        xorl    %edx, %edx
        xsetbv
        movl    $3, %eax
        xorl    %edx, %edx
        xsave64 0x400(%rbx)
        movl    $3, %eax
        xorl    %edx, %edx
        xrstor64 0x400(%rbx)
1:
        STEP    10                      /* cache and time */
        rdtsc
        clflush (%rbx)
        wbinvd
        mfence
        pause

        STEP    11                      /* stac, clac */
        testl   $2, %r15d
        jz      2f
        stac
        clac
2:
        xorl    %eax, %eax
        outb    %al, $0x11
3:      hlt
        jmp     3b

probe_payload_int3:
        iretq
probe_payload_ud2:
        addq    $2, (%rsp)
        iretq
probe_payload_end:

        .section .note.GNU-stack, "", @progbits

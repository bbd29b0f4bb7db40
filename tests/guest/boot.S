/*
 * boot.S: from the PVH entry (32-bit, paging off, %ebx = hvm_start_info; Xen's docs/misc/pvh.pandoc)
 * to ring 3 in long mode.
 *
 * All work is done in ring 3: a KVM without hardware virtualisation emulates ring 0 instruction by
 * instruction, but runs ring 3 natively. Every page is mapped for ring 3, the TSS opens the I/O
 * ports below 0x1000, and `hlt` in ring 3 faults into guest_halt, which stops the vCPU for good.
 */
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18 /* name size, description size, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long entry32

    .section .text.boot, "ax"
    .code32
    .globl entry32
entry32:
    cli
    mov $kernel_stack_top, %esp
    mov %ebx, %ebp
    /* 2048 pages of 2 MiB map the first 4 GiB: present, writable, user */
    mov $page_directories, %edi
    mov $0x87, %eax
    mov $2048, %ecx
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    dec %ecx
    jnz 1b
    mov $page_directories + 7, %eax
    mov %eax, page_directory_pointers
    add $4096, %eax
    mov %eax, page_directory_pointers + 8
    add $4096, %eax
    mov %eax, page_directory_pointers + 16
    add $4096, %eax
    mov %eax, page_directory_pointers + 24
    movl $page_directory_pointers + 7, page_map
    mov $page_map, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax /* PAE */
    mov %eax, %cr4
    mov $0xc0000080, %ecx /* EFER.LME */
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax /* PG, PE */
    mov %eax, %cr0
    lgdt gdt_pointer
    ljmp $0x08, $entry64

    .code64
entry64:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    /* The addresses of the TSS and of the fault handler go into their descriptors in pieces. */
    mov $tss, %eax
    mov %ax, gdt_tss + 2
    shr $16, %eax
    mov %al, gdt_tss + 4
    mov %ah, gdt_tss + 7
    mov $0x28, %eax
    ltr %ax
    mov $guest_halt, %eax
    mov %ax, idt + 13 * 16
    movw $0x08, idt + 13 * 16 + 2
    movb $0x8e, idt + 13 * 16 + 5
    shr $16, %eax
    mov %ax, idt + 13 * 16 + 6
    lidt idt_pointer
    mov %ebp, %edi
    call guest_setup
    pushq $0x1b
    pushq $user_stack_top
    /* IOPL 3 beside the TSS's bitmap: QEMU's TCG, in an emulated host, heeds the bitmap of a TSS
     * that ltr has just loaded, but not of one that came with a migration (it is "busy" then). */
    pushq $0x3002
    pushq $0x23
    pushq $guest_main
    iretq

guest_halt: /* #GP, from ring 3's hlt */
    cli
    hlt
    jmp guest_halt

    .section .data
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 0x08 code, ring 0 */
    .quad 0x00cf93000000ffff /* 0x10 data, ring 0 */
    .quad 0x00cff3000000ffff /* 0x18 data, ring 3 */
    .quad 0x00affb000000ffff /* 0x20 code, ring 3 */
gdt_tss:
    .word tss_end - tss - 1, 0, 0x8900, 0
    .quad 0
gdt_pointer:
    .word . - gdt - 1
    .long gdt, 0
idt_pointer:
    .word 16 * 16 - 1
    .quad idt

    .balign 16
tss:
    .long 0
    .quad kernel_stack_top
    .fill 90, 1, 0
    .word io_bitmap - tss
io_bitmap:
    .fill 512, 1, 0 /* ports 0 to 0xfff open */
    .byte 0xff
tss_end:

    .section .bss
    .balign 4096
page_map:
    .skip 4096
    .globl page_directory_pointers
page_directory_pointers:
    .skip 4096
page_directories:
    .skip 4 * 4096
idt:
    .skip 16 * 16
    .balign 16
    .skip 4096
kernel_stack_top:
    .skip 16384
user_stack_top:

    .section .note.GNU-stack, "", @progbits

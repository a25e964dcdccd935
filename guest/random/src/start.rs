//! From the PVH entry, 32-bit protected mode without paging, and from a start-up IPI, to 64-bit mode with the
//! first 512 GiB mapped to themselves. Below [`USER`](crate::USER) they are the supervisor's.

use core::arch::global_asm;

global_asm!(
    r#"
    .pushsection .text.entry, "ax"
    .code32
    .global entry
entry:
    cli
    lgdt [gdt_pointer]
    mov esi, ebx
    mov eax, offset pdpt
    or eax, 7
    mov [pml4], eax
    mov edi, offset pdpt
    xor ecx, ecx
1:  mov eax, ecx
    shl eax, 30
    or eax, 0x87 /* present, writable, user, a page of 1 GiB */
    mov [edi + ecx * 8], eax
    mov eax, ecx
    shr eax, 2
    mov [edi + ecx * 8 + 4], eax
    inc ecx
    cmp ecx, 512
    jne 1b
    and dword ptr [edi + 24], 0xfffffffb /* devices are the supervisor's */
    mov eax, offset directory /* the first GiB: pages of 2 MiB */
    or eax, 7
    mov [pdpt], eax
    mov edi, offset directory
    xor ecx, ecx
2:  mov eax, ecx
    shl eax, 21
    or eax, 0x83
    cmp ecx, 16 /* USER */
    jb 3f
    or eax, 4
3:  mov [edi + ecx * 8], eax
    inc ecx
    cmp ecx, 512
    jne 2b
    ljmp 8, offset flat

flat: /* of all processors; ESI: what the boot protocol gave the first */
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov eax, cr4
    or eax, 0x40620 /* PAE, OSFXSR, OSXMMEXCPT, OSXSAVE */
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, 0xc0000080 /* IA32_EFER */
    rdmsr
    or eax, 0x100 /* LME */
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffff3 /* caches on; no EM, no TS */
    or eax, 0x80050022 /* PG, AM, WP, NE, MP */
    mov cr0, eax
    ljmp 24, offset long_mode

    .code64
long_mode:
    mov eax, 16
    mov ss, eax
    mov ds, eax
    mov es, eax
    mov edi, 1
    lock xadd [rip + processors], edi
    mov eax, edi
    shl eax, 16
    lea rsp, [rip + BLOCKS]
    add rsp, rax
    add rsp, 0xf000
    mov esi, esi
    call main
4:  cli
    hlt
    jmp 4b

    .code16
    .global trampoline
trampoline: /* copied to 8000H */
    cli
    xor ax, ax
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16 /* lgdt */
    .word 0x8000 + trampoline_gdt - trampoline
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xea /* far jump */
    .long flat
    .word 8
trampoline_gdt:
    .word 31
    .long gdt
    .global trampoline_end
trampoline_end:
    .code64
    .popsection

    .pushsection .data
    .balign 4
    .global processors
processors:
    .long 0
    .popsection

    .pushsection .bss
    .balign 4096
pml4:
    .skip 4096
    .global pdpt
pdpt:
    .skip 4096
    .global directory
directory:
    .skip 4096
    .balign 65536
    .global BLOCKS
BLOCKS:
    .skip 8 * 65536
    .popsection
    "#
);

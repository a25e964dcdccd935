//! From the PVH entry, 32-bit protected mode without paging, to 64-bit mode with the first 512 GiB mapped to
//! themselves.
//!
//! On the way, ENCLS runs once without paging; what comes of it is in `WITHOUT_PAGING`.

use core::arch::global_asm;

global_asm!(
    r#"
    .pushsection .text.entry, "ax"
    .code32
    .global entry
entry:
    cli
    mov esp, offset stack_end
    mov edi, ebx
    lgdt [gdt_pointer]
    ljmp 8, offset flat
flat:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax

    mov ecx, 6
    mov edx, offset ud32
    call gate32
    mov ecx, 13
    mov edx, offset gp32
    call gate32
    mov ecx, 14
    mov edx, offset pf32
    call gate32
    lidt [idt32_pointer]
    xor eax, eax /* ECREATE, with operands that are aligned RAM */
    mov ebx, offset idt32
    mov ecx, offset pml4
    .byte 0x0f, 0x01, 0xcf
    mov ebx, -1
    jmp tried
ud32:
    mov ebx, 6
    jmp tried
gp32:
    mov ebx, 13
    jmp tried
pf32:
    mov ebx, 14
tried:
    mov [WITHOUT_PAGING], ebx
    mov esp, offset stack_end

    mov eax, offset pdpt
    or eax, 3
    mov [pml4], eax
    mov ebx, offset pdpt
    xor ecx, ecx
map:
    mov eax, ecx
    shl eax, 30
    or eax, 0x83 /* present, writable, a page of 1 GiB */
    mov [ebx + ecx * 8], eax
    mov eax, ecx
    shr eax, 2
    mov [ebx + ecx * 8 + 4], eax
    inc ecx
    cmp ecx, 512
    jne map

    mov eax, cr4
    or eax, 0x620 /* PAE, OSFXSR, OSXMMEXCPT */
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, 0xc0000080 /* IA32_EFER */
    rdmsr
    or eax, 0x100 /* LME */
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    ljmp 24, offset long_mode

gate32: /* interrupt gate ECX leads to EDX */
    lea eax, [idt32 + ecx * 8]
    mov [eax], dx
    mov word ptr [eax + 2], 8
    mov word ptr [eax + 4], 0x8e00
    shr edx, 16
    mov [eax + 6], dx
    ret

    .code64
long_mode:
    mov eax, 16
    mov ss, eax
    mov ds, eax
    mov es, eax
    mov edi, edi
    call main
    /* A triple fault ends the machine. */
    lidt [rip + no_idt]
    ud2
    .popsection

    .pushsection .data
    .balign 8
idt32_pointer:
    .word 15 * 8 - 1
    .long idt32
no_idt:
    .word 0
    .quad 0
    .global WITHOUT_PAGING
    .balign 4
WITHOUT_PAGING:
    .long 0
    .popsection

    .pushsection .bss
    .balign 4096
pml4:
    .skip 4096
pdpt:
    .skip 4096
idt32:
    .skip 4096
    .skip 65536
stack_end:
    .popsection
    "#
);

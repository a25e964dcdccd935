//! Where the boot protocol enters the program, segments for 32-bit and 64-bit code, and what compiled code calls
//! and no library has.

use core::arch::global_asm;

global_asm!(
    r#"
    .pushsection .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long entry
    .popsection

    .pushsection .text, "ax"
    .global memset
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret
    .global memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret
    .global memcmp
memcmp:
    xor eax, eax
    mov rcx, rdx
    test rcx, rcx
    jz 5f
    repe cmpsb
    je 5f
    mov eax, 1
5:  ret
    .popsection

    .pushsection .data
    .balign 8
    .global gdt
gdt: /* none, 32-bit code, data, 64-bit code */
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
    .global gdt_pointer
gdt_pointer:
    .word 31
    .long gdt
    .popsection
    "#
);

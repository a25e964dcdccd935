/*
 * An enclave of Fortanix EDP's ABI (crate fortanix-sgx-abi), as small as one can
 * be: it asks for untrusted memory, copies a line there, has it written to
 * standard output, and exits. Each usercall leaves the enclave; the return of one
 * is an entry again, so what is next is kept in memory.
 *
 * A usercall has its number in RDI and its arguments in RSI, RDX, R8 and R9; its
 * results come back in RSI and RDX. EENTER leaves in RCX where EEXIT is to go.
 */
	.intel_syntax noprefix
	.set EEXIT, 4
	.set WRITE, 3
	.set EXIT, 10
	.set ALLOC, 14
	.set STDOUT, 1
	/* ELRANGE, and where in it the entry is (guest/enclave/enclave.ld). */
	.set ELRANGE, 0x10000000
	.set ENTRY, 0x10000

	.data
step:
	.long 0
text:
	.ascii "hello from an enclave of Fortanix EDP's ABI\n"
	.set length, . - text

	.text
	.globl enclave_entry
enclave_entry:
	mov r11, rcx
	/* Arguments that a usercall does not have are to be zero. */
	xor r8d, r8d
	xor r9d, r9d
	mov eax, [rip + step]
	inc dword ptr [rip + step]
	cmp eax, 1
	jb ask
	je say
	xor esi, esi
exit:
	mov edi, EXIT
	xor edx, edx
	jmp leave
ask:
	mov edi, ALLOC
	mov esi, length
	mov edx, 1
	jmp leave
say:
	test rsi, rsi
	jnz panic
	/* Not into the enclave itself, which the host may have named. */
	lea rax, [rip + enclave_entry - ENTRY]
	lea rcx, [rdx + length]
	cmp rcx, rax
	jbe outside
	add rax, ELRANGE
	cmp rdx, rax
	jb panic
outside:
	cld
	lea rsi, [rip + text]
	mov rdi, rdx
	mov ecx, length
	rep movsb
	mov edi, WRITE
	mov esi, STDOUT
	mov r8d, length
leave:
	mov rbx, r11
	mov eax, EEXIT
	enclu
panic:
	mov esi, 1
	jmp exit

//! EREPORT, EGETKEY and EACCEPT.

use core::arch::asm;
use core::mem::MaybeUninit;

/// KEYREQUEST.KEYNAME (SDM vol. 3D, table 35-24).
#[derive(Clone, Copy)]
#[repr(u16)]
enum KeyName {
    Provision = 1,
    Seal = 4,
}

/// KEYREQUEST.KEYPOLICY: the key is this enclave's alone.
const POLICY_MRENCLAVE: u16 = 1;
/// ATTRIBUTES.INIT and ATTRIBUTES.DEBUG: a debug enclave gets another key.
const INIT_AND_DEBUG: u64 = 3;

/// TARGETINFO, REPORTDATA and REPORT need 512-, 128- and 512-byte alignment
/// (SDM vol. 3D, EREPORT), a key 16-byte alignment (EGETKEY).
#[repr(C, align(512))]
struct Aligned<const N: usize>([u8; N]);

/// KEYREQUEST up to its last reserved bytes (SDM vol. 3D, table 35-23).
#[repr(C)]
struct KeyRequest {
    key_name: u16,
    key_policy: u16,
    isv_svn: u16,
    reserved: u16,
    cpu_svn: [u8; 16],
    attribute_mask: [u64; 2],
    key_id: [u8; 32],
    misc_mask: u32,
    config_svn: u16,
}

/// A whole KEYREQUEST.
const KEYREQUEST_SIZE: usize = 512;

/// Bytes of a TARGETINFO, and of one with REPORTDATA after it.
const TARGETINFO_SIZE: usize = 512;
pub(crate) const REPORT_INPUT_SIZE: usize = TARGETINFO_SIZE + 64;

/// ENCLU[EREPORT] with a TARGETINFO and REPORTDATA, whose bytes `take` gives in their order.
pub(crate) fn report(take: impl Fn(usize) -> u8, give: impl FnOnce(&[u8; 432])) {
    let mut input = MaybeUninit::<Aligned<REPORT_INPUT_SIZE>>::uninit();
    let mut report = MaybeUninit::<Aligned<432>>::uninit();
    let target = input.as_mut_ptr().cast::<u8>();
    for at in 0..REPORT_INPUT_SIZE {
        // SAFETY: within `input`. Volatile, so that no call of memset comes of it, which would go through
        // a table that somebody had to relocate.
        unsafe { target.add(at).write_volatile(take(at)) }
    }
    // SAFETY: the three operands are enclave memory, initialized, aligned and sized as
    // EREPORT wants; RBX is the compiler's, so it is exchanged around the leaf.
    // EREPORT writes all of the REPORT, or faults.
    let report = unsafe {
        asm!(
            "xchg rbx, {target}",
            "enclu",
            "xchg rbx, {target}",
            target = inout(reg) target => _,
            inout("rax") 0_u64 => _,
            in("rcx") target.add(TARGETINFO_SIZE),
            in("rdx") report.as_mut_ptr(),
        );
        report.assume_init_ref()
    };
    give(&report.0);
}

/// SECINFO of a page that the kernel has added with EAUG: readable, writable, PENDING, PT_REG
/// (SDM vol. 3D, table 35-17).
#[repr(C, align(64))]
struct SecInfo([u64; 8]);

static PENDING_PAGE: SecInfo = SecInfo([0x20b, 0, 0, 0, 0, 0, 0, 0]);

/// ENCLU[EACCEPT] of the page at this address, or the processor's error code.
pub(crate) fn accept(page: u64) -> Result<(), u64> {
    let status: u64;
    // SAFETY: the SECINFO is enclave memory and aligned; RBX, which the compiler keeps for itself, is
    // put back. EACCEPT changes no byte of the page.
    unsafe {
        asm!(
            "xchg rbx, {secinfo}",
            "enclu",
            "xchg rbx, {secinfo}",
            secinfo = inout(reg) &raw const PENDING_PAGE => _,
            inout("rax") 5_u64 => status,
            in("rcx") page,
        );
    }
    if status == 0 { Ok(()) } else { Err(status) }
}

/// The seal key of this enclave on this platform for `key_id`, or `None` if the processor
/// refuses.
pub(crate) fn seal_key(key_id: [u8; 32]) -> Option<[u8; 16]> {
    get_key(KeyName::Seal, POLICY_MRENCLAVE, key_id).ok()
}

/// The provisioning key of this enclave's signer on this platform, or the processor's error code.
pub(crate) fn provision_key() -> Result<[u8; 16], u64> {
    get_key(KeyName::Provision, 0, [0; 32])
}

/// ENCLU[EGETKEY].
fn get_key(name: KeyName, key_policy: u16, key_id: [u8; 32]) -> Result<[u8; 16], u64> {
    // Security versions of 0 are never above the current ones, so that the key
    // stays the same after an update.
    let request = KeyRequest {
        key_name: name as u16,
        key_policy,
        isv_svn: 0,
        reserved: 0,
        cpu_svn: [0; 16],
        attribute_mask: [INIT_AND_DEBUG, 0],
        key_id,
        misc_mask: 0,
        config_svn: 0,
    };
    let mut place = MaybeUninit::<Aligned<KEYREQUEST_SIZE>>::uninit();
    let mut key = Aligned([0; 16]);
    let status: u64;
    // SAFETY: REP STOSB stays within `place`, which is large enough for the request
    // and aligned for it. Both operands are enclave memory, aligned and sized as
    // EGETKEY wants; RBX, which the compiler keeps for itself, is put back.
    unsafe {
        // Where the compiler writes so many zeros it calls memset, which would go
        // through a table that somebody had to relocate.
        asm!(
            "rep stosb",
            inout("rdi") place.as_mut_ptr() => _,
            inout("rcx") KEYREQUEST_SIZE => _,
            in("al") 0_u8,
            options(nostack, preserves_flags),
        );
        place.as_mut_ptr().cast::<KeyRequest>().write(request);
        asm!(
            "xchg rbx, {request}",
            "enclu",
            "xchg rbx, {request}",
            request = inout(reg) place.as_ptr() => _,
            inout("rax") 1_u64 => status,
            in("rcx") &raw mut key,
        );
    }
    if status == 0 { Ok(key.0) } else { Err(status) }
}

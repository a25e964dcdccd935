//! Raw accesses to guest memory in this process: the one place that dereferences its pointers.
//!
//! Other processors and devices access the same bytes at the same time. Aligned accesses up to 8
//! bytes are single atomic accesses with x86 ordering (acquire loads, release stores, which are
//! plain moves on x86); others are done byte by byte or, on x86-64, with one unaligned move, as
//! the architecture does. Miri, which knows no assembly, takes the way of other hosts.
#![cfg_attr(
    not(test),
    expect(clippy::cast_possible_truncation, reason = "cuts values to the size of an operand")
)]
#![expect(unsafe_code, reason = "guest memory is shared with other threads by raw pointers")]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use super::Plain;

/// Reads a value at any alignment.
///
/// # Safety
///
/// `at` is valid for reads of `T::SIZE` bytes of guest memory.
#[inline(always)]
pub(crate) unsafe fn load<T: Plain>(at: *const u8) -> T {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        #[repr(C, packed)]
        struct Unaligned<T>(T);
        // SAFETY: the caller vouches for the bytes; the type has no alignment; x86 loads are
        // ordered as the guest's are.
        unsafe { at.cast::<Unaligned<T>>().read_volatile().0 }
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    {
        let mut bytes = [0u8; 32];
        // SAFETY: the caller vouches for the bytes.
        unsafe { load_bytes(at, &mut bytes[..T::SIZE]) };
        T::from_bytes(&bytes[..T::SIZE])
    }
}

/// Writes a value at any alignment.
///
/// # Safety
///
/// `at` is valid for writes of `T::SIZE` bytes of guest memory.
#[inline(always)]
pub(crate) unsafe fn store<T: Plain>(at: *mut u8, value: T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller vouches for the bytes; x86 stores are ordered as the guest's are. Values
    // are plain integers, copied as many bytes as they have.
    unsafe {
        macro_rules! store {
            ($instruction:literal, $class:ident, $type:ty) => {
                std::arch::asm!(
                    $instruction,
                    at = in(reg) at,
                    value = in($class) std::mem::transmute_copy::<T, $type>(&value),
                    options(nostack, preserves_flags)
                )
            };
        }
        match T::SIZE {
            1 => store!("mov byte ptr [{at}], {value}", reg_byte, u8),
            2 => store!("mov word ptr [{at}], {value:x}", reg, u16),
            4 => store!("mov dword ptr [{at}], {value:e}", reg, u32),
            8 => store!("mov qword ptr [{at}], {value}", reg, u64),
            _ => {
                #[repr(C, packed)]
                struct Unaligned<T>(T);
                at.cast::<Unaligned<T>>().write_volatile(Unaligned(value));
            }
        }
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    {
        let mut bytes = [0u8; 32];
        value.put_bytes(&mut bytes[..T::SIZE]);
        // SAFETY: the caller vouches for the bytes.
        unsafe { store_bytes(at, &bytes[..T::SIZE]) };
    }
}

/// Reads bytes; naturally aligned powers of two in one access.
///
/// # Safety
///
/// `at` is valid for reads of `out.len()` bytes of guest memory.
pub(crate) unsafe fn load_bytes(at: *const u8, out: &mut [u8]) {
    let address = at as usize;
    // SAFETY: the caller vouches for the bytes; alignment is checked before each cast.
    unsafe {
        match out.len() {
            8 if address.is_multiple_of(8) => out.copy_from_slice(
                &AtomicU64::from_ptr(at.cast_mut().cast()).load(Ordering::Acquire).to_ne_bytes(),
            ),
            4 if address.is_multiple_of(4) => out.copy_from_slice(
                &AtomicU32::from_ptr(at.cast_mut().cast()).load(Ordering::Acquire).to_ne_bytes(),
            ),
            2 if address.is_multiple_of(2) => out.copy_from_slice(
                &AtomicU16::from_ptr(at.cast_mut().cast()).load(Ordering::Acquire).to_ne_bytes(),
            ),
            _ => {
                for (i, byte) in out.iter_mut().enumerate() {
                    *byte = AtomicU8::from_ptr(at.add(i).cast_mut()).load(Ordering::Acquire);
                }
            }
        }
    }
}

/// Writes bytes; naturally aligned powers of two in one access.
///
/// # Safety
///
/// `at` is valid for writes of `data.len()` bytes of guest memory.
pub(crate) unsafe fn store_bytes(at: *mut u8, data: &[u8]) {
    let address = at as usize;
    // SAFETY: the caller vouches for the bytes; alignment is checked before each cast, and the
    // lengths of the conversions are those of the patterns.
    unsafe {
        match *data {
            [a, b, c, d, e, f, g, h] if address.is_multiple_of(8) => AtomicU64::from_ptr(at.cast())
                .store(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), Ordering::Release),
            [a, b, c, d] if address.is_multiple_of(4) => AtomicU32::from_ptr(at.cast())
                .store(u32::from_ne_bytes([a, b, c, d]), Ordering::Release),
            [a, b] if address.is_multiple_of(2) => {
                AtomicU16::from_ptr(at.cast()).store(u16::from_ne_bytes([a, b]), Ordering::Release);
            }
            _ => {
                for (i, byte) in data.iter().enumerate() {
                    AtomicU8::from_ptr(at.add(i)).store(*byte, Ordering::Release);
                }
            }
        }
    }
}

/// Replaces the value at `at` by `f` of it in one atomic step and returns the old value.
/// `None` if `at` is not aligned to the size of `T` (1, 2, 4 or 8 bytes).
///
/// # Safety
///
/// `at` is valid for reads and writes of `T::SIZE` bytes of guest memory.
pub(crate) unsafe fn update<T: super::Int>(at: *mut u8, mut f: impl FnMut(T) -> T) -> Option<T> {
    if !(at as usize).is_multiple_of(T::SIZE) {
        return None;
    }
    macro_rules! with {
        ($atomic:ty) => {{
            // SAFETY: the caller vouches for the bytes, and the alignment was checked.
            let cell = unsafe { <$atomic>::from_ptr(at.cast()) };
            let old = cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
                Some(f(T::trunc(old as u64)).zext() as _)
            });
            let (Ok(old) | Err(old)) = old;
            Some(T::trunc(old as u64))
        }};
    }
    match T::SIZE {
        1 => with!(AtomicU8),
        2 => with!(AtomicU16),
        4 => with!(AtomicU32),
        _ => with!(AtomicU64),
    }
}

/// Compares the 16 bytes at `at` with `expected` and, if equal, replaces them by `new`, in one
/// atomic step; returns the old value. `None` where the host cannot, or `at` is not aligned to 16.
///
/// # Safety
///
/// `at` is valid for reads and writes of 16 bytes of guest memory.
pub(crate) unsafe fn compare_exchange_16(at: *mut u8, expected: u128, new: u128) -> Option<u128> {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if (at as usize).is_multiple_of(16) && std::arch::is_x86_feature_detected!("cmpxchg16b") {
        let (mut low, mut high) = (expected as u64, (expected >> 64) as u64);
        // SAFETY: the feature is there, and the caller vouches for the bytes. RBX, which the
        // compiler keeps for itself, is put back.
        unsafe {
            std::arch::asm!(
                "xchg rbx, rsi",
                "lock cmpxchg16b [rdi]",
                "mov rbx, rsi",
                in("rdi") at,
                inout("rsi") new as u64 => _,
                in("rcx") (new >> 64) as u64,
                inout("rax") low,
                inout("rdx") high,
                options(nostack)
            );
        }
        return Some(u128::from(high) << 64 | u128::from(low));
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = (at, expected, new);
    None
}

/// Copies bytes in ascending order. The ranges may overlap if `to` is below `from`.
///
/// # Safety
///
/// `from` is valid for reads and `to` for writes of `len` bytes of guest memory.
#[inline(always)]
pub(crate) unsafe fn copy_up(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller vouches for the bytes; the direction flag is clear in Rust code.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    for n in 0..len {
        // SAFETY: the caller vouches for the bytes.
        unsafe { store(to.add(n), load::<u8>(from.add(n))) };
    }
}

/// Writes `value` `count` times.
///
/// # Safety
///
/// `to` is valid for writes of `count` values of guest memory.
#[inline(always)]
pub(crate) unsafe fn fill<T: super::Int>(to: *mut u8, value: T, count: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let value = value.zext();
        macro_rules! fill {
            ($instruction:literal) => {
                // SAFETY: the caller vouches for the bytes; the direction flag is clear in Rust
                // code.
                unsafe {
                    std::arch::asm!(
                        $instruction,
                        inout("rcx") count => _, inout("rdi") to => _, in("rax") value,
                        options(nostack, preserves_flags)
                    )
                }
            };
        }
        match T::SIZE {
            1 => fill!("rep stosb"),
            2 => fill!("rep stosw"),
            4 => fill!("rep stosd"),
            _ => fill!("rep stosq"),
        }
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    for n in 0..count {
        // SAFETY: the caller vouches for the bytes.
        unsafe { store(to.add(n * T::SIZE), value) };
    }
}

/// A command of membarrier(2).
#[cfg(target_os = "linux")]
fn membarrier_command(command: libc::c_int) -> io::Result<()> {
    // SAFETY: membarrier takes integers only.
    match unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Registers this process for [`membarrier`], the first time.
///
/// # Errors
///
/// What the host said: its kernel has no such barrier, or a sandbox around this process forbids it.
pub(crate) fn register_membarrier() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        // MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED.
        const REGISTER: libc::c_int = 1 << 4;
        static REGISTERED: OnceLock<Result<(), Option<i32>>> = OnceLock::new();
        let register = || membarrier_command(REGISTER).map_err(|error| error.raw_os_error());
        REGISTERED.get_or_init(register).map_err(|error| {
            error.map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error)
        })
    }
    #[cfg(not(target_os = "linux"))]
    Err(io::ErrorKind::Unsupported.into())
}

/// Passes a full memory barrier on every thread of this process that runs.
///
/// # Panics
///
/// If the host refuses, which [`register_membarrier`] tells beforehand.
pub(crate) fn membarrier() {
    fence(Ordering::SeqCst);
    register_membarrier().expect("membarrier(2) was there when the machine was made");
    #[cfg(target_os = "linux")]
    {
        // MEMBARRIER_CMD_PRIVATE_EXPEDITED.
        const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
        while let Err(error) = membarrier_command(PRIVATE_EXPEDITED) {
            // The kernel may lack memory for a moment.
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "membarrier(2): {error}");
            std::thread::yield_now();
        }
    }
}

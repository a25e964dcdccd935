//! The functions of C. Nothing that a quote or a file holds makes them fail but by a code.
#![expect(unsafe_code, reason = "C gives pointers")]

use std::ffi::{c_char, c_int, c_long, c_void};
use std::io::Write as _;
use std::path::Path;
use std::{env, io, ptr, slice};

use crate::FOLDER;
use crate::judge::{Failure, Judgement, Trusted};
use crate::supplemental::Supplemental;

/// `SGX_QL_SUCCESS`.
const SUCCESS: u32 = 0;
/// Bytes of a quote at most.
const LONGEST: u32 = 1 << 20;
/// Major version of the supplemental data.
const SUPPLEMENTAL_MAJOR: u16 = 3;

/// `tee_supp_data_descriptor_t`.
#[repr(C)]
#[derive(Debug)]
pub struct SupplementalDescriptor {
    major_version: u16,
    data_size: u32,
    data: *mut u8,
}

/// Bytes of the supplemental data.
const fn supplemental_size() -> u32 {
    // Some hundred bytes.
    size_of::<Supplemental>() as u32
}

/// `sgx_qv_get_quote_supplemental_data_size`: how much room the supplemental data take.
///
/// # Safety
///
/// `size` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sgx_qv_get_quote_supplemental_data_size(size: *mut u32) -> u32 {
    if size.is_null() {
        return Failure::InvalidParameter as u32;
    }
    // SAFETY: the caller says that it can be written.
    unsafe { size.write(supplemental_size()) }
    SUCCESS
}

/// `tee_get_supplemental_data_version_and_size`: the same with the version.
///
/// # Safety
///
/// `version` and `size` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tee_get_supplemental_data_version_and_size(
    _quote: *const u8,
    _quote_size: u32,
    version: *mut u32,
    size: *mut u32,
) -> u32 {
    if !version.is_null() {
        // SAFETY: the caller says that it can be written.
        unsafe { version.write(SUPPLEMENTAL_MAJOR.into()) }
    }
    // SAFETY: the caller says that it is null or can be written.
    unsafe { sgx_qv_get_quote_supplemental_data_size(size) }
}

/// `sgx_qv_set_enclave_load_policy`: there is no enclave that verifies, and each policy is as good.
#[unsafe(no_mangle)]
pub extern "C" fn sgx_qv_set_enclave_load_policy(_policy: c_int) -> u32 {
    SUCCESS
}

/// `sgx_qv_set_path`: nothing is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn sgx_qv_set_path(_kind: c_int, _path: *const c_char) -> u32 {
    SUCCESS
}

/// `sgx_qv_verify_quote`: what a quote is worth under the root and with the collateral of the folder.
/// Collateral of the caller's and REPORTs of a verifying enclave are refused.
///
/// # Safety
///
/// The pointers are null or as in C: so many bytes of quote, results that can be written, and so many bytes
/// for supplemental data.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sgx_qv_verify_quote(
    quote: *const u8,
    quote_size: u32,
    collateral: *const c_void,
    date: c_long,
    expired: *mut u32,
    result: *mut u32,
    qve_report: *mut c_void,
    supplemental_size: u32,
    supplemental: *mut u8,
) -> u32 {
    let room = (!supplemental.is_null()).then_some((supplemental, supplemental_size));
    // SAFETY: the caller says what the pointers are.
    let verified =
        unsafe { verify(quote, quote_size, collateral, date, expired, result, qve_report, room) };
    code(verified)
}

/// `tee_verify_quote`: the same with a descriptor of supplemental data.
///
/// # Safety
///
/// As for [`sgx_qv_verify_quote`]; the descriptor is null or one, with so many bytes where it points.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tee_verify_quote(
    quote: *const u8,
    quote_size: u32,
    collateral: *const u8,
    date: c_long,
    expired: *mut u32,
    result: *mut u32,
    qve_report: *mut c_void,
    descriptor: *mut SupplementalDescriptor,
) -> u32 {
    // SAFETY: the caller says that it is null or a descriptor.
    let room = match unsafe { descriptor.as_ref() } {
        Some(descriptor) if descriptor.major_version > SUPPLEMENTAL_MAJOR => {
            return Failure::SupplementalVersion as u32;
        }
        Some(descriptor) => {
            (!descriptor.data.is_null()).then_some((descriptor.data, descriptor.data_size))
        }
        None => None,
    };
    let collateral = collateral.cast();
    // SAFETY: the caller says what the pointers are.
    let verified =
        unsafe { verify(quote, quote_size, collateral, date, expired, result, qve_report, room) };
    code(verified)
}

fn code(verified: Result<(), Failure>) -> u32 {
    verified.map_or_else(|failure| failure as u32, |()| SUCCESS)
}

/// # Safety
///
/// As for [`sgx_qv_verify_quote`]; `room` can be written.
#[expect(clippy::too_many_arguments, reason = "they are those of C")]
unsafe fn verify(
    quote: *const u8,
    quote_size: u32,
    collateral: *const c_void,
    date: c_long,
    expired: *mut u32,
    result: *mut u32,
    qve_report: *mut c_void,
    room: Option<(*mut u8, u32)>,
) -> Result<(), Failure> {
    let second = u64::try_from(date).map_err(|_| Failure::InvalidParameter)?;
    let wrong_room = room.is_some_and(|(_, size)| size != supplemental_size());
    if quote.is_null()
        || quote_size > LONGEST
        || expired.is_null()
        || result.is_null()
        || wrong_room
    {
        return Err(Failure::InvalidParameter);
    }
    if !collateral.is_null() {
        return Err(Failure::CollateralVersion);
    }
    if !qve_report.is_null() {
        return Err(Failure::InterfaceUnavailable);
    }
    let trusted = read_folder().map_err(|why| {
        // Nobody else can say what is missing.
        let _ = writeln!(io::stderr(), "libsgx_dcap_quoteverify: {why}");
        Failure::NoCollateral
    })?;
    // SAFETY: the caller says that there are so many bytes.
    let quote = unsafe { slice::from_raw_parts(quote, quote_size as usize) };
    let Judgement { worth, expired: has_expired, verdict } = trusted.judge(quote, second)?;
    // SAFETY: the caller says that they can be written, and they are not null.
    unsafe {
        expired.write(has_expired.into());
        result.write(worth as u32);
    }
    if let Some((room, _)) = room {
        let told = Supplemental::of(verdict.as_ref());
        // SAFETY: the caller says that there is room of that size, which has been compared; it may lie anywhere.
        unsafe { ptr::write_unaligned(room.cast(), told) }
    }
    Ok(())
}

/// What the environment names.
fn read_folder() -> Result<Trusted, String> {
    let folder = env::var_os(FOLDER).ok_or_else(|| {
        format!("{FOLDER} is not set: set it to a folder that cloister pki wrote")
    })?;
    Trusted::read(Path::new(&folder))
        .map_err(|why| format!("{FOLDER}: {why}: name a folder that cloister pki wrote"))
}

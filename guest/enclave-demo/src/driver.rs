//! The guest kernel's SGX driver (arch/x86/include/uapi/asm/sgx.h).
#![expect(unsafe_code, reason = "ioctl and mmap take raw addresses")]

use std::fs::{File, OpenOptions};
use std::io::Error;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::AtomicU64;

use crate::image::{Image, PAGE, Page};

/// _IOW(0xA4, 0, struct sgx_enclave_create).
const SGX_IOC_ENCLAVE_CREATE: u64 = 0x4008_a400;
/// _IOWR(0xA4, 1, struct sgx_enclave_add_pages).
const SGX_IOC_ENCLAVE_ADD_PAGES: u64 = 0xc030_a401;
/// _IOW(0xA4, 2, struct sgx_enclave_init).
const SGX_IOC_ENCLAVE_INIT: u64 = 0x4008_a402;
/// _IOW(0xA4, 3, struct sgx_enclave_provision).
const SGX_IOC_ENCLAVE_PROVISION: u64 = 0x4008_a403;
/// Measure with EEXTEND.
const SGX_PAGE_MEASURE: u64 = 1;

/// SECS.ATTRIBUTES (SDM vol. 3D, table 35-3).
#[derive(Clone, Copy)]
pub(crate) struct Attributes {
    flags: u64,
    xfrm: u64,
}

/// ATTRIBUTES.MODE64BIT.
const MODE64BIT: u64 = 1 << 2;
/// ATTRIBUTES.PROVISIONKEY.
pub(crate) const PROVISIONKEY: u64 = 1 << 4;
/// ATTRIBUTES.KSS.
pub(crate) const KSS: u64 = 1 << 7;

impl Attributes {
    /// 64-bit, x87 and SSE.
    pub(crate) const PLAIN: Self = Self { flags: MODE64BIT, xfrm: 3 };
    /// Open to a debugger.
    pub(crate) const DEBUG: Self = Self { flags: MODE64BIT | 1 << 1, xfrm: 3 };
    /// With the state of AVX besides.
    pub(crate) const AVX: Self = Self { flags: MODE64BIT, xfrm: 7 };
    /// With the provisioning key.
    pub(crate) const PROVISION: Self = Self { flags: MODE64BIT | PROVISIONKEY, xfrm: 3 };
}

/// SECINFO.FLAGS: page type TCS.
const PAGE_TYPE_TCS: u64 = 1;

/// The part of SECS that ECREATE reads (SDM vol. 3D, table 35-2).
#[repr(C, align(4096))]
pub(crate) struct Secs {
    size: u64,
    base: u64,
    ssa_frame_size: u32,
    misc_select: u32,
    reserved: [u8; 24],
    /// Other threads may write it while the driver reads it.
    pub(crate) attributes: AtomicU64,
    xfrm: u64,
    rest: [u8; 4032],
}

impl Secs {
    /// Of an enclave with the image's ELRANGE at `base`.
    pub(crate) fn new(image: &Image, base: u64, attributes: Attributes) -> Self {
        Self {
            size: image.size,
            base,
            ssa_frame_size: image.ssa_frame_size,
            misc_select: 0,
            reserved: [0; 24],
            attributes: attributes.flags.into(),
            xfrm: attributes.xfrm,
            rest: [0; 4032],
        }
    }

    /// ECREATE. The enclave goes when the file is closed.
    pub(crate) fn create(&self) -> Result<File, String> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/sgx_enclave")
            .map_err(|error| format!("cannot open /dev/sgx_enclave: {error}"))?;
        let mut create: [u64; 1] = [ptr::from_ref(self) as u64];
        ioctl(&device, SGX_IOC_ENCLAVE_CREATE, &mut create, "SGX_IOC_ENCLAVE_CREATE")?;
        Ok(device)
    }
}

#[repr(C, align(64))]
struct Secinfo {
    flags: u64,
    reserved: [u64; 7],
}

#[repr(C)]
struct AddPages {
    src: u64,
    offset: u64,
    length: u64,
    secinfo: u64,
    flags: u64,
    count: u64,
}

#[repr(C, align(4096))]
struct Source([u8; PAGE]);

/// An initialized enclave whose pages are mapped.
pub(crate) struct Enclave {
    base: u64,
    /// Keeps the enclave alive.
    device: File,
}

impl Enclave {
    /// ECREATE, EADD and EEXTEND of every page, EINIT, and the mappings.
    pub(crate) fn build(image: &Image, attributes: Attributes) -> Result<Self, String> {
        let base = reserve(image.size)?;
        let device = Secs::new(image, base, attributes).create()?;
        // ECREATE sets what the driver allows.
        if attributes.flags & PROVISIONKEY != 0 {
            allow_provisioning(&device)?;
        }
        for page in &image.pages {
            add(&device, page)?;
        }
        let mut init: [u64; 1] = [image.sigstruct.as_ptr() as u64];
        ioctl(&device, SGX_IOC_ENCLAVE_INIT, &mut init, "SGX_IOC_ENCLAVE_INIT")?;
        for page in &image.pages {
            map_page(&device, base, page)?;
        }
        Ok(Self { base, device })
    }

    /// The linear address of ELRANGE.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Maps the part of ELRANGE in which the kernel adds a page where one is missing.
    pub(crate) fn map_heap(&self, offset: u64, size: u64) -> Result<(), String> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        map(&self.device, self.base + offset, size as usize, prot)
    }

    /// Reads 16 bytes of a page as any program outside the enclave could.
    pub(crate) fn read(&self, offset: usize) -> [u8; 16] {
        // SAFETY: the page at `offset` is mapped readable for as long as the
        // enclave lives; 16 bytes stay within it.
        unsafe { ptr::read_volatile((self.base as usize + offset) as *const [u8; 16]) }
    }

    /// Writes 8 bytes to a page from outside.
    pub(crate) fn write(&self, offset: usize, value: u64) {
        // SAFETY: the page is mapped writable and no Rust object lives there.
        unsafe { ptr::write_volatile((self.base as usize + offset) as *mut u64, value) }
    }

    /// mprotect of one page.
    pub(crate) fn protect(&self, offset: usize, prot: i32) -> Result<(), String> {
        let page = (self.base as usize + offset) as *mut libc::c_void;
        // SAFETY: the page is part of this enclave's mapping; Rust keeps no
        // reference into it.
        match unsafe { libc::mprotect(page, PAGE, prot) } {
            0 => Ok(()),
            _ => Err(format!("mprotect of an enclave page: {}", Error::last_os_error())),
        }
    }
}

/// A naturally aligned address range of the process, PROT_NONE until pages are mapped.
pub(crate) fn reserve(size: u64) -> Result<u64, String> {
    let length = usize::try_from(size).map_err(|_| "ELRANGE is too large".to_owned())?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping touches no existing one.
    let area = unsafe { libc::mmap(ptr::null_mut(), length * 2, libc::PROT_NONE, flags, -1, 0) };
    if area == libc::MAP_FAILED {
        return Err(format!("cannot reserve ELRANGE: {}", Error::last_os_error()));
    }
    Ok((area as u64).next_multiple_of(size))
}

/// Shows the driver that this process may open `/dev/sgx_provision`.
fn allow_provisioning(device: &File) -> Result<(), String> {
    let authority = File::open("/dev/sgx_provision")
        .map_err(|error| format!("cannot open /dev/sgx_provision: {error}"))?;
    let mut request: [u64; 1] = [authority.as_raw_fd() as u64];
    ioctl(device, SGX_IOC_ENCLAVE_PROVISION, &mut request, "SGX_IOC_ENCLAVE_PROVISION")
}

fn add(device: &File, page: &Page) -> Result<(), String> {
    let source = Box::new(Source(*page.contents));
    let secinfo = Secinfo { flags: page.flags, reserved: [0; 7] };
    let mut request = AddPages {
        src: (&raw const *source) as u64,
        offset: page.offset,
        length: PAGE as u64,
        secinfo: (&raw const secinfo) as u64,
        flags: SGX_PAGE_MEASURE,
        count: 0,
    };
    ioctl(device, SGX_IOC_ENCLAVE_ADD_PAGES, &mut request, "SGX_IOC_ENCLAVE_ADD_PAGES")
}

/// Maps one page with the most that its EPCM entry allows; a TCS is read and written
/// by the processor only, which the driver wants to see as read and write.
fn map_page(device: &File, base: u64, page: &Page) -> Result<(), String> {
    let prot = if (page.flags >> 8) & 0xff == PAGE_TYPE_TCS {
        libc::PROT_READ | libc::PROT_WRITE
    } else {
        // SECINFO's R, W and X bits are PROT_READ, PROT_WRITE and PROT_EXEC.
        (page.flags & 7) as i32
    };
    map(device, base + page.offset, PAGE, prot)
}

fn map(device: &File, address: u64, size: usize, prot: i32) -> Result<(), String> {
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    let at = address as *mut libc::c_void;
    // SAFETY: MAP_FIXED replaces a part of the range that `reserve` took for this.
    let mapped = unsafe { libc::mmap(at, size, prot, flags, device.as_raw_fd(), 0) };
    if mapped == libc::MAP_FAILED {
        let error = Error::last_os_error();
        return Err(format!("cannot map enclave pages at {address:#x}: {error}"));
    }
    Ok(())
}

fn ioctl<T>(device: &File, request: u64, argument: &mut T, name: &str) -> Result<(), String> {
    // SAFETY: every request above is passed the structure that the driver's header
    // gives for it; addresses in it outlive the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), request, ptr::from_mut(argument)) } {
        0 => Ok(()),
        status if status > 0 => Err(format!("{name}: SGX error {status}")),
        _ => Err(format!("{name}: {}", Error::last_os_error())),
    }
}

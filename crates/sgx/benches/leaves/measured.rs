//! MRENCLAVE as `sgxs` defines it, of enclaves too large to keep as a stream.

use std::io::{Result, Write};

use sgxs::sgxs::{Meas, MeasEAdd, MeasECreate, MeasEExtend, SecinfoTruncated, SgxsWrite as _};
use sha2::{Digest as _, Sha256};

/// A stream that is hashed as it is written.
struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// An enclave's measurement in the making.
pub(crate) struct Measured(Hash);

impl Measured {
    /// ECREATE with SSAFRAMESIZE 1.
    pub(crate) fn new(size: u64) -> Self {
        let mut this = Self(Hash(Sha256::new()));
        this.put(&Meas::ECreate(MeasECreate { ssaframesize: 1, size }));
        this
    }

    /// EADD with these SECINFO flags and, if `extended`, 16 EEXTENDs.
    pub(crate) fn page(&mut self, offset: u64, flags: u64, contents: &[u8; 4096], extended: bool) {
        let secinfo = SecinfoTruncated { flags: sgx_isa::SecinfoFlags::from_bits_truncate(flags) };
        self.put(&Meas::EAdd(MeasEAdd { offset, secinfo }));
        if !extended {
            return;
        }
        for (chunk, bytes) in contents.chunks_exact(256).enumerate() {
            let mut data = [0; 256];
            data.copy_from_slice(bytes);
            let header = MeasEExtend { offset: offset + chunk as u64 * 256 };
            self.put(&Meas::EExtend { header, data });
        }
    }

    fn put(&mut self, record: &Meas) {
        self.0.write_meas(record).expect("a hash can be written");
    }

    /// MRENCLAVE.
    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.0.finalize().into()
    }
}

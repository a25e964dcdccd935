//! QEMU's qcow2 (docs/interop/qcow2.txt of QEMU's sources), by the crate imago.
//!
//! imago opens nothing by the names in an image: each layer is opened here, from a file that is open, and
//! put on the next. What it would do with a header that nobody should trust, [`Header::judge`] decides.

mod header;

pub(super) use header::Header;
pub use header::Qcow2Error;

use std::fs::File;
use std::io;

use cloister_devices::virtio::BlockStorage;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{
    DenyImplicitOpenGate, DynStorage, FormatAccess, FormatCreateBuilder as _,
    FormatDriverBuilder as _,
};
use imago::{Mapping, file};

use super::vmdk::{self, Vmdk};

/// Discards of a layer without clusters are best aligned to this.
const PAGE: u32 = 4096;
/// Clusters of temporary layers; QEMU's default.
const CLUSTER: u32 = 64 << 10;

/// What a layer is kept in: a file, or an image of another format.
type Storage = Box<dyn DynStorage>;

fn storage(file: File) -> io::Result<Storage> {
    Ok(Box::new(file::File::try_from(file)?))
}

/// A layer that is not yet on what it is based on.
pub(super) struct Unbased {
    layer: Qcow2<Storage>,
    cluster: u32,
    largest_file: u64,
}

impl Unbased {
    /// The image in `file`, whose header has been judged.
    pub(super) fn open(file: File, header: &Header, writable: bool) -> Result<Self, Qcow2Error> {
        let layer = storage(file).and_then(|file| Qcow2::open_image(file, writable));
        let mut layer = layer.map_err(Qcow2Error::Unsound)?;
        // Everything is in the image itself: a header that says otherwise is refused.
        layer.set_data_file(None);
        Ok(Self { layer, cluster: header.cluster, largest_file: header.largest_file() })
    }

    /// Name and format of what it says that it is based on.
    pub(super) fn backing(&self) -> Option<(String, Option<String>)> {
        let name = self.layer.implicit_backing_file()?;
        Some((name.clone(), self.layer.implicit_backing_format().cloned()))
    }

    /// The layer on `base`, or on nothing, which is zeros.
    pub(super) fn on(mut self, base: Option<Layered>) -> Layered {
        self.layer.set_backing(base.map(|base| base.image));
        let Self { layer, cluster, largest_file } = self;
        Layered { image: FormatAccess::new(layer), cluster, largest_file }
    }
}

/// A layer with all that lies under it.
#[derive(Debug)]
pub struct Layered {
    image: FormatAccess<Storage>,
    /// Bytes of a cluster.
    cluster: u32,
    largest_file: u64,
}

impl Layered {
    /// Raw bytes, to put a layer on.
    pub(super) fn raw(file: File) -> io::Result<Self> {
        Self::plain(storage(file)?)
    }

    /// A VMDK image, to put a layer on.
    pub(super) fn vmdk(image: Vmdk) -> io::Result<Self> {
        Self::plain(Box::new(vmdk::VmdkStorage::new(image)))
    }

    fn plain(bytes: Storage) -> io::Result<Self> {
        let image = FormatAccess::new(Raw::open_image(bytes, false)?);
        Ok(Self { image, cluster: PAGE, largest_file: 0 })
    }

    /// The same disk, whose changes go to `file`, which is empty.
    pub(super) fn under(self, file: File) -> io::Result<Self> {
        let size = self.image.size();
        let over = |file| Ok(Qcow2::builder(file).backing(Some(self.image)).write(true));
        let made = Qcow2::<Storage>::create_builder(storage(file)?)
            .size(size)
            .cluster_size(CLUSTER as usize)
            .create_open(DenyImplicitOpenGate::default(), over)?;
        let largest_file = header::with_metadata(size);
        Ok(Self { image: FormatAccess::new(made), cluster: CLUSTER, largest_file })
    }

    /// How large its file may become.
    pub(super) const fn largest_file(&self) -> u64 {
        self.largest_file
    }

    /// Gives to the host what only this process knows of the image.
    pub(super) fn write_back(&mut self) -> io::Result<()> {
        self.image.flush()
    }

    /// Calls `work` with each part of a range that does not read as zeros already.
    fn for_each_part(
        &mut self,
        mut offset: u64,
        mut len: u64,
        work: impl Fn(&mut FormatAccess<Storage>, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        while len != 0 {
            let (is_zero, part) = match self.image.get_mapping(offset, len)? {
                (Mapping::Zero { .. }, part) => (true, part),
                (_, part) => (false, part),
            };
            if part == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !is_zero {
                work(&mut self.image, offset, part)?;
            }
            offset += part;
            len -= part;
        }
        Ok(())
    }
}

impl BlockStorage for Layered {
    fn len(&self) -> u64 {
        self.image.size()
    }

    fn discard_alignment(&self) -> u32 {
        self.cluster
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.image.read(data, offset)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.image.write(data, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.image.flush()?;
        self.image.sync()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.for_each_part(offset, len, FormatAccess::discard_to_any)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.for_each_part(offset, len, |image, offset, len| {
            if unmap { image.discard_to_zero(offset, len) } else { image.write_zeroes(offset, len) }
        })
    }
}

#[cfg(test)]
mod tests;

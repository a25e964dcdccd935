//! An image with what it is based on.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;

use cloister_devices::virtio::{BlockStorage, RawFile};

use super::error::DiskError;
use super::format::{PROBED, probe, probe_bytes};
use super::qcow2::{Header, Layered, Unbased};
use super::vmdk::Vmdk;
use super::{ImageFormat, lock_file, open_file, temporary};
use crate::config::{BackingConfig, DiskConfig};

/// An open image.
#[derive(Debug)]
pub enum Image {
    /// The disk's bytes as they are.
    Raw {
        /// They.
        file: RawFile,
        /// Nobody said that it is raw. Then it does not become what looks like another format: whoever opens
        /// it next would take the guest's bytes for those of an image.
        guessed: bool,
    },
    /// VMware's.
    Vmdk(Box<Vmdk>),
    /// What is written lies over what is not.
    Layered(Layered),
}

/// An image and its open files.
#[derive(Debug)]
pub struct Opened {
    /// The image, whose the files are.
    pub image: Image,
    /// The files' descriptors.
    pub files: Vec<RawFd>,
    /// How large one of them may become, in bytes.
    pub largest_file: u64,
}

impl Image {
    /// Opens the image in `file`, which is open as `config` asks for it, with what `config` names besides.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    pub fn open(config: &DiskConfig, file: File) -> Result<Opened, DiskError> {
        let path = || config.path.clone();
        let format = match (config.format, probe(&file)) {
            (Some(format), _) => format,
            (None, None) => ImageFormat::Raw,
            (None, Some(name)) => ImageFormat::parse(name)
                .map_err(|_| DiskError::Format { path: path(), format: name })?,
        };
        let mut files = vec![file.as_raw_fd()];
        let layers = match format {
            ImageFormat::Raw | ImageFormat::Vmdk if !config.backing.is_empty() => {
                return Err(DiskError::BackingUnwanted(path()));
            }
            ImageFormat::Raw => {
                let no_disk = |reason| DiskError::NoDisk { path: path(), reason };
                if !config.is_temporary() {
                    let file = RawFile::new(file).map_err(no_disk)?;
                    let largest_file = file.len();
                    let image = Self::Raw { file, guessed: config.format.is_none() };
                    return Ok(Opened { image, files, largest_file });
                }
                let read = |reason| DiskError::Read { path: path(), reason };
                // Only to find out whether it can be a disk.
                RawFile::new(file.try_clone().map_err(read)?).map_err(no_disk)?;
                Layered::raw(file).map_err(read)?
            }
            ImageFormat::Qcow2 => {
                let top = open_layer(&config.path, file, config.is_written())?;
                stack(top, &config.path, &config.backing, 0, &mut files)?
            }
            ImageFormat::Vmdk => {
                let vmdk = open_vmdk(&config.path, file, config.is_written())?;
                if !config.is_temporary() {
                    let largest_file = vmdk.largest_file();
                    return Ok(Opened { image: Self::Vmdk(Box::new(vmdk)), files, largest_file });
                }
                Layered::vmdk(vmdk).map_err(|reason| DiskError::Read { path: path(), reason })?
            }
        };
        let layers = if config.is_temporary() {
            let file = temporary::file().map_err(DiskError::Temporary)?;
            files.push(file.as_raw_fd());
            layers.under(file).map_err(DiskError::Temporary)?
        } else {
            layers
        };
        let largest_file = layers.largest_file();
        Ok(Opened { image: Self::Layered(layers), files, largest_file })
    }

    /// Gives to the host what of the disk only this process knows.
    ///
    /// # Errors
    ///
    /// The host's.
    pub fn write_back(&mut self) -> io::Result<()> {
        match self {
            Self::Raw { .. } => Ok(()),
            Self::Vmdk(vmdk) => vmdk.write_back(),
            Self::Layered(layers) => layers.write_back(),
        }
    }

    fn storage(&mut self) -> &mut dyn BlockStorage {
        match self {
            Self::Raw { file, .. } => file,
            Self::Vmdk(vmdk) => vmdk.as_mut(),
            Self::Layered(layers) => layers,
        }
    }
}

fn open_layer(path: &Path, file: File, writable: bool) -> Result<Unbased, DiskError> {
    let wrong = |reason| DiskError::Qcow2 { path: path.to_owned(), reason };
    let header = Header::judge(&file, writable).map_err(wrong)?;
    Unbased::open(file, &header, writable).map_err(wrong)
}

fn open_vmdk(path: &Path, file: File, writable: bool) -> Result<Vmdk, DiskError> {
    let wrong = |reason| DiskError::Vmdk { path: path.to_owned(), reason };
    Vmdk::open(file, writable).map_err(wrong)
}

/// Puts a layer on what it says that it is based on. `named` are the files that the options name for that,
/// `depth` how many layers lie over it, and `files` gets what is opened.
fn stack(
    layer: Unbased,
    path: &Path,
    named: &[BackingConfig],
    depth: usize,
    files: &mut Vec<RawFd>,
) -> Result<Layered, DiskError> {
    let base = match (layer.backing(), named.split_first()) {
        (None, None) => None,
        (None, Some(_)) => return Err(DiskError::BackingUnwanted(path.to_owned())),
        (Some((name, _)), None) => {
            return Err(DiskError::BackingMissing { path: path.to_owned(), name, depth });
        }
        (Some((_, format)), Some((config, named))) => {
            let format = config.format.or_else(|| ImageFormat::parse(&format?).ok());
            let path = || config.path.clone();
            let unknown = || DiskError::BackingFormat { path: path(), depth };
            let format = format.ok_or_else(unknown)?;
            let file = open_file(&config.path, false)?;
            lock_file(&file, &config.path, true)?;
            files.push(file.as_raw_fd());
            let read = |reason| DiskError::Read { path: path(), reason };
            Some(match format {
                ImageFormat::Raw | ImageFormat::Vmdk if !named.is_empty() => {
                    return Err(DiskError::BackingUnwanted(path()));
                }
                ImageFormat::Raw => Layered::raw(file).map_err(read)?,
                ImageFormat::Vmdk => {
                    Layered::vmdk(open_vmdk(&config.path, file, false)?).map_err(read)?
                }
                ImageFormat::Qcow2 => {
                    let layer = open_layer(&config.path, file, false)?;
                    stack(layer, &config.path, named, depth + 1, files)?
                }
            })
        }
    };
    Ok(layer.on(base))
}

impl BlockStorage for Image {
    fn len(&self) -> u64 {
        match self {
            Self::Raw { file, .. } => file.len(),
            Self::Vmdk(vmdk) => vmdk.len(),
            Self::Layered(layers) => layers.len(),
        }
    }

    fn discard_alignment(&self) -> u32 {
        match self {
            Self::Raw { file, .. } => file.discard_alignment(),
            Self::Vmdk(vmdk) => vmdk.discard_alignment(),
            Self::Layered(layers) => layers.discard_alignment(),
        }
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.storage().read(offset, data)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        // As QEMU does. The device writes whole sectors, so that the bytes are all there.
        if let Self::Raw { guessed: true, .. } = self
            && offset < PROBED as u64
            && let Some(format) = probe_bytes(data)
        {
            let why = format!(
                "the guest writes what looks like a {format} image, and nobody said that its disk is raw"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        self.storage().write(offset, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.storage().flush()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.storage().discard(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.storage().write_zeroes(offset, len, unmap)
    }
}

//! Where a configuration may lie, and which is taken.

use super::bls;
use super::error::DiskBootError;
use super::filesystem::Kind;
use super::grub;
use super::partitions::Role;
use super::volumes::{Choice, Place, Volumes};

/// Where GRUB's configuration is on a partition that is `/`, or that is `/boot`.
const GRUB_FILES: [&str; 4] =
    ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg"];
/// Where entries are on a partition that is `/boot`, and on one that is `/`.
const ENTRIES: [(&str, &str); 2] = [
    ("/loader/entries", "/loader/loader.conf"),
    ("/boot/loader/entries", "/boot/loader/loader.conf"),
];
/// Its presence says which of two boot loaders an EFI firmware would start.
const SYSTEMD_BOOT: &str = "/EFI/systemd/systemd-bootx64.efi";
/// Vendors' folders of an EFI system partition that are looked at.
const MAX_VENDORS: usize = 64;

/// What is booted and the file that says so.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) choice: Choice,
    /// For messages.
    pub(super) by: String,
}

/// A configuration that may be there.
enum Candidate {
    Grub(Place),
    Entries { folder: Place, conf: Place },
}

/// Takes the first configuration that leads to a kernel.
pub(super) fn search(volumes: &Volumes) -> Result<Found, DiskBootError> {
    let mut reasons: Vec<String> = Vec::new();
    for candidate in candidates(volumes) {
        let (outcome, by) = match &candidate {
            Candidate::Grub(place) => {
                let choice = grub::boot(volumes, place).map_err(|error| error.to_string());
                (choice, volumes.describe(place))
            }
            Candidate::Entries { folder, conf } => {
                let entries = bls::entries(volumes, folder);
                let entry = bls::default_entry(entries, &bls::loader_conf(volumes, conf));
                let choice = entry.map(|entry| entry.choice(folder.volume, &str::to_owned));
                let by = volumes.describe(folder);
                (choice.ok_or_else(|| format!("{by} has no entry that boots Linux")), by)
            }
        };
        match outcome {
            Ok(choice) => {
                tracing::debug!(by, title = choice.title, "boot entry");
                return Ok(Found { choice, by });
            }
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() {
        return Err(DiskBootError::Nothing(inventory(volumes)));
    }
    reasons.dedup();
    Err(DiskBootError::Unusable(reasons.join("; ")))
}

/// The configurations of a disk, the one that its boot loader would read first.
fn candidates(volumes: &Volumes) -> Vec<Candidate> {
    // The boot loader's own partitions come first.
    let mut order: Vec<(Role, usize)> =
        volumes.systems().map(|(index, volume, _)| (volume.partition.role, index)).collect();
    order.sort();
    let place = |volume: usize, path: &str| Place { volume, path: path.to_owned() };
    let is_file = |place: &Place| matches!(volumes.kind(place), Ok(Kind::File(_)));

    let (mut grub, mut entries) = (Vec::new(), Vec::new());
    let mut systemd_boot = false;
    for (role, volume) in order {
        if role == Role::Esp {
            let mut vendors = volumes.list(&place(volume, "/EFI")).unwrap_or_default();
            vendors.sort();
            let file = |vendor: &String| place(volume, &format!("/EFI/{vendor}/grub.cfg"));
            grub.extend(vendors.iter().take(MAX_VENDORS).map(file).filter(is_file));
            systemd_boot |= is_file(&place(volume, SYSTEMD_BOOT));
        }
        grub.extend(GRUB_FILES.map(|path| place(volume, path)).into_iter().filter(is_file));
        for (folder, conf) in ENTRIES {
            let (folder, conf) = (place(volume, folder), place(volume, conf));
            if volumes.kind(&folder).is_ok_and(|kind| kind == Kind::Directory) {
                entries.push(Candidate::Entries { folder, conf });
            }
        }
    }
    let grub = grub.into_iter().map(Candidate::Grub);
    if systemd_boot {
        entries.into_iter().chain(grub).collect()
    } else {
        grub.chain(entries).collect()
    }
}

/// What is on the disk, for a message.
fn inventory(volumes: &Volumes) -> String {
    let describe = |(_, volume): (usize, &super::volumes::Volume)| {
        let what = match &volume.system {
            Ok(system) => system.name(),
            Err(what) => what,
        };
        format!("{} ({what})", volume.partition.device)
    };
    let found: Vec<String> = volumes.iter().map(describe).collect();
    match found.len() {
        0 => "a partition table without partitions".to_owned(),
        _ => found.join(", "),
    }
}

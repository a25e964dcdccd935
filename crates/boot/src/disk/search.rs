//! Where a configuration may lie, and which is taken.

use super::error::DiskBootError;
use super::filesystem::Kind;
use super::grub;
use super::partitions::Role;
use super::systemd_boot::Menu;
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
/// Where systemd-boot finds entries of type 2.
const UNIFIED_IMAGES: &str = "/EFI/Linux";
/// Vendors' folders of an EFI system partition that are looked at.
const MAX_VENDORS: usize = 64;

/// What is booted and the file that says so.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) choice: Choice,
    /// For messages.
    pub(super) by: String,
    /// Why configurations that come before it are of no use.
    pub(super) given_up: Vec<String>,
}

/// A configuration that may be there.
enum Candidate {
    Grub(Place),
    Entries(Menu),
}

impl Candidate {
    fn describe(&self, volumes: &Volumes) -> String {
        match self {
            Self::Grub(place) => volumes.describe(place),
            Self::Entries(menu) => menu.describe(volumes),
        }
    }

    fn boot(&self, volumes: &Volumes) -> Result<Choice, String> {
        match self {
            Self::Grub(place) => grub::boot(volumes, place).map_err(|error| error.to_string()),
            Self::Entries(menu) => menu.boot(volumes),
        }
    }
}

/// Takes the first configuration that leads to a kernel.
pub(super) fn search(volumes: &Volumes) -> Result<Found, DiskBootError> {
    let mut reasons: Vec<String> = Vec::new();
    for candidate in candidates(volumes) {
        let by = candidate.describe(volumes);
        match candidate.boot(volumes) {
            Ok(choice) => {
                tracing::debug!(by, title = choice.title, "boot entry");
                return Ok(Found { choice, by, given_up: reasons });
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
    let is_file = |place: &Place| matches!(volumes.kind(place), Ok(Kind::File(_)));

    let mut grub = Vec::new();
    let mut systemd_boot = false;
    for (role, volume) in &order {
        if *role == Role::Esp {
            let mut vendors = volumes.list(&place(*volume, "/EFI")).unwrap_or_default();
            vendors.sort();
            let file = |vendor: &String| place(*volume, &format!("/EFI/{vendor}/grub.cfg"));
            grub.extend(vendors.iter().take(MAX_VENDORS).map(file).filter(is_file));
            if is_file(&place(*volume, SYSTEMD_BOOT)) {
                systemd_boot = true;
                tell_of_unified_images(volumes, *volume);
            }
        }
        grub.extend(GRUB_FILES.map(|path| place(*volume, path)).into_iter().filter(is_file));
    }
    let entries = menus(volumes, &order).into_iter().map(Candidate::Entries);
    let grub = grub.into_iter().map(Candidate::Grub);
    if systemd_boot { entries.chain(grub).collect() } else { grub.chain(entries).collect() }
}

fn place(volume: usize, path: &str) -> Place {
    Place { volume, path: path.to_owned() }
}

/// The menus of entries: one over the boot loader's partitions, whose `loader.conf` is that of the
/// first of them, then one for each folder elsewhere.
fn menus(volumes: &Volumes, order: &[(Role, usize)]) -> Vec<Menu> {
    let (mut shared, mut others): (Option<Menu>, Vec<Menu>) = (None, Vec::new());
    let mut conf = None;
    for (role, volume) in order {
        let is_shared = *role != Role::Other;
        if is_shared && conf.is_none() {
            conf = Some(place(*volume, ENTRIES[0].1));
        }
        for (folder, own_conf) in ENTRIES {
            let folder = place(*volume, folder);
            if !volumes.kind(&folder).is_ok_and(|kind| kind == Kind::Directory) {
                continue;
            }
            let own_conf = place(*volume, own_conf);
            match (&mut shared, conf.clone().filter(|_| is_shared)) {
                (Some(menu), Some(_)) => menu.folders.push(folder),
                (None, Some(conf)) => shared = Some(Menu { folders: vec![folder], conf }),
                (_, None) => others.push(Menu { folders: vec![folder], conf: own_conf }),
            }
        }
    }
    shared.into_iter().chain(others).collect()
}

/// Kernels in one file with all that belongs to them are in the same menu, and are not read.
fn tell_of_unified_images(volumes: &Volumes, volume: usize) {
    let folder = place(volume, UNIFIED_IMAGES);
    let names = volumes.list(&folder).unwrap_or_default();
    if let Some(name) = names.iter().find(|name| name.to_lowercase().ends_with(".efi")) {
        tracing::warn!(
            "{name} of {} is a unified kernel image, which is not read",
            volumes.describe(&folder)
        );
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

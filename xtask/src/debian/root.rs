//! The root file system: debootstrap's two stages, what an administrator would do then, and ext4.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::disk::{ROOT_UUID, SIZE, root_kib, root_offset};
use super::tools::Tools;
use crate::process;

/// Runs as root, really or as fakeroot has it.
///
/// `$WORK` is an empty folder, `$PACKAGES` one for packages, `$FILES` the image's own files, `$IMAGE` the image,
/// `$FURTHER` are packages.
const INSTALL: &str = r#"
ROOT=$WORK/root
export ROOT
packages=systemd-sysv,udev,kmod,dbus,login,passwd,lz4
packages=$packages,linux-image-cloud-amd64,initramfs-tools,grub2-common${FURTHER:+,$FURTHER}
DEBOOTSTRAP_DIR=$DEBOOTSTRAP_SCRIPTS "$DEBOOTSTRAP" --foreign --variant=minbase --merged-usr \
    --cache-dir="$PACKAGES" --arch=amd64 --include=$packages "$SUITE" "$ROOT" "$MIRROR"
mkdir -p "$ROOT/etc/default"
cp -R "$FILES"/. "$ROOT/"
$ENTER "$ROOT" /debootstrap/debootstrap --second-stage

# Files that packages have written over ours.
cp -R "$FILES"/. "$ROOT/"
sed -i 's/^root:[^:]*:/root::/' "$ROOT/etc/shadow"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer systemd-pstore.service getty@tty1.service; do
    ln -sf /dev/null "$ROOT/etc/systemd/system/$unit"
done

# systemctl, which does not run here, would have enabled them.
if [ -d "$ROOT/etc/cloud" ]; then
    for unit in cloud-init.target/cloud-init-local cloud-init.target/cloud-init cloud-init.target/cloud-config \
        cloud-init.target/cloud-final multi-user.target/systemd-networkd; do
        wants=$ROOT/etc/systemd/system/${unit%/*}.wants
        mkdir -p "$wants"
        ln -sf "/lib/systemd/system/${unit#*/}.service" "$wants/"
    done
fi

# grub-probe looks at the disk under a root file system, and there is none yet.
cp "$SETTINGS/grub-probe" "$ROOT/usr/sbin/grub-probe.answers"
mv "$ROOT/usr/sbin/grub-probe" "$ROOT/usr/sbin/grub-probe.program"
mv "$ROOT/usr/sbin/grub-probe.answers" "$ROOT/usr/sbin/grub-probe"
mkdir -p "$ROOT/boot/grub"
$ENTER "$ROOT" grub-mkconfig -o /boot/grub/grub.cfg
$ENTER "$ROOT" grub-editenv /boot/grub/grubenv create
mv "$ROOT/usr/sbin/grub-probe.program" "$ROOT/usr/sbin/grub-probe"

"#;

/// Leaves of the root what a machine finds in it.
pub(super) const TIDY: &str = r#"# In a container these are links to the container's own, or hold fakes. The kernel fills them.
rm -rf "$ROOT/dev" "$ROOT/proc"
mkdir "$ROOT/dev" "$ROOT/proc"
# fakechroot writes links to absolute paths as they are outside.
find "$ROOT" -type l -lname "$ROOT/*" | while read -r link; do
    target=$(readlink "$link")
    ln -sfn "${target#"$ROOT"}" "$link"
done
rm -rf "$ROOT/debootstrap" "$ROOT"/var/cache/apt/archives/*.deb
rm -rf "$ROOT"/var/lib/apt/lists/* "$ROOT"/usr/share/doc "$ROOT"/usr/share/locale
"#;

/// Makes the file system.
const IMAGE: &str = r#"if grep -rlF "$ROOT" "$ROOT/etc" "$ROOT/boot/grub" >&2; then
    echo 'These files name the folder in which they were made' >&2
    exit 1
fi
mke2fs -q -F -t ext4 -L root -U "$ROOT_UUID" -E "offset=$OFFSET" -d "$ROOT" "$IMAGE" "$KIB"
"#;

/// All of it.
pub(super) fn recipe() -> String {
    [INSTALL, TIDY, IMAGE].concat()
}

/// fakechroot's settings while programs run in the root that is made.
const ENVIRONMENT: &str = r#"
subst=/usr/sbin/chroot=$fakechroot_bindir/chroot.fakechroot
# What debootstrap would mount and unmount are the system's own /dev, /proc and /sys.
for program in /bin/mount /bin/umount /usr/bin/mount /usr/bin/umount /usr/bin/ischroot /sbin/ldconfig /usr/bin/mkfifo /bin/systemctl; do
    subst=$subst:$program=/bin/true
done
FAKECHROOT_CMD_SUBST=$subst:/usr/bin/ldd=$SETTINGS/ldd
FAKECHROOT_EXCLUDE_PATH=/dev:/proc:/sys
FAKECHROOT_AF_UNIX_PATH=/tmp
LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/lib/systemd
export FAKECHROOT_CMD_SUBST FAKECHROOT_EXCLUDE_PATH FAKECHROOT_AF_UNIX_PATH LD_LIBRARY_PATH
"#;

/// ldd of the root that is made: the loader's own answer, as seen from inside. fakechroot runs it
/// outside.
const LDD: &str = r#"#!/bin/sh
for file; do :; done
case $file in /*) ;; *) file=$PWD/$file ;; esac
base=$FAKECHROOT_BASE_ORIG
case $file in "$base"/*) ;; *) file=$base$file ;; esac
library=$base/lib/x86_64-linux-gnu:$base/usr/lib/x86_64-linux-gnu
library=$library:$base/lib/systemd:$base/lib/x86_64-linux-gnu/systemd
"$base/lib64/ld-linux-x86-64.so.2" --inhibit-cache --library-path "$library" --list "$file" |
    sed -e /libfake/d -e "s|$base||g"
"#;

/// grub-probe's answers on the disk that is made.
const GRUB_PROBE: &str = r#"#!/bin/sh
target=fs
while [ $# -gt 0 ]; do
    case $1 in
    --target=*) target=${1#--target=} ;;
    -t) target=$2 ;;
    esac
    shift
done
case $target in
device) echo /dev/vda1 ;;
fs_uuid) echo ROOT_UUID ;;
fs) echo ext2 ;;
partmap) echo gpt ;;
drive) echo '(hd0,gpt1)' ;;
compatibility_hint) echo hd0,gpt1 ;;
esac
"#;

/// Makes the root file system in `folder`, and from it, with the files, that of the image. It has `further`
/// packages, with commas between them.
///
/// # Errors
/// debootstrap's own.
pub(super) fn make(
    tools: &Tools,
    folder: &Path,
    files: &Path,
    image: &Path,
    further: &str,
) -> Result<()> {
    let (work, settings) = (folder.join("work"), folder.join("settings"));
    // Kept, so that nothing is fetched twice.
    let packages = folder.join("packages");
    let _ = fs::remove_dir_all(&work);
    for directory in [&work, &settings, &packages] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    write_settings(&settings)?;
    let recipe = recipe();
    let mut shell = tools.shell(&recipe, &settings);
    shell.env("PACKAGES", &packages);
    shell.env("WORK", &work).env("FILES", files).env("IMAGE", image).env("SETTINGS", &settings);
    shell
        .env("FURTHER", further)
        .env("ROOT_UUID", ROOT_UUID)
        .env("OFFSET", root_offset().to_string());
    shell.env("KIB", root_kib(SIZE).to_string());
    process::capture(&mut shell).with_context(|| {
        let log = work.join("root/debootstrap/debootstrap.log");
        format!(
            "cannot make a Debian 12, for which the system's package sources must be in reach; \
             debootstrap's log is {}",
            log.display()
        )
    })?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// Writes the files that programs in the root that is made are entered with.
///
/// # Errors
/// They cannot be written.
pub(super) fn write_settings(folder: &Path) -> Result<()> {
    let probe = GRUB_PROBE.replace("ROOT_UUID", ROOT_UUID);
    for (name, contents) in [("root.env", ENVIRONMENT), ("ldd", LDD), ("grub-probe", &probe)] {
        let path = folder.join(name);
        fs::write(&path, contents)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

//! The fuzz targets for the machine monitor, with bytes from a fixed seed.

mod targets;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Runs `target` with `times` byte strings.
fn run(target: fn(&[u8]), times: usize) {
    target(&[]);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..times {
        let mut bytes = vec![0; random.next_u32() as usize % 300];
        random.fill_bytes(&mut bytes);
        // Also what the first byte of a target's input chooses.
        if let Some(first) = bytes.first_mut() {
            *first %= 9;
        }
        target(&bytes);
    }
}

/// Runs `target` with parts of a text and with changes in it.
fn run_text(target: fn(&[u8]), text: &[u8]) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for end in (0..=text.len()).step_by(9) {
        target(&text[..end]);
        let mut changed = text.to_vec();
        for _ in 0..3 {
            let at = random.next_u32() as usize % changed.len();
            changed[at] = random.next_u32() as u8;
        }
        target(&changed);
    }
}

#[test]
fn damaged_disks_end_with_a_kernel_or_an_error() {
    run(targets::disk, 300);
}

#[test]
fn grub_scripts_end_with_a_kernel_or_an_error() {
    run(targets::grub, 300);
    run_text(targets::grub, include_bytes!("../../../../fuzz/seeds/grub/distribution"));
}

#[test]
fn boot_entries_end_with_a_kernel_or_an_error() {
    run(targets::boot_entries, 300);
    run_text(targets::boot_entries, include_bytes!("../../../../fuzz/seeds/boot_entries/two"));
}

#[test]
fn kernels_are_loaded_within_ram_or_refused() {
    run(targets::kernel, 1000);
}

#[test]
fn virtio_queues_never_panic_and_leave_a_read_only_disk_alone() {
    run(targets::virtio, 300);
}

#[test]
fn damaged_images_fail_and_never_panic() {
    run(targets::qcow2, 20_000);
    run(targets::vmdk, 3000);
}

#[test]
fn lines_of_qemu_are_read_or_refused_in_one_line() {
    run(targets::qemu_line, 1000);
    run_text(targets::qemu_line, include_bytes!("../../../../fuzz/seeds/qemu_line/sgx"));
}

use super::*;
use crate::config::BackingConfig;

#[test]
fn an_image_of_another_format_is_found_out_unless_it_is_called_raw() {
    let path = std::env::temp_dir().join(format!("cloister-vhdx-{}", std::process::id()));
    std::fs::write(&path, b"vhdxfile").unwrap();
    let drive = format!("-drive file={},if=virtio", path.display());

    let error = read(&drive).unwrap_err().to_string();
    let named = read(&format!("{drive},format=raw"));
    std::fs::remove_file(&path).unwrap();

    assert_eq!(
        error,
        format!(
            "-drive: {}: QEMU reads vhdx and Cloister raw, qcow2 and vmdk only: \
             convert it with qemu-img convert -f vhdx -O qcow2",
            path.display()
        )
    );
    assert!(named.is_ok());
}

#[test]
fn a_drive_has_a_format_a_snapshot_and_what_it_is_based_on() {
    let backing = |path: &str, format| BackingConfig { path: path.into(), format };
    let Ok(Request::Run(invocation)) = read_alone(
        "-drive file=a,if=virtio,format=qcow2,snapshot=on,discard=unmap,backing.driver=vmdk,\
         backing.file.filename=b,backing.backing.file.filename=c,,d",
    ) else {
        panic!()
    };

    assert_eq!(
        invocation.machine.disks,
        [DiskConfig {
            format: Some(ImageFormat::Qcow2),
            snapshot: true,
            backing: vec![backing("b", Some(ImageFormat::Vmdk)), backing("c,d", None)],
            ..DiskConfig::new("a")
        }]
    );
}

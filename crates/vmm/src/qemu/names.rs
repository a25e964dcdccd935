//! The names of QEMU's options: those of version 7.2, with what later and earlier versions have.

/// Options of QEMU, without their dashes, in the order of the alphabet.
const OPTIONS: &str = "
    accel acpitable action add-fd alt-grab append async-teardown audio audio-help audiodev
    balloon bios blockdev boot bootp bt cdrom channel chardev chroot clock compat cpu ctrl-grab
    curses D d daemonize debugcon device dfilter display drive dtb dump-vmstate echr enable-fips
    enable-hax enable-kvm enable-sync-profile fda fdb fsdev full-screen fw_cfg g gdb global h hda
    hdachs hdb hdc hdd help icount incoming initrd iscsi k kernel L loadvm localtime M m machine
    mem-path mem-prealloc mon monitor msg mtdblock name net netdev nic no-acpi no-fd-bootchk
    no-frame no-hpet no-kvm no-kvm-irqchip no-kvm-pit no-kvm-pit-reinjection no-quit no-reboot
    no-shutdown no-user-config nodefaults nodefconfig nographic numa object old-param
    only-migratable option-rom overcommit parallel pflash pidfile plugin portrait preconfig
    prom-env qmp qmp-pretty qtest qtest-log readconfig realtime redir rotate rtc rtc-td-hack
    run-with runas S s sandbox sd sdl seed semihosting semihosting-config serial set shim
    show-cursor singlestep smb smbios smp snapshot soundhw spice startdate tb-size tdf tftp
    tpmdev trace usb usbdevice uuid version vga virtfs virtfs_synth virtioconsole vnc watchdog
    watchdog-action win2k-hack writeconfig xen-attach xen-create xen-domid xen-domid-restrict
";

/// Object types of QEMU's `-object`.
const OBJECTS: &str = "
    acpi-generic-initiator acpi-generic-port arm-rme-guest authz-list authz-list-file authz-pam
    authz-simple can-bus can-host-socketcan colo-compare cryptodev-backend
    cryptodev-backend-builtin cryptodev-backend-lkcf cryptodev-vhost-user dbus-vmstate
    filter-buffer filter-dump filter-mirror filter-redirector filter-replay filter-rewriter
    igvm-cfg input-barrier input-linux iommufd iothread main-loop memory-backend-file
    memory-backend-memfd memory-backend-shm pef-guest pr-manager-helper qtest rng-builtin rng-egd
    rng-random s390-pv-guest secret secret_keyring sev-guest sev-snp-guest tdx-guest
    thread-context throttle-group tls-cipher-suites tls-creds-anon tls-creds-psk tls-creds-x509
    x-remote-object x-vfio-user-server
";

/// Whether QEMU has, or had, an option of this name.
pub(crate) fn is_option(name: &str) -> bool {
    OPTIONS.split_whitespace().any(|known| known == name)
}

/// Whether QEMU has an object of this type.
pub(super) fn is_object(name: &str) -> bool {
    OBJECTS.split_whitespace().any(|known| known == name)
}

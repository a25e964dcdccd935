mod debugger;
mod drive;

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::accel::Choice;
use crate::config::{BootConfig, DiskConfig, EpcConfig, MachineConfig};
use crate::cpu_flags::CpuConfig;
use crate::disk::ImageFormat;
use crate::nodes::NodeConfig;
use crate::qmp::Listen;

const MIB: u64 = 1 << 20;

/// Reads a line with a kernel in front; words are parted by single spaces.
fn read(line: &str) -> Result<Invocation, QemuError> {
    match read_alone(&format!("-kernel k {line}"))? {
        Request::Run(invocation) => Ok(*invocation),
        other => panic!("{other:?}"),
    }
}

fn read_alone(line: &str) -> Result<Request, QemuError> {
    parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from))
}

fn kernel(initrd: Option<&str>, cmdline: &str) -> BootConfig {
    BootConfig::Kernel {
        kernel: "k".into(),
        initrd: initrd.map(PathBuf::from),
        cmdline: cmdline.into(),
    }
}

fn plain() -> MachineConfig {
    MachineConfig {
        name: None,
        boot: kernel(None, ""),
        ram: 128 * MIB,
        cpus: 1,
        nodes: vec![],
        disks: vec![],
        epc: vec![],
        epc_quota: None,
        epc_reserve: None,
        cpu: CpuConfig::default(),
        launch_key: None,
        platform: None,
        no_reboot: false,
        accelerator: Choice::Soft,
        translate: crate::config::Translate::On,
    }
}

fn section(id: &str, size: u64, prealloc: bool, node: u32) -> EpcConfig {
    EpcConfig { id: id.into(), size, prealloc, node, host_node: 0 }
}

#[test]
fn the_line_of_the_2021_series_is_a_machine() {
    let found = read_alone(
        "-smp 4 -m 2G -drive file=IMG,if=virtio -cpu host,+sgx_provisionkey \
         -sgx-epc id=epc1,memdev=mem1 -object memory-backend-epc,id=mem1,size=64M,prealloc",
    );

    assert_eq!(
        found,
        Ok(Request::Run(Box::new(Invocation {
            machine: MachineConfig {
                boot: BootConfig::Disk,
                ram: 2 << 30,
                cpus: 4,
                disks: vec![DiskConfig::new("IMG")],
                epc: vec![section("epc1", 64 * MIB, true, 0)],
                cpu: CpuConfig::parse("host,+sgx-provisionkey").unwrap(),
                ..plain()
            },
            serial: Chardev::Stdio,
            monitors: vec![],
            gdb: None,
            stopped: false,
            shares: vec![],
            vsock: None,
            networks: vec![],
            sandbox: true,
            process_name: None,
            pidfile: None,
            daemonize: false,
        })))
    );
}

#[test]
fn a_line_of_upstream_qemu_is_a_machine() {
    let found = read(
        "-nodefaults --no-user-config -M q35,accel=kvm:tcg -cpu host,sgx2=off -smp 4,cores=4 \
         -m size=1536 -object memory-backend-ram,id=m0,size=512M \
         -object memory-backend-ram,id=m1,size=1G -numa node,nodeid=1,cpus=2-3,memdev=m1 \
         -numa node,nodeid=0,cpus=0,cpus=1,memdev=m0 \
         -object memory-backend-epc,id=e0,size=64M,host-nodes=3,policy=bind \
         -object memory-backend-epc,id=e1,size=32M,prealloc=on \
         -M sgx-epc.0.memdev=e0,sgx-epc.0.node=1,sgx-epc.1.memdev=e1,sgx-epc.1.node=0 \
         -initrd i -append console=ttyS0,,x -display none -monitor none -vga none -nic none \
         -serial unix:/s,,1,server,nowait -qmp unix:/q,server=on -no-reboot -pidfile p \
         -name one,,two,process=three,debug-threads=on -drive if=virtio,file=a,,b,readonly=on,format=raw \
         -daemonize -sandbox off -sgx-platform dir",
    );
    assert_eq!(
        found,
        Ok(Invocation {
            machine: MachineConfig {
                name: Some("one,two".into()),
                // No list, so that commas are not doubled.
                boot: kernel(Some("i"), "console=ttyS0,,x"),
                ram: 1536 * MIB,
                cpus: 4,
                nodes: vec![
                    NodeConfig { cpus: vec![0, 1], ram: 512 * MIB },
                    NodeConfig { cpus: vec![2, 3], ram: 1024 * MIB },
                ],
                disks: vec![DiskConfig {
                    readonly: true,
                    format: Some(ImageFormat::Raw),
                    ..DiskConfig::new("a,b")
                }],
                epc: vec![
                    EpcConfig { host_node: 3, ..section("e0", 64 * MIB, false, 1) },
                    section("e1", 32 * MIB, true, 0),
                ],
                cpu: CpuConfig::parse("host,-sgx2").unwrap(),
                platform: Some("dir".into()),
                no_reboot: true,
                accelerator: Choice::Auto,
                translate: crate::config::Translate::On,
                ..plain()
            },
            serial: Chardev::Unix(Listen { path: "/s,1".into(), wait: false }),
            monitors: vec![Listen { path: "/q".into(), wait: true }],
            gdb: None,
            stopped: false,
            shares: vec![],
            vsock: None,
            networks: vec![],
            sandbox: false,
            process_name: Some("three".into()),
            pidfile: Some("p".into()),
            daemonize: true,
        })
    );
}

#[test]
fn sizes_without_a_suffix_are_mebibytes_for_ram_and_bytes_for_objects() {
    for (line, ram, epc) in [
        ("-m 256", 256 * MIB, None),
        ("-m 256M", 256 * MIB, None),
        ("-m 1G", 1024 * MIB, None),
        ("-m 256 -numa node,mem=256", 256 * MIB, None),
        (
            "-object memory-backend-epc,id=a,size=1048576 -sgx-epc id=e,memdev=a",
            128 * MIB,
            Some(MIB),
        ),
    ] {
        let machine = read(line).unwrap().machine;
        let size = machine.epc.first().map(|section| section.size);
        assert_eq!((machine.ram, size), (ram, epc), "{line}");
    }
}

#[test]
fn processors_without_a_place_are_on_node_0() {
    for (line, nodes) in [
        ("-numa node,mem=64M -numa node,mem=64M", vec![vec![0, 1, 2], vec![]]),
        (
            "-numa node,mem=64M -numa node,mem=64M -numa cpu,node-id=0,socket-id=0,core-id=1 \
             -numa cpu,node-id=1,core-id=2 -numa cpu,node-id=1,core-id=0,thread-id=0",
            vec![vec![1], vec![2, 0]],
        ),
        ("-numa node,mem=128M -numa node -numa cpu,node-id=1", vec![vec![], vec![0, 1, 2]]),
    ] {
        let machine = read(&format!("-smp 3 {line}")).unwrap().machine;
        let found: Vec<_> = machine.nodes.into_iter().map(|node| node.cpus).collect();
        assert_eq!(found, nodes, "{line}");
    }
}

#[test]
fn the_console_is_where_it_is_put() {
    let socket = |wait| Chardev::Unix(Listen { path: "/s".into(), wait });
    for (line, serial) in [
        ("", Chardev::Stdio),
        ("-nographic", Chardev::Stdio),
        ("-display none", Chardev::Stdio),
        ("-serial stdio", Chardev::Stdio),
        ("-serial mon:stdio", Chardev::Stdio),
        ("-nographic -serial none", Chardev::Null),
        ("-serial null", Chardev::Null),
        ("-nodefaults -nographic", Chardev::Null),
        ("-nodefaults -serial stdio", Chardev::Stdio),
        ("-daemonize", Chardev::Null),
        ("-daemonize -serial file:a,b", Chardev::File("a,b".into())),
        ("-serial unix:/s,server=on", socket(true)),
        ("-serial unix:/s,server=on,wait=off", socket(false)),
        ("-serial unix:/s,server,nowait", socket(false)),
        ("-serial unix:path=/s,server=yes,wait=no", socket(false)),
    ] {
        assert_eq!(read(line).map(|invocation| invocation.serial), Ok(serial), "{line}");
    }
}

#[test]
fn what_says_what_is_so_is_taken() {
    for line in [
        "-M microvm,pit=off,pic=off,rtc=on,isa-serial=on",
        "-machine type=pc,usb=off,vmport=off,smm=off,hpet=off,graphics=off,acpi=on",
        "-machine q35 -machine accel=tcg",
        "-accel kvm -accel tcg,thread=multi",
        "-enable-kvm -accel tcg",
        "-smp cpus=2,sockets=1,dies=1,cores=2,threads=1,maxcpus=2",
        "-smp cores=3",
        "-cpu max,+sgx2",
        "-drive file=a,if=virtio,media=disk,cache=writeback,snapshot=off,id=disk0",
        "-net none -parallel none -monitor null",
        "-m 512M -object memory-backend-ram,id=r,size=512M,share=off -M memory-backend=r",
        "-name a",
        "-name guest=a -name process=b",
        "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-qmp unix:/q,server=on -qmp unix:/r,server,nowait",
    ] {
        // Not all of them have EPC, which +sgx2 is for.
        let epc = " -object memory-backend-epc,id=x,size=4K,share=on -sgx-epc id=x,memdev=x";
        assert!(
            read(&(line.to_owned() + epc)).is_ok(),
            "{line}: {:?}",
            read(&(line.to_owned() + epc))
        );
    }
}

#[test]
fn help_and_version_are_asked_for_in_qemus_words() {
    for (line, request) in [
        ("-help", Request::Help),
        ("--help", Request::Help),
        ("-m 1G -h", Request::Help),
        ("-version", Request::Version),
    ] {
        assert_eq!(read_alone(line), Ok(request), "{line}");
    }
    for known in OPTIONS {
        assert!(help().contains(&format!("  -{} ", known.name)), "{}", known.name);
    }
}

#[test]
fn options_are_qemus_or_of_sgx() {
    for known in OPTIONS {
        assert!(
            is_option(known.name) || known.name.starts_with("sgx-"),
            "-{} is not an option of QEMU",
            known.name
        );
    }
}

/// A RAM and an EPC object that a case may use.
const RAM: &str = "-object memory-backend-ram,id=r,size=128M";
const EPC: &str = "-object memory-backend-epc,id=m,size=64M";

/// Lines and what is said to them. `RAM` and `EPC` stand for the objects above.
const MISTAKES: &[(&str, &str)] = &[
    // Options.
    ("-vnc :0", "-vnc: QEMU has this option and Cloister does not: leave it out"),
    (
        "--device virtio-rng-pci",
        r#"-device: Cloister adds no "virtio-rng-pci": write virtio-net-device, or leave it out: -device help lists what there is"#,
    ),
    ("-run-with x", "-run-with: QEMU has this option and Cloister does not: leave it out"),
    ("-frobnicate", "-frobnicate: no such option: see cloister qemu -help"),
    ("--frobnicate", "--frobnicate: no such option: see cloister qemu -help"),
    ("-append=x", "-append=x: no such option: see cloister qemu -help"),
    ("-", "-: no such option: see cloister qemu -help"),
    (
        "disk.img",
        "disk.img: QEMU takes this for an IDE disk: write -drive file=FILE,if=virtio,format=raw",
    ),
    ("-m", "-m: it needs an argument: write one after it"),
    ("-kernel l", "-kernel: it is given twice: leave one out"),
    ("-m 1G -m 2G", "-m: it is given twice: leave one out"),
    ("-cpu host -cpu host", "-cpu: it is given twice: leave one out"),
    ("-smp 1 -smp 1", "-smp: it is given twice: leave one out"),
    // -machine, -accel, -enable-kvm.
    (
        "-M isapc",
        r#"-machine: "isapc" is not a machine type: write q35, pc or microvm, which all mean the machine of Cloister"#,
    ),
    ("-M q35,type=pc", "-machine: the key type is given twice: leave one out"),
    ("-M q35 -M pc", "-machine: the key type is given twice: leave one out"),
    ("-M q35,usb=on", "-machine: Cloister does not do usb=on: write usb=off or leave it out"),
    ("-M q35,usb=2", r#"-machine: usb is on or off, not "2""#),
    ("-M q35,nvdimm=on", "-machine: QEMU has the key nvdimm and Cloister does not: leave it out"),
    (
        "-M q35,smp.cpus=2",
        "-machine: QEMU has the key smp.cpus and Cloister does not: leave it out",
    ),
    (
        "-M q35,colour=red",
        "-machine: there is no key colour: the keys are type, accel, memory-backend, \
         sgx-epc.N.memdev, sgx-epc.N.node",
    ),
    ("-M q35,accel", "-machine: the key accel has no value: write accel=VALUE"),
    (
        "-M q35,sgx-epc.\u{1}",
        "-machine: the key sgx-epc.\\u{1} has no value: write sgx-epc.\\u{1}=VALUE",
    ),
    ("-M q35,accel=xen", "-machine: Cloister has no xen: write kvm or tcg, or leave it out"),
    (
        "-M q35,accel=warp",
        r#"-machine: "warp" is not an accelerator: write kvm or tcg, or leave it out"#,
    ),
    ("-accel warp", r#"-accel: "warp" is not an accelerator: write kvm or tcg, or leave it out"#),
    (
        "-accel hvf:xen",
        "-accel: \"hvf:xen\" is not an accelerator: write kvm or tcg, or leave it out",
    ),
    ("-accel thread=multi", "-accel: the key accel is missing: write -accel kvm"),
    (
        "-accel tcg,thread=single",
        "-accel: Cloister does not do thread=single: write thread=multi or leave it out",
    ),
    (
        "-accel tcg,tb-size=64",
        "-accel: QEMU has the key tb-size and Cloister does not: leave it out",
    ),
    ("-accel tcg,warp=9", "-accel: there is no key warp: the keys are accel, thread"),
    // -cpu, -smp.
    (
        "-cpu qemu64",
        r#"-cpu: "qemu64" is not a CPU model of Cloister: write host or max, then flags such as -sgx2"#,
    ),
    ("-cpu host,+sgx3", "-cpu: there is no flag sgx3: did you mean sgx or sgx1 or sgx2?"),
    ("-cpu host,sgx2=maybe", r#"-cpu: sgx2 is on or off, not "maybe""#),
    (
        "-cpu host,sgx2=on,sgx1=off",
        "-cpu: sgx2 needs sgx1, which -sgx1 takes away: leave out one of +sgx2 and -sgx1",
    ),
    (
        "-cpu host,+sgx2",
        "-cpu: +sgx2 is for guests with SGX, which EPC makes: \
         add -object memory-backend-epc, or leave it out",
    ),
    ("-smp 0", r#"-smp: "0" is not a number of processors: write 1 to 64"#),
    ("-smp 65", r#"-smp: "65" is not a number of processors: write 1 to 64"#),
    ("-smp many", r#"-smp: "many" is not a number of processors: write 1 to 64"#),
    ("-smp 2,cores=x", r#"-smp: cores: "x" is not a number of processors: write 1 to 64"#),
    (
        "-smp 4,sockets=2",
        "-smp: sockets=2: the processors of Cloister are cores of one socket: \
         write sockets=1 or leave it out",
    ),
    ("-smp 4,cores=2", "-smp: cores=2 and 4 processors: write cores=4 or leave it out"),
    ("-smp 4,maxcpus=8", "-smp: maxcpus=8 and 4 processors: write maxcpus=4 or leave it out"),
    (
        "-smp 4,hearts=2",
        "-smp: there is no key hearts: the keys are cpus, maxcpus, cores, sockets, dies, clusters, threads",
    ),
    // -m, -object.
    ("-m 64X", r#"-m: size: "64X" is not a size: write a number and K, M, G or T, such as 64M"#),
    ("-m 0", "-m: size: 0M is no memory at all: write a size of at least 2M"),
    ("-m 1", "-m: 1M of RAM is too little to boot from: write at least 2M"),
    (
        "-m 64T",
        "-m: 64T of RAM does not fit in the 46-bit physical address space of the guest: \
         write less than 64T",
    ),
    ("-m 1G,maxmem=2G", "-m: QEMU has the key maxmem and Cloister does not: leave it out"),
    ("-m 1G,speed=2", "-m: there is no key speed: the keys are size"),
    (
        "-object memory-backend-file,id=a,size=1G,mem-path=/x",
        "-object: QEMU has memory-backend-file and Cloister does not: \
         write memory-backend-ram or memory-backend-epc, or leave it out",
    ),
    (
        "-object memory-backend-cheese,id=a",
        r#"-object: there is no object type "memory-backend-cheese": write memory-backend-ram or memory-backend-epc"#,
    ),
    (
        "-object id=a,size=64M",
        "-object: the key qom-type is missing: write -object memory-backend-epc,id=mem1,size=64M",
    ),
    (
        "-object memory-backend-epc,size=64M",
        "-object: the key id is missing: write -object memory-backend-epc,id=mem1,size=64M",
    ),
    (
        "-object memory-backend-epc,id=m",
        "-object: the key size is missing: write -object memory-backend-epc,id=mem1,size=64M",
    ),
    (
        "-object memory-backend-ram,id=m",
        "-object: the key size is missing: write -object memory-backend-ram,id=ram0,size=512M",
    ),
    (
        "-object memory-backend-epc,id=9,size=64M",
        r#"-object: "9" is not an id: write a letter, then letters, digits, -, _ or ."#,
    ),
    (
        "-object memory-backend-epc,id=m,size=64X",
        r#"-object: size: "64X" is not a size: write a number and K, M, G or T, such as 64M"#,
    ),
    (
        "-object memory-backend-epc,id=m,size=64",
        "-object: size: 64 is not a multiple of 4 KiB: the next size that is one is 4096 bytes",
    ),
    (
        "-object memory-backend-epc,id=m,size=64M,prealloc=maybe",
        r#"-object: prealloc is on or off, not "maybe""#,
    ),
    (
        "-object memory-backend-epc,id=m,size=64M,reserve=on",
        "-object: QEMU has the key reserve and Cloister does not: leave it out",
    ),
    (
        "-object memory-backend-epc,id=m,size=64M,colour=red",
        "-object: there is no key colour: \
         the keys are qom-type, id, size, prealloc, host-nodes, policy",
    ),
    (
        "-object memory-backend-epc,id=m,size=64M,share=off",
        "-object: Cloister does not do share=off: write share=on or leave it out",
    ),
    (
        "-object memory-backend-ram,id=r,size=64M,prealloc=on",
        "-object: Cloister does not do prealloc=on: write prealloc=off or leave it out",
    ),
    (
        "-object memory-backend-ram,id=r,size=64M,policy=bind",
        "-object: QEMU has the key policy and Cloister does not: leave it out",
    ),
    (
        "-object memory-backend-epc,id=m,size=64M,host-nodes=128,policy=bind",
        r#"-object: host-nodes: "128" is not a node: write 0 to 127"#,
    ),
    (
        "-object memory-backend-epc,id=m,size=64M,host-nodes=0-3,policy=bind",
        "-object: host-nodes: a section is on one node of the platform: name one",
    ),
    (
        "-object memory-backend-epc,id=m,size=64M,host-nodes=near,policy=bind",
        r#"-object: host-nodes: "near" is not a node: write 0 to 127"#,
    ),
    (
        "-object memory-backend-epc,id=m,size=64M,host-nodes=0",
        "-object: host-nodes is given and policy is default: add policy=bind",
    ),
    (
        "-object memory-backend-epc,id=m,size=64M,policy=bind",
        "-object: policy is bind and host-nodes is missing: add host-nodes=0",
    ),
    (
        "-object memory-backend-epc,id=m,size=64M,policy=tight",
        r#"-object: policy: "tight" is not a policy: write default, bind, preferred or interleave"#,
    ),
    ("EPC EPC", "-object: the id m is given to two objects: give each its own"),
    ("EPC", "-object: nothing uses m: add -M sgx-epc.0.memdev=m,sgx-epc.0.node=0, or leave it out"),
    (
        "RAM",
        "-object: nothing uses r: add -numa node,memdev=r or -machine memory-backend=r, or leave it out",
    ),
    (
        "RAM -M memory-backend=s",
        r#"-machine: memory-backend names "s", and there is no such object: add -object memory-backend-ram,id=s,size=SIZE"#,
    ),
    (
        "EPC -M memory-backend=m",
        "-machine: memory-backend names m, which is a memory-backend-epc: name a memory-backend-ram",
    ),
    (
        "RAM -m 1G -M memory-backend=r",
        "-machine: memory-backend: r is not of the size of -m: make them equal",
    ),
    (
        "RAM -M memory-backend=r -numa node,mem=128M",
        "-machine: memory-backend is given and -numa says where the RAM is: leave one of them out",
    ),
    // -sgx-epc, -machine sgx-epc.
    ("-sgx-epc memdev=m", "-sgx-epc: the key id is missing: write -sgx-epc id=epc1,memdev=mem1"),
    ("-sgx-epc id=e", "-sgx-epc: the key memdev is missing: write -sgx-epc id=epc1,memdev=mem1"),
    (
        "-sgx-epc id=1,memdev=m",
        r#"-sgx-epc: "1" is not an id: write a letter, then letters, digits, -, _ or ."#,
    ),
    ("-sgx-epc id=e,memdev=m,node=1", "-sgx-epc: there is no key node: the keys are id, memdev"),
    (
        "-sgx-epc id=e,memdev=m",
        r#"-sgx-epc: memdev names "m", and there is no such object: add -object memory-backend-epc,id=m,size=SIZE"#,
    ),
    (
        "RAM -sgx-epc id=e,memdev=r",
        "-sgx-epc: memdev names r, which is a memory-backend-ram: name a memory-backend-epc",
    ),
    (
        "EPC -sgx-epc id=e,memdev=m -sgx-epc id=f,memdev=m",
        "-sgx-epc: memdev names m, which is in use already: give each use an object of its own",
    ),
    (
        "EPC -sgx-epc id=e,memdev=m -sgx-epc id=e,memdev=n",
        "-sgx-epc: the id e is given to two sections: give each its own",
    ),
    (
        "EPC -sgx-epc id=e,memdev=m -M sgx-epc.0.memdev=m",
        "-sgx-epc: sections are made by -machine sgx-epc.0 too: use one of the two",
    ),
    (
        "-M sgx-epc.0.memdev=m,sgx-epc.0.node=0",
        r#"-machine: sgx-epc.0.memdev names "m", and there is no such object: add -object memory-backend-epc,id=m,size=SIZE"#,
    ),
    (
        "EPC -M sgx-epc.0.memdev=m,sgx-epc.1.memdev=m",
        "-machine: sgx-epc.1.memdev names m, which is in use already: \
         give each use an object of its own",
    ),
    (
        "EPC -M sgx-epc.0.node=0",
        "-machine: the key sgx-epc.0.memdev is missing: \
         write sgx-epc.0.memdev=mem1,sgx-epc.0.node=0",
    ),
    (
        "EPC -M sgx-epc.1.memdev=m",
        "-machine: sgx-epc.0 is missing and sgx-epc.1 is there: number the sections from 0 without gaps",
    ),
    (
        "EPC -M sgx-epc.0.memdev=m,sgx-epc.0.memdev=m",
        "-machine: the key sgx-epc.0.memdev is given twice: leave one out",
    ),
    (
        "EPC -M sgx-epc.0.memdev=m,sgx-epc.0.node=1",
        r#"-machine: sgx-epc.0.node: there is no node "1": write 0"#,
    ),
    (
        "EPC -numa node,mem=64M -numa node,mem=64M -M sgx-epc.0.memdev=m,sgx-epc.0.node=2",
        r#"-machine: sgx-epc.0.node: there is no node "2": write 0 to 1"#,
    ),
    (
        "-M sgx-epc.0.colour=red",
        "-machine: there is no key sgx-epc.0.colour: \
         the keys are type, accel, memory-backend, sgx-epc.N.memdev, sgx-epc.N.node",
    ),
    (
        "-M sgx-epc.x.memdev=m",
        "-machine: there is no key sgx-epc.x.memdev: \
         the keys are type, accel, memory-backend, sgx-epc.N.memdev, sgx-epc.N.node",
    ),
    (
        "-cpu host,-sgx EPC -sgx-epc id=e,memdev=m",
        "-cpu: -sgx takes SGX away and -object memory-backend-epc gives it EPC: \
         leave one of them out",
    ),
    (
        "-object memory-backend-epc,id=m,size=64T -sgx-epc id=e,memdev=m",
        "-object memory-backend-epc: an EPC section of 64T does not fit above 0x100000000 in the \
         46-bit physical address space of the guest: give it or the RAM a smaller size",
    ),
    // -numa.
    (
        "-numa node",
        "-numa: the nodes have 0 of memory together and the machine has 128M: make them equal",
    ),
    (
        "-numa node,mem=64M",
        "-numa: the nodes have 64M of memory together and the machine has 128M: make them equal",
    ),
    (
        "RAM -numa node,memdev=r -numa node,memdev=r",
        "-numa: memdev names r, which is in use already: give each use an object of its own",
    ),
    ("RAM -numa node,memdev=r,mem=128M", "-numa: node 0 has mem and memdev: leave one out"),
    (
        "EPC -numa node,memdev=m",
        "-numa: memdev names m, which is a memory-backend-epc: name a memory-backend-ram",
    ),
    (
        "-numa node,mem=64X",
        r#"-numa: mem: "64X" is not a size: write a number and K, M, G or T, such as 64M"#,
    ),
    ("-numa node,nodeid=128", r#"-numa: "128" is not a node number: write 0 to 127"#),
    (
        "-numa node,nodeid=0 -numa node,nodeid=0",
        "-numa: node 0 is given twice: give each a nodeid of its own",
    ),
    (
        "-numa node,nodeid=0 -numa node,nodeid=2",
        "-numa: node 1 is missing and node 2 is there: number the nodes from 0 without gaps",
    ),
    (
        "-numa node,cpus=first",
        r#"-numa: cpus: "first" is not a processor or a range of processors: write one such as 2 or 0-3"#,
    ),
    (
        "-numa node,cpus=3-1",
        r#"-numa: cpus: "3-1" is not a processor or a range of processors: write one such as 2 or 0-3"#,
    ),
    (
        "-smp 2 -numa node,cpus=0-4294967295,mem=128M",
        "-numa: node 0 has processor 2 and the machine has 0 to 1: leave it out",
    ),
    (
        "-smp 2 -numa node,cpus=0-1,mem=64M -numa node,cpus=1,mem=64M",
        "-numa: processor 1 is in node 0 and in node 1: leave it out of one",
    ),
    (
        "-smp 3 -numa node,cpus=0,mem=64M -numa node,cpus=2,mem=64M",
        "-numa: processor 1 is in no node: add it to the cpus= of one",
    ),
    (
        "-numa node,mem=128M -numa node",
        "-numa: node 1 has neither processors nor memory: give it some, or leave it out",
    ),
    (
        "-numa node,initiator=0",
        "-numa: QEMU has the key initiator and Cloister does not: leave it out",
    ),
    (
        "-numa node,colour=red",
        "-numa: there is no key colour: the keys are type, nodeid, cpus, memdev, mem",
    ),
    ("-numa dist,src=0,dst=1,val=20", "-numa: QEMU has dist and Cloister does not: leave it out"),
    ("-numa cheese", r#"-numa: there is no "cheese": write node or cpu"#),
    (
        "-numa mem=128M",
        "-numa: the key type is missing: write -numa node,nodeid=0,cpus=0-1,memdev=ram0",
    ),
    (
        "-numa cpu,core-id=0",
        "-numa: the key node-id is missing: write -numa cpu,node-id=0,core-id=0",
    ),
    ("-numa cpu,node-id=0", "-numa: cpu: there is no node 0: add -numa node,nodeid=0"),
    (
        "-numa node,mem=128M -numa cpu,node-id=1",
        "-numa: cpu: there is no node 1: write node-id=0 to 0",
    ),
    (
        "-numa node,mem=128M -numa cpu,node-id=0,socket-id=1",
        "-numa: Cloister does not do socket-id=1: write socket-id=0 or leave it out",
    ),
    (
        "-numa node,mem=128M -numa cpu,node-id=0,core-id=x",
        r#"-numa: core-id: "x" is not a processor: write its number"#,
    ),
    // -drive.
    (
        "-drive if=virtio",
        "-drive: the key file is missing: write -drive file=FILE,if=virtio,format=raw",
    ),
    ("-drive file=a", "-drive: the key if is missing: write -drive file=FILE,if=virtio,format=raw"),
    (
        "-drive file=,if=virtio",
        "-drive: file is empty: write -drive file=FILE,if=virtio,format=raw",
    ),
    ("-drive file=a,if=ide", "-drive: QEMU has if=ide and Cloister does not: write if=virtio"),
    ("-drive file=a,if=cable", r#"-drive: if: "cable" is not an interface: write if=virtio"#),
    (
        "-drive file=a,if=virtio,format=vhdx",
        "-drive: a: QEMU reads vhdx and Cloister raw, qcow2 and vmdk only: \
         convert it with qemu-img convert -f vhdx -O qcow2",
    ),
    (
        "-drive file=a,if=virtio,backing.driver=raw",
        "-drive: backing.driver is of no file: write backing.file.filename=FILE",
    ),
    (
        "-drive file=a,if=virtio,backing.file.filename=b,backing.driver=vdi",
        "-drive: b: QEMU reads vdi and Cloister raw, qcow2 and vmdk only: \
         convert it with qemu-img convert -f vdi -O qcow2",
    ),
    (
        "-drive file=a,if=virtio,backing.backing.driver=raw",
        "-drive: QEMU has the key backing.backing.driver and Cloister does not: leave it out",
    ),
    (
        "-drive file=a,if=virtio,discard=ignore",
        "-drive: Cloister does not do discard=ignore: write discard=unmap or leave it out",
    ),
    (
        "-drive file=a,if=virtio,format=jpeg",
        r#"-drive: format: "jpeg" is not a format: write format=raw, format=qcow2 or format=vmdk"#,
    ),
    ("-drive file=a,if=virtio,readonly=2", r#"-drive: readonly is on or off, not "2""#),
    (
        "-drive file=a,if=virtio,cache=none",
        "-drive: Cloister does not do cache=none: write cache=writeback or leave it out",
    ),
    (
        "-drive file=a,if=virtio,media=cdrom",
        "-drive: Cloister does not do media=cdrom: write media=disk or leave it out",
    ),
    (
        "-drive file=a,if=virtio,aio=native",
        "-drive: QEMU has the key aio and Cloister does not: leave it out",
    ),
    (
        "-drive file=a,if=virtio,throttling.bps-read=1",
        "-drive: QEMU has the key throttling.bps-read and Cloister does not: leave it out",
    ),
    (
        "-drive file=a,if=virtio,colour=red",
        "-drive: there is no key colour: \
         the keys are file, if, format, readonly, id, media, cache, snapshot, discard, \
         backing.driver, backing.file.filename",
    ),
    // -serial, -qmp and the like.
    (
        "-serial pty",
        "-serial: QEMU has pty here and Cloister does not: \
         write stdio, mon:stdio, null, none, file:PATH or unix:PATH,server=on,wait=off",
    ),
    (
        "-serial tcp::4444,server=on",
        "-serial: QEMU has tcp here and Cloister does not: \
         write stdio, mon:stdio, null, none, file:PATH or unix:PATH,server=on,wait=off",
    ),
    (
        "-serial /dev/ttyS0",
        "-serial: QEMU has /dev/ttyS0 here and Cloister does not: \
         write stdio, mon:stdio, null, none, file:PATH or unix:PATH,server=on,wait=off",
    ),
    (
        "-serial loud",
        r#"-serial: there is no "loud": write stdio, mon:stdio, null, none, file:PATH or unix:PATH,server=on,wait=off"#,
    ),
    ("-serial file:", "-serial: file: the name is missing: write file:PATH"),
    (
        "-serial unix:/s",
        "-serial: unix: QEMU connects to a server here and Cloister does not: add server=on",
    ),
    (
        "-serial unix:,server=on",
        "-serial: unix: the path is missing: write unix:PATH,server=on,wait=off",
    ),
    (
        "-serial unix:server=on",
        "-serial: the key path is missing: write unix:PATH,server=on,wait=off",
    ),
    (
        "-serial unix:/s,server=on,reconnect=1",
        "-serial: QEMU has the key reconnect and Cloister does not: leave it out",
    ),
    (
        "-serial unix:/s,server=on,colour=red",
        "-serial: there is no key colour: the keys are path, server, wait",
    ),
    (
        "-serial null -serial null",
        "-serial: there is a second one and the machine has one port: leave one out",
    ),
    (
        "-qmp tcp:localhost:4444,server=on",
        "-qmp: QEMU has tcp here and Cloister does not: write unix:PATH,server=on,wait=off",
    ),
    (
        "-qmp stdio",
        "-qmp: QEMU has stdio here and Cloister does not: write unix:PATH,server=on,wait=off",
    ),
    (
        "-sandbox on,spawn=allow",
        "-sandbox: Cloister does not do spawn=allow: write spawn=deny or leave it out",
    ),
    ("-sandbox maybe", r#"-sandbox: enable is on or off, not "maybe""#),
    ("-sandbox on -sandbox on", "-sandbox: it is given twice: leave one out"),
    (
        "-sandbox on,castle=sand",
        "-sandbox: there is no key castle: \
         the keys are enable, obsolete, elevateprivileges, spawn, resourcecontrol",
    ),
    (
        "-monitor stdio",
        r#"-monitor: "stdio": Cloister has QMP and no monitor for people: write none, and perhaps -qmp"#,
    ),
    ("-display gtk", "-display: QEMU has gtk and Cloister does not: write none or -nographic"),
    ("-display vnc=:0", "-display: QEMU has vnc and Cloister does not: write none or -nographic"),
    ("-display hologram", r#"-display: there is no "hologram": write none or -nographic"#),
    ("-vga std", r#"-vga: Cloister does not do "std": write none or leave it out"#),
    (
        "-nic user,model=e1000",
        r#"-nic: model: Cloister has no "e1000": write model=virtio-net-device (network nic0)"#,
    ),
    ("-netdev user,id=n", "-netdev: nothing uses n: add -device virtio-net-device,netdev=n"),
    ("-net nic", r#"-net: Cloister does not do "nic": write -nic, or -netdev and -device"#),
    ("-parallel stdio", r#"-parallel: Cloister does not do "stdio": write none or leave it out"#),
    // -daemonize, -name and Cloister's own.
    (
        "-daemonize -nographic",
        "-nographic: it puts the console on the terminal, which -daemonize leaves: write -display none",
    ),
    (
        "-daemonize -serial mon:stdio",
        "-serial: stdio is the terminal, which -daemonize leaves: \
         write file:PATH, unix:PATH,server=on,wait=off or null",
    ),
    ("-name a,process=", "-name: process: the name is empty: write process=NAME or leave it out"),
    ("-name ,process=a", "-name: guest: the name is empty: write guest=NAME or leave it out"),
    ("-name a -name b", "-name: it is given twice: leave one out"),
    (
        "-name a,debug-threads=off",
        "-name: Cloister does not do debug-threads=off: write debug-threads=on or leave it out",
    ),
    (
        "-name a,colour=red",
        "-name: there is no key colour: the keys are guest, process, debug-threads",
    ),
    (
        "-sgx-launch-key 12",
        r#"-sgx-launch-key: "12" is not the SHA-256 of a key: write its 64 hexadecimal digits"#,
    ),
];

#[test]
fn each_mistake_is_one_line_that_names_the_option_and_the_fix() {
    let said = |line: &str| {
        let words = line.split(' ').map(|word| match word {
            "RAM" => RAM,
            "EPC" => EPC,
            word => word,
        });
        match read(&words.collect::<Vec<_>>().join(" ")) {
            Ok(_) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        }
    };

    let wrong: Vec<_> = MISTAKES
        .iter()
        .map(|(line, expected)| (line, said(line), expected))
        .filter(|(_, said, expected)| said != *expected)
        .collect();

    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn without_a_kernel_the_drive_is_booted() {
    let Ok(Request::Run(invocation)) = read_alone("-drive file=a,if=virtio") else { panic!() };

    assert_eq!(invocation.machine.boot, BootConfig::Disk);
    for (line, expected) in [
        (
            "-m 1G",
            "-kernel: there is nothing to boot: \
             add it, or -drive file=IMG,if=virtio with an installed system",
        ),
        (
            "-drive file=a,if=virtio -append quiet",
            "-append: it goes with -kernel: add -kernel FILE, \
             or leave -append out to boot what the disk says",
        ),
        (
            "-drive file=a,if=virtio -initrd i",
            "-initrd: it goes with -kernel: add -kernel FILE, \
             or leave -initrd out to boot what the disk says",
        ),
    ] {
        assert_eq!(read_alone(line).unwrap_err().to_string(), expected, "{line}");
    }
}

proptest! {
    #[test]
    fn no_line_panics_and_every_error_is_one_line(
        options in prop::collection::vec(
            (0..OPTIONS.len(), "[a-z0-9=,.:\\-]{0,20}|\\PC{0,8}|[a-z]{1,6}=[\\n,a-z0-9]{0,6}"),
            0..4,
        ),
    ) {
        let words = options.into_iter().flat_map(|(index, argument)| {
            [format!("-{}", OPTIONS[index].name), argument]
        });
        if let Err(error) = parse(words.map(OsString::from)) {
            prop_assert!(!error.to_string().contains('\n'), "{:?}", error.to_string());
            prop_assert!(error.to_string().contains(": "), "{:?}", error.to_string());
        }
    }
}

use super::*;
use crate::accel::Choice;
use crate::cli::RunWording;
use crate::complaint::Wording as _;
use crate::qemu::QemuWording;

fn config(ram: u64, epc: &[&str]) -> MachineConfig {
    MachineConfig {
        name: None,
        boot: BootConfig::Kernel {
            kernel: "vmlinuz".into(),
            initrd: None,
            cmdline: DEFAULT_CMDLINE.into(),
        },
        ram,
        cpus: 1,
        nodes: Vec::new(),
        disks: Vec::new(),
        epc: epc.iter().map(|text| EpcConfig::parse(text).unwrap()).collect(),
        epc_quota: None,
        epc_reserve: None,
        cpu: CpuConfig::default(),
        launch_key: None,
        platform: None,
        no_reboot: false,
        accelerator: Choice::default(),
        translate: Translate::default(),
    }
}

#[test]
fn sections_are_judged_together() {
    for (ram, epc, line) in [
        (
            512 << 20,
            vec!["id=a,size=4K", "id=b,size=4K", "id=a,size=8K"],
            "--sgx-epc: the id a is given to two sections: give each its own",
        ),
        (
            512 << 20,
            vec![
                "id=a,size=4K",
                "id=b,size=4K",
                "id=c,size=4K",
                "id=d,size=4K",
                "id=e,size=4K",
                "id=f,size=4K",
                "id=g,size=4K",
                "id=h,size=4K",
                "id=i,size=4K",
            ],
            "--sgx-epc: 9 EPC sections are more than the 8 that Linux reads: leave some out",
        ),
        (
            512 << 20,
            vec!["id=a,size=64T"],
            "--sgx-epc: an EPC section of 64T does not fit above 0x100000000 in the 46-bit \
             physical address space of the guest: give it or the RAM a smaller size",
        ),
        (
            64 << 40,
            vec![],
            "--memory: 64T of RAM does not fit in the 46-bit physical address space of the \
             guest: write less than 64T",
        ),
        (4096, vec![], "--memory: 4K of RAM is too little to boot from: write at least 2M"),
    ] {
        let error = config(ram, &epc).layout().unwrap_err();
        assert_eq!(RunWording.line(&error.complaint()), line);
    }
}

#[test]
fn sgx_and_epc_come_together() {
    let epc: &[&str] = &["id=a,size=64M"];
    for (cpu, key, epc, line) in [
        ("host", None, epc, ""),
        ("host,-sgxlc", Some([1; 32]), epc, ""),
        ("host,-sgx2,+sgx-edeccssa", None, epc, ""),
        ("host,-sgx", None, &[], ""),
        ("host,-sgx2", None, &[], ""),
        (
            "host,-sgx",
            None,
            epc,
            "--cpu: -sgx takes SGX away and --sgx-epc gives it EPC: leave one of them out",
        ),
        (
            "host,-sgx2,+sgx-kss",
            None,
            &[],
            "--cpu: +sgx-kss is for guests with SGX, which EPC makes: \
             add --sgx-epc, or leave it out",
        ),
        (
            "host",
            Some([1; 32]),
            &[],
            "--launch-key: it is for guests with SGX, which EPC makes: \
             add --sgx-epc, or leave it out",
        ),
    ] {
        let cpu = CpuConfig::parse(cpu).unwrap();
        let config = MachineConfig { cpu, launch_key: key, ..config(512 << 20, epc) };

        let line_of = |error: ConfigError| RunWording.line(&error.complaint());
        let found = config.layout().map_or_else(line_of, |_| String::new());

        assert_eq!(found, line);
    }
}

#[test]
fn a_launch_key_is_64_digits_in_the_order_of_bytes() {
    let mut text = "00".repeat(32);
    text.replace_range(..4, "12aB");

    let key = parse_launch_key(&text).unwrap();

    assert_eq!((key[0], key[1], key[31]), (0x12, 0xab, 0));
    for text in ["", "12", &text[1..], &text.replace('B', "g"), &text.replace("12", "ä")] {
        assert_eq!(
            parse_launch_key(text).unwrap_err().to_string(),
            format!("{text:?} is not the SHA-256 of a key: write its 64 hexadecimal digits")
        );
    }
}

#[test]
fn processors_are_1_to_64() {
    assert_eq!(parse_cpus("1"), Ok(1));
    assert_eq!(parse_cpus("64"), Ok(64));
    for text in ["0", "65", "-1", "four", "", "99999999999"] {
        assert_eq!(
            parse_cpus(text).unwrap_err().to_string(),
            format!("{text:?} is not a number of processors: write 1 to 64")
        );
    }
}

/// Every way in which a machine can be refused.
fn errors() -> Vec<ConfigError> {
    vec![
        ConfigError::Memory(LayoutError::TooSmall(4096)),
        ConfigError::NothingToBoot,
        ConfigError::WithoutKernel(Setting::Initrd),
        ConfigError::TooManyDisks(9),
        ConfigError::EpcIdTwice("a".into()),
        ConfigError::Epc(LayoutError::TooManySections(9)),
        ConfigError::Nodes(NodeError::CpuNowhere(1)),
        ConfigError::EpcWithoutSgx,
        ConfigError::CpuWithoutEpc("sgx2"),
        ConfigError::LaunchKeyWithoutEpc,
    ]
}

#[test]
fn each_front_end_names_its_own_options_and_the_error_names_none() {
    let (run, qemu): (Vec<_>, Vec<_>) = Setting::ALL
        .into_iter()
        .map(|setting| (RunWording.option(setting), QemuWording.option(setting)))
        .unzip();
    let names = |line: &str, options: &[Option<&str>]| {
        let words = line.split([' ', ':', ',']);
        words.filter(|word| options.contains(&Some(word))).count()
    };

    for error in errors() {
        let (plain, complaint) = (error.to_string(), error.complaint());

        assert_eq!(names(&plain, &run) + names(&plain, &qemu), 0, "{plain}");
        assert_eq!(names(&RunWording.line(&complaint), &qemu), 0, "{complaint:?}");
        assert_eq!(names(&QemuWording.line(&complaint), &run), 0, "{complaint:?}");
    }
}

#[test]
fn quota_and_reservation_go_with_epc_and_each_other() {
    const M: u64 = 1 << 20;
    let check = |epc_quota, epc_reserve, epc: &[&str]| {
        MachineConfig { epc_quota, epc_reserve, ..config(512 << 20, epc) }.layout()
    };
    let epc = &["id=e,size=64M"][..];

    for (quota, reserve) in [
        (None, None),
        (Some(4096), None),
        (None, Some(64 * M)),
        (Some(1 << 40), Some(64 * M)),
        (Some(32 * M), Some(32 * M)),
    ] {
        assert!(check(quota, reserve, epc).is_ok(), "{quota:?} {reserve:?}");
    }
    for (quota, reserve, epc, line) in [
        (
            Some(16 * M),
            Some(32 * M),
            epc,
            "--epc-reserve: 32M is more than the 16M of --epc-quota: \
             write a smaller size, or a larger quota",
        ),
        (
            Some(16 * M),
            None,
            &[],
            "--epc-quota: it is for guests with SGX, which EPC makes: add --sgx-epc, or leave it out",
        ),
        (
            None,
            Some(16 * M),
            &[],
            "--epc-reserve: it is for guests with SGX, which EPC makes: add --sgx-epc, \
             or leave it out",
        ),
    ] {
        let complaint = check(quota, reserve, epc).unwrap_err().complaint();
        assert_eq!(RunWording.line(&complaint), line);
    }
}

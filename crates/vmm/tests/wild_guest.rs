//! A guest that runs wild: kernels of random bytes never panic the VMM, and it always ends when it
//! is told to.

use std::fs;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cloister_boot::testing::bzimage;
use cloister_vmm::accel::Choice;
use cloister_vmm::config::{BootConfig, EpcConfig, MachineConfig, Translate};
use cloister_vmm::cpu_flags::CpuConfig;
use cloister_vmm::machine::{Control, Machine};
use cloister_vmm::sandbox::Sandbox;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Seeds of a short run; CLOISTER_WILD_SEEDS asks for more. CLOISTER_WILD_TRANSLATE=always has each
/// guest's code translated from its second run on, not only that of every other guest.
const SEEDS: u64 = 200;
/// How long each guest may do as it likes.
const RUN: Duration = Duration::from_millis(3);
/// How long a machine may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A bzImage of random code, entered in 64-bit mode or in protected mode.
fn kernel(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut code = vec![0; 0x1000];
    rng.fill_bytes(&mut code);
    let mut file = bzimage(&code);
    file[0x236] = rng.next_u32() as u8 & 1; // xloadflags
    file[0x238..0x23c].copy_from_slice(&255_u32.to_le_bytes()); // cmdline_size
    file[0x260..0x264].copy_from_slice(&0x2000_u32.to_le_bytes()); // init_size
    file
}

/// Drops what the guest prints.
struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn random_kernels_never_panic_and_always_end() {
    let seeds = std::env::var("CLOISTER_WILD_SEEDS")
        .map_or(SEEDS, |seeds| seeds.parse().expect("CLOISTER_WILD_SEEDS is a number"));
    let always = std::env::var("CLOISTER_WILD_TRANSLATE").is_ok_and(|value| value == "always");
    let path = std::env::temp_dir().join(format!("cloister-wild-{}", std::process::id()));
    for seed in 0..seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        fs::write(&path, kernel(&mut rng)).unwrap();
        let machine = Machine::new(MachineConfig {
            name: None,
            boot: BootConfig::Kernel { kernel: path.clone(), initrd: None, cmdline: String::new() },
            ram: 4 << 20,
            cpus: 1 + rng.next_u32() % 2,
            nodes: Vec::new(),
            disks: Vec::new(),
            epc: vec![EpcConfig {
                id: "epc".into(),
                size: 1 << 20,
                prealloc: false,
                node: 0,
                host_node: 0,
            }],
            epc_quota: None,
            epc_reserve: None,
            cpu: CpuConfig::default(),
            launch_key: None,
            platform: None,
            no_reboot: rng.next_u32() & 1 == 0,
            accelerator: Choice::Soft,
            translate: match rng.next_u32() & 1 {
                0 if !always => Translate::On,
                _ => Translate::Always,
            },
        })
        .unwrap();
        let control = Control::new(Nowhere);

        let (ended, end) = mpsc::channel();
        let ender = control.clone();
        let runner = thread::spawn(move || ended.send(machine.run(&ender, &Sandbox::off())));
        thread::sleep(RUN);
        control.quit();
        let outcome = end.recv_timeout(PATIENCE);

        match outcome {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => panic!("seed {seed}: {error}"),
            Err(error) => panic!("seed {seed}: the machine does not end: {error}"),
        }
        runner.join().unwrap().unwrap();
    }
    fs::remove_file(&path).unwrap();
}

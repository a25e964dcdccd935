//! What init can do by itself.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use guest_sha256::Sha256;

use crate::{button, net, system, twin, vsock};

/// A task: gets its arguments, prints what it finds.
type Task = fn(&[&str]) -> Result<(), String>;

/// The tasks by name.
pub(crate) const TASKS: [(&str, Task); 18] = [
    ("modules", modules),
    ("sgx", sgx),
    ("reclaimer", reclaimer),
    ("first-cpu", first_cpu),
    ("dmesg", dmesg),
    ("cpus", cpus),
    ("nodes", nodes),
    ("disk", disk),
    ("copy", copy),
    ("twin", twin::change),
    ("entropy", entropy),
    ("hvc", hvc),
    ("net", net::exchange),
    ("net-many", net::many),
    ("vsock", vsock::echo),
    ("share", share),
    ("cpuid", cpuid),
    ("button", button::wait),
];

/// Loads every file of `/modules` in name order; xtask has numbered them so that
/// a module comes after those it needs.
fn modules(_: &[&str]) -> Result<(), String> {
    let folder =
        fs::read_dir("/modules").map_err(|error| format!("cannot read /modules: {error}"))?;
    let mut files: Vec<_> = folder.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for file in files {
        system::load_module(&file)
            .map_err(|error| format!("cannot load {}: {error}", file.display()))?;
        println!("modules: loaded {}", file.display());
    }
    Ok(())
}

/// Which SGX device nodes exist.
fn sgx(_: &[&str]) -> Result<(), String> {
    for name in ["sgx_enclave", "sgx_provision", "sgx_vepc"] {
        let path = Path::new("/dev").join(name);
        match system::device_number(&path) {
            Ok((major, minor)) => println!("sgx: {} is {major}:{minor}", path.display()),
            Err(_) => println!("sgx: {} is missing", path.display()),
        }
    }
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = flags.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let sgx: Vec<&str> = flags.split(' ').filter(|flag| flag.starts_with("sgx")).collect();
    println!("sgx: cpuinfo flags {}", sgx.join(" "));
    Ok(())
}

/// Binds the kernel's EPC reclaimer, the thread `ksgxd`, to the first CPU and lets it run before
/// everything else there.
///
/// The ioctls of SGX2 return EAGAIN for a page that is just being written back. A program that goes
/// through more enclave pages than there is EPC follows the reclaimer at a small distance, and where
/// the two compete for the enclave's lock it overtakes. Linux's selftest of that case, from 6.0 on,
/// takes EAGAIN for a failure and loses the race on several CPUs. On the reclaimer's own CPU, the
/// program waits.
fn reclaimer(_: &[&str]) -> Result<(), String> {
    let process = fs::read_dir("/proc")
        .map_err(|error| format!("cannot read /proc: {error}"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .find(|process| {
            fs::read_to_string(format!("/proc/{process}/comm"))
                .is_ok_and(|name| name.trim() == "ksgxd")
        })
        .ok_or("there is no ksgxd")?;
    system::bind(process, 0).map_err(|error| format!("cannot bind ksgxd: {error}"))?;
    system::make_realtime(process)
        .map_err(|error| format!("cannot make ksgxd a real-time thread: {error}"))?;
    println!("reclaimer: ksgxd is process {process}, SCHED_FIFO on CPU 0");
    Ok(())
}

/// Binds init, and so every program that comes later, to the first CPU.
fn first_cpu(_: &[&str]) -> Result<(), String> {
    system::bind(0, 0).map_err(|error| format!("cannot bind init: {error}"))
}

/// The kernel's log, a line each: `dmesg: LEVEL TEXT`. An argument selects lines
/// that contain it, whatever their case.
fn dmesg(arguments: &[&str]) -> Result<(), String> {
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .map_err(|error| format!("cannot open /dev/kmsg: {error}"))?;
    let wanted = arguments.first().copied().unwrap_or_default().to_lowercase();
    let mut buffer = vec![0; 8192];
    loop {
        let length = match log.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The record was overwritten while it was read; the next one is there.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
            Err(error) => return Err(format!("cannot read /dev/kmsg: {error}")),
        };
        // "priority,sequence,time,flags;text\n KEY=value..."
        let record = String::from_utf8_lossy(&buffer[..length]);
        let Some((prefix, text)) = record.split_once(';') else { continue };
        let text = text.lines().next().unwrap_or_default();
        let priority: u32 = prefix.split(',').next().unwrap_or_default().parse().unwrap_or(0);
        if text.to_lowercase().contains(&wanted) {
            println!("dmesg: {} {text}", priority & 7);
        }
    }
}

/// A thread on every online CPU; all add to one atomic counter, so lost updates
/// show in the sum.
fn cpus(_: &[&str]) -> Result<(), String> {
    const ROUNDS: u64 = 100_000;
    let online = fs::read_to_string("/sys/devices/system/cpu/online")
        .map_err(|error| format!("cannot read the online CPUs: {error}"))?;
    let count = thread::available_parallelism().map_or(1, usize::from);
    println!("cpus: online {} usable {count}", online.trim());
    let counter = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..count)
        .map(|cpu| {
            let counter = Arc::clone(&counter);
            thread::spawn(move || {
                system::bind(0, cpu)?;
                for _ in 0..ROUNDS {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), std::io::Error>(())
            })
        })
        .collect();
    for handle in threads {
        match handle.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("cannot bind a thread to its CPU: {error}")),
            Err(_) => return Err("a thread panicked".to_owned()),
        }
    }
    let expected = ROUNDS * count as u64;
    println!("cpus: sum {} of {expected}", counter.load(Ordering::Relaxed));
    Ok(())
}

/// The NUMA nodes: processors, RAM and EPC of each.
fn nodes(_: &[&str]) -> Result<(), String> {
    let folder = Path::new("/sys/devices/system/node");
    let read = |path: &str| {
        fs::read_to_string(folder.join(path))
            .map_err(|error| format!("cannot read {path} of {}: {error}", folder.display()))
    };
    let online = read("online")?;
    println!("nodes: online {}", online.trim());
    for node in 0.. {
        let name = format!("node{node}");
        if !folder.join(&name).exists() {
            return Ok(());
        }
        let cpus = read(&format!("{name}/cpulist"))?;
        let memory = read(&format!("{name}/meminfo"))?;
        // "Node 0 MemTotal:         123456 kB"
        let total = memory.lines().find_map(|line| line.split_once("MemTotal:"));
        let kib = total.and_then(|(_, text)| text.split_whitespace().next()).unwrap_or("?");
        let epc = read(&format!("{name}/x86/sgx_total_bytes"))?;
        println!("nodes: {name} cpus {} ram {kib} KiB epc {} bytes", cpus.trim(), epc.trim());
    }
    Ok(())
}

/// Size and SHA-256 of a block device; with `write` as second argument its first
/// sector is overwritten first.
fn disk(arguments: &[&str]) -> Result<(), String> {
    let path = arguments.first().copied().unwrap_or("/dev/vda");
    if arguments.get(1) == Some(&"write") {
        use std::io::Write;
        let outcome = OpenOptions::new().write(true).open(path).and_then(|mut device| {
            device.write_all(&[0xa5; 512])?;
            device.sync_all()
        });
        match outcome {
            Ok(()) => println!("disk: {path} written"),
            Err(error) => println!("disk: {path} not written: {error}"),
        }
    }
    let mut device = File::open(path).map_err(|error| format!("cannot open {path}: {error}"))?;
    let (mut hash, mut size, mut buffer) = (Sha256::default(), 0, vec![0; 1 << 16]);
    loop {
        match device.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                size += length;
                hash.update(&buffer[..length]);
            }
            Err(error) => return Err(format!("cannot read {path}: {error}")),
        }
    }
    let digest: String = hash.finish().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("disk: {path} {size} bytes sha256 {digest}");
    Ok(())
}

/// Copies so many bytes from the start of a device to that of another.
fn copy(arguments: &[&str]) -> Result<(), String> {
    let [from, to, len] = arguments else { return Err("no two devices".to_owned()) };
    let len = len.parse::<usize>().map_err(|_| format!("{len} is no number"))?;
    let mut bytes = vec![0; len];
    let read = File::open(from).and_then(|mut device| device.read_exact(&mut bytes));
    read.map_err(|error| format!("cannot read {from}: {error}"))?;
    let write = || {
        use std::io::Write;
        let mut device = OpenOptions::new().write(true).open(to)?;
        device.write_all(&bytes)?;
        device.sync_all()
    };
    match write() {
        Ok(()) => println!("copy: {to} written"),
        Err(error) => println!("copy: {to} not written: {error}"),
    }
    Ok(())
}

/// Reads the hardware random number generator that virtio-rng provides.
fn entropy(_: &[&str]) -> Result<(), String> {
    let name = fs::read_to_string("/sys/class/misc/hw_random/rng_current").unwrap_or_default();
    let mut bytes = [0; 32];
    File::open("/dev/hwrng")
        .and_then(|mut device| device.read_exact(&mut bytes))
        .map_err(|error| format!("cannot read /dev/hwrng: {error}"))?;
    let set: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
    println!("entropy: {} gave 32 bytes with {set} bits set", name.trim());
    Ok(())
}

/// Writes a line to the virtio console.
fn hvc(_: &[&str]) -> Result<(), String> {
    fs::write("/dev/hvc0", "hvc: a line through virtio-console\n")
        .map_err(|error| format!("cannot write to /dev/hvc0: {error}"))
}

/// Mounts the folder of a tag at a place of that name, shows what is in it, and makes `folder/new` there.
fn share(arguments: &[&str]) -> Result<(), String> {
    let [tag, place] = arguments else { return Err("no tag or no place".to_owned()) };
    let place = format!("/{place}");
    system::mount_by("virtiofs", tag, &place).map_err(|error| format!("cannot mount: {error}"))?;
    let entries = fs::read_dir(&place).map_err(|error| format!("cannot list: {error}"))?;
    for entry in entries.filter_map(|entry| entry.ok()) {
        let name = entry.file_name().display().to_string();
        // A link is followed, as programs do.
        match fs::metadata(entry.path()) {
            Ok(found) if found.is_dir() => println!("share: {tag}: folder {name}"),
            Ok(_) => {
                let contents = fs::read_to_string(entry.path()).unwrap_or_default();
                println!("share: {tag}: file {name} {contents}");
            }
            Err(error) => println!("share: {tag}: {name}: {error}"),
        }
    }
    match fs::write(format!("{place}/folder/new"), "written by the guest") {
        Ok(()) => println!("share: {tag}: written"),
        Err(error) => println!("share: {tag}: not written: {error}"),
    }
    Ok(())
}

/// What CPUID says of SGX: `cpuid: LEAF SUBLEAF EAX EBX ECX EDX`, each in decimal.
fn cpuid(_: &[&str]) -> Result<(), String> {
    const FEATURES: u32 = 7;
    const SGX: u32 = 0x12;
    const FIRST_SECTION: u32 = 2;
    let show = |leaf, subleaf| {
        let [eax, ebx, ecx, edx] = system::cpuid(leaf, subleaf);
        println!("cpuid: {leaf} {subleaf} {eax} {ebx} {ecx} {edx}");
        (eax, ebx)
    };
    if show(FEATURES, 0).1 >> 2 & 1 == 0 {
        return Ok(());
    }
    show(SGX, 0);
    show(SGX, 1);
    let mut subleaf = FIRST_SECTION;
    while show(SGX, subleaf).0 & 0xf == 1 {
        subleaf += 1;
    }
    Ok(())
}

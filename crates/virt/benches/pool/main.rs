//! What a huge section costs to have and to give back: `cargo xtask bench` runs this.
//!
//! Lines of the output are `pool NAME VALUE`.
#![expect(clippy::print_stdout, reason = "the report of a benchmark")]

mod window;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cloister_sgx::{Capabilities, Platform, PlatformConfig, PlatformIdentity};
use cloister_virt::{EpcPool, SectionConfig, SgxCpuid, SgxVm, VirtualEpc};
use cloister_x86::{Gpa, PAGE_SIZE};
use window::Window;

const GIB: u64 = 1 << 30;
/// The section that is configured and never touched.
const CONFIGURED: u64 = 512 * GIB;
/// The section that is released.
const RELEASED: u64 = 64 * GIB;
/// Of so many released pages one holds a version array, and so has host memory behind its bytes;
/// all other pages are backed and not in use.
const SPREAD: u64 = 32;
/// How long another machine allocates undisturbed, for comparison.
const QUIET: Duration = Duration::from_secs(5);

fn main() {
    // `cargo test --all-targets` runs benchmarks too, without this argument.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    configure();
    release();
}

fn pool(pages: u64) -> Arc<EpcPool> {
    let pages = u32::try_from(pages).expect("at most 2^32 - 1 pages");
    let identity = PlatformIdentity::from_seed(&[7; 32]);
    let platform = Platform::new(PlatformConfig::single(pages, identity)).expect("a platform");
    EpcPool::new(Arc::new(platform))
}

fn configure() {
    let before = resident();
    let start = Instant::now();
    let section = SectionConfig { base: Gpa(0), size: CONFIGURED, node: 0, preallocate: false };
    let cpuid = SgxCpuid::all_of(&Capabilities::default(), None);
    let account = pool(CONFIGURED / PAGE_SIZE).unlimited("vm");
    let vm = SgxVm::new(account, &[section], cpuid).expect("a machine");
    println!("pool configured-microseconds {}", start.elapsed().as_micros());
    println!("pool configured-KiB {}", (resident() - before) / 1024);
    drop(vm);
}

fn release() {
    let pages = RELEASED / PAGE_SIZE;
    // One more, for the other machine.
    let pool = pool(pages + 1);
    let section = VirtualEpc::new(
        pool.unlimited("large"),
        Gpa(0),
        usize::try_from(pages).expect("64 bits"),
        0,
    );
    let start = Instant::now();
    section.preallocate().expect("enough pages");
    println!("pool preallocated-per-second {:.0}", pages as f64 / start.elapsed().as_secs_f64());
    let mut window = Window(pool.store().clone());
    for page in (0..pages).step_by(SPREAD as usize) {
        let index = section.populate(Gpa(page * PAGE_SIZE)).expect("EPC").expect("backed");
        window.version_array(index);
    }
    let released = AtomicBool::new(false);
    let quiet_until = Instant::now() + QUIET;
    let quiet = allocate(&pool, || Instant::now() > quiet_until);

    let (time, beside) = thread::scope(|scope| {
        let releasing = scope.spawn(|| {
            let start = Instant::now();
            drop(section);
            released.store(true, Ordering::Relaxed);
            start.elapsed()
        });
        let beside = allocate(&pool, || released.load(Ordering::Relaxed));
        (releasing.join().expect("a release does not panic"), beside)
    });

    println!("pool released-per-second {:.0}", pages as f64 / time.as_secs_f64());
    for (name, delays) in [("quiet", quiet), ("beside", beside)] {
        println!("pool {name}-allocations {}", delays.count);
        println!(
            "pool {name}-mean-nanoseconds {:.0}",
            delays.total.as_nanos() as f64 / delays.count as f64
        );
        println!("pool {name}-worst-nanoseconds {}", delays.worst.as_nanos());
    }
    assert_eq!(pool.statistics().used, 0, "pages are lost");
}

/// How long a machine waited for its pages.
struct Delays {
    count: u64,
    total: Duration,
    worst: Duration,
}

/// Takes a page and gives it back until `done`.
fn allocate(pool: &Arc<EpcPool>, done: impl Fn() -> bool) -> Delays {
    let account = pool.unlimited("another");
    let mut delays = Delays { count: 0, total: Duration::ZERO, worst: Duration::ZERO };
    while !done() {
        let section = VirtualEpc::new(account.clone(), Gpa(0), 1, 0);
        let start = Instant::now();
        section.populate(Gpa(0)).expect("EPC").expect("a page");
        let waited = start.elapsed();
        delays.count += 1;
        delays.total += waited;
        delays.worst = delays.worst.max(waited);
    }
    delays
}

/// Resident bytes of this process, where the host tells.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

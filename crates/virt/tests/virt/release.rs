//! What the host learns and suffers when a machine goes: the log of leaked pages and of exhaustion, and
//! the time that others wait for a page.
//!
//! `CLOISTER_RELEASE_PAGES` sets the size of the section that is released beside another machine.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cloister_sgx::EpcIndex;
use cloister_virt::{EpcLimits, EpcPool, VirtualEpc};
use cloister_x86::{Gpa, PAGE_SIZE};

use crate::host;
use crate::kernel::Kernel;

const fn gpa(page: u64) -> Gpa {
    Gpa(page * PAGE_SIZE)
}

/// Lines that were logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `work` logs.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = log.0.lock().expect("no writer panics").clone();
    String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn leaked_pages_are_logged_with_page_code_and_machine() {
    let pool = host::pool(8);
    let account = pool.unlimited("web-7");
    let mut kernel = Kernel::new(pool.store().clone());
    let section = VirtualEpc::new(account, gpa(0), 4, 0);
    section.preallocate().expect("enough");
    let [secs, tcs, ssa] =
        [3, 2, 1].map(|page| section.populate(gpa(page)).expect("EPC").expect("a page"));
    kernel.threaded(secs, tcs, ssa);
    let _inside = kernel.enter();

    let lines = logged(|| drop(section));

    assert_eq!(lines.len(), 3, "{lines:#?}");
    for (line, page) in lines.iter().zip([ssa, tcs]) {
        let page = format!("page={}", page.0);
        for part in ["ERROR", "vm=\"web-7\"", &page, "code=Ok(EnclaveAct)"] {
            assert!(line.contains(part), "{line:?} lacks {part}");
        }
    }
    assert!(lines[2].contains("web-7") && lines[2].contains("zombies=1"), "{lines:#?}");
}

#[test]
fn a_guest_cannot_flood_the_log_with_leaked_pages() {
    const PAGES: u64 = 40;
    let pool = host::pool(PAGES as u32);
    let section = VirtualEpc::new(pool.unlimited("vm"), gpa(0), PAGES as usize, 0);
    let page = |page| section.populate(gpa(page)).expect("EPC").expect("a page");
    let guards: Vec<_> = (0..PAGES).map(|number| hold(&pool, page(number))).collect();

    let lines = logged(|| drop(section));

    drop(guards);
    assert_eq!(pool.statistics().leaked, PAGES as usize);
    assert_eq!(lines.len(), 17, "{lines:#?}");
    assert!(lines[16].contains("leaked=40"), "{lines:#?}");
}

/// A leaf that holds a page.
fn hold(pool: &EpcPool, page: EpcIndex) -> impl Sized + '_ {
    pool.store().hold(page).expect("a page that no other leaf has")
}

#[test]
fn the_first_page_that_a_machine_cannot_have_is_logged_with_the_machine_and_the_reason() {
    let pool = host::pool(8);
    let account = pool.open("web-7", EpcLimits { reservation: 0, quota: 3 }).expect("enough");
    let section = VirtualEpc::new(account.clone(), gpa(0), 8, 0);

    let lines = logged(|| {
        for page in 0..8 {
            let outcome = section.populate(gpa(page)).expect("EPC");
            assert_eq!(outcome.is_ok(), page < 3);
        }
    });

    assert_eq!(account.statistics().refused, 5);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in ["WARN", "vm=\"web-7\"", "used=3", "quota"] {
        assert!(lines[0].contains(part), "{lines:?} lacks {part}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "the times are what a long run is for")]
fn a_machine_gets_pages_while_a_large_section_of_another_is_released() {
    let set = std::env::var("CLOISTER_RELEASE_PAGES").ok();
    let pages: u32 = set.map_or(1 << 13, |pages| pages.parse().expect("a number"));
    // No more than the large section takes and one page at a time.
    let pool = host::pool(pages + 1);
    let large = VirtualEpc::new(pool.unlimited("large"), gpa(0), pages as usize, 0);
    large.preallocate().expect("enough");
    let released = AtomicBool::new(false);
    let (mut allocations, mut worst) = (0_u64, Duration::ZERO);

    let time = thread::scope(|scope| {
        let releasing = scope.spawn(|| {
            let start = Instant::now();
            drop(large);
            released.store(true, Ordering::Relaxed);
            start.elapsed()
        });
        while !released.load(Ordering::Relaxed) || allocations == 0 {
            let other = VirtualEpc::new(pool.unlimited("another"), gpa(0), 1, 0);
            let start = Instant::now();
            let outcome = other.populate(gpa(0));
            worst = worst.max(start.elapsed());
            assert!(matches!(outcome, Some(Ok(_))), "{outcome:?}");
            allocations += 1;
        }
        releasing.join().expect("a release does not panic")
    });

    eprintln!(
        "{pages} pages released in {time:?} ({:.0}/s) beside {allocations} allocations, the slowest {worst:?}",
        f64::from(pages) / time.as_secs_f64()
    );
    assert_eq!(pool.statistics().used, 0);
    assert!(worst < time || worst < Duration::from_millis(100), "{worst:?} of {time:?}");
}

//! Translators of guest code, one for each processor of a machine.

use std::sync::{Arc, Mutex, PoisonError};

use cloister_cpu::native::Translator;
use cloister_cpu::{Counts, Statistics};

use crate::config::Translate;

/// The translators of a machine's processors. Their memory for code is mapped when this is made,
/// before the process is confined: no thread may make code executable after that. So they outlive
/// the processors, of which each boot makes new ones.
#[derive(Clone, Default)]
pub struct Translators {
    slots: Arc<[Slot]>,
    hot_from: u32,
    /// What the processors since the last reset say of their translators, by APIC ID; nothing
    /// before they are made.
    statistics: Arc<[Mutex<Arc<Statistics>>]>,
}

/// A translator that no processor has at the moment, by APIC ID.
type Slot = Mutex<Option<Box<dyn Translator>>>;

/// Runs after which a block is translated. Translating costs some 50 ns an instruction, and running
/// it interpreted some 2 ns more: see docs/design/translator.md.
const HOT: u32 = 16;

impl std::fmt::Debug for Translators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Translators").field(&self.slots.len()).finish()
    }
}

impl Translators {
    /// Translators for `cpus` processors; none where the host cannot have any, whose guests are
    /// interpreted.
    #[must_use]
    pub fn new(cpus: u32, translate: Translate) -> Self {
        let statistics = (0..cpus).map(|_| Mutex::default()).collect();
        let without = Self { statistics, ..Self::default() };
        let hot_from = match translate {
            Translate::Off => return without,
            Translate::On => HOT,
            Translate::Always => 1,
            Translate::From(runs) => runs,
        };
        let made: Result<Vec<_>, _> = (0..cpus).map(|_| translator()).collect();
        match made {
            Ok(made) => {
                let slots = made.into_iter().map(|one| Mutex::new(Some(one))).collect();
                Self { slots, hot_from, ..without }
            }
            Err(error) => {
                tracing::info!(%error, "guest code is interpreted: the host runs no translated code");
                without
            }
        }
    }

    /// Runs after which a block is translated.
    pub(super) const fn hot_from(&self) -> u32 {
        self.hot_from
    }

    /// What each processor has counted since the last reset, by APIC ID.
    #[must_use]
    pub fn counts(&self) -> Vec<(u32, Counts)> {
        let counts = |of: &Mutex<Arc<Statistics>>| {
            of.lock().unwrap_or_else(PoisonError::into_inner).counts()
        };
        (0..).zip(self.statistics.iter().map(counts)).collect()
    }

    /// Has processor `id`'s statistics shown from now on, in place of those before a reset.
    pub(super) fn show(&self, id: u32, statistics: Arc<Statistics>) {
        if let Some(place) = self.statistics.get(id as usize) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = statistics;
        }
    }

    /// The translator of processor `id`, until it is put back.
    pub(super) fn take(&self, id: u32) -> Option<Box<dyn Translator>> {
        let mut slot = self.slots.get(id as usize)?.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take()
    }

    /// Takes back the translator of processor `id`, which has ended.
    pub(super) fn put_back(&self, id: u32, translator: Box<dyn Translator>) {
        if let Some(slot) = self.slots.get(id as usize) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(translator);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn translator() -> std::io::Result<Box<dyn Translator>> {
    Ok(Box::new(cloister_jit::Jit::new()?))
}

#[cfg(not(target_arch = "x86_64"))]
fn translator() -> std::io::Result<Box<dyn Translator>> {
    Err(std::io::ErrorKind::Unsupported.into())
}

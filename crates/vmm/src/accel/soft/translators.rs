//! Translators of guest code, one for each processor of a machine.

use std::sync::{Arc, Mutex, PoisonError};

use cloister_cpu::native::Translator;

/// The translators of a machine's processors. Their memory for code is mapped when this is made,
/// before the process is confined: no thread may make code executable after that. So they outlive
/// the processors, of which each boot makes new ones.
#[derive(Clone, Default)]
pub struct Translators(Arc<[Mutex<Option<Box<dyn Translator>>>]>);

impl std::fmt::Debug for Translators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Translators").field(&self.0.len()).finish()
    }
}

impl Translators {
    /// Translators for `cpus` processors; none where the host cannot have any, whose guests are
    /// interpreted.
    #[must_use]
    pub fn new(cpus: u32) -> Self {
        let made: Result<Vec<_>, _> = (0..cpus).map(|_| translator()).collect();
        match made {
            Ok(made) => Self(made.into_iter().map(|one| Mutex::new(Some(one))).collect()),
            Err(error) => {
                tracing::info!(%error, "guest code is interpreted: the host runs no translated code");
                Self::default()
            }
        }
    }

    /// The translator of processor `id`, until it is put back.
    pub(super) fn take(&self, id: u32) -> Option<Box<dyn Translator>> {
        let mut slot = self.0.get(id as usize)?.lock().unwrap_or_else(PoisonError::into_inner);
        slot.take()
    }

    /// Takes back the translator of processor `id`, which has ended.
    pub(super) fn put_back(&self, id: u32, mut translator: Box<dyn Translator>) {
        translator.forget();
        if let Some(slot) = self.0.get(id as usize) {
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

//! Work that goes on beside the questions, in steps that a restart can go on with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// One kind of such work, of which one is done at a time, and how far it is.
#[derive(Default)]
pub(crate) struct Background<Status> {
    status: Mutex<Status>,
    thread: Mutex<Option<JoinHandle<()>>>,
    stopping: AtomicBool,
}

/// The engine is stopping.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("stopped before the end; the next start goes on, or the same command")]
pub struct Stopping;

impl<Status> Background<Status> {
    /// How far it is. Held only for a moment.
    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        lock(&self.status)
    }

    /// Does it on a thread of its own.
    pub(crate) fn start(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// Asked between two steps.
    pub(crate) fn go_on(&self) -> Result<(), Stopping> {
        if self.stopping.load(Ordering::SeqCst) { Err(Stopping) } else { Ok(()) }
    }

    /// Lets the step under way come to its end, and no other begin.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let thread = lock(&self.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("work in the background ended in a panic; the next start goes on with it");
        }
    }
}

/// What a panic left behind is looked at as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

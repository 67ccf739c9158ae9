//! Opening encrypted elements: the keys of this installation, a cache of unwrapped data keys, and the
//! bound on how many are being unwrapped.
//!
//! Unwrapping costs as much as dozens of whole requests, so it leaves the core's loop for threads that go
//! after it, and only for callers who have been authenticated and admitted.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::time::Duration;

use engine::caller::{ApplicationId, Credential, CredentialId, Proof};
use engine::vault::Vault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use wire::envelope::{BadKey, CannotOpen, DataKey, Envelope, Opened, Opener, WrappedKey};

use crate::sandbox;

/// What opens envelopes now. A sandbox's keys are fixed; an installation's are in its key ring, which may
/// be rotated while it answers.
pub struct Current {
    fixed: Option<LazyLock<Option<Arc<Envelopes>>>>,
    of_ring: RwLock<OfRing>,
}

#[derive(Default)]
struct OfRing {
    version: (u32, usize),
    envelopes: Option<Arc<Envelopes>>,
}

impl Current {
    /// Always the sandbox's. Made when the first envelope comes: reading the keys takes milliseconds, and few
    /// sandboxes see one.
    pub fn of_sandbox() -> Current {
        Current { fixed: Some(LazyLock::new(|| usable(sandbox::opener()))), of_ring: RwLock::default() }
    }

    /// Those of the key ring.
    pub fn of_ring() -> Current {
        Current { fixed: None, of_ring: RwLock::default() }
    }

    /// What opens envelopes; `None` when there are no keys for it.
    pub fn get(&self, vault: &Vault) -> Option<Arc<Envelopes>> {
        if let Some(fixed) = &self.fixed {
            return LazyLock::force(fixed).clone();
        }
        let keys = vault.keys();
        let version = keys.envelope_version();
        {
            let known = self.of_ring.read().unwrap_or_else(PoisonError::into_inner);
            if known.version == version {
                return known.envelopes.clone();
            }
        }
        let [rsa, sm2] = keys.envelope_keys();
        let envelopes = if rsa.is_empty() { None } else { usable(Opener::of_der(&rsa, &sm2)) };
        let mut known = self.of_ring.write().unwrap_or_else(PoisonError::into_inner);
        *known = OfRing { version, envelopes };
        known.envelopes.clone()
    }
}

fn usable(opener: Result<Opener, BadKey>) -> Option<Arc<Envelopes>> {
    match opener {
        Ok(opener) => Some(Arc::new(Envelopes::new(opener))),
        Err(error) => {
            tracing::error!(%error, "the keys for envelopes are of no use");
            None
        }
    }
}

/// The keys of an installation and what is known of its callers' data keys.
pub struct Envelopes {
    published: String,
    data_keys: Mutex<Recent<[u8; 32], Arc<DataKey>>>,
    unwrapper: Unwrapper,
    processors: Arc<Semaphore>,
    waiting: Line,
    sent_gbk: Mutex<HashSet<CredentialId>>,
}

/// Data keys that are kept. A helper that wraps one key for many requests has one at a time.
const DATA_KEYS_MAX: usize = 256;

/// Envelopes that wait for a processor, at most; more are refused, first those of who has most of them.
const WAITING_MAX: usize = 256;

/// How long one may wait. With every place taken and a millisecond each, a third of a second goes by.
const WAIT: Duration = Duration::from_secs(5);

/// Why elements were not opened.
pub enum Unopened {
    /// They cannot be.
    Cannot(CannotOpen),
    /// Too many are being opened already.
    Busy,
}

impl Envelopes {
    /// Opens with these keys.
    pub fn new(opener: Opener) -> Envelopes {
        let published = opener.published();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Envelopes {
            // Structures of strings always serialise.
            published: serde_json::to_string_pretty(&published).unwrap_or_default() + "\n",
            data_keys: Mutex::new(Recent::new(DATA_KEYS_MAX)),
            unwrapper: Unwrapper::start(opener, processors),
            processors: Arc::new(Semaphore::new(processors)),
            waiting: Line::default(),
            sent_gbk: Mutex::default(),
        }
    }

    /// The public keys as JSON.
    pub fn published(&self) -> &str {
        &self.published
    }

    /// Opens what a caller sent.
    pub async fn open(&self, envelope: &Envelope, credential: &Credential) -> Result<Opened, Unopened> {
        let key = self.data_key(envelope.wrapped_key(), credential.application).await?;
        let opened = envelope.open(&key).map_err(Unopened::Cannot)?;
        if opened.was_gbk() && lock(&self.sent_gbk).insert(credential.id) {
            tracing::warn!(
                key = key_name(credential),
                "elements were encrypted as GBK, not UTF-8, and were read so; \
                 its owner should update Tencent's Java helper to v1.0.4 or newer (said once for each key)"
            );
        }
        Ok(opened)
    }

    /// Also what cannot be unwrapped is kept, as the key that stands in for it: were it computed each
    /// time, the second request with a blob would tell by its time whether the padding was right.
    async fn data_key(
        &self,
        wrapped: &WrappedKey,
        application: ApplicationId,
    ) -> Result<Arc<DataKey>, Unopened> {
        let fingerprint = wrapped.fingerprint();
        if let Some(key) = lock(&self.data_keys).get(&fingerprint) {
            return Ok(key);
        }
        let place = self.waiting.take(application).ok_or(Unopened::Busy)?;
        let processor = Arc::clone(&self.processors).acquire_owned();
        let Ok(Ok(processor)) = tokio::time::timeout(WAIT, processor).await else {
            return Err(Unopened::Busy);
        };
        drop(place);
        let key = Arc::new(self.unwrapper.unwrap(wrapped.clone(), processor).await?);
        lock(&self.data_keys).put(fingerprint, Arc::clone(&key));
        Ok(key)
    }
}

/// How much the threads that unwrap let others go first: where a core wants their processor too, it has three
/// quarters of it, and it need not wait until they have used up their turn.
const NICE: i32 = 5;

/// Threads that unwrap data keys. Whoever sends elements in plain text waits for a core, and that must not
/// wait for them, also where they share a processor.
struct Unwrapper(mpsc::Sender<Unwrapping>);

/// A data key that is to be unwrapped. A panic is its caller's affair.
struct Unwrapping {
    wrapped: WrappedKey,
    processor: OwnedSemaphorePermit,
    done: oneshot::Sender<std::thread::Result<DataKey>>,
}

impl Unwrapper {
    fn start(opener: Opener, threads: usize) -> Unwrapper {
        let (sender, receiver) = mpsc::channel();
        let (opener, receiver) = (Arc::new(opener), Arc::new(Mutex::new(receiver)));
        for _ in 0..threads {
            let (opener, receiver) = (Arc::clone(&opener), Arc::clone(&receiver));
            let run = move || unwrap_all(&opener, &receiver);
            // With none of them, who sends an envelope is told that too many wait.
            if let Err(error) = std::thread::Builder::new().name("card4e-unwrap".into()).spawn(run) {
                tracing::error!(%error, "a thread that opens envelopes could not be started");
            }
        }
        Unwrapper(sender)
    }

    async fn unwrap(
        &self,
        wrapped: WrappedKey,
        processor: OwnedSemaphorePermit,
    ) -> Result<DataKey, Unopened> {
        let (done, unwrapped) = oneshot::channel();
        self.0.send(Unwrapping { wrapped, processor, done }).map_err(|_| Unopened::Busy)?;
        match unwrapped.await {
            Ok(Ok(key)) => Ok(key),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(Unopened::Busy),
        }
    }
}

/// Until nobody can send anything any more.
fn unwrap_all(opener: &Opener, work: &Mutex<mpsc::Receiver<Unwrapping>>) {
    let _ = rustix::process::nice(NICE);
    loop {
        let next = lock(work).recv();
        let Ok(Unwrapping { wrapped, processor, done }) = next else { return };
        let unwrapped = catch_unwind(AssertUnwindSafe(|| opener.unwrap(&wrapped)));
        // Held by the work and not by who waits for it: a client that leaves frees no processor.
        drop(processor);
        let _ = done.send(unwrapped);
    }
}

/// How many of each application wait.
#[derive(Default)]
struct Line(Mutex<HashMap<ApplicationId, usize>>);

impl Line {
    /// A place, unless all are taken, or the application's equal share of them; one share is kept free for
    /// who is not there yet.
    fn take(&self, application: ApplicationId) -> Option<Place<'_>> {
        let mut line = lock(&self.0);
        let all: usize = line.values().sum();
        let own = line.get(&application).copied().unwrap_or(0);
        let asking = line.len() + usize::from(own == 0);
        if all >= WAITING_MAX || own >= WAITING_MAX / (asking + 1) {
            return None;
        }
        line.insert(application, own + 1);
        Some(Place(self, application))
    }
}

/// One of those who wait.
struct Place<'a>(&'a Line, ApplicationId);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = lock(&self.0.0);
        match line.get_mut(&self.1) {
            Some(own) if *own > 1 => *own -= 1,
            _ => _ = line.remove(&self.1),
        }
    }
}

/// What can be told of a credential: an id, or the end of a token.
fn key_name(credential: &Credential) -> &str {
    match &credential.proof {
        Proof::Signature { secret_id, .. } => secret_id,
        Proof::Bearer { last4, .. } | Proof::Platform { last4, .. } => last4,
    }
}

/// What was used last, a bounded number of things.
struct Recent<K, V> {
    most: usize,
    turn: u64,
    entries: HashMap<K, (u64, V)>,
}

impl<K: Copy + Eq + Hash, V: Clone> Recent<K, V> {
    fn new(most: usize) -> Recent<K, V> {
        Recent { most, turn: 0, entries: HashMap::with_capacity(most) }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        self.turn += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.turn;
        Some(value.clone())
    }

    fn put(&mut self, key: K, value: V) {
        self.turn += 1;
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            // A look at each of a few hundred is nothing beside the unwrapping that led here.
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.entries.remove(&oldest));
        }
        self.entries.insert(key, (self.turn, value));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Worst case after a panic is a key that has to be unwrapped again.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut recent = Recent::new(2);
        recent.put(1, 'a');
        recent.put(2, 'b');
        assert_eq!(recent.get(&1), Some('a'));
        recent.put(3, 'c');
        assert_eq!((recent.get(&1), recent.get(&2), recent.get(&3)), (Some('a'), None, Some('c')));
        recent.put(3, 'd');
        assert_eq!((recent.get(&1), recent.get(&3)), (Some('a'), Some('d')));
    }

    #[test]
    fn no_more_may_wait_than_there_are_places_and_nobody_takes_them_all() {
        let line = Line::default();
        let take = |application: u32, most: usize| -> Vec<Place<'_>> {
            (0..most).map_while(|_| line.take(ApplicationId(application))).collect()
        };
        let noisy = take(1, usize::MAX);
        assert_eq!(noisy.len(), WAITING_MAX / 2);
        let quiet = take(2, 20);
        assert_eq!(quiet.len(), 20, "who asks little is not refused for who asks much");
        let others: Vec<_> = (3..).map_while(|number| line.take(ApplicationId(number))).collect();
        assert_eq!(noisy.len() + quiet.len() + others.len(), WAITING_MAX);
        drop((noisy, quiet, others));
        assert!(lock(&line.0).is_empty());
        assert_eq!(take(1, usize::MAX).len(), WAITING_MAX / 2);
    }

    #[tokio::test]
    async fn a_data_key_is_unwrapped_once() {
        let opener = crate::sandbox::opener().unwrap();
        let envelopes = Envelopes::new(opener);
        let parts = wire::envelope::Parts {
            algorithm: wire::envelope::Algorithm::Aes256Cbc,
            ciphertext_blob: &"A".repeat(344),
            iv: "AAAAAAAAAAAAAAAAAAAAAA==",
            listed: &[(wire::Element::Name, "AAAAAAAAAAAAAAAAAAAAAA==")],
            tags: &[],
        };
        // 344 characters of base64 without padding are 258 bytes: nobody's, and the substitute is kept.
        let envelope = Envelope::read(parts).unwrap();
        let first = envelopes.data_key(envelope.wrapped_key(), ApplicationId(1)).await.ok().unwrap();
        let second = envelopes.data_key(envelope.wrapped_key(), ApplicationId(1)).await.ok().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(lock(&envelopes.data_keys).entries.len(), 1);
        #[cfg(target_os = "linux")]
        assert_eq!(niceness("card4e-unwrap"), Some(NICE));
    }

    /// Of a thread of this process with that name.
    #[cfg(target_os = "linux")]
    fn niceness(name: &str) -> Option<i32> {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let stat = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("stat")).ok();
        let named = format!("({name}) ");
        let stat = threads.flatten().filter_map(stat).find(|stat| stat.contains(&named))?;
        stat.split_once(&named)?.1.split(' ').nth(16)?.parse().ok()
    }
}

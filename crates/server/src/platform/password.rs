//! Passwords: argon2id, and how often one may be guessed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use engine::clock::Millis;
use engine::vault::random;
use tokio::sync::Semaphore;

/// What OWASP recommends for argon2id: 19 MiB, two passes, one lane.
fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

/// Hashes a password; some 30 ms of work.
pub fn hashed(password: &str) -> String {
    let hash: Result<PasswordHash, _> =
        argon2().hash_password_with_salt(password.as_bytes(), &random::<16>());
    // Only impossible parameters fail; an empty hash lets nobody in.
    hash.map(|hash| hash.to_string()).unwrap_or_default()
}

/// Whether a password is the one that was hashed; without a hash the same work is done for nothing, so that
/// time does not tell who has an account.
pub fn matches(password: &str, hash: Option<&str>) -> bool {
    const NOBODYS: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(NOBODYS)) else { return false };
    let fits = argon2().verify_password(password.as_bytes(), &parsed).is_ok();
    fits && hash.is_some()
}

/// What is wrong with a new password.
pub fn flaw(password: &str, login: &str) -> Option<&'static str> {
    let length = password.chars().count();
    if !(10..=256).contains(&length) {
        return Some("A password has 10 to 256 characters.");
    }
    let few = password.chars().collect::<std::collections::HashSet<_>>().len() < 5;
    let local = login.split('@').next().unwrap_or_default();
    let own = local.len() > 3 && password.to_lowercase().contains(local);
    (few || own).then_some("This password is easily guessed: take another one.")
}

/// Wrong guesses of late, by login and by address.
pub struct Guesses {
    recent: Mutex<HashMap<String, (u32, Millis)>>,
    /// Hashes that may be computed at once: each takes 19 MiB and a core.
    pub at_once: Semaphore,
}

const WRONG_MAX: u32 = 5;
const FORGOTTEN_MS: i64 = 15 * 60_000;
const KNOWN_MAX: usize = 100_000;

impl Default for Guesses {
    fn default() -> Guesses {
        Guesses { recent: Mutex::default(), at_once: Semaphore::new(4) }
    }
}

impl Guesses {
    /// Takes a guess at each of these; `false` when too many were wrong in the last quarter of an hour.
    /// Counted before the password is looked at, so that guesses at once are not one.
    pub fn take(&self, of: &[(String, u32)], now: Millis) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() > KNOWN_MAX {
            recent.retain(|_, (_, until)| *until > now);
        }
        let counted =
            |name: &String| recent.get(name).filter(|(_, until)| *until > now).map_or(0, |(n, _)| *n);
        let full = recent.len() > KNOWN_MAX;
        if full || of.iter().any(|(name, weight)| counted(name) >= WRONG_MAX * weight) {
            return false;
        }
        for (name, _) in of {
            let count = counted_in(&recent, name, now);
            recent.insert(name.clone(), (count + 1, now + FORGOTTEN_MS));
        }
        true
    }

    /// The guess was right: nothing is counted against this login any more, and one less against an address,
    /// from where others may have guessed.
    pub fn right(&self, of: &[(String, u32)]) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, weight) in of {
            match recent.get_mut(name) {
                Some((count, _)) if *weight > 1 => *count = count.saturating_sub(1),
                _ => _ = recent.remove(name),
            }
        }
    }
}

fn counted_in(recent: &HashMap<String, (u32, Millis)>, name: &str, now: Millis) -> u32 {
    recent.get(name).filter(|(_, until)| *until > now).map_or(0, |(count, _)| *count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_no_other() {
        let hash = hashed("correct horse battery");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(matches("correct horse battery", Some(&hash)));
        assert!(!matches("correct horse batterz", Some(&hash)));
        assert!(!matches("", None) && !matches("x", Some("")));
        assert_ne!(hash, hashed("correct horse battery"), "salted");
    }

    #[test]
    fn easy_passwords_are_refused() {
        for wrong in ["short", "aaaaaaaaaaaa", "ada.lovelace1843"] {
            assert!(flaw(wrong, "ada.lovelace@example.com").is_some(), "{wrong}");
        }
        assert_eq!(flaw("correct horse battery", "ada@example.com"), None);
    }

    #[test]
    fn the_sixth_guess_waits_a_quarter_of_an_hour() {
        let guesses = Guesses::default();
        let of = [("a@example.com".to_owned(), 1)];
        for _ in 0..5 {
            assert!(guesses.take(&of, 0));
        }
        assert!(!guesses.take(&of, 1));
        assert!(guesses.take(&of, FORGOTTEN_MS + 1));
        guesses.right(&of);
        assert!(guesses.take(&of, FORGOTTEN_MS + 2));
    }
}

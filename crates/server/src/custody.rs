//! Where the root key comes from: a file, the environment, or a person who knows a passphrase.
//!
//! A passphrase is read from the file descriptor that `CARD4E_PASSPHRASE_FD` names, from the systemd
//! credential `card4e-passphrase`, or on the terminal; never from an argument or a variable.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use engine::vault::custody::{open_root_key, seal_root_key};
use zeroize::Zeroizing;

use crate::config::{Custody, KeySettings};

/// The root key, which opens all other keys. Asks for the passphrase if need be.
pub fn root_key(settings: &KeySettings, base: &Path) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    match settings.custody {
        Custody::File => {
            let path = base.join(&settings.root_key_file);
            let text = std::fs::read_to_string(&path).with_context(|| {
                format!("cannot read the root key {}; without it nothing opens", path.display())
            })?;
            unhexed(text, &path.display().to_string())
        }
        Custody::Environment => {
            let name = &settings.root_key_env;
            let text =
                std::env::var(name).with_context(|| format!("keys.root_key_env: no variable {name}"))?;
            unhexed(text, &format!("the variable {name}"))
        }
        Custody::Passphrase => {
            let sealed = sealed(settings, base)?;
            let passphrase = passphrase("Passphrase: ")?;
            Ok(open_root_key(&sealed, &passphrase)?)
        }
    }
}

/// The sealed root key of an installation whose server must start locked: nobody is there to give the
/// passphrase, and nothing.
pub fn locked(settings: &KeySettings, base: &Path) -> anyhow::Result<Option<String>> {
    let is_locked = settings.custody == Custody::Passphrase
        && !std::io::stdin().is_terminal()
        && descriptor().is_none()
        && credential().is_none();
    if is_locked { sealed(settings, base).map(Some) } else { Ok(None) }
}

/// Seals a root key with a new passphrase.
pub fn seal(root_key: &[u8; 32]) -> anyhow::Result<String> {
    let new = passphrase("New passphrase: ")?;
    if std::io::stdin().is_terminal() && descriptor().is_none() && credential().is_none() {
        let again = Zeroizing::new(rpassword::prompt_password("The same again: ")?);
        ensure!(new == again, "the two are not the same; nothing was changed");
    }
    Ok(seal_root_key(root_key, &new)?)
}

/// A passphrase from where it is given.
pub fn passphrase(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    if let Some(file) = descriptor().or_else(credential) {
        return first_line(&file);
    }
    ensure!(
        std::io::stdin().is_terminal(),
        "the root key is sealed by a passphrase and there is no terminal to ask for it on; give it through a \
         file descriptor (CARD4E_PASSPHRASE_FD=3 … 3< file) or the systemd credential card4e-passphrase"
    );
    Ok(Zeroizing::new(rpassword::prompt_password(prompt)?))
}

fn sealed(settings: &KeySettings, base: &Path) -> anyhow::Result<String> {
    let path = base.join(&settings.sealed_key_file);
    std::fs::read_to_string(&path).with_context(|| {
        format!("cannot read the sealed root key {}; `card4e keys seal` makes it", path.display())
    })
}

fn descriptor() -> Option<PathBuf> {
    Some(Path::new("/dev/fd").join(std::env::var("CARD4E_PASSPHRASE_FD").ok()?))
}

fn credential() -> Option<PathBuf> {
    let file = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join("card4e-passphrase");
    file.exists().then_some(file)
}

fn first_line(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    const BYTES_MAX: u64 = 4096;
    let mut text = Zeroizing::new(String::with_capacity(BYTES_MAX as usize));
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
    read.with_context(|| format!("cannot read the passphrase from {}", path.display()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => bail!("there is no passphrase in {}", path.display()),
    }
}

fn unhexed(text: String, whence: &str) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let text = Zeroizing::new(text);
    let bytes = engine::file::unhex(text.trim()).map(Zeroizing::new);
    let key = bytes.and_then(|bytes| bytes[..].try_into().ok());
    key.map(Zeroizing::new).with_context(|| format!("{whence} does not hold 64 hex digits"))
}

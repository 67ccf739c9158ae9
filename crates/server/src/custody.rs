//! Where the root key comes from: a file, the environment, a person who knows a passphrase, a PKCS#11
//! token and who knows its PIN. And how it is replaced by another one.
//!
//! A passphrase or a PIN is read from the file descriptor that a variable names, from a systemd
//! credential, or on the terminal; never from an argument. A PIN may also be in a variable: it is of no
//! use to anybody without the token.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use engine::vault::KeyRing;
use engine::vault::custody::{open_root_key, seal_root_key};
use zeroize::Zeroizing;

use crate::config::{Custody, KeySettings, Settings};
use crate::pkcs11;

/// The root key.
pub type RootKey = Zeroizing<[u8; 32]>;

/// A passphrase or a PIN.
pub struct Secret {
    /// Its text.
    pub text: Zeroizing<String>,
    /// Whether a person gave it just now.
    pub is_attended: bool,
}

/// The root key of an installation, which opens all other keys. Asks for passphrase or PIN if need be.
pub fn root_key(settings: &Settings, base: &Path) -> anyhow::Result<RootKey> {
    let kept = Kept::read(settings, base)?;
    let secret = kept.ask()?;
    kept.open(secret.as_ref())
}

/// The root key as it is kept.
pub struct Kept {
    settings: KeySettings,
    base: PathBuf,
    ring: PathBuf,
    text: Zeroizing<String>,
    /// What takes its place when the ring is sealed by it: somebody is replacing the root key, or was
    /// interrupted in it.
    next: Option<Zeroizing<String>>,
}

impl Kept {
    /// Reads what is kept of it, which may open nothing by itself.
    pub fn read(settings: &Settings, base: &Path) -> anyhow::Result<Kept> {
        let keys = &settings.keys;
        let (text, next) = match place(keys, base, keys.custody) {
            None => {
                let name = &keys.root_key_env;
                let text =
                    std::env::var(name).with_context(|| format!("keys.root_key_env: no variable {name}"))?;
                (Zeroizing::new(text), None)
            }
            Some(path) => {
                let text = std::fs::read_to_string(&path).with_context(|| match keys.custody {
                    Custody::File => {
                        format!("cannot read the root key {}; without it nothing opens", path.display())
                    }
                    _ => format!(
                        "cannot read the sealed root key {}; `card4e keys seal` makes it",
                        path.display()
                    ),
                })?;
                let next = std::fs::read_to_string(beside(&path, "new")).ok();
                (Zeroizing::new(text), next.map(Zeroizing::new))
            }
        };
        let ring = base.join(&settings.server.data).join("keys.json");
        Ok(Kept { settings: keys.clone(), base: base.to_owned(), ring, text, next })
    }

    /// Who keeps it.
    pub fn custody(&self) -> Custody {
        self.settings.custody
    }

    /// Whether a passphrase or PIN is needed that nothing and nobody is there to give.
    pub fn is_locked(&self) -> bool {
        asked(self.custody())
            .is_some_and(|asked| asked.unattended().is_none() && !std::io::stdin().is_terminal())
    }

    /// Gets the passphrase or PIN that is needed, if one is.
    pub fn ask(&self) -> anyhow::Result<Option<Secret>> {
        asked(self.custody()).map(|asked| asked.get()).transpose()
    }

    /// Opens it. Ends a replacement that was interrupted.
    pub fn open(&self, secret: Option<&Secret>) -> anyhow::Result<RootKey> {
        let root = self.opened(&self.text, secret);
        let Some(next) = &self.next else { return root };
        let opens = |root: &RootKey| !self.ring.exists() || KeyRing::open(&self.ring, root).is_ok();
        let is_in_force = match &root {
            Ok(root) => opens(root),
            // The new passphrase may be another; a wrong PIN is not given twice.
            Err(_) => self.custody() != Custody::Passphrase,
        };
        if is_in_force {
            return root;
        }
        match (root, self.opened(next, secret)) {
            (_, Ok(next)) if opens(&next) => {
                self.end_replacement();
                Ok(next)
            }
            (Ok(_), Err(wrong)) => {
                Err(wrong.context("the root key was replaced, and what opens the new one is needed"))
            }
            (root, _) => root,
        }
    }

    /// The root key that waits to take this one's place, if there is one.
    pub fn open_next(&self, secret: Option<&Secret>) -> Option<RootKey> {
        self.opened(self.next.as_ref()?, secret).ok()
    }

    /// Names the root key that waits to take this one's place, if there is one, to whoever opened neither.
    pub fn naming_next(&self, error: anyhow::Error) -> anyhow::Error {
        let path = place(&self.settings, &self.base, self.custody());
        let Some(path) = path.filter(|_| self.next.is_some()) else { return error };
        error.context(format!(
            "{0}.new waits to take the place of {0}: if another root key was being made when that was interrupted, the \
             key ring in the database may be sealed by it already, and its passphrase or PIN is needed",
            path.display()
        ))
    }

    /// The new root key of a replacement that was begun and is not in force, with its text: a server may
    /// still be at it when whoever asked was killed, so the file that has it must not be written over. What
    /// opens with a passphrase or a PIN is replaced by people, not in milliseconds.
    pub fn begun(&self, in_force: &[u8; 32]) -> Option<(RootKey, Zeroizing<String>)> {
        let next = self.next.as_ref().filter(|_| self.custody() == Custody::File)?;
        let root = self.opened(next, None).ok()?;
        (*root != *in_force).then(|| (root, next.clone()))
    }

    fn end_replacement(&self) {
        let Some(path) = place(&self.settings, &self.base, self.custody()) else { return };
        if let Err(error) = put_in_place(&path) {
            // The next one who may write there does it.
            tracing::warn!(%error, path = %path.display(), "the new root key is in force, but not in its place yet");
        }
    }

    fn opened(&self, text: &str, secret: Option<&Secret>) -> anyhow::Result<RootKey> {
        let keys = &self.settings;
        match (self.custody(), secret) {
            (Custody::File, _) => unhexed(text, &self.base.join(&keys.root_key_file).display().to_string()),
            (Custody::Environment, _) => unhexed(text, &format!("the variable {}", keys.root_key_env)),
            (Custody::Passphrase, Some(secret)) => Ok(open_root_key(text, &secret.text)?),
            (Custody::Pkcs11, Some(pin)) => pkcs11::open(text, keys, &self.base, pin),
            (Custody::Passphrase | Custody::Pkcs11, None) => bail!("the root key is sealed"),
        }
    }
}

/// Where a custody keeps the root key.
pub fn place(keys: &KeySettings, base: &Path, custody: Custody) -> Option<PathBuf> {
    match custody {
        Custody::File => Some(base.join(&keys.root_key_file)),
        Custody::Environment => None,
        Custody::Passphrase => Some(base.join(&keys.sealed_key_file)),
        Custody::Pkcs11 => Some(base.join(&keys.pkcs11_key_file)),
    }
}

/// The text that a custody keeps of a root key, and what was done to it, for people.
pub fn sealed(
    root: &[u8; 32],
    keys: &KeySettings,
    base: &Path,
    custody: Custody,
) -> anyhow::Result<(Zeroizing<String>, String)> {
    match custody {
        Custody::Passphrase => {
            let sealed = seal_root_key(root, &new_passphrase()?)?;
            Ok((Zeroizing::new(sealed), "sealed by a passphrase".into()))
        }
        Custody::Pkcs11 => {
            let pkcs11::Sealed { text, said } = pkcs11::seal(root, keys, base, &PIN.get()?)?;
            Ok((Zeroizing::new(text), said))
        }
        Custody::File => {
            let text = format!("{}\n", engine::file::hex(root));
            Ok((Zeroizing::new(text), "in plain text".into()))
        }
        Custody::Environment => bail!(
            "the root key is in the variable {}, where card4e cannot write; seal it first: card4e keys seal",
            keys.root_key_env
        ),
    }
}

/// Replaces the root key of the same custody: the new one is written beside the old one, `reseal` brings
/// it into force by sealing the ring with it, in one step, and then it takes the old one's place. Between
/// any two of these steps [`Kept::open`] finds the one in force.
pub fn replace(path: &Path, text: &str, reseal: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let next = beside(path, "new");
    engine::file::write_durably(&next, text.as_bytes())
        .with_context(|| format!("cannot write {}", next.display()))?;
    reseal()?;
    put_in_place(path)
        .with_context(|| format!("cannot put {} in place of {}", next.display(), path.display()))
}

/// Where the root key before this one is kept, because backups need it.
pub fn former(path: &Path) -> PathBuf {
    beside(path, "old")
}

fn put_in_place(path: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(path, former(path)) {
        // Whoever was interrupted had come this far.
        Err(there) if there.kind() == std::io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    match std::fs::rename(beside(path, "new"), path) {
        // Somebody else ended it.
        Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => Ok(()),
        renamed => renamed.and_then(|()| engine::file::sync_folder_of(path)),
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

/// Where a passphrase or PIN is looked for.
struct Asked {
    what: &'static str,
    prompt: &'static str,
    descriptor: &'static str,
    credential: &'static str,
    variable: Option<&'static str>,
}

const PASSPHRASE: Asked = Asked {
    what: "passphrase",
    prompt: "Passphrase: ",
    descriptor: "CARD4E_PASSPHRASE_FD",
    credential: "card4e-passphrase",
    variable: None,
};

const NEW_PASSPHRASE: Asked = Asked {
    what: "passphrase",
    prompt: "New passphrase: ",
    descriptor: "CARD4E_NEW_PASSPHRASE_FD",
    credential: "card4e-new-passphrase",
    variable: None,
};

const PIN: Asked = Asked {
    what: "PIN",
    prompt: "PIN of the token: ",
    descriptor: "CARD4E_PIN_FD",
    credential: "card4e-pin",
    variable: Some("CARD4E_PIN"),
};

/// What a custody asks for.
fn asked(custody: Custody) -> Option<Asked> {
    match custody {
        Custody::File | Custody::Environment => None,
        Custody::Passphrase => Some(PASSPHRASE),
        Custody::Pkcs11 => Some(PIN),
    }
}

/// The passphrase or PIN of a custody, from where it is given.
pub fn secret(custody: Custody) -> anyhow::Result<Secret> {
    asked(custody).context("the root key is not sealed; nothing has to be given")?.get()
}

fn new_passphrase() -> anyhow::Result<Zeroizing<String>> {
    for asked in [NEW_PASSPHRASE, PASSPHRASE] {
        if let Some(given) = asked.unattended() {
            return given;
        }
    }
    let new = NEW_PASSPHRASE.get()?.text;
    let again = Zeroizing::new(rpassword::prompt_password("The same again: ")?);
    ensure!(new == again, "the two are not the same; nothing was changed");
    Ok(new)
}

impl Asked {
    fn get(&self) -> anyhow::Result<Secret> {
        if let Some(text) = self.unattended() {
            return Ok(Secret { text: text?, is_attended: false });
        }
        let Asked { what, prompt, descriptor, credential, variable } = self;
        let variable = variable.map(|name| format!(", the variable {name}")).unwrap_or_default();
        ensure!(
            std::io::stdin().is_terminal(),
            "the root key is sealed and there is no terminal to ask for the {what} on; give it through a file \
             descriptor ({descriptor}=3 … 3< file){variable} or the systemd credential {credential}"
        );
        Ok(Secret { text: Zeroizing::new(rpassword::prompt_password(prompt)?), is_attended: true })
    }

    /// From where it is given without anybody being asked.
    fn unattended(&self) -> Option<anyhow::Result<Zeroizing<String>>> {
        if let Ok(number) = std::env::var(self.descriptor) {
            return Some(self.first_line(&Path::new("/dev/fd").join(number)));
        }
        if let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") {
            let file = PathBuf::from(folder).join(self.credential);
            if file.exists() {
                return Some(self.first_line(&file));
            }
        }
        let text = std::env::var(self.variable?).ok()?;
        Some(Ok(Zeroizing::new(text)))
    }

    fn first_line(&self, path: &Path) -> anyhow::Result<Zeroizing<String>> {
        const BYTES_MAX: u64 = 4096;
        let what = self.what;
        let mut text = Zeroizing::new(String::with_capacity(BYTES_MAX as usize));
        let file = std::fs::File::open(path);
        let read = file.and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
        read.with_context(|| format!("cannot read the {what} from {}", path.display()))?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
            _ => bail!("there is no {what} in {}", path.display()),
        }
    }
}

fn unhexed(text: &str, whence: &str) -> anyhow::Result<RootKey> {
    let bytes = engine::file::unhex(text.trim()).map(Zeroizing::new);
    let key = bytes.and_then(|bytes| bytes[..].try_into().ok());
    key.map(Zeroizing::new).with_context(|| format!("{whence} does not hold 64 hex digits"))
}

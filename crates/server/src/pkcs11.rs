//! The root key sealed by an AES key that never leaves a PKCS#11 token: an HSM, a smart card, SoftHSM2.
//!
//! The token's own library is loaded when the root key is sealed or opened, and let go again: a server
//! needs its token to start, not to work.
//!
//! Tokens that have AES-GCM seal with it. For the others the root key becomes a key of the session for a
//! moment and is wrapped by AES key wrap (RFC 3394). Which of the two it was is in the sealed file.

use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use engine::file::{hex, unhex};
use engine::vault::random;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::KeySettings;
use crate::custody::Secret;

/// What is written into the sealed file.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    custody: String,
    mechanism: Sealing,
    /// For people: the settings say which token is asked.
    token: String,
    serial: String,
    /// Label of the key that sealed it; another one may be in the settings, for the next sealing.
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iv: Option<String>,
    sealed: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Sealing {
    AesGcm,
    AesKeyWrap,
}

const FORMAT: u32 = 1;
const CUSTODY: &str = "pkcs11";
const PLACE: &[u8] = b"card4e root key under a token";
const TAG_BITS: u64 = 128;
const ROOT_KEY_BYTES: u64 = 32;

/// A root key that was sealed.
pub struct Sealed {
    /// The text of the file to keep.
    pub text: String,
    /// What was done, for people.
    pub said: String,
}

/// Seals a root key with the key of the settings, which is made on the token if it is not there.
///
/// # Errors
/// Say what to do: module missing, token not found, PIN refused or locked, key that is not fit for it.
pub fn seal(root: &[u8; 32], settings: &KeySettings, base: &Path, pin: &Secret) -> anyhow::Result<Sealed> {
    at_token(settings, base, pin, |token| {
        let label = &settings.pkcs11_key;
        let sealing = token.sealing.with_context(|| {
            format!(
                "the token `{}` has neither AES-GCM nor AES key wrap; it cannot keep the root key",
                token.label()
            )
        })?;
        let (key, made) = match token.find(label)? {
            Some(key) => (key, "sealed by the AES-256 key"),
            None => (token.make(label, sealing)?, "sealed by a new AES-256 key"),
        };
        token.refuse_unfit(key, label)?;
        let (iv, sealed) = match sealing {
            Sealing::AesGcm => token.encrypt(key, root).map(|(iv, sealed)| (Some(iv), sealed))?,
            Sealing::AesKeyWrap => (None, token.wrap(key, root)?),
        };
        let stored = Stored {
            format: FORMAT,
            custody: CUSTODY.into(),
            mechanism: sealing,
            token: token.label().into(),
            serial: token.info.serial_number().trim_end().into(),
            key: label.clone(),
            iv: iv.map(|iv| hex(&iv)),
            sealed: hex(&sealed),
        };
        // What the token does not open again must not take the place of what opens.
        let opened =
            token.open(&stored).context("nothing was changed: the token does not open what it sealed")?;
        ensure!(*opened == *root, "nothing was changed: the token opened something else than it sealed");
        let said = format!("{made} `{label}` of the token `{}`", token.label());
        Ok(Sealed { text: serde_json::to_string_pretty(&stored)? + "\n", said })
    })
}

/// Opens what [`seal`] sealed.
pub fn open(
    text: &str,
    settings: &KeySettings,
    base: &Path,
    pin: &Secret,
) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let stored: Stored =
        serde_json::from_str(text).context("the sealed root key is damaged; restore it from a backup")?;
    ensure!(
        stored.format == FORMAT && stored.custody == CUSTODY,
        "the root key was not sealed by a token as this card4e does it; is keys.custody right?"
    );
    at_token(settings, base, pin, |token| token.open(&stored))
}

/// A token somebody has logged in to.
struct Token {
    session: Session,
    info: TokenInfo,
    /// The best it can do.
    sealing: Option<Sealing>,
}

fn at_token<T>(
    settings: &KeySettings,
    base: &Path,
    pin: &Secret,
    run: impl FnOnce(&Token) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let path = settings.pkcs11_module.as_ref().context(
        "keys.pkcs11_module is not set: it names the PKCS#11 library of the token, such as \
         /usr/lib/softhsm/libsofthsm2.so",
    )?;
    let path = base.join(path);
    let shown = path.display();
    ensure!(
        path.exists(),
        "the PKCS#11 library {shown} is not there; install the software of the token, or set keys.pkcs11_module"
    );
    let library =
        Pkcs11::new(&path).with_context(|| format!("{shown} cannot be loaded as a PKCS#11 library"))?;
    library
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .with_context(|| format!("the PKCS#11 library {shown} does not start; see its own settings"))?;
    let done = find_token(&library, settings).and_then(|(slot, info)| {
        let mechanisms = library.get_mechanism_list(slot)?;
        let has = |mechanism| mechanisms.contains(&mechanism);
        let sealing = match () {
            () if has(MechanismType::AES_GCM) => Some(Sealing::AesGcm),
            () if has(MechanismType::AES_KEY_WRAP) => Some(Sealing::AesKeyWrap),
            () => None,
        };
        // A session that may write: the key may have to be made.
        let session = library.open_rw_session(slot)?;
        let token = Token { session, info, sealing };
        token.log_in(pin)?;
        let done = run(&token);
        // The session is closed in any case, which logs out too.
        let _ = token.session.logout();
        done
    });
    // Whatever it says, nobody uses it any more.
    let _ = library.finalize();
    done
}

fn find_token(library: &Pkcs11, settings: &KeySettings) -> anyhow::Result<(Slot, TokenInfo)> {
    let (label, slot) = (&settings.pkcs11_token, settings.pkcs11_slot);
    let mut tokens = Vec::new();
    for slot in library.get_slots_with_initialized_token().context("the tokens cannot be listed")? {
        tokens.push((slot, library.get_token_info(slot)?));
    }
    let there: Vec<_> = tokens
        .iter()
        .map(|(slot, info)| format!("`{}` in slot {}", info.label().trim_end(), slot.id()))
        .collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    tokens.retain(|(at, info)| {
        label.as_ref().is_none_or(|label| info.label().trim_end() == label)
            && slot.is_none_or(|slot| at.id() == slot)
    });
    match tokens.len() {
        1 => tokens.pop().context("a token"),
        0 => {
            let label =
                label.as_ref().map_or("no token there".to_owned(), |label| format!("no token `{label}`"));
            let slot = slot.map_or(String::new(), |slot| format!(" in slot {slot}"));
            bail!("there is {label}{slot}, there is {there}; is it plugged in, and may this user get at it?")
        }
        _ => bail!("several tokens would do: {there}; set keys.pkcs11_token or keys.pkcs11_slot"),
    }
}

impl Token {
    fn label(&self) -> &str {
        self.info.label().trim_end()
    }

    fn log_in(&self, pin: &Secret) -> anyhow::Result<()> {
        let label = self.label();
        ensure!(!self.info.user_pin_locked(), "{}", locked(label));
        // A service that is restarted again and again must not lock the token.
        ensure!(
            pin.is_attended || !self.info.user_pin_final_try(),
            "the token `{label}` takes one more PIN before it locks itself, and this one comes from a file or variable: \
             correct it, then log in once by hand (`card4e keys list` on a terminal)"
        );
        let text = AuthPin::from(pin.text.as_str());
        match self.session.login(UserType::User, Some(&text)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(why, _)) => Err(anyhow!(refused(&why, label))),
            Err(other) => Err(other).context("the token does not let anybody log in"),
        }
    }

    fn find(&self, label: &str) -> anyhow::Result<Option<ObjectHandle>> {
        let wanted = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Label(label.into()),
        ];
        let found = self.session.find_objects(&wanted).context("the keys of the token cannot be listed")?;
        ensure!(
            found.len() < 2,
            "the token `{}` has {} AES keys `{label}`; remove or rename all but the right one",
            self.label(),
            found.len()
        );
        Ok(found.first().copied())
    }

    /// Makes a key that cannot leave the token, and can do nothing but what it is needed for.
    fn make(&self, label: &str, sealing: Sealing) -> anyhow::Result<ObjectHandle> {
        let [encrypts, wraps] = [Sealing::AesGcm, Sealing::AesKeyWrap].map(|does| sealing == does);
        let key = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(encrypts),
            Attribute::Decrypt(encrypts),
            Attribute::Wrap(wraps),
            Attribute::Unwrap(wraps),
            Attribute::ValueLen(ROOT_KEY_BYTES.into()),
            Attribute::Label(label.into()),
            Attribute::Id(random::<8>().to_vec()),
        ];
        self.session.generate_key(&Mechanism::AesKeyGen, &key).with_context(|| {
            format!(
                "the token `{}` makes no AES-256 key; make one `{label}` with its own tools, sensitive and not extractable",
                self.label()
            )
        })
    }

    fn refuse_unfit(&self, key: ObjectHandle, label: &str) -> anyhow::Result<()> {
        let asked = [AttributeType::Sensitive, AttributeType::Extractable, AttributeType::ValueLen];
        for is in self.session.get_attributes(key, &asked)? {
            let unfit = match is {
                Attribute::Sensitive(false) | Attribute::Extractable(true) => "can leave it",
                Attribute::ValueLen(bytes) if u64::from(bytes) != ROOT_KEY_BYTES => "is no AES-256 key",
                _ => continue,
            };
            bail!(
                "the key `{label}` of the token `{}` {unfit}; name another one in keys.pkcs11_key (it is made if it is \
                 not there)",
                self.label()
            );
        }
        Ok(())
    }

    fn open(&self, stored: &Stored) -> anyhow::Result<Zeroizing<[u8; 32]>> {
        let key = self.find(&stored.key)?.with_context(|| {
            format!(
                "the token `{}` has no AES key `{}`, which sealed the root key; restore the token, or use the one that \
                 has it (`{}`, serial number {})",
                self.label(),
                stored.key,
                stored.token,
                stored.serial
            )
        })?;
        let damaged = "the sealed root key is damaged; restore it from a backup";
        let sealed = unhex(&stored.sealed).context(damaged)?;
        let plain = match stored.mechanism {
            Sealing::AesGcm => {
                let iv = stored.iv.as_deref().and_then(unhex).context(damaged)?;
                self.decrypt(key, iv, &sealed)
            }
            Sealing::AesKeyWrap => self.unwrap(key, &sealed),
        };
        let plain = Zeroizing::new(plain.with_context(|| {
            format!(
                "the key `{}` of the token `{}` does not open the root key: another key of that name sealed it, or the \
                 file was changed",
                stored.key,
                self.label()
            )
        })?);
        Ok(Zeroizing::new(plain[..].try_into().context(damaged)?))
    }

    /// Tokens that make their own initialization vector write it where ours was.
    fn encrypt(&self, key: ObjectHandle, plain: &[u8]) -> anyhow::Result<([u8; 12], Vec<u8>)> {
        let mut iv: [u8; 12] = random();
        let gcm = Mechanism::AesGcm(GcmParams::new(&mut iv, PLACE, TAG_BITS.into())?);
        let sealed = self.session.encrypt(&gcm, key, plain).with_context(|| self.unable("encrypt"))?;
        Ok((iv, sealed))
    }

    fn decrypt(&self, key: ObjectHandle, mut iv: Vec<u8>, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let gcm = Mechanism::AesGcm(GcmParams::new(&mut iv, PLACE, TAG_BITS.into())?);
        self.session.decrypt(&gcm, key, sealed)
    }

    fn unable(&self, what: &str) -> String {
        format!(
            "the token `{}` does not {what} with that key; name another one in keys.pkcs11_key (it is made if it is not there)",
            self.label()
        )
    }

    fn wrap(&self, key: ObjectHandle, plain: &[u8; 32]) -> anyhow::Result<Vec<u8>> {
        let value = Attribute::Value(plain.to_vec());
        let template = [of_session(), vec![value]].concat();
        let root = self.session.create_object(&template).context("the token takes no key to wrap")?;
        let wrapped = self.session.wrap_key(&Mechanism::AesKeyWrap, key, root);
        self.session.destroy_object(root)?;
        wrapped.with_context(|| self.unable("wrap"))
    }

    fn unwrap(&self, key: ObjectHandle, wrapped: &[u8]) -> Result<Vec<u8>, Error> {
        let root = self.session.unwrap_key(&Mechanism::AesKeyWrap, key, wrapped, &of_session())?;
        let value = self.session.get_attributes(root, &[AttributeType::Value]);
        self.session.destroy_object(root)?;
        match value?.pop() {
            Some(Attribute::Value(plain)) => Ok(plain),
            _ => Err(Error::InvalidValue),
        }
    }
}

/// A secret that is gone with the session and that we may read: it is ours.
fn of_session() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}

fn refused(why: &RvError, label: &str) -> String {
    match why {
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => format!(
            "the token `{label}` refuses the PIN; after a few wrong ones it locks itself, so look it up before the next try"
        ),
        RvError::PinLocked => locked(label),
        RvError::PinExpired => {
            format!("the PIN of the token `{label}` has expired: set a new one with the token's own tools")
        }
        RvError::UserPinNotInitialized => {
            format!(
                "the token `{label}` has no user PIN yet: its security officer sets one with the token's own tools"
            )
        }
        other => format!("the token `{label}` does not let anybody log in: {other}"),
    }
}

fn locked(label: &str) -> String {
    format!(
        "the PIN of the token `{label}` is locked: its security officer sets a new one with the token's own tools \
         (pkcs11-tool --init-pin, for example)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_pin_says_what_to_do() {
        for (why, what) in [
            (RvError::PinIncorrect, "look it up before the next try"),
            (RvError::PinLocked, "security officer sets a new one"),
            (RvError::PinExpired, "set a new one"),
            (RvError::UserPinNotInitialized, "has no user PIN yet"),
        ] {
            let said = refused(&why, "bank");
            assert!(said.contains(what) && said.contains("`bank`"), "{said}");
        }
    }
}

//! The actions served on this wire and their members. Result codes belong to one action and are never
//! shared (`code.rs`): "cardholder information is incorrect" is `-6` with four elements, `-5` with
//! three and `-4` with two. What a code means for a verification is not known here; the engine projects
//! its outcomes onto these codes.

use std::fmt;

use serde_json::{Map, Value};

use super::Call;
use super::error::{ErrorCode, Fault};
use crate::Element;
pub use crate::envelope::Algorithm;
use crate::envelope::{CannotOpen, Envelope, Parts};

/// The one API version of `faceid` these actions have.
pub const VERSION: &str = "2018-03-01";

/// The product the actions belong to, as named in messages.
pub const SERVICE: &str = "faceid";

/// An action this server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Bank card, holder name, identity number and reserved phone: do they belong together?
    BankCard4EVerification,
    /// Bank card, holder name and identity number.
    BankCardVerification,
    /// Bank card and holder name.
    BankCard2EVerification,
    /// Which bank issued a card, and of which kind it is.
    CheckBankCardInformation,
    /// Name and identity number.
    IdCardVerification,
    /// Phone, name and identity number.
    PhoneVerification,
    /// The same, for numbers of China Mobile.
    PhoneVerificationCMCC,
    /// The same, for numbers of China Unicom.
    PhoneVerificationCUCC,
    /// The same, for numbers of China Telecom.
    PhoneVerificationCTCC,
    /// Phone and name.
    CheckPhoneAndName,
}

/// What a call of an action may hold.
#[derive(Debug)]
pub struct Members {
    /// Its elements under their names, all of them required and all of them encryptable, in the order
    /// of the documentation, in which a missing one is reported.
    pub elements: &'static [(Element, &'static str)],
    /// It takes `CertType`.
    pub cert_type: bool,
    /// It takes `VerifyMode`.
    pub verify_mode: bool,
    /// The members of `Encryption` stand beside the elements: the action is older than the structure.
    pub flat_encryption: bool,
}

impl Action {
    /// Every action.
    pub const ALL: &[Action] = &[
        Action::BankCard4EVerification,
        Action::BankCardVerification,
        Action::BankCard2EVerification,
        Action::CheckBankCardInformation,
        Action::IdCardVerification,
        Action::PhoneVerification,
        Action::PhoneVerificationCMCC,
        Action::PhoneVerificationCUCC,
        Action::PhoneVerificationCTCC,
        Action::CheckPhoneAndName,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Action::BankCard4EVerification => "BankCard4EVerification",
            Action::BankCardVerification => "BankCardVerification",
            Action::BankCard2EVerification => "BankCard2EVerification",
            Action::CheckBankCardInformation => "CheckBankCardInformation",
            Action::IdCardVerification => "IdCardVerification",
            Action::PhoneVerification => "PhoneVerification",
            Action::PhoneVerificationCMCC => "PhoneVerificationCMCC",
            Action::PhoneVerificationCUCC => "PhoneVerificationCUCC",
            Action::PhoneVerificationCTCC => "PhoneVerificationCTCC",
            Action::CheckPhoneAndName => "CheckPhoneAndName",
        }
    }

    /// What a call of it may hold.
    pub const fn members(self) -> &'static Members {
        use Element::{BankCard, IdCard, Name, Phone};
        const PLAIN: Members =
            Members { elements: &[], cert_type: false, verify_mode: false, flat_encryption: false };
        match self {
            Action::BankCard4EVerification => {
                const ELEMENTS: &[(Element, &str)] =
                    &[(Name, "Name"), (BankCard, "BankCard"), (Phone, "Phone"), (IdCard, "IdCard")];
                &Members { elements: ELEMENTS, cert_type: true, ..PLAIN }
            }
            Action::BankCardVerification => {
                const ELEMENTS: &[(Element, &str)] =
                    &[(IdCard, "IdCard"), (Name, "Name"), (BankCard, "BankCard")];
                &Members { elements: ELEMENTS, cert_type: true, ..PLAIN }
            }
            Action::BankCard2EVerification => {
                &Members { elements: &[(Name, "Name"), (BankCard, "BankCard")], ..PLAIN }
            }
            Action::CheckBankCardInformation => &Members { elements: &[(BankCard, "BankCard")], ..PLAIN },
            Action::IdCardVerification => {
                &Members { elements: &[(IdCard, "IdCard"), (Name, "Name")], ..PLAIN }
            }
            Action::PhoneVerification => {
                const ELEMENTS: &[(Element, &str)] = &[(IdCard, "IdCard"), (Name, "Name"), (Phone, "Phone")];
                &Members { elements: ELEMENTS, verify_mode: true, flat_encryption: true, ..PLAIN }
            }
            Action::PhoneVerificationCMCC | Action::PhoneVerificationCUCC | Action::PhoneVerificationCTCC => {
                &Members { elements: &[(IdCard, "IdCard"), (Name, "Name"), (Phone, "Phone")], ..PLAIN }
            }
            // The one action that calls the phone `Mobile`.
            Action::CheckPhoneAndName => &Members { elements: &[(Phone, "Mobile"), (Name, "Name")], ..PLAIN },
        }
    }

    /// The action of that name; names are case-sensitive.
    pub fn named(name: &str) -> Option<Action> {
        Action::ALL.iter().copied().find(|action| action.name() == name)
    }

    /// The action a call asks for.
    ///
    /// # Errors
    /// `NoSuchVersion`, then `InvalidAction` naming the actions there are. Both are told only to
    /// callers whose signature has been verified, so this is not part of reading the call.
    pub fn requested(call: &Call<'_>) -> Result<Action, Fault> {
        if call.version != VERSION {
            return Err(Fault::no_such_version(&call.version, SERVICE));
        }
        Action::named(&call.action).ok_or_else(|| {
            let names: Vec<_> = Action::ALL.iter().map(|action| action.name()).collect();
            Fault::invalid_action(&names)
        })
    }

    fn element_named(self, name: &str) -> Option<Element> {
        let mut elements = self.members().elements.iter();
        elements.find(|(_, known)| *known == name).map(|(element, _)| *element)
    }
}

/// The members of one call.
///
/// The elements have lost surrounding ASCII white space: Tencent's own sample values carry stray
/// blanks. They may be empty, and they are ciphertext where [`Encryption`] lists them. Those the action
/// does not take are empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Elements<'a> {
    /// Which action's.
    pub action: Action,
    /// `Name`: the card holder's name.
    pub name: &'a str,
    /// `BankCard`: the card number.
    pub bank_card: &'a str,
    /// `Phone` or `Mobile`: the mobile number reserved with the bank.
    pub phone: &'a str,
    /// `IdCard`: the identity number.
    pub id_card: &'a str,
    /// `CertType`: 0 is the resident identity card, also when the member is absent.
    pub cert_type: i64,
    /// `VerifyMode` is `1`: a mismatch is to be explained.
    pub detailed: bool,
    /// Which of the elements are ciphertext; `None` when none is.
    pub encryption: Option<Encryption<'a>>,
}

/// Prints which members are there, never what they hold.
impl fmt::Debug for Elements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elements")
            .field("action", &self.action)
            .field("cert_type", &self.cert_type)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}

impl<'a> Elements<'a> {
    /// Reads the members from a call; members it does not know are ignored, since newer SDKs may
    /// send more.
    ///
    /// # Errors
    /// First `MissingParameter` for an element that is absent or null, then `InvalidParameter` for
    /// a wrong JSON type, then `InvalidParameterValue` for an unknown `VerifyMode` or `Algorithm`. An
    /// empty string is a present element.
    pub fn read(action: Action, call: &'a Call<'_>) -> Result<Self, Fault> {
        let (members, takes) = (&call.members, action.members());
        for (_, name) in takes.elements {
            present(members, name).ok_or_else(|| Fault::missing(name))?;
        }
        let text = |wanted: Element| match takes.elements.iter().find(|(element, _)| *element == wanted) {
            Some((_, name)) => element(members, name),
            None => Ok(""),
        };
        Ok(Elements {
            action,
            name: text(Element::Name)?,
            bank_card: text(Element::BankCard)?,
            phone: text(Element::Phone)?,
            id_card: text(Element::IdCard)?,
            cert_type: if takes.cert_type { cert_type(call)? } else { 0 },
            detailed: takes.verify_mode && verify_mode(members)?,
            encryption: Encryption::read(members, takes.flat_encryption)?,
        })
    }
}

impl Elements<'_> {
    /// The envelope in which elements are sealed; `None` when all are plain text.
    ///
    /// # Errors
    /// `InvalidParameter.UnsupportEncryptField` for an entry of `EncryptList` that is no element or
    /// stands there twice, `FailedOperation.StsUnAuthErrError` for a key of the key management
    /// service, `FailedOperation.DecryptSystemError` for whatever else is wrong with its form.
    pub fn envelope(&self) -> Result<Option<Envelope>, Fault> {
        let Some(encryption) = &self.encryption else { return Ok(None) };
        let mut listed = Vec::with_capacity(encryption.encrypt_list.len().min(Element::ALL.len()));
        for name in &encryption.encrypt_list {
            let element = self.action.element_named(name).ok_or_else(|| self.not_encryptable(name))?;
            if listed.iter().any(|(known, _)| *known == element) {
                return Err(self.listed_twice(name));
            }
            listed.push((element, self.element(element)));
        }
        let parts = Parts {
            algorithm: encryption.algorithm,
            ciphertext_blob: encryption.ciphertext_blob,
            iv: encryption.iv,
            listed: &listed,
            tags: &encryption.tag_list,
        };
        Envelope::read(parts).map(Some).map_err(Fault::from)
    }

    /// For operators who accept no element in plain text.
    ///
    /// # Errors
    /// `InvalidParameter.UnsupportEncryptField`.
    pub fn require_encryption(&self) -> Result<(), Fault> {
        let listed = self.encryption.as_ref().map_or(&[][..], |encryption| &encryption.encrypt_list);
        let all = self.action.members().elements.iter().all(|(_, name)| listed.contains(name));
        if all { Ok(()) } else { Err(ErrorCode::UnsupportEncryptField.into()) }
    }

    /// The element as it stands in the request.
    fn element(&self, element: Element) -> &str {
        match element {
            Element::Name => self.name,
            Element::BankCard => self.bank_card,
            Element::Phone => self.phone,
            Element::IdCard => self.id_card,
        }
    }

    /// Quoted only if it looks like a name: people put the ciphertext here, or the plaintext.
    fn not_encryptable(&self, name: &str) -> Fault {
        let is_name = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let which = if is_name { format!(" `{name}`") } else { String::new() };
        let elements = self.action.members().elements.iter();
        let names = elements.map(|(_, name)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let list = self.list_name();
        Fault::new(
            ErrorCode::UnsupportEncryptField,
            format!("`{list}` 中的字段{which} 不支持加密，支持：{names}。"),
            format!("An entry{which} of `{list}` cannot be encrypted; {names} can."),
        )
    }

    fn listed_twice(&self, name: &str) -> Fault {
        let list = self.list_name();
        Fault::new(
            ErrorCode::UnsupportEncryptField,
            format!("`{list}` 中的字段 `{name}` 重复。"),
            format!("`{list}` names `{name}` twice."),
        )
    }

    fn list_name(&self) -> &'static str {
        if self.action.members().flat_encryption { "EncryptList" } else { "Encryption.EncryptList" }
    }
}

impl From<CannotOpen> for Fault {
    /// One text for all that is not the key management service's doing: to tell a wrong key from a
    /// wrong padding would help to decrypt what is somebody else's.
    fn from(cannot: CannotOpen) -> Fault {
        Fault::from(match cannot {
            CannotOpen::KeyManagementService => ErrorCode::StsUnAuthErrError,
            CannotOpen::Failed => ErrorCode::DecryptSystemError,
        })
    }
}

/// The `Encryption` member: which elements are ciphertext and how the data key is wrapped.
///
/// Present only if it lists at least one element. Nothing in it is decoded yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Encryption<'a> {
    /// `EncryptList`: names of encrypted members, in the client's own order (a hash order in Go and
    /// Java), which is also the order of the tags.
    pub encrypt_list: Vec<&'a str>,
    /// `CiphertextBlob`: the wrapped data key, base64, or the text of a key management service.
    pub ciphertext_blob: &'a str,
    /// `Iv`: base64, or 16 raw characters in the age of the key management service.
    pub iv: &'a str,
    /// `Algorithm`.
    pub algorithm: Algorithm,
    /// `TagList`: base64 tags in the order of the list; empty with AES.
    pub tag_list: Vec<&'a str>,
}

/// Prints names and sizes, never key material.
impl fmt::Debug for Encryption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption")
            .field("encrypt_list", &self.encrypt_list)
            .field("algorithm", &self.algorithm)
            .field("ciphertext_blob_len", &self.ciphertext_blob.len())
            .field("tag_list_len", &self.tag_list.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Encryption<'a> {
    /// `None` when nothing is encrypted.
    ///
    /// No list and an empty list mean the same: Node's helper sends `EncryptList: []` with
    /// `Iv: null` when it had nothing to encrypt, Go drops the empty list, and so does flattening.
    ///
    /// The structure is looked for everywhere: what it lists must never be taken for text.
    fn read(members: &'a Map<String, Value>, is_flat: bool) -> Result<Option<Self>, Fault> {
        let flat = is_flat && present(members, "EncryptList").is_some();
        let place = match present(members, "Encryption") {
            _ if flat => Place { members, prefix: "" },
            None => return Ok(None),
            Some(value) => {
                let members = value.as_object().ok_or_else(|| Fault::type_error("Encryption"))?;
                Place { members, prefix: "Encryption." }
            }
        };
        let encrypt_list = place.texts("EncryptList")?;
        if encrypt_list.is_empty() {
            return Ok(None);
        }
        Ok(Some(Encryption {
            encrypt_list,
            ciphertext_blob: place.required_text("CiphertextBlob")?,
            iv: place.required_text("Iv")?,
            tag_list: place.texts("TagList")?,
            algorithm: place.algorithm()?,
        }))
    }
}

/// Where the members of `Encryption` stand, and what their names begin with in messages.
struct Place<'a> {
    members: &'a Map<String, Value>,
    prefix: &'static str,
}

impl<'a> Place<'a> {
    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn required_text(&self, name: &str) -> Result<&'a str, Fault> {
        let value = present(self.members, name).ok_or_else(|| Fault::missing(&self.full_name(name)))?;
        value.as_str().ok_or_else(|| Fault::type_error(&self.full_name(name)))
    }

    fn texts(&self, name: &str) -> Result<Vec<&'a str>, Fault> {
        let texts = match present(self.members, name) {
            None => Some(Vec::new()),
            Some(value) => value.as_array().and_then(|list| list.iter().map(Value::as_str).collect()),
        };
        texts.ok_or_else(|| Fault::type_error(&self.full_name(name)))
    }

    fn algorithm(&self) -> Result<Algorithm, Fault> {
        let full_name = || self.full_name("Algorithm");
        let Some(value) = present(self.members, "Algorithm") else { return Ok(Algorithm::Aes256Cbc) };
        let name = value.as_str().ok_or_else(|| Fault::type_error(&full_name()))?;
        Algorithm::named(name)
            .ok_or_else(|| Fault::bad_value(&full_name(), &Algorithm::ALL.map(Algorithm::as_str)))
    }
}

/// A member that is neither absent nor null.
fn present<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| !value.is_null())
}

fn element<'a>(members: &'a Map<String, Value>, name: &str) -> Result<&'a str, Fault> {
    let text = present(members, name).and_then(Value::as_str);
    text.map(str::trim_ascii).ok_or_else(|| Fault::type_error(name))
}

/// Integers arrive as text in GET and form requests, and only there are they read from text.
fn cert_type(call: &Call<'_>) -> Result<i64, Fault> {
    let number = match present(&call.members, "CertType") {
        None => Some(0),
        Some(Value::String(text)) if call.flattened => text.parse().ok(),
        Some(value) => value.as_i64(),
    };
    number.ok_or_else(|| Fault::type_error("CertType"))
}

/// Text by the page, a number where somebody took it for one.
fn verify_mode(members: &Map<String, Value>) -> Result<bool, Fault> {
    match present(members, "VerifyMode") {
        None => Ok(false),
        Some(Value::String(mode)) if mode.is_empty() || mode == "0" => Ok(false),
        Some(Value::String(mode)) if mode == "1" => Ok(true),
        Some(Value::String(_)) => Err(Fault::bad_value("VerifyMode", &["0", "1"])),
        Some(_) => Err(Fault::type_error("VerifyMode")),
    }
}

//! The actions served on this wire: their members, their result codes and their texts.
//!
//! Result codes belong to one action and are never shared: "cardholder information is incorrect"
//! is `-6` with four elements, `-5` with three and `-4` with two. What a code means for a
//! verification is not known here; the engine projects its outcomes onto these codes.

use std::fmt;

use serde_json::{Map, Value};

use super::Call;
use super::error::{ErrorCode, Fault};
pub use crate::envelope::Algorithm;
use crate::envelope::{CannotOpen, Envelope, Parts};
use crate::{Element, Language};

/// The one API version of `faceid` these actions have.
pub const VERSION: &str = "2018-03-01";

/// The product the actions belong to, as named in messages.
pub const SERVICE: &str = "faceid";

/// An action this server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Bank card, holder name, identity number and reserved phone: do they belong together?
    BankCard4EVerification,
}

impl Action {
    /// Every action.
    pub const ALL: &[Action] = &[Action::BankCard4EVerification];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Action::BankCard4EVerification => "BankCard4EVerification",
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
}

/// The members of `BankCard4EVerification`.
///
/// The four elements have lost surrounding ASCII white space: Tencent's own sample values carry
/// stray blanks. They may be empty, and they are ciphertext where [`Encryption`] lists them.
#[derive(Clone, PartialEq, Eq)]
pub struct FourElements<'a> {
    /// `Name`: the card holder's name.
    pub name: &'a str,
    /// `BankCard`: the card number.
    pub bank_card: &'a str,
    /// `Phone`: the mobile number reserved with the bank.
    pub phone: &'a str,
    /// `IdCard`: the identity number.
    pub id_card: &'a str,
    /// `CertType`: 0 is the resident identity card, also when the member is absent.
    pub cert_type: i64,
    /// Which of the elements are ciphertext; `None` when none is.
    pub encryption: Option<Encryption<'a>>,
}

/// Prints which members are there, never what they hold.
impl fmt::Debug for FourElements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FourElements")
            .field("cert_type", &self.cert_type)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}

impl<'a> FourElements<'a> {
    /// The elements in the order the documentation lists them, which is the order in which a
    /// missing one is reported.
    pub const ELEMENTS: [&'static str; 4] = ["Name", "BankCard", "Phone", "IdCard"];

    /// Reads the members from a call; members it does not know are ignored, since newer SDKs may
    /// send more.
    ///
    /// # Errors
    /// First `MissingParameter` for an element that is absent or null, then `InvalidParameter` for
    /// a wrong JSON type, then `InvalidParameterValue` for an unknown `Algorithm`. An empty string
    /// is a present element.
    pub fn read(call: &'a Call<'_>) -> Result<Self, Fault> {
        let members = &call.members;
        for name in Self::ELEMENTS {
            present(members, name).ok_or_else(|| Fault::missing(name))?;
        }
        Ok(FourElements {
            name: element(members, "Name")?,
            bank_card: element(members, "BankCard")?,
            phone: element(members, "Phone")?,
            id_card: element(members, "IdCard")?,
            cert_type: cert_type(call)?,
            encryption: Encryption::read(members)?,
        })
    }
}

impl FourElements<'_> {
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
            let element = element_named(name).ok_or_else(|| not_encryptable(name))?;
            if listed.iter().any(|(known, _)| *known == element) {
                return Err(listed_twice(name));
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
        let listed = self.encryption.as_ref().map(|encryption| &encryption.encrypt_list[..]);
        let all = Self::ELEMENTS.iter().all(|name| listed.unwrap_or_default().contains(name));
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
}

fn element_named(name: &str) -> Option<Element> {
    let at = FourElements::ELEMENTS.iter().position(|known| *known == name)?;
    Some(Element::ALL[at])
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

/// Quoted only if it looks like a name: people put the ciphertext here, or the plaintext.
fn not_encryptable(name: &str) -> Fault {
    let is_name = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    let which = if is_name { format!(" `{name}`") } else { String::new() };
    let names = FourElements::ELEMENTS.map(|name| format!("`{name}`")).join(", ");
    Fault::new(
        ErrorCode::UnsupportEncryptField,
        format!("`Encryption.EncryptList` 中的字段{which} 不支持加密，支持：{names}。"),
        format!("An entry{which} of `Encryption.EncryptList` cannot be encrypted; {names} can."),
    )
}

fn listed_twice(name: &str) -> Fault {
    Fault::new(
        ErrorCode::UnsupportEncryptField,
        format!("`Encryption.EncryptList` 中的字段 `{name}` 重复。"),
        format!("`Encryption.EncryptList` names `{name}` twice."),
    )
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
    fn read(members: &'a Map<String, Value>) -> Result<Option<Self>, Fault> {
        let Some(encryption) = present(members, "Encryption") else { return Ok(None) };
        let encryption = encryption.as_object().ok_or_else(|| Fault::type_error("Encryption"))?;
        let encrypt_list = texts(encryption, "EncryptList")?;
        if encrypt_list.is_empty() {
            return Ok(None);
        }
        Ok(Some(Encryption {
            encrypt_list,
            ciphertext_blob: required_text(encryption, "CiphertextBlob")?,
            iv: required_text(encryption, "Iv")?,
            tag_list: texts(encryption, "TagList")?,
            algorithm: algorithm(encryption)?,
        }))
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

fn required_text<'a>(encryption: &'a Map<String, Value>, name: &str) -> Result<&'a str, Fault> {
    let full_name = || format!("Encryption.{name}");
    let value = present(encryption, name).ok_or_else(|| Fault::missing(&full_name()))?;
    value.as_str().ok_or_else(|| Fault::type_error(&full_name()))
}

fn texts<'a>(encryption: &'a Map<String, Value>, name: &str) -> Result<Vec<&'a str>, Fault> {
    let texts = match present(encryption, name) {
        None => Some(Vec::new()),
        Some(value) => value.as_array().and_then(|list| list.iter().map(Value::as_str).collect()),
    };
    texts.ok_or_else(|| Fault::type_error(&format!("Encryption.{name}")))
}

fn algorithm(encryption: &Map<String, Value>) -> Result<Algorithm, Fault> {
    let Some(value) = present(encryption, "Algorithm") else { return Ok(Algorithm::Aes256Cbc) };
    let name = value.as_str().ok_or_else(|| Fault::type_error("Encryption.Algorithm"))?;
    Algorithm::named(name)
        .ok_or_else(|| Fault::bad_value("Encryption.Algorithm", &Algorithm::ALL.map(Algorithm::as_str)))
}

/// A result code of `BankCard4EVerification`, from the table of its documentation page.
///
/// The discriminant is the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum BankCard4ECode {
    /// All four elements belong together.
    Passed = 0,
    /// Not passed, without a reason.
    NotPassed = -1,
    /// The name is not a name.
    NameInvalid = -2,
    /// The identity number is not one.
    IdInvalid = -3,
    /// The card number is malformed.
    CardMalformed = -4,
    /// The phone number is not one.
    PhoneInvalid = -5,
    /// Name, identity number or phone differs from the bank's record.
    HolderMismatch = -6,
    /// Card-not-present payment is switched off.
    CardlessNotEnabled = -7,
    /// The card has been confiscated.
    CardConfiscated = -8,
    /// There is no such card.
    CardInvalid = -9,
    /// No issuer is known for the card.
    NoIssuer = -10,
    /// The card was never activated, or is dormant.
    CardInactive = -11,
    /// The card is marked as fraudulent.
    CardFraud = -12,
    /// The card has been reported lost.
    CardLost = -13,
    /// The card is past its expiry.
    CardExpired = -14,
    /// The card is restricted.
    CardRestricted = -15,
    /// Too many wrong PINs.
    PinLocked = -16,
    /// The issuer does not take part.
    IssuerUnsupported = -17,
    /// No source could answer now.
    Busy = -18,
    /// Too many attempts today.
    AttemptsExceeded = -19,
    /// Only the second-generation resident identity card can be verified.
    DocumentUnsupported = -20,
    /// The card's state is abnormal.
    CardAbnormal = -21,
}

use BankCard4ECode as Code;

impl BankCard4ECode {
    /// Every code, from 0 downwards.
    pub const ALL: [BankCard4ECode; 22] = [
        Code::Passed,
        Code::NotPassed,
        Code::NameInvalid,
        Code::IdInvalid,
        Code::CardMalformed,
        Code::PhoneInvalid,
        Code::HolderMismatch,
        Code::CardlessNotEnabled,
        Code::CardConfiscated,
        Code::CardInvalid,
        Code::NoIssuer,
        Code::CardInactive,
        Code::CardFraud,
        Code::CardLost,
        Code::CardExpired,
        Code::CardRestricted,
        Code::PinLocked,
        Code::IssuerUnsupported,
        Code::Busy,
        Code::AttemptsExceeded,
        Code::DocumentUnsupported,
        Code::CardAbnormal,
    ];

    /// The number in `Result`.
    pub const fn number(self) -> i8 {
        self as i8
    }

    /// The code of that number, for connectors and sandbox scripts.
    pub fn numbered(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Whether Tencent's price list charges an answer with this code.
    pub const fn charged(self) -> bool {
        !matches!(
            self,
            Code::NameInvalid
                | Code::IdInvalid
                | Code::CardMalformed
                | Code::PhoneInvalid
                | Code::Busy
                | Code::AttemptsExceeded
                | Code::DocumentUnsupported
        )
    }

    /// The text in `Description`, word for word as on the domestic and the international page,
    /// their uneven punctuation included: client code compares it.
    pub const fn text(self, language: Language) -> &'static str {
        let (zh, en) = match self {
            Code::Passed => ("认证通过", "Authentication passed"),
            Code::NotPassed => ("认证未通过", "Authentication failed"),
            Code::NameInvalid => ("姓名校验不通过", "Name verification failed"),
            Code::IdInvalid => ("身份证号码有误", "Identity number error"),
            Code::CardMalformed => ("银行卡号格式有误", "Incorrect bank card number format"),
            Code::PhoneInvalid => ("手机号码不合法", "Invalid phone number"),
            Code::HolderMismatch => ("持卡人信息有误", "Cardholder information is incorrect"),
            Code::CardlessNotEnabled => ("未开通无卡支付", "Cardless payment not enabled"),
            Code::CardConfiscated => ("此卡被没收", "Card confiscated"),
            Code::CardInvalid => ("无效卡号", "Invalid card number"),
            Code::NoIssuer => ("此卡无对应发卡行", "No corresponding issuing bank for this card"),
            Code::CardInactive => ("该卡未初始化或睡眠卡", "The card is uninitialized or a Sleep Card"),
            Code::CardFraud => ("作弊卡、吞卡", "Cheat card, card confiscation"),
            Code::CardLost => ("此卡已挂失", "Reported lost"),
            Code::CardExpired => ("该卡已过期", "The card has expired."),
            Code::CardRestricted => ("受限制的卡", "Restricted card"),
            Code::PinLocked => ("密码错误次数超限", "Exceeded the number of password errors"),
            Code::IssuerUnsupported => ("发卡行不支持此交易", "Issuer does not support this transaction"),
            Code::Busy => ("验证中心服务繁忙", "Verification Center Service busy"),
            Code::AttemptsExceeded => (
                "验证次数超限，请次日重试",
                "Exceeded maximum verification attempts. Please retry the next day.",
            ),
            Code::DocumentUnsupported => (
                "该证件号暂不支持核验，当前仅支持二代身份证",
                "The ID number is not currently supported for verification. \
                 Currently only support second-generation resident identity card.",
            ),
            Code::CardAbnormal => ("卡状态异常或卡号错误", "Card status exception or card number error"),
        };
        match language {
            Language::Chinese => zh,
            Language::English => en,
        }
    }
}

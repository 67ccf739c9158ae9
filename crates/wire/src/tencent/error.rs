//! The errors of this wire: one table of codes, one [`Fault`] a caller reads.
//!
//! SDKs branch on the code only, so the text is ours to make useful; where the public cloud's own
//! text is known it is kept word for word, because that is what people search for. Every message is
//! one sentence in both languages with identifiers in back-ticks; which language goes out is decided
//! when the reply is written.

use std::borrow::Cow;

use super::calendar;
use crate::Language;

/// One error as the caller reads it: a code and its sentence in both languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The code SDKs branch on.
    pub code: ErrorCode,
    zh: Cow<'static, str>,
    en: Cow<'static, str>,
}

impl From<ErrorCode> for Fault {
    /// The code with its default sentence.
    fn from(code: ErrorCode) -> Self {
        let (zh, en) = code.default_texts();
        Fault { code, zh: Cow::Borrowed(zh), en: Cow::Borrowed(en) }
    }
}

impl Fault {
    /// A fault with sentences of its own: one in back-ticked Chinese, one in English.
    pub fn new(code: ErrorCode, zh: impl Into<Cow<'static, str>>, en: impl Into<Cow<'static, str>>) -> Self {
        Fault { code, zh: zh.into(), en: en.into() }
    }

    /// The sentence in one language.
    pub fn message(&self, language: Language) -> &str {
        match language {
            Language::Chinese => &self.zh,
            Language::English => &self.en,
        }
    }

    /// `MissingParameter` naming a common parameter or a member, such as `Timestamp`.
    pub fn missing(parameter: &str) -> Self {
        let name = quotable(parameter);
        Fault::new(
            ErrorCode::MissingParameter,
            format!("请求缺少必填参数 `{name}`。"),
            format!("The request is missing a required parameter `{name}`."),
        )
    }

    /// `InvalidParameter` naming the parameter, with a predicate in each language.
    pub(super) fn parameter(name: &str, zh: &str, en: &str) -> Self {
        let name = quotable(name);
        Fault::new(
            ErrorCode::InvalidParameter,
            format!("参数 `{name}` {zh}。"),
            format!("Parameter `{name}` {en}."),
        )
    }

    /// `InvalidParameter` for a value of the wrong type.
    pub fn type_error(parameter: &str) -> Self {
        let name = quotable(parameter);
        Fault::new(
            ErrorCode::InvalidParameter,
            format!("参数 `{name}` 类型错误。"),
            format!("Parameter `{name}` type error."),
        )
    }

    /// `InvalidParameterValue` naming the parameter and what it may be.
    pub fn bad_value(parameter: &str, allowed: &[&str]) -> Self {
        let name = quotable(parameter);
        let allowed = ticked(allowed);
        Fault::new(
            ErrorCode::InvalidParameterValue,
            format!("参数 `{name}` 取值错误，可选值：{allowed}。"),
            format!("The value of parameter `{name}` is not acceptable, it must be one of {allowed}."),
        )
    }

    /// `InvalidAction`, naming what can be called.
    pub fn invalid_action(supported: &[&str]) -> Self {
        let supported = ticked(supported);
        Fault::new(
            ErrorCode::InvalidAction,
            format!("请求的 `Action` 无效或不存在，当前支持：{supported}。"),
            format!("The request `Action` is invalid or not found. Supported: {supported}."),
        )
    }

    /// `NoSuchVersion` naming the version asked for and the service it was looked for in.
    ///
    /// The public gateway names the first label of the host here (`service=10` for an IP address);
    /// a self-hosted name has arbitrary labels, so the service is handed in.
    pub fn no_such_version(version: &str, service: &str) -> Self {
        let version = quotable(version);
        Fault::new(
            ErrorCode::NoSuchVersion,
            format!("指定的接口版本 version=`{version}` 在服务 service=`{service}` 中不存在。"),
            format!("The specified api version=`{version}` does not exist in service=`{service}`."),
        )
    }

    /// `AuthFailure.SignatureExpire` with the server's time and how far off the request is.
    ///
    /// Both arguments are unix seconds. A wrong clock is the most frequent support case of this
    /// protocol, so the text carries what is needed to see it.
    pub fn signature_expire(timestamp: i64, now: i64) -> Self {
        let server = calendar::iso8601(now);
        let off_s = now.abs_diff(timestamp);
        let (zh, en) = if timestamp < now { ("慢", "behind") } else { ("快", "ahead of") };
        Fault::new(
            ErrorCode::SignatureExpire,
            format!(
                "签名已过期，请重新请求。请求的 `Timestamp` 比服务器时间 `{server}`（`{now}`）{zh} `{off_s}` 秒，允许相差 `300` 秒。"
            ),
            format!(
                "The signature is expired, please request again. The request's `Timestamp` is `{off_s}` seconds \
                 {en} the server's time `{server}` (`{now}`), `300` are allowed."
            ),
        )
    }

    /// `RequestLimitExceeded` with how many calls this second saw and how many it may.
    pub fn request_limit_exceeded(sent: u64, limit: u64) -> Self {
        Fault::new(
            ErrorCode::RequestLimitExceeded,
            format!("您当前每秒请求 `{sent}` 次，超过了每秒频率上限 `{limit}`，请稍后重试。"),
            format!(
                "You have sent `{sent}` requests this second, more than the limit of `{limit}` per second, \
                 please try again later."
            ),
        )
    }

    /// `AuthFailure.SignatureFailure` for a signature v1 body over 1 MB, the public cloud's text.
    pub fn v1_body_too_large() -> Self {
        Fault::new(
            ErrorCode::SignatureFailure,
            "由于请求包大小超过限制，请求签名验证失败，请使用新的签名方法 `TC3-HMAC-SHA256`。",
            "The provided credentials could not be validated because of exceeding request size limit, \
             please use new signature method `TC3-HMAC-SHA256`.",
        )
    }

    /// `RequestSizeLimitExceeded` naming the limit in bytes.
    pub fn request_too_large(limit_bytes: usize) -> Self {
        Fault::new(
            ErrorCode::RequestSizeLimitExceeded,
            format!("请求包超过大小限制 `{limit_bytes}` 字节。"),
            format!("The request is larger than the limit of `{limit_bytes}` bytes."),
        )
    }

    /// `AuthFailure.InvalidAuthorization` saying which part of the header is wrong.
    pub(super) fn invalid_authorization(part: &'static str) -> Self {
        Fault::new(
            ErrorCode::InvalidAuthorization,
            format!("请求头 `Authorization` 不符合规范：`{part}`。"),
            format!("The `Authorization` header does not follow the specification: `{part}`."),
        )
    }
}

/// Client text made fit for a message: bounded, and unable to leave its back-ticks.
fn quotable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && *c != '`').take(64).collect()
}

/// `` `A`, `B` ``
fn ticked(names: &[&str]) -> String {
    let ticked: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    ticked.join(", ")
}

/// Makes the enum, [`ErrorCode::ALL`] and the look-ups from one table, so that no code can be
/// without its texts or its line of documentation.
macro_rules! error_codes {
    ($(#[doc = $about:literal] $variant:ident = $name:literal, $zh:literal, $en:literal;)*) => {
        /// A code as it stands in `Response.Error.Code`.
        ///
        /// The subset of Tencent's published common codes that this server can answer, and the
        /// codes its pages list for the card actions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $about] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name,)* }
            }

            /// One line for the documentation: what it means.
            pub const fn about(self) -> &'static str {
                match self { $(ErrorCode::$variant => $about.trim_ascii(),)* }
            }

            /// The default sentence, Chinese and English.
            const fn default_texts(self) -> (&'static str, &'static str) {
                match self { $(ErrorCode::$variant => ($zh, $en),)* }
            }
        }
    };
}

error_codes! {
    /// The action has been withdrawn.
    ActionOffline = "ActionOffline",
        "接口已下线。", "The `Action` has been taken offline.";
    /// The `Authorization` header is malformed, or says `SKIP`.
    InvalidAuthorization = "AuthFailure.InvalidAuthorization",
        "请求头 `Authorization` 不符合规范。", "The `Authorization` header does not follow the specification.";
    /// The key exists but is not an API key, for instance a management key.
    InvalidSecretId = "AuthFailure.InvalidSecretId",
        "密钥非法，不是 API 密钥类型。", "The SecretId is not of the API key type.";
    /// The key is unknown, deleted or disabled.
    SecretIdNotFound = "AuthFailure.SecretIdNotFound",
        "SecretId不存在，请输入正确的密钥。",
        "The SecretId is not found, please ensure that your SecretId is correct.";
    /// The request's time is more than five minutes from the server's.
    SignatureExpire = "AuthFailure.SignatureExpire",
        "签名已过期，请重新请求。", "The signature is expired, please request again.";
    /// The signature does not match the request.
    SignatureFailure = "AuthFailure.SignatureFailure",
        "请求签名验证失败，请检查您的签名计算是否正确。",
        "The provided credentials could not be validated. Please check your signature is correct.";
    /// The token of a temporary key is wrong or has expired.
    TokenFailure = "AuthFailure.TokenFailure",
        "临时密钥的 `Token` 错误或已过期。", "The `Token` of the temporary key is wrong or has expired.";
    /// The key may not call this action.
    AuthUnauthorizedOperation = "AuthFailure.UnauthorizedOperation",
        "请求未授权，该密钥没有调用此接口的权限。", "The key is not authorized to call this `Action`.";
    /// The envelope cannot be opened, or what is inside does not decrypt.
    DecryptSystemError = "FailedOperation.DecryptSystemError",
        "解密失败，请使用本服务的公钥加密，公钥见 `/encryption-keys`。",
        "Decryption failed. Encrypt with this server's public key, see `/encryption-keys`.";
    /// The data key belongs to a key management service this server cannot ask.
    StsUnAuthErrError = "FailedOperation.StsUnAuthErrError",
        "STS未授权：不支持 KMS 数据密钥，请使用本服务的公钥加密，公钥见 `/encryption-keys`。",
        "STS unauthorized: KMS data keys are not supported, encrypt with this server's public key, see `/encryption-keys`.";
    /// An internal fault once the action was known.
    UnKnown = "FailedOperation.UnKnown",
        "内部未知错误。", "Unknown internal error.";
    /// An internal fault before the action was known; may be retried.
    InternalError = "InternalError",
        "内部错误。", "Internal error.";
    /// The action is unknown.
    InvalidAction = "InvalidAction",
        "请求的 `Action` 无效或不存在。", "The request `Action` is invalid or not found.";
    /// A parameter is malformed or of the wrong type.
    InvalidParameter = "InvalidParameter",
        "参数错误。", "Invalid parameter.";
    /// A field that must be encrypted is not, or one is listed that cannot be.
    UnsupportEncryptField = "InvalidParameter.UnsupportEncryptField",
        "存在不加密的字段，请参考文档修改。", "Unencrypted fields exist. Refer to the documentation to modify.";
    /// A parameter's value is not one of those allowed.
    InvalidParameterValue = "InvalidParameterValue",
        "参数取值错误。", "Incorrect parameter value.";
    /// A `multipart/form-data` body is malformed.
    InvalidRequest = "InvalidRequest",
        "请求 body 的 `multipart/form-data` 格式错误。", "The `multipart/form-data` body of the request is malformed.";
    /// The source address is on the deny list.
    IpInBlacklist = "IpInBlacklist",
        "请求来源 IP 在黑名单内。", "The source address is on the deny list.";
    /// The source address is not on the allow list.
    IpNotInWhitelist = "IpNotInWhitelist",
        "请求来源 IP 不在白名单内。", "The source address is not on the allow list.";
    /// A parameter is missing.
    MissingParameter = "MissingParameter",
        "请求缺少必填参数。", "The request is missing a required parameter.";
    /// The host name belongs to a product that is not served here.
    NoSuchProduct = "NoSuchProduct",
        "产品不存在。", "The product does not exist.";
    /// The version is not `2018-03-01`.
    NoSuchVersion = "NoSuchVersion",
        "接口版本不存在。", "The specified api version does not exist.";
    /// Too many requests a second for this action.
    RequestLimitExceeded = "RequestLimitExceeded",
        "请求的次数超过了频率限制，请稍后重试。", "The request rate is over its limit, please try again later.";
    /// Too many requests a second from one address.
    IpLimitExceeded = "RequestLimitExceeded.IPLimitExceeded",
        "IP 的请求次数超过了频率限制，请稍后重试。", "The request rate of the source address is over its limit, please try again later.";
    /// Too many requests a second of one account.
    UinLimitExceeded = "RequestLimitExceeded.UinLimitExceeded",
        "账号的请求次数超过了频率限制，请稍后重试。", "The request rate of the account is over its limit, please try again later.";
    /// The body is over 10 MB, or the query over 32 KB.
    RequestSizeLimitExceeded = "RequestSizeLimitExceeded",
        "请求包超过大小限制。", "The request is larger than its limit.";
    /// A data source is down.
    ResourceUnavailable = "ResourceUnavailable",
        "资源不可用。", "The resource is unavailable.";
    /// Overload, shutdown or a locked vault; may be retried.
    ServiceUnavailable = "ServiceUnavailable",
        "当前服务暂时不可用，请稍后重试。", "The service is temporarily unavailable, please try again later.";
    /// The balance is used up.
    Arrears = "UnauthorizedOperation.Arrears",
        "账号已欠费。", "The account is in arrears.";
    /// The operator has suspended the account.
    ChargeStatusException = "UnauthorizedOperation.ChargeStatusException",
        "计费状态异常。", "The billing status of the account is abnormal.";
    /// The account has not been confirmed yet.
    NonAuthorize = "UnauthorizedOperation.NonAuthorize",
        "账号未实名。", "The account has not been verified.";
    /// The account is not entitled to the action.
    Nonactivated = "UnauthorizedOperation.Nonactivated",
        "未开通服务。", "The service has not been activated.";
    /// A parameter is not defined; only where the server is told to be strict.
    UnknownParameter = "UnknownParameter",
        "未定义的参数。", "The request has an undefined parameter.";
    /// Only GET and POST are served.
    UnsupportedProtocol = "UnsupportedProtocol",
        "HTTP(S) 请求协议错误，只支持 `GET` 和 `POST` 请求。", "Only the HTTP methods `GET` and `POST` are supported.";
}

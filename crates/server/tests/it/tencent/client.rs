//! A client of this wire: builds what the SDKs build and signs it on the way out.

use std::fmt::Write;

use ::http::Method;
use wire::tencent::signature::{Unsigned, V1Method, sign_tc3, sign_v1};

use crate::support::{Reply, SECRET_ID, SECRET_KEY, Sandbox, now};

/// The documented sample that passes.
pub const SAMPLE: &str =
    r#"{"Name":"韦小宝","BankCard":"6225768888888888","Phone":"16137688175","IdCard":"11204416541220243X"}"#;

/// The answer to it.
pub const PASSED: &str = r#"{"Response":{"Result":"0","Description":"认证通过","RequestId":"…"}}"#;

/// 2026-11-21T18:06:12Z; in Beijing it is the 22nd already.
pub const EVENING: i64 = 1_795_284_372;

/// The reply to a verification that was answered.
pub fn answered(code: i8, description: &str) -> String {
    format!(r#"{{"Response":{{"Result":"{code}","Description":"{description}","RequestId":"…"}}}}"#)
}

/// The reply to a request that was not.
pub fn refused(code: &str, message: &str) -> String {
    format!(r#"{{"Response":{{"Error":{{"Code":"{code}","Message":"{message}"}},"RequestId":"…"}}}}"#)
}

/// The body of a JSON request.
pub fn elements(name: &str, bank_card: &str, phone: &str, id_card: &str) -> String {
    serde_json::json!({ "Name": name, "BankCard": bank_card, "Phone": phone, "IdCard": id_card }).to_string()
}

/// The whole body of a reply, its `RequestId` blanked out once it was found to be one.
///
/// What holds for every reply of this wire is looked at here: the status is 200, because most SDKs
/// throw the body of any other away; the content type has no charset, because with one the Python
/// SDK overlooks errors; the id is in body and header.
pub fn said(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    let types = reply.headers.iter().filter(|(name, _)| name == "content-type");
    assert_eq!(types.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["application/json"]);
    let id = request_id(reply);
    let dashes = id.char_indices().filter(|(_, c)| *c == '-').map(|(at, _)| at).collect::<Vec<_>>();
    assert_eq!((id.len(), dashes), (36, vec![8, 13, 18, 23]), "{id}");
    assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{id}");
    assert_eq!((&id[14..15], id[19..20].find(['8', '9', 'a', 'b'])), ("4", Some(0)), "{id}");
    assert_eq!(reply.header("x-tc-requestid"), Some(id.as_str()));
    reply.text().replace(&id, "…")
}

/// The `RequestId` of a reply.
pub fn request_id(reply: &Reply) -> String {
    reply.json()["Response"]["RequestId"].as_str().expect("every reply has its id").to_owned()
}

/// A pair of `SecretId` and `SecretKey`.
#[derive(Clone)]
pub struct Key {
    pub id: String,
    pub secret: String,
}

/// The key of the application that may do everything.
pub fn public() -> Key {
    Key { id: SECRET_ID.into(), secret: SECRET_KEY.into() }
}

/// The key of a test application; `Trial`, `NotActivated`, as in its name.
pub fn key_of(application: &str) -> Key {
    Key { id: format!("AKIDsandbox{application}EXAMPLE"), secret: format!("sandbox{application}EXAMPLE") }
}

/// A request with TC3-HMAC-SHA256, before it is signed.
#[derive(Clone)]
pub struct Ask {
    method: Method,
    target: String,
    host: Option<String>,
    signed_host: Option<String>,
    content_type: String,
    action: String,
    version: String,
    at: i64,
    unsigned_payload: bool,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    key: Key,
}

/// `POST /` with a JSON body, as every SDK does it by default.
pub fn post(body: impl Into<Vec<u8>>) -> Ask {
    Ask {
        method: Method::POST,
        target: "/".into(),
        host: None,
        signed_host: None,
        content_type: "application/json".into(),
        action: "BankCard4EVerification".into(),
        version: "2018-03-01".into(),
        at: now(),
        unsigned_payload: false,
        headers: Vec::new(),
        body: body.into(),
        key: public(),
    }
}

/// `GET /?…` with the members in the query.
pub fn get(query: &str) -> Ask {
    let content_type = "application/x-www-form-urlencoded".into();
    Ask { method: Method::GET, content_type, target: format!("/?{query}"), ..post("") }
}

impl Ask {
    pub fn key(self, key: Key) -> Ask {
        Ask { key, ..self }
    }

    /// Asks for another action.
    pub fn action(self, name: &str) -> Ask {
        Ask { action: name.into(), ..self }
    }

    /// In another version of the API.
    pub fn version(self, version: &str) -> Ask {
        Ask { version: version.into(), ..self }
    }

    /// At this time, Unix seconds.
    pub fn at(self, at: i64) -> Ask {
        Ask { at, ..self }
    }

    /// To another path, perhaps with a query.
    pub fn target(self, target: &str) -> Ask {
        Ask { target: target.into(), ..self }
    }

    /// Sends and signs this `Host`.
    pub fn host(self, host: &str) -> Ask {
        Ask { host: Some(host.into()), ..self }
    }

    /// Signs this host, whichever is sent.
    pub fn signed_host(self, host: &str) -> Ask {
        Ask { signed_host: Some(host.into()), ..self }
    }

    pub fn content_type(self, content_type: &str) -> Ask {
        Ask { content_type: content_type.into(), ..self }
    }

    /// Signs `UNSIGNED-PAYLOAD` in place of the body, and says so.
    pub fn unsigned_payload(self) -> Ask {
        Ask { unsigned_payload: true, ..self }.header("X-TC-Content-SHA256", "UNSIGNED-PAYLOAD")
    }

    /// One more header, not signed.
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn english(self) -> Ask {
        self.header("X-TC-Language", "en-US")
    }

    pub fn sign(&self, sandbox: &Sandbox) -> Signed {
        let host = self.host.clone().unwrap_or_else(|| sandbox.address.clone());
        let authorization = sign_tc3(
            &Unsigned {
                method: &self.method,
                host: self.signed_host.as_ref().unwrap_or(&host),
                content_type: &self.content_type,
                query: self.target.split_once('?').map_or("", |(_, query)| query),
                body: (!self.unsigned_payload).then_some(&self.body[..]),
                action: None,
                timestamp: self.at,
                service: "faceid",
            },
            &self.key.id,
            &self.key.secret,
        );
        let mut headers = vec![
            ("Host".to_owned(), host),
            ("Content-Type".into(), self.content_type.clone()),
            ("X-TC-Action".into(), self.action.clone()),
            ("X-TC-Version".into(), self.version.clone()),
            ("X-TC-Timestamp".into(), self.at.to_string()),
            ("Authorization".into(), authorization),
        ];
        headers.extend(self.headers.clone());
        Signed {
            method: self.method.to_string(),
            target: self.target.clone(),
            headers,
            body: self.body.clone(),
        }
    }

    pub fn send(&self, sandbox: &Sandbox) -> Reply {
        self.sign(sandbox).send(sandbox)
    }

    /// Sends it and gives what [`said`] makes of the reply.
    pub fn said(&self, sandbox: &Sandbox) -> String {
        said(&self.send(sandbox))
    }
}

/// A request as it goes out; what is changed now is not signed any more.
#[derive(Clone)]
pub struct Signed {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Signed {
    pub fn header(&self, name: &str) -> &str {
        let named = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).unwrap()
    }

    /// Without this header.
    pub fn without(mut self, name: &str) -> Signed {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// With this header in place of the one there was.
    pub fn having(self, name: &str, value: &str) -> Signed {
        let mut changed = self.without(name);
        changed.headers.push((name.into(), value.into()));
        changed
    }

    /// With this text in a header, the parameters or the body replaced.
    pub fn replacing(mut self, from: &str, to: &str) -> Signed {
        let before = self.bytes();
        for (_, value) in &mut self.headers {
            *value = value.replacen(from, to, 1);
        }
        self.target = self.target.replacen(from, to, 1);
        self.body = String::from_utf8(self.body).unwrap().replacen(from, to, 1).into();
        assert_ne!(self.bytes(), before, "{from} is not there");
        self
    }

    /// With another body.
    pub fn with_body(self, body: &str) -> Signed {
        Signed { body: body.into(), ..self }
    }

    /// What goes over the socket.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.method != "GET" {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    pub fn send(&self, sandbox: &Sandbox) -> Reply {
        sandbox.send(&self.bytes())
    }

    /// Sends it and gives what [`said`] makes of the reply.
    pub fn said(&self, sandbox: &Sandbox) -> String {
        said(&self.send(sandbox))
    }
}

/// A request with signature v1, before it is signed.
#[derive(Clone)]
pub struct Form {
    method: Method,
    parameters: Vec<(String, String)>,
    hmac: V1Method,
    key: Key,
    headers: Vec<(String, String)>,
}

/// `POST /` with a form.
pub fn form(members: &[(&str, &str)]) -> Form {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let form = Form {
        method: Method::POST,
        parameters: members.iter().map(owned).collect(),
        hmac: V1Method::HmacSha1,
        key: public(),
        headers: Vec::new(),
    };
    form.with("Action", "BankCard4EVerification")
        .with("Version", "2018-03-01")
        .with("Timestamp", &now().to_string())
        .with("Nonce", "5577006791947779410")
}

/// The members of the documented sample that passes.
pub const SAMPLE_MEMBERS: [(&str, &str); 4] = [
    ("Name", "韦小宝"),
    ("BankCard", "6225768888888888"),
    ("Phone", "16137688175"),
    ("IdCard", "11204416541220243X"),
];

impl Form {
    /// With this parameter, in place of the one there was.
    pub fn with(self, name: &str, value: &str) -> Form {
        let mut changed = self.without(name);
        changed.parameters.push((name.into(), value.into()));
        changed
    }

    pub fn without(mut self, name: &str) -> Form {
        self.parameters.retain(|(known, _)| known != name);
        self
    }

    /// As a GET with the parameters in the query.
    pub fn get(self) -> Form {
        Form { method: Method::GET, ..self }
    }

    /// With HmacSHA256 instead of HmacSHA1.
    pub fn sha256(self) -> Form {
        Form { hmac: V1Method::HmacSha256, ..self }.with("SignatureMethod", "HmacSHA256")
    }

    pub fn key(self, key: Key) -> Form {
        Form { key, ..self }
    }

    /// One more header.
    pub fn header(mut self, name: &str, value: &str) -> Form {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn sign(&self, sandbox: &Sandbox) -> Signed {
        let host = sandbox.address.clone();
        let mut form = self.clone().with("SecretId", &self.key.id);
        let target = format!("{}{host}/", self.method);
        let signature = sign_v1(&target, &form.parameters, &self.key.secret, self.hmac);
        form = form.with("Signature", &signature);
        let encoded = encoded(&form.parameters);
        let mut headers = vec![("Host".to_owned(), host)];
        headers.extend(form.headers);
        let method = self.method.to_string();
        if self.method == Method::GET {
            return Signed { method, target: format!("/?{encoded}"), headers, body: Vec::new() };
        }
        headers.push(("Content-Type".into(), "application/x-www-form-urlencoded".into()));
        Signed { method, target: "/".into(), headers, body: encoded.into() }
    }

    pub fn send(&self, sandbox: &Sandbox) -> Reply {
        self.sign(sandbox).send(sandbox)
    }

    /// Sends it and gives what [`said`] makes of the reply.
    pub fn said(&self, sandbox: &Sandbox) -> String {
        said(&self.send(sandbox))
    }
}

/// `k1=v1&k2=v2`, all but unreserved characters percent-encoded.
pub fn encoded(parameters: &[(String, String)]) -> String {
    let text: Vec<_> =
        parameters.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    text.join("&")
}

pub fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            _ => write!(escaped, "%{byte:02X}").unwrap(),
        }
        escaped
    })
}

/// Stops the sandbox's clock at this time, Unix seconds.
pub fn freeze(sandbox: &Sandbox, at: i64) {
    sandbox.control("PUT", "clock", &format!(r#"{{"mode":"frozen","now":{at}}}"#));
}

/// How an answer came about: `row=25 outcome=PASS by=records`.
pub fn decision(reply: &Reply) -> &str {
    reply.header("x-sandbox-decision").unwrap()
}

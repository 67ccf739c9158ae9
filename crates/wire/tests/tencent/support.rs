//! Requests as text, and a client that signs them.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use wire::Incoming;
use wire::tencent::error::Fault;
use wire::tencent::signature::{DEFAULT_PUBLIC_NAMES, Match, Mismatch, Unsigned, sign_tc3, verify};
use wire::tencent::{self, Call};

/// The sample pair of Tencent's older documentation; no live key.
pub(crate) const SECRET_ID: &str = "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE";
pub(crate) const SECRET_KEY: &str = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";

/// 2026-11-21T18:06:12Z, the time of most captures: in Beijing it is already the 22nd.
pub(crate) const NOW: i64 = 1_795_284_372;

/// The documented sample.
pub(crate) const SAMPLE: &str =
    r#"{"Name":"韦小宝","BankCard":"6225768888888888","Phone":"16137688175","IdCard":"11204416541220243X"}"#;

/// An owned request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Reads a request written with line feeds: head, blank line, body to the end.
    pub(crate) fn parse(text: &str) -> Request {
        let (head, body) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
        let mut lines = head.lines();
        let mut first = lines.next().unwrap().split(' ');
        let method = first.next().unwrap().parse().unwrap();
        let target = first.next().unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        };
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            request = request.with(name, value.trim());
        }
        request
    }

    /// The same with one more header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Request {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// The same with a header changed.
    pub(crate) fn having(mut self, name: &str, value: &str) -> Request {
        self.headers.remove(name);
        self.with(name, value)
    }

    pub(crate) fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    pub(crate) fn incoming(&self) -> Incoming<'_> {
        Incoming {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            body: &self.body,
        }
    }

    pub(crate) fn read(&self) -> Result<Call<'_>, Fault> {
        tencent::read(&self.incoming())
    }

    /// The code and English message of the refusal.
    pub(crate) fn refusal(&self) -> String {
        refusal(&self.read().unwrap_err())
    }

    /// Read and verified with the sample key.
    pub(crate) fn verified(&self) -> Result<Match, Mismatch> {
        self.verified_with(SECRET_KEY)
    }

    pub(crate) fn verified_with(&self, secret_key: &str) -> Result<Match, Mismatch> {
        let call = self.read().unwrap();
        verify(&call, &self.incoming(), secret_key, &DEFAULT_PUBLIC_NAMES)
    }
}

pub(crate) fn refusal(fault: &Fault) -> String {
    format!("{}: {}", fault.code.as_str(), fault.message(wire::Language::English))
}

/// A TC3 POST of a JSON body as the Python SDK would send it, unsigned.
pub(crate) fn unsigned_tc3(body: &str) -> Request {
    let request = Request::parse(
        "POST / HTTP/1.1\n\
         Host: card4e.test:4400\n\
         Content-Type: application/json\n\
         X-TC-Action: BankCard4EVerification\n\
         X-TC-Version: 2018-03-01\n\
         X-TC-RequestClient: SDK_PYTHON_3.1.179",
    );
    let request = request.with("X-TC-Timestamp", &NOW.to_string());
    Request { body: body.as_bytes().to_vec(), ..request }
}

/// The same, signed with the sample key.
pub(crate) fn signed_tc3(body: &str) -> Request {
    sign(unsigned_tc3(body))
}

/// Signs a request as it stands, `content-type;host`.
pub(crate) fn sign(request: Request) -> Request {
    let authorization = sign_tc3(
        &Unsigned {
            method: &request.method,
            host: &request.header("host"),
            content_type: &request.header("content-type"),
            query: &request.query,
            body: Some(&request.body),
            action: None,
            timestamp: request.header("x-tc-timestamp").parse().unwrap(),
            service: "faceid",
        },
        SECRET_ID,
        SECRET_KEY,
    );
    request.having("Authorization", &authorization)
}

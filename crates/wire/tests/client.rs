//! card4e as a client: what it sends is what the fronts read, and no reply makes it panic.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use wire::client::{Asked, Request, Response, Said};
use wire::envelope::Opener;
use wire::envelope::seal::{Drawn, Recipient};
use wire::tencent::client::Signer;
use wire::tencent::signature::{Proof, verify};
use wire::{Element, Incoming, acedata, tencent};
use zeroize::Zeroizing;

const RSA: &str = include_str!("../../server/src/sandbox/public-test-rsa-key.pem");
const SM2: &str = include_str!("../../server/src/sandbox/public-test-sm2-key.pem");
const HOST: &str = "faceid.tencentcloudapi.com";

const ASKED: Asked<'static> = Asked {
    name: "阿卜杜热合曼·买买提",
    bank_card: "6217000000000000012",
    id_card: "99010119610202001X",
    phone: "16100000001",
    validity: Some(("20200101", "20400101")),
};

fn headers(request: &Request, host: &str) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    headers.insert("host", host.parse().unwrap());
    for (name, value) in &request.headers {
        headers.insert(*name, value.parse().unwrap());
    }
    headers
}

fn signer() -> Signer<'static> {
    Signer {
        secret_id: "AKID",
        secret_key: "key",
        host: HOST,
        region: "ap-guangzhou",
        timestamp: 1_795_233_600,
    }
}

#[test]
fn a_signed_request_is_read_and_its_signature_holds() {
    for action in tencent::action::Action::ALL {
        let request = tencent::client::request(*action, &ASKED, None, &signer());
        let headers = headers(&request, HOST);
        let incoming = Incoming {
            method: &http::Method::POST,
            path: request.path,
            query: "",
            headers: &headers,
            body: &request.body,
        };
        let call = tencent::read(&incoming).unwrap();
        assert!(matches!(call.proof, Proof::Tc3(_)) && call.action == action.name());
        let holds = verify(&call, &incoming, "key", &[""; 0]).is_ok();
        assert!(holds, "{action:?}");
        assert!(verify(&call, &incoming, "other", &[""; 0]).is_err());
        let elements = tencent::action::Elements::read(*action, &call).unwrap();
        let takes = |element| action.members().elements.iter().any(|(taken, _)| *taken == element);
        assert_eq!(elements.name, if takes(Element::Name) { ASKED.name } else { "" });
        assert_eq!(elements.phone, if takes(Element::Phone) { ASKED.phone } else { "" });
    }
}

#[test]
fn a_bearers_request_is_read() {
    for endpoint in acedata::Endpoint::ALL {
        let request = acedata::client::request(endpoint, &ASKED, "token", "r-1");
        let headers = headers(&request, "api.acedata.cloud");
        let incoming = Incoming {
            method: &http::Method::POST,
            path: request.path,
            query: "",
            headers: &headers,
            body: &request.body,
        };
        assert_eq!(acedata::route(&incoming).unwrap(), endpoint);
        assert_eq!(acedata::bearer(&incoming).unwrap().secret(), "token");
        assert_eq!(acedata::trace_id(&incoming), Some("r-1"));
        let check = acedata::Check::read(endpoint.takes(), incoming.body).unwrap();
        let takes = |element| endpoint.takes().elements.iter().any(|(taken, _)| *taken == element);
        assert_eq!(&*check.bank_card, if takes(Element::BankCard) { ASKED.bank_card } else { "" });
        assert_eq!(check.validity.is_some(), endpoint == acedata::Endpoint::IdCard2E);
    }
}

/// What is sealed for a published key is opened by who has the private one, and by nobody else.
#[test]
fn sealed_elements_are_opened() {
    let opener = Opener::new(&[RSA], &[SM2]).unwrap();
    let published = opener.published();
    for pem in [&published.rsa.spki_pem, &published.sm2.spki_pem] {
        let recipient = Recipient::from_pem(pem).unwrap();
        let drawn = Drawn { key: Zeroizing::new([7; 32]), iv: [8; 16], nonce: Zeroizing::new([9; 32]) };
        let action = tencent::action::Action::BankCard4EVerification;
        let elements: Vec<_> =
            action.members().elements.iter().map(|(element, _)| (*element, ASKED.get(*element))).collect();
        let sealed = recipient.seal(&elements, &drawn).unwrap();
        let request = tencent::client::request(action, &ASKED, Some(&sealed), &signer());
        let text = String::from_utf8(request.body.to_vec()).unwrap();
        for element in [ASKED.name, ASKED.bank_card, ASKED.phone, ASKED.id_card] {
            assert!(!text.contains(element), "{element}");
        }
        let headers = headers(&request, HOST);
        let incoming = Incoming {
            method: &http::Method::POST,
            path: "/",
            query: "",
            headers: &headers,
            body: &request.body,
        };
        let call = tencent::read(&incoming).unwrap();
        let read = tencent::action::Elements::read(action, &call).unwrap();
        read.require_encryption().unwrap();
        let envelope = read.envelope().unwrap().unwrap();
        let opened = envelope.open(&opener.unwrap(envelope.wrapped_key())).unwrap();
        for (element, text) in elements {
            assert_eq!(opened.or(element, ""), text);
        }
    }
    assert!(Recipient::from_pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----").is_err());
    assert!(Recipient::from_pem("").is_err());
}

proptest! {
    #[test]
    fn no_reply_makes_it_panic(status in 100u16..600, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let response = Response { status, headers: &[], body: &body };
        tencent::client::response(&response);
        acedata::client::response(&response);
    }

    #[test]
    fn json_of_any_shape_is_read_or_unreadable(
        outer in "(\\[|\\{\"Response\":|\\{\"error\":|\"|)", inner in "(\\{\"Result\":1\\}|\\[\\]|null|7|\\{\"code\":\\{\\}\\}|\"x\")",
        close in "(\\]|\\}|\"|)",
    ) {
        let text = format!("{outer}{inner}{close}");
        let response = Response { status: 200, headers: &[], body: text.as_bytes() };
        for said in [tencent::client::response(&response), acedata::client::response(&response)] {
            let is_result = matches!(said, Said::Result { .. });
            prop_assert!(!is_result, "{text}: {said:?}");
        }
    }
}

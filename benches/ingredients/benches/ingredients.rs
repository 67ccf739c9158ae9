//! What each part of a question costs, by itself, warm. `cargo bench` in this folder; `cargo bench -- tc3` for some.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use engine::Policy;
use engine::action::Action;
use engine::audit::Frontier;
use engine::claim::Claim;
use engine::issuer::Issuers;
use engine::ledger::{Block, Entry, Side};
use engine::subject::Subject;
use engine::vault::{Elements, KeyRing, Seal, Vault};
use engine::verify::{new_request_id, uuid_text};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use wire::Incoming;
use wire::tencent::signature::{DEFAULT_PUBLIC_NAMES, JsonPost, Proof, SigningKey, verify_tc3};

const BODY: &str =
    r#"{"Name":"张伟","BankCard":"6217000000000000012","IdCard":"99010119610202001X","Phone":"16100000001"}"#;
const NOW: i64 = 1_795_276_799;
const KEY: &str = "2t0UF291NJz4sOHn1EeiPnHmqPluWK1v";

fn wire(c: &mut Criterion) {
    let post = JsonPost { host: "127.0.0.1:4400", action: "BankCard4EVerification", body: BODY.as_bytes(), timestamp: NOW };
    let mut headers: HeaderMap = post
        .headers("AKIDg9r1QXMBFtLdNUjm5bXOfOOc0vr8JTWM", KEY)
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::try_from(value).unwrap()))
        .collect();
    headers.insert("host", HeaderValue::from_static("127.0.0.1:4400"));
    let incoming = Incoming { method: &Method::POST, path: "/", query: "", headers: &headers, body: BODY.as_bytes() };
    c.bench_function("tc3: read a call", |b| b.iter(|| wire::tencent::read(black_box(&incoming)).unwrap()));
    let call = wire::tencent::read(&incoming).unwrap();
    let Proof::Tc3(tc3) = &call.proof else { panic!("a TC3 call") };
    let key = SigningKey::derive(KEY, tc3.date, tc3.service);
    c.bench_function("tc3: verify, key at hand", |b| {
        b.iter(|| verify_tc3(tc3, black_box(&incoming), NOW, &key, &DEFAULT_PUBLIC_NAMES).unwrap())
    });
    c.bench_function("tc3: derive the key", |b| b.iter(|| SigningKey::derive(KEY, black_box(tc3.date), tc3.service)));
}

fn engine(c: &mut Criterion) {
    let claim = Claim::new("张伟", "6217000000000000012", "99010119610202001X", "16100000001", 0);
    let options = Policy { test_land: true, ..Policy::default() }.parse_options(NOW * 1000);
    c.bench_function("parse the elements", |b| {
        b.iter(|| Subject::parse(Action::FourElements, black_box(&claim), &options).unwrap())
    });
    c.bench_function("mask the elements", |b| b.iter(|| black_box(&claim).masked()));
    let vault = Vault::new(&KeyRing::generate());
    let keys = vault.keys();
    c.bench_function("blind index", |b| b.iter(|| keys.index(black_box("6217000000000000012"), keys.accounts())));
    let name = "张伟".as_bytes();
    let elements =
        Elements { card: &claim.card, name_exact: name, name_loose: name, id: &claim.id, mobile: &claim.mobile };
    c.bench_function("four verifiers", |b| b.iter(|| keys.verifiers(black_box(&elements), keys.accounts())));
    let issuers = Issuers::built_in();
    let subject = Subject::parse(Action::FourElements, &claim, &options).unwrap();
    let card = subject.card.as_ref().unwrap();
    c.bench_function("issuer of a card", |b| b.iter(|| issuers.lookup(black_box(card))));
    c.bench_function("a new id as text", |b| b.iter(|| uuid_text(&new_request_id())));
    let entry = Entry::SandboxReset { at_ms: 1 };
    c.bench_function("an entry into a block and the tree", |b| {
        b.iter_batched_ref(
            || (Block::default(), Side { masks: Some(claim.masked()), ..Side::default() }, Frontier::default()),
            |(block, side, tree)| block.push(&entry, side, tree),
            BatchSize::SmallInput,
        )
    });
    let plain = vec![7; 64 * 120];
    c.bench_function("seal the side rows of 64 entries", |b| b.iter(|| vault.seal(Seal::Side, b"side 1", black_box(&plain))));
}

criterion_group!(ingredients, wire, engine);
criterion_main!(ingredients);

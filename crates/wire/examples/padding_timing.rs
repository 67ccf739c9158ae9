//! Does the time of unwrapping tell whether an RSA envelope's padding was right? Measures, judges nothing:
//!
//! ```sh
//! cargo run --release -p card4e-wire --example padding_timing -- 200000
//! ```
//!
//! Blobs of four classes are unwrapped in random order, and each class is compared with the good ones
//! by Welch's t. Beyond 4.5 either way the difference is no accident; how many nanoseconds it is says
//! whether anybody could see it through a network.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for a terminal")]

use std::time::Instant;

use aws_lc_rs::rand;
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wire::Element;
use wire::envelope::{Algorithm, Envelope, Opener, Parts};

const RSA: &str = include_str!("../../server/src/sandbox/public-test-rsa-key.pem");
const SM2: &str = include_str!("../../server/src/sandbox/public-test-sm2-key.pem");

/// Blobs of each class, so that no one blob's own time is measured.
const BLOBS: usize = 256;

const CLASSES: [&str; 4] = ["good again", "bad padding", "16 bytes inside", "200 bytes inside"];

fn main() {
    let runs: usize = std::env::args().nth(1).map_or(100_000, |runs| runs.parse().unwrap());
    let opener = Opener::new(&[RSA], &[SM2]).unwrap();
    let public = public_key(&opener);
    let wrapped = |len: usize| (0..BLOBS).map(|_| envelope(&encrypted(&public, len))).collect::<Vec<_>>();
    let random = (0..BLOBS).map(|_| envelope(&below_the_modulus())).collect();
    let classes = [wrapped(32), wrapped(32), random, wrapped(16), wrapped(200)];
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..runs {
        let draw: [u8; 2] = random_bytes();
        let class = usize::from(draw[0]) % classes.len();
        let blob = &classes[class][usize::from(draw[1]) % BLOBS];
        let began = Instant::now();
        let key = opener.unwrap(blob.wrapped_key());
        let took = began.elapsed();
        drop(key);
        times[class].push(took.as_nanos() as f64);
    }
    // Interrupts and other tenants: the slowest twentieth of all is left out of every class alike.
    let mut all: Vec<f64> = times.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let limit = all[all.len() * 19 / 20];
    times.iter_mut().for_each(|times| times.retain(|time| *time <= limit));
    let (good, rest) = times.split_first().unwrap();
    let (mean, _) = mean_and_variance(good);
    println!("{runs} runs, {} of good blobs, mean {:.1} us\n", good.len(), mean / 1000.0);
    println!("{:<18} {:>8} {:>12} {:>10}", "class", "runs", "difference", "Welch's t");
    for (name, times) in CLASSES.iter().zip(rest) {
        let (other, _) = mean_and_variance(times);
        println!("{name:<18} {:>8} {:>9.0} ns {:>10.2}", times.len(), other - mean, welch(times, good));
    }
}

fn welch(a: &[f64], b: &[f64]) -> f64 {
    let ((mean_a, variance_a), (mean_b, variance_b)) = (mean_and_variance(a), mean_and_variance(b));
    (mean_a - mean_b) / (variance_a / a.len() as f64 + variance_b / b.len() as f64).sqrt()
}

fn mean_and_variance(times: &[f64]) -> (f64, f64) {
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let squares: f64 = times.iter().map(|time| (time - mean).powi(2)).sum();
    (mean, squares / (times.len() as f64 - 1.0))
}

fn public_key(opener: &Opener) -> Pkcs1PublicEncryptingKey {
    let pem = opener.published().rsa.spki_pem;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let public = PublicEncryptingKey::from_der(&STANDARD.decode(body).unwrap()).unwrap();
    Pkcs1PublicEncryptingKey::new(public).unwrap()
}

fn encrypted(public: &Pkcs1PublicEncryptingKey, len: usize) -> Vec<u8> {
    let mut blob = vec![0; public.ciphertext_size()];
    let key: [u8; 256] = random_bytes();
    public.encrypt(&key[..len], &mut blob).unwrap().to_vec()
}

/// Random, and so not padded, but for one in tens of thousands.
fn below_the_modulus() -> Vec<u8> {
    let mut blob: [u8; 256] = random_bytes();
    blob[0] = 0;
    blob.to_vec()
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).unwrap();
    bytes
}

fn envelope(blob: &[u8]) -> Envelope {
    Envelope::read(Parts {
        algorithm: Algorithm::Aes256Cbc,
        ciphertext_blob: &STANDARD.encode(blob),
        iv: "AAAAAAAAAAAAAAAAAAAAAA==",
        listed: &[(Element::Name, "AAAAAAAAAAAAAAAAAAAAAA==")],
        tags: &[],
    })
    .unwrap()
}

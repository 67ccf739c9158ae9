//! A local CA with one certificate, and the line that makes each client trust it.
//!
//! The CA's key is thrown away at once: nothing else can ever be signed by it, so trusting it is
//! trusting that one certificate.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use engine::clock::{Clock, Millis};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

/// Days a certificate is good for; some systems refuse more, even from a CA of one's own.
pub const VALID_DAYS: u64 = 397;

/// Always in the certificate.
pub const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const DAY: Duration = Duration::from_secs(86_400);

/// The three files.
pub struct DevCa {
    /// What clients have to trust.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl DevCa {
    /// Where the files are in a folder.
    pub fn within(folder: &Path) -> DevCa {
        // Absolute, because clients are started elsewhere.
        let folder = std::path::absolute(folder).unwrap_or(folder.to_owned());
        let file = |name| folder.join(name);
        DevCa { ca: file("ca.pem"), certificate: file("server.pem"), key: file("server-key.pem") }
    }

    /// Makes the files, for `names` beside those that are always there.
    pub fn make(folder: &Path, names: &[String], clock: &Clock) -> anyhow::Result<DevCa> {
        let files = DevCa::within(folder);
        for file in [&files.ca, &files.certificate, &files.key] {
            ensure!(
                !file.exists(),
                "{} is there already, and clients may trust it; choose another folder, or remove it first",
                file.display()
            );
        }
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let Pem { ca, certificate, key } = Pem::make(&all_names(names), clock.now_ms())?;
        write(&files.key, 0o600, &key)?;
        write(&files.certificate, 0o644, &certificate)?;
        // Last: who finds it finds the others too.
        write(&files.ca, 0o644, &ca)?;
        Ok(files)
    }

    /// The files in a folder that is kept, made when they are not there or about to end.
    ///
    /// Kept, so that a client that trusts the CA does so after a restart as well.
    pub fn kept(folder: &Path, names: &[String], clock: &Clock) -> anyhow::Result<DevCa> {
        let files = DevCa::within(folder);
        let end = std::fs::read(&files.certificate).ok().and_then(|text| end(&text));
        if end.is_some_and(|end| end > clock.now_ms() + DAY.as_millis() as Millis) && files.ca.exists() {
            return Ok(files);
        }
        for file in [&files.ca, &files.certificate, &files.key] {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot replace {}", file.display()));
                }
                _ => {}
            }
        }
        DevCa::make(folder, names, clock)
    }
}

/// What makes each client trust a CA, a line each.
pub fn trust(ca: &Path) -> String {
    let ca = ca.display();
    format!(
        "  Python SDK     HttpProfile(certification=\"{ca}\")
  Python, async  SSL_CERT_FILE={ca}
  tccli          cat {ca} >> \"$(python3 -m certifi)\"
  Node           NODE_EXTRA_CA_CERTS={ca}
  Go             SSL_CERT_FILE={ca}
  Java           keytool -importcert -noprompt -cacerts -storepass changeit -alias card4e-dev -file {ca}
  PHP            php -d openssl.cafile={ca} -d curl.cainfo={ca}
  Ruby           SSL_CERT_FILE={ca}
  .NET           sudo cp {ca} /usr/local/share/ca-certificates/card4e-dev.crt && sudo update-ca-certificates
  C++            httpProfile.SetCaInfo(\"{ca}\")
  requests       requests.post(..., verify=\"{ca}\")
  curl           curl --cacert {ca}\n"
    )
}

/// All names of the certificate, none twice.
pub fn all_names(more: &[String]) -> Vec<String> {
    let mut names = NAMES.map(str::to_owned).to_vec();
    for name in more {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The name a listener's address adds, where others can reach it.
pub fn name_of(address: IpAddr) -> Option<String> {
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

/// The files' contents.
struct Pem {
    ca: String,
    certificate: String,
    key: String,
}

impl Pem {
    fn make(names: &[String], now: Millis) -> anyhow::Result<Pem> {
        // Of its own for every CA: clients look an issuer up by name.
        let mark = engine::file::hex(&engine::vault::random::<4>());
        let mut ca = valid_from(CertificateParams::default(), now);
        ca.distinguished_name = named(&format!("card4e development CA {mark}"));
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_key = KeyPair::generate()?;
        let ca_certificate = ca.self_signed(&ca_key)?;

        let params = CertificateParams::new(names).with_context(|| {
            format!("{} cannot be in a certificate: a name is like verify.example.com", names.join(", "))
        })?;
        let mut params = valid_from(params, now);
        params.distinguished_name = named(&format!("card4e development server {mark}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Python 3.13 refuses a certificate without it.
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;
        Ok(Pem { ca: ca_certificate.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// From yesterday on, because clocks differ.
fn valid_from(mut params: CertificateParams, now: Millis) -> CertificateParams {
    let now = Duration::from_millis(now.max(0) as u64);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now - DAY;
    params.not_after = params.not_before + DAY * VALID_DAYS as u32;
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut full = DistinguishedName::new();
    full.push(DnType::CommonName, name);
    full
}

fn end(pem: &[u8]) -> Option<Millis> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    super::validity::not_after(&CertificateDer::from_pem_slice(pem).ok()?)
}

fn write(file: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let written = File::options().write(true).create_new(true).mode(mode).open(file);
    written
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}

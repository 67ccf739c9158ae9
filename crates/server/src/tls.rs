//! TLS by rustls: certificate, key and client CA from PEM files, read again when they change.
//!
//! Knows files and certificates, no sockets: a handshake is `http`'s. `dev_ca` makes certificates
//! for trying it out.

pub mod dev_ca;
mod validity;

use std::fs::Metadata;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use engine::clock::{Clock, Millis, utc_text};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::cli;
use crate::config::{ClientCertificates, TlsSettings};
use dev_ca::DevCa;

/// How often the files are looked at. They are read once they have stayed the same for this long,
/// so that a new certificate is not read before its key is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Time to get a new certificate; certbot does so a month before, so it failed for two weeks.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Larger files are no certificates.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// What HTTP/2 is called in a handshake.
pub const H2: &[u8] = b"h2";

/// The server's side of every handshake.
pub struct Tls {
    current: RwLock<Loaded>,
    /// A CA that clients have to be told about, for greetings.
    pub ca: Option<PathBuf>,
}

#[derive(Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<(PathBuf, ClientCertificates)>,
}

struct Loaded {
    files: Files,
    config: Arc<ServerConfig>,
    not_after: Option<Millis>,
}

impl Tls {
    /// Reads the files of the settings, relative to `base`; `None` when they name none.
    pub fn open(settings: &TlsSettings, base: &Path) -> anyhow::Result<Option<Tls>> {
        let TlsSettings { certificate, key, client_ca, client_certificates } = settings;
        let (certificate, key) = match (certificate, key) {
            (Some(certificate), Some(key)) => (base.join(certificate), base.join(key)),
            (None, None) => {
                ensure!(
                    client_ca.is_none() && *client_certificates == ClientCertificates::Off,
                    "tls: client certificates need tls.certificate and tls.key"
                );
                return Ok(None);
            }
            _ => bail!("tls.certificate and tls.key belong together: give both files"),
        };
        let clients = match (client_ca, client_certificates) {
            (None, ClientCertificates::Off) => None,
            (Some(ca), asked) if *asked != ClientCertificates::Off => Some((base.join(ca), *asked)),
            (None, _) => {
                bail!("tls.client_ca is missing: the file of the CAs that client certificates come from")
            }
            // Taken for off, it would let in everybody whom its author meant to keep out.
            (Some(_), _) => {
                bail!("tls.client_ca is set: say tls.client_certificates = \"required\" or \"optional\"")
            }
        };
        let files = Files { certificate, key, clients };
        Ok(Some(Tls { current: RwLock::new(files.load()?), ca: None }))
    }

    /// As [`Tls::open`], with what the command line says in place of the settings.
    pub fn for_sandbox(
        options: &cli::Sandbox,
        settings: &TlsSettings,
        data: &Path,
        address: SocketAddr,
    ) -> anyhow::Result<Option<Tls>> {
        let base = options.config.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let mut settings = settings.clone();
        let mut made = None;
        if options.tls {
            let names = dev_ca::name_of(address.ip());
            let DevCa { ca, certificate, key } =
                DevCa::kept(&data.join("tls"), names.as_slice(), &Clock::default())?;
            (settings.certificate, settings.key) = (Some(certificate), Some(key));
            made = Some(ca);
        } else if let (Some(certificate), Some(key)) = (&options.tls_certificate, &options.tls_key) {
            settings.certificate = Some(std::path::absolute(certificate)?);
            settings.key = Some(std::path::absolute(key)?);
        }
        let tls = Tls::open(&settings, base)?;
        Ok(tls.map(|tls| Tls { ca: made, ..tls }))
    }

    /// What the next handshake goes by.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Whether the certificate has ended or will within [`SOON`].
    pub fn ends_soon(&self, now: Millis) -> bool {
        self.not_after().is_some_and(|end| end < now + SOON.as_millis() as Millis)
    }

    /// Reads the files again; if they are not right, what was read before stays.
    ///
    /// Connections that are open go on with what they began with.
    pub fn reload(&self) {
        match self.files().load() {
            Ok(loaded) => self.take(loaded),
            Err(wrong) => {
                tracing::error!("the new TLS files are not used, the former ones stay in use: {wrong:#}");
            }
        }
    }

    /// Goes on with the files of another one, which were read just now.
    pub fn replace(&self, next: Tls) {
        self.take(next.current.into_inner().unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self, loaded: Loaded) {
        let until = loaded.not_after.map_or("an unknown time".into(), utc_text);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        tracing::info!("TLS files were read again; the certificate is valid until {until}");
    }

    fn files(&self) -> Files {
        self.current.read().unwrap_or_else(PoisonError::into_inner).files.clone()
    }

    /// When the certificate ends, Unix milliseconds; `None` when it does not say so where it must.
    pub fn not_after(&self) -> Option<Millis> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).not_after
    }

    /// Reads the files again whenever they change; never ends.
    pub async fn watch(&self) {
        let mut read = self.files().stamp();
        let mut seen = read.clone();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let stamp = self.files().stamp();
            if stamp != read && stamp == seen {
                self.reload();
                read = stamp.clone();
            }
            seen = stamp;
        }
    }
}

/// Reads the files again on each `SIGHUP`; never ends.
pub fn on_hangup(tls: Arc<Tls>) -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut asked = signal(SignalKind::hangup())?;
    Ok(async move {
        while asked.recv().await.is_some() {
            tls.reload();
        }
    })
}

/// What changes when a file is written, replaced, or a link to it is turned.
type Stamp = Vec<Option<(u64, u64, u64, i64, i64)>>;

impl Files {
    fn stamp(&self) -> Stamp {
        let of = |file: Metadata| (file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec());
        let client_ca = self.clients.as_ref().map(|(file, _)| file);
        let files = [Some(&self.certificate), Some(&self.key), client_ca].into_iter().flatten();
        files.map(|file| std::fs::metadata(file).ok().map(of)).collect()
    }

    fn load(&self) -> anyhow::Result<Loaded> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let chain = read_certificates(&self.certificate)?;
        let not_after = validity::not_after(&chain[0]);
        if let Some(end) = not_after.filter(|end| *end < Clock::default().now_ms()) {
            tracing::warn!("the certificate in {certificate} ended at {}; clients refuse it", utc_text(end));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some((file, asked)) => {
                builder.with_client_cert_verifier(client_verifier(file, *asked, provider)?)
            }
        };
        let mut config = builder.with_single_cert(chain, read_key(&self.key)?).map_err(|wrong| match wrong {
            rustls::Error::InconsistentKeys(_) => anyhow!(
                "the key in {key} does not belong to the first certificate in {certificate}; the server's own \
                 certificate comes first, then those between it and the CA"
            ),
            other => anyhow!("{certificate} with {key} cannot be used: {other}"),
        })?;
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        Ok(Loaded { files: self.clone(), config: Arc::new(config), not_after })
    }
}

fn client_verifier(
    file: &Path,
    asked: ClientCertificates,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        roots
            .add(certificate)
            .with_context(|| format!("{} has a certificate that is no CA", file.display()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = match asked {
        ClientCertificates::Optional => verifier.allow_unauthenticated(),
        ClientCertificates::Required | ClientCertificates::Off => verifier,
    };
    verifier.build().with_context(|| format!("{} cannot be used", file.display()))
}

/// All certificates of a PEM file, at least one.
fn read_certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let text = read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.with_context(|| format!("{} is not right PEM", file.display()))?;
    ensure!(
        !certificates.is_empty(),
        "{} has no certificate; it must be PEM, with `-----BEGIN CERTIFICATE-----`",
        file.display()
    );
    Ok(certificates)
}

fn read_key(file: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let text = read(file)?;
    let shown = file.display();
    if std::fs::metadata(file).is_ok_and(|file| file.permissions().mode() & 0o004 != 0) {
        tracing::warn!("everybody on this machine can read the private key {shown}; chmod 600 it");
    }
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if text.windows(9).any(|part| part == b"ENCRYPTED") => bail!(
            "the private key in {shown} is encrypted, and a server that starts by itself cannot ask for the \
             passphrase; write it without: openssl pkey -in {shown} -out FILE"
        ),
        Err(pem::Error::NoItemsFound) => {
            bail!("{shown} has no private key; it must be PEM, with `-----BEGIN PRIVATE KEY-----`")
        }
        // The error would not show the key, but neither does it help.
        Err(_) => bail!("{shown} is not right PEM"),
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = file.display();
    let size = std::fs::metadata(file).with_context(|| format!("cannot read {shown}"))?.len();
    ensure!(size <= FILE_MAX_BYTES, "{shown} is {size} bytes long; that is no certificate or key");
    std::fs::read(file).with_context(|| format!("cannot read {shown}"))
}

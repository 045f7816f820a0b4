//! Requests to servers outside of the cluster's API, over http or https: where they are, by which roots they are judged, and what they are
//! given to know us by. Follows no redirect and uses no proxy.
//!
//! A URL may be a secret, as those of Slack are. Neither it nor a token stands in a log, error, status or metric; whoever prints one prints
//! `***`.

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take, in seconds.
const CONNECT_SECONDS_MAX: u64 = 5;
/// The longest URL, in bytes.
const URL_BYTES_MAX: usize = 8_192;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the URL is found, and what else it takes.
#[derive(Debug, Clone)]
pub enum Place {
    /// The URL, here.
    Given(Secret),
    /// In a folder, as a Secret is mounted: `url`, and where they are needed `ca.crt` (the only roots then, PEM) and `token` (sent as
    /// `Authorization: Bearer`). Read anew for each notification: a Secret that is changed needs no restart.
    Folder(PathBuf),
}

/// What a place holds.
pub struct Address {
    /// The URL.
    pub(crate) uri: Uri,
    pub(crate) roots: Option<RootCertStore>,
    pub(crate) token: Option<HeaderValue>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a place is of no use. Repeats nothing of what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No URL at all.
    #[error("the URL is none: give one such as https://example.com/hook")]
    Malformed,
    /// Of another protocol, or without a host.
    #[error("the URL has to begin with https:// or http:// and a host")]
    Scheme,
    /// With a user name.
    #[error("the URL has a user or a password in it, which would not be sent: take them out")]
    Credentials,
    /// Roots that are none.
    #[error("{} {why}", path.display())]
    Roots {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A token that no header takes.
    #[error("{} holds no token that a header takes", path.display())]
    Token {
        /// Which.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{} cannot be read: {kind}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        kind: ErrorKind,
    },
}

/// The URL, if that is one.
fn parsed(text: &str) -> Result<Uri, PlaceError> {
    let text = text.trim();
    if text.len() > URL_BYTES_MAX {
        return Err(PlaceError::Malformed);
    }
    let uri: Uri = text.parse().map_err(|_| PlaceError::Malformed)?;
    let authority = uri.authority().ok_or(PlaceError::Scheme)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(PlaceError::Scheme);
    }
    if authority.as_str().contains('@') {
        return Err(PlaceError::Credentials);
    }
    Ok(uri)
}

/// The roots of a file in PEM.
///
/// # Errors
/// What is wrong with the first that is none, and which that is: one in a bundle of hundreds is found by it.
fn roots_of(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let number = index + 1;
        let certificate = certificate.map_err(|_| format!("holds something that is no PEM in place {number}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("holds a certificate in place {number} that is none: {error}"))?;
    }
    if roots.is_empty() { Err("holds no certificate in PEM".to_owned()) } else { Ok(roots) }
}

/// The header of a token, which nobody prints.
fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A file of a mounted Secret; `None` if it is not there.
#[expect(clippy::disallowed_methods, reason = "a mounted Secret is a folder of files")]
async fn file(path: &Path) -> Result<Option<String>, PlaceError> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PlaceError::File { path: path.to_owned(), kind: error.kind() }),
    }
}

impl Place {
    /// What is there now.
    ///
    /// # Errors
    /// When there is no URL, or something beside it is of no use.
    pub async fn read(&self) -> Result<Address, PlaceError> {
        let folder = match self {
            Self::Given(secret) => return Ok(Address { uri: parsed(&secret.0)?, roots: None, token: None }),
            Self::Folder(folder) => folder,
        };
        let path = folder.join("url");
        let Some(url) = file(&path).await? else { return Err(PlaceError::File { path, kind: ErrorKind::NotFound }) };
        let uri = parsed(&url)?;
        let path = folder.join("ca.crt");
        let roots = match file(&path).await? {
            Some(pem) => Some(roots_of(&pem).map_err(|why| PlaceError::Roots { path, why })?),
            None => None,
        };
        let path = folder.join("token");
        let token = match file(&path).await? {
            Some(token) => Some(bearer(&token).ok_or(PlaceError::Token { path })?),
            None => None,
        };
        Ok(Address { uri, roots, token })
    }
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What sends requests.
pub struct Web {
    provider: Arc<CryptoProvider>,
    /// By the roots of the image.
    native: HttpClient,
}

impl Default for Web {
    fn default() -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let native = match HttpsConnectorBuilder::new().with_provider_and_native_roots(Arc::clone(&provider)) {
            Ok(builder) => client(builder.https_or_http().enable_http1().wrap_connector(tcp())),
            Err(error) => {
                tracing::warn!(%error, "no root certificates: https needs a ca.crt beside each url");
                client_trusting(&provider, RootCertStore::empty())
            }
        };
        Self { provider, native }
    }
}

impl Web {
    /// Sends a request to `address`, with what it is to know us by. What an error says names no URL: a test looks at it.
    pub(crate) async fn send(
        &self,
        address: Address,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, Error> {
        let agent = HeaderValue::from_static(concat!("cupcake-operator/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        if let Some(token) = address.token {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        match address.roots {
            Some(roots) => client_trusting(&self.provider, roots).request(request).await,
            None => self.native.request(request).await,
        }
    }
}

fn client(connector: HttpsConnector<HttpConnector>) -> HttpClient {
    // No connection is kept: there are some ten notices an update, and one that its server has closed meanwhile would cost a try.
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
}

/// A client that trusts those roots alone.
fn client_trusting(provider: &Arc<CryptoProvider>, roots: RootCertStore) -> HttpClient {
    let tls = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites of both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp()))
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(Duration::from_secs(CONNECT_SECONDS_MAX)));
    tcp
}

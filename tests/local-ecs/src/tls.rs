//! HTTPS in front of the load balancer, with certificates that are made for the occasion.

use std::{
    net::TcpListener as StdListener,
    sync::{Arc, OnceLock},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd};
use tokio::{net::TcpListener, runtime::Handle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::{local::LocalEcs, server, state::Shared};

/// The certificate that a server shows; but for [`Certificate::UnknownIssuer`] and [`Certificate::SelfSigned`] it is
/// signed by [`LocalEcs::certificate_authority`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// A good one for `localhost`.
    Good,
    /// One that expired when the year 2021 began.
    Expired,
    /// One that is valid only from the year 2999 on.
    NotYetValid,
    /// One of a CA that nobody has heard of.
    UnknownIssuer,
    /// One that is its own CA, as `openssl req -x509` makes it.
    SelfSigned,
    /// One for `www.example.com` and `*.example.org`.
    WrongHost,
}

/// What HTTPS needs beside the model.
#[derive(Debug)]
pub(crate) struct Tls {
    runtime: Handle,
    authority: OnceLock<CertifiedIssuer<'static, KeyPair>>,
}

impl Tls {
    /// Nothing is made and nobody listens before it is asked for.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, authority: OnceLock::new() }
    }

    fn authority(&self) -> &CertifiedIssuer<'static, KeyPair> {
        self.authority.get_or_init(|| authority("local-ecs").expect("a certificate authority can be made"))
    }

    /// Listens on a port of its own, with this certificate.
    fn listen(&self, shared: Arc<Shared>, certificate: Certificate) -> Result<u16> {
        let acceptor = TlsAcceptor::from(Arc::new(self.configuration(certificate)?));
        let listener = StdListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        self.runtime.spawn(serve(shared, listener, acceptor));
        Ok(port)
    }

    fn configuration(&self, certificate: Certificate) -> Result<ServerConfig> {
        let names: &[&str] = match certificate {
            Certificate::WrongHost => &["www.example.com", "*.example.org"],
            _ => &["localhost"],
        };
        let mut wanted = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        match certificate {
            Certificate::Expired => wanted.not_after = date_time_ymd(2021, 1, 1),
            Certificate::NotYetValid => wanted.not_before = date_time_ymd(2999, 1, 1),
            Certificate::SelfSigned => wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            Certificate::Good | Certificate::UnknownIssuer | Certificate::WrongHost => {}
        }
        let key = KeyPair::generate()?;
        let made = match certificate {
            Certificate::SelfSigned => wanted.self_signed(&key)?,
            Certificate::UnknownIssuer => wanted.signed_by(&key, &*authority("nobody")?)?,
            _ => wanted.signed_by(&key, &**self.authority())?,
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.der().clone()], key)?)
    }
}

/// Serves until the runtime is shut down.
async fn serve(shared: Arc<Shared>, listener: StdListener, acceptor: TlsAcceptor) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
        tokio::spawn(async move {
            // A client that dislikes the certificate ends the handshake.
            if let Ok(stream) = acceptor.accept(stream).await {
                drop(server::converse(shared, stream).await);
            }
        });
    }
}

/// A new certificate authority of this name.
fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut wanted = CertificateParams::new(Vec::new())?;
    wanted.distinguished_name.push(rcgen::DnType::CommonName, name);
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(wanted, KeyPair::generate()?)?)
}

impl LocalEcs {
    /// [`LocalEcs::url`] by HTTPS, at a port of its own whose server shows this certificate.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    #[must_use]
    pub fn https_url(&self, service: &str, certificate: Certificate) -> String {
        let port = self.tls.listen(Arc::clone(&self.shared), certificate).expect("a local port should be free");
        self.url(service).replace(&self.endpoint(), &format!("https://localhost:{port}"))
    }

    /// The certificate of the CA that signs, in PEM: what to put into the file that `SSL_CERT_FILE` names.
    #[must_use]
    pub fn certificate_authority(&self) -> String {
        self.tls.authority().pem()
    }
}

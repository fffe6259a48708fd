//! Why a request got no answer, in words that say where to look.

use std::{
    error::Error,
    fmt,
    io::{self, ErrorKind},
    iter,
    time::{Duration, UNIX_EPOCH},
};

use reqwest::Url;
use rustls::{CertificateError, InvalidMessage, pki_types::UnixTime};

/// How long making a connection may take, TLS included: enough for two SYN packets to get lost.
pub const CONNECT_LIMIT: Duration = Duration::from_millis(3100);
/// The last second that `humantime` can write: that of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;
/// Most names of a certificate that are shown.
const MOST_NAMES: usize = 5;

/// Why a request got no answer. Shown without the url, which may hold a password.
#[derive(Debug)]
pub struct NoAnswer {
    cause: Cause,
    /// The server that the request had been redirected to by then.
    redirected_to: Option<String>,
}

/// What went wrong.
#[derive(Debug, PartialEq)]
enum Cause {
    /// Nothing came within this time.
    Silence(Duration),
    /// No connection came about within [`CONNECT_LIMIT`], or within what the operating system allows.
    NoConnection,
    /// The host's name can't be resolved; what the resolver says.
    Dns(String),
    /// Nothing listens there.
    Refused,
    /// The connection was broken off.
    Reset,
    /// TLS was begun and the other side closed the connection.
    HandshakeBrokenOff,
    /// TLS failed.
    Tls(rustls::Error),
    /// Anything else, in the words of who noticed.
    Other(String),
}

impl NoAnswer {
    /// What the error of a request comes from that might take as long as `limit` and was redirected to `elsewhere`.
    pub fn of(error: &reqwest::Error, elsewhere: Option<&Url>, limit: Duration) -> Self {
        let cause = if error.is_timeout() {
            if error.is_connect() { Cause::NoConnection } else { Cause::Silence(limit) }
        } else if error.is_dns() {
            let said = causes(error).last().map(ToString::to_string).unwrap_or_default();
            Cause::Dns(said.trim_start_matches("failed to lookup address information: ").to_owned())
        } else {
            // The outermost error is left out: it names the url.
            error.source().map_or_else(|| Cause::Other("the request failed".to_owned()), Cause::of)
        };
        Self { cause, redirected_to: elsewhere.map(server) }
    }
}

impl Cause {
    /// The first of an error's causes that has a name; if none has, all that they say.
    fn of(error: &(dyn Error + 'static)) -> Self {
        causes(error).find_map(Self::named).unwrap_or_else(|| {
            let mut said: Vec<_> = causes(error).map(ToString::to_string).collect();
            said.dedup();
            // These words of the HTTP client's name no cause, and a cause follows them.
            let innermost = said.pop();
            said.retain(|text| !text.starts_with("client error ("));
            said.extend(innermost);
            Self::Other(said.join(": "))
        })
    }

    fn named(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(Self::Tls(error.clone()));
        }
        let error = error.downcast_ref::<io::Error>()?;
        match error.kind() {
            ErrorKind::ConnectionRefused => Some(Self::Refused),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Some(Self::Reset),
            // tokio-rustls gives this error no type of its own.
            ErrorKind::UnexpectedEof if error.to_string() == "tls handshake eof" => Some(Self::HandshakeBrokenOff),
            _ => None,
        }
    }
}

/// An error and what it comes from, the outermost first. `io::Error::source` skips the very error that it holds.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(held) => Some(held),
        None => error.source(),
    })
}

/// The server of a url, without a user's name and password; of one without a server, its scheme.
fn server(url: &Url) -> String {
    let origin = url.origin();
    if origin.is_tuple() { origin.ascii_serialization() } else { format!("{}:", url.scheme()) }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Silence(limit) => write!(formatter, "gives no answer within {} s", limit.as_secs_f64())?,
            cause => write!(formatter, "gives no answer: {cause}")?,
        }
        match &self.redirected_to {
            Some(server) => write!(formatter, " (after a redirect to {server})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence(limit) => write!(formatter, "nothing came within {} s", limit.as_secs_f64()),
            Self::NoConnection => write!(
                formatter,
                "the connection timed out after {} s; does a firewall or a security group drop it?",
                CONNECT_LIMIT.as_secs_f64()
            ),
            Self::Dns(said) => write!(formatter, "its host name can't be resolved (DNS): {said}"),
            Self::Refused => formatter.write_str("connection refused"),
            Self::Reset => formatter.write_str("connection reset by the other side"),
            Self::HandshakeBrokenOff => formatter.write_str("TLS: the other side closed the connection at once"),
            Self::Tls(error) => write!(formatter, "TLS: {}", in_words(error)),
            Self::Other(said) => formatter.write_str(said),
        }
    }
}

/// What is wrong with TLS. The certificate that is wrong may be one of those that the server sends beside its own.
fn in_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                format!("it shows a certificate that expired at {}", date(*not_after))
            }
            CertificateError::Expired => "it shows a certificate that has expired".to_owned(),
            CertificateError::NotValidYetContext { not_before, .. } => {
                format!("it shows a certificate that isn't valid before {}", date(*not_before))
            }
            CertificateError::NotValidYet => "it shows a certificate that isn't valid yet".to_owned(),
            CertificateError::UnknownIssuer => {
                "it shows a certificate of an unknown issuer: no CA in the operating system's root store vouches for it"
                    .to_owned()
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                format!("it shows a certificate for another host: for {}, not {}", names(presented), expected.to_str())
            }
            CertificateError::NotValidForName => "it shows a certificate for another host".to_owned(),
            // webpki's error is not re-exported by rustls; this is how it reads.
            CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
                "it shows the certificate of a CA, probably a self-signed one, instead of one for its host".to_owned()
            }
            CertificateError::Other(other) => format!("it shows a certificate that is no good: {other}"),
            error => format!("it shows a certificate that is no good: {error}"),
        },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what listens on that port doesn't speak TLS; is the url to begin with http://?".to_owned()
        }
        error => error.to_string(),
    }
}

fn date(time: UnixTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs().min(LAST_SECOND)))
}

/// The names of a certificate, which webpki gives as `DnsName("example.com")` and `IpAddress(192.0.2.1)`.
fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "none".to_owned();
    }
    let bare = |name: &String| match name.split_once('(') {
        Some((_, bare)) => bare.trim_end_matches(')').trim_matches('"').to_owned(),
        None => name.clone(),
    };
    let mut shown: Vec<_> = presented.iter().take(MOST_NAMES).map(bare).collect();
    if presented.len() > MOST_NAMES {
        shown.push(format!("{} more", presented.len() - MOST_NAMES));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{OtherError, PeerIncompatible, pki_types::ServerName};

    use super::*;

    /// What a user reads of a certificate that is refused so, as hyper-rustls wraps it.
    fn said_of(error: CertificateError) -> String {
        said(rustls::Error::InvalidCertificate(error))
    }

    fn said(error: rustls::Error) -> String {
        Cause::of(&io::Error::other(io::Error::new(ErrorKind::InvalidData, error))).to_string()
    }

    fn time(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn another_host(presented: &[&str]) -> CertificateError {
        CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("api.example.com").expect("a host name"),
            presented: presented.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn each_kind_of_certificate_that_is_refused_has_its_words() {
        let (now, expired, begins) = (time(1_800_000_000), time(1_767_225_599), time(u64::MAX));
        for (error, expected) in [
            (
                CertificateError::ExpiredContext { time: now, not_after: expired },
                "it shows a certificate that expired at 2025-12-31T23:59:59Z",
            ),
            (CertificateError::Expired, "it shows a certificate that has expired"),
            (
                CertificateError::NotValidYetContext { time: now, not_before: begins },
                "it shows a certificate that isn't valid before 9999-12-31T23:59:59Z",
            ),
            (CertificateError::NotValidYet, "it shows a certificate that isn't valid yet"),
            (
                CertificateError::UnknownIssuer,
                "it shows a certificate of an unknown issuer: no CA in the operating system's root store vouches for it",
            ),
            (
                another_host(&["DnsName(\"*.example.org\")", "IpAddress(192.0.2.1)"]),
                "it shows a certificate for another host: for *.example.org, 192.0.2.1, not api.example.com",
            ),
            (another_host(&[]), "it shows a certificate for another host: for none, not api.example.com"),
            (another_host(&["DnsName(\"a\")"; 7]), "for a, a, a, a, a, 2 more, not api.example.com"),
            (CertificateError::NotValidForName, "it shows a certificate for another host"),
            (CertificateError::Revoked, "it shows a certificate that is no good: Revoked"),
            (
                CertificateError::Other(OtherError(Arc::new(io::Error::other("CaUsedAsEndEntity")))),
                "it shows the certificate of a CA, probably a self-signed one, instead of one for its host",
            ),
            (
                CertificateError::Other(OtherError(Arc::new(io::Error::other("certificate had invalid extensions")))),
                "it shows a certificate that is no good: certificate had invalid extensions",
            ),
        ] {
            let said = said_of(error);
            assert!(said.starts_with("TLS: it shows a certificate") || said.starts_with("TLS: it shows the"), "{said}");
            assert!(said.ends_with(expected), "{said}");
        }
    }

    #[test]
    fn tls_that_fails_otherwise_is_named_as_tls() {
        for (error, expected) in [
            (
                rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "TLS: what listens on that port doesn't speak TLS; is the url to begin with http://?",
            ),
            (
                rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
                "TLS: peer is incompatible: ServerDoesNotSupportTls12Or13",
            ),
            (rustls::Error::General("odd".into()), "TLS: unexpected error: odd"),
        ] {
            assert_eq!(said(error), expected);
        }
        let closed = io::Error::new(ErrorKind::UnexpectedEof, "tls handshake eof");
        assert_eq!(Cause::of(&io::Error::other(closed)), Cause::HandshakeBrokenOff);
    }

    #[test]
    fn what_becomes_of_a_connection_has_its_words_too() {
        for (kind, expected) in [
            (ErrorKind::ConnectionRefused, "connection refused"),
            (ErrorKind::ConnectionReset, "connection reset by the other side"),
            (ErrorKind::ConnectionAborted, "connection reset by the other side"),
            (ErrorKind::BrokenPipe, "connection reset by the other side"),
            (ErrorKind::NetworkUnreachable, "network unreachable"),
        ] {
            assert_eq!(Cause::of(&io::Error::from(kind)).to_string(), expected);
        }
        assert_eq!(
            Cause::Dns("no such host".into()).to_string(),
            "its host name can't be resolved (DNS): no such host"
        );
        assert_eq!(
            Cause::NoConnection.to_string(),
            "the connection timed out after 3.1 s; does a firewall or a security group drop it?"
        );
    }

    #[test]
    fn a_redirect_is_shown_by_its_server_alone() {
        let url = |text| Url::parse(text).expect("a url");
        assert_eq!(server(&url("https://user:secret@example.com:8443/path?token=1")), "https://example.com:8443");
        assert_eq!(server(&url("file:///etc/passwd")), "file:");
        let redirected_to = Some("https://example.com".to_owned());
        assert_eq!(
            NoAnswer { cause: Cause::Silence(Duration::from_millis(750)), redirected_to }.to_string(),
            "gives no answer within 0.75 s (after a redirect to https://example.com)"
        );
        assert_eq!(
            NoAnswer { cause: Cause::Reset, redirected_to: None }.to_string(),
            "gives no answer: connection reset by the other side"
        );
    }
}

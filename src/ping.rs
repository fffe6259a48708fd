//! One GET of a service's url, and the version that its answer names. It decides nothing.
//!
//! Certificates are verified by the crate rustls-platform-verifier, against the operating system's root store; on Linux
//! that is what openssl would use, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` name instead.

mod cause;

use std::{cell::RefCell, fmt, time::Duration};

use anyhow::Context as _;
use reqwest::{
    Client, Response, Url,
    header::{self, HeaderName},
    redirect::{Action, Attempt, Policy},
};

use self::cause::{CONNECT_LIMIT, NoAnswer};
use tokio::time::sleep;

use crate::{git_sha::GitSha, poll::PACE, text::excerpt};

/// A body that may be a Git SHA is no longer than this, white space included.
const LONGEST_BODY: usize = 256;
/// As many redirects are followed for one answer.
const MOST_REDIRECTS: usize = 10;

tokio::task_local! {
    /// Where the request that is under way was last redirected to, which an error of reqwest's doesn't tell.
    static REDIRECTED_TO: RefCell<Option<Url>>;
}

/// What one request of a url gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A 2xx answer that names a version.
    Version(GitSha),
    /// A 2xx answer that names none.
    NoVersion {
        /// The header that was to name one.
        header: HeaderName,
        /// What it says instead, if it is there.
        says: Option<String>,
    },
    /// Any other answer, or none; in words.
    Failed(String),
}

impl Answer {
    /// Whether this answer is the commit `version`.
    pub fn shows(&self, version: &GitSha) -> bool {
        matches!(self, Self::Version(shown) if shown.names_same_commit_as(version))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(shown) => write!(formatter, "shows {shown}"),
            Self::NoVersion { header, says: Some(says) } => {
                write!(formatter, "shows no version ({}: {})", spelled(header), excerpt(says))
            }
            Self::NoVersion { header, says: None } => {
                write!(formatter, "shows no version (no {} header)", spelled(header))
            }
            Self::Failed(why) => formatter.write_str(&excerpt(why)),
        }
    }
}

/// A header's name as people write it: `Server`, `X-Version`.
fn spelled(header: &HeaderName) -> String {
    let words = header.as_str().split('-').map(|word| match word.split_at_checked(1) {
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => String::new(),
    });
    words.collect::<Vec<_>>().join("-")
}

/// Requests urls, each time over a connection of its own, so that a load balancer chooses anew.
pub struct Ping {
    client: Client,
}

impl Ping {
    /// Prepares the client. Errors: the system has no usable TLS roots.
    pub fn new() -> anyhow::Result<Self> {
        let client = Client::builder()
            .user_agent(concat!("gehen/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_LIMIT)
            .redirect(Policy::custom(follow))
            .build()
            .context(
                "cannot prepare HTTP requests; if CA certificates are missing on this machine, install the package \
                 ca-certificates, or set SSL_CERT_FILE",
            )?;
        Ok(Self { client })
    }

    /// Requests `url` up to three times, a second apart, until it gives a 2xx answer.
    pub async fn get_patiently(&self, url: &Url, header: &HeaderName, limit: Duration) -> Answer {
        for _ in 0..2 {
            let answer = self.get(url, header, limit).await;
            if !matches!(answer, Answer::Failed(_)) {
                return answer;
            }
            sleep(PACE).await;
        }
        self.get(url, header, limit).await
    }

    /// Requests `url` once, following redirects and asking caches to stay out of it, and takes the version from
    /// `header`. `limit` is how long it may take, redirects and body included.
    pub async fn get(&self, url: &Url, header: &HeaderName, limit: Duration) -> Answer {
        let request = self.client.get(url.clone()).header(header::CACHE_CONTROL, "no-cache").timeout(limit);
        let (sent, redirected_to) = REDIRECTED_TO
            .scope(RefCell::default(), async { (request.send().await, REDIRECTED_TO.with(RefCell::take)) })
            .await;
        match sent {
            Ok(response) => read(response, header).await,
            Err(error) => {
                let elsewhere = redirected_to.filter(|last| last.origin() != url.origin());
                Answer::Failed(NoAnswer::of(&error, elsewhere.as_ref(), limit).to_string())
            }
        }
    }
}

/// Follows a redirect, unless there have been too many, and notes where it leads.
fn follow(attempt: Attempt<'_>) -> Action {
    // The url that was asked first is among the previous ones.
    if attempt.previous().len() > MOST_REDIRECTS {
        return attempt.error("too many redirects");
    }
    // Outside of a request there is nobody to tell.
    let _ = REDIRECTED_TO.try_with(|last| last.replace(Some(attempt.url().clone())));
    attempt.follow()
}

async fn read(mut response: Response, header: &HeaderName) -> Answer {
    let status = response.status();
    if !status.is_success() {
        return Answer::Failed(format!("answers {status}"));
    }
    let values: Vec<_> = response
        .headers()
        .get_all(header)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    if let Some(version) = values.iter().find_map(|value| version_of_header(header, value)) {
        return Answer::Version(version);
    }
    let none = || Answer::NoVersion { header: header.clone(), says: values.into_iter().next() };
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= LONGEST_BODY => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Ok(Some(_)) | Err(_) => return none(),
        }
    }
    version_of_body(&body).map_or_else(none, Answer::Version)
}

/// The version in a header of the form `*-<git sha>`. One that is there for nothing else may be the SHA alone; servers
/// write their names into `Server`.
fn version_of_header(header: &HeaderName, value: &str) -> Option<GitSha> {
    match value.rsplit_once('-') {
        Some((_, last)) => last.trim_end().parse().ok(),
        None if *header != header::SERVER => value.trim().parse().ok(),
        None => None,
    }
}

/// The version that a body is as a whole, which the Go original accepts too.
fn version_of_body(body: &[u8]) -> Option<GitSha> {
    std::str::from_utf8(body).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_server_header_names_the_version_after_its_last_dash() {
        for (server, version) in [
            ("api-abcdef1", Some("abcdef1")),
            ("my-api-abcdef1", Some("abcdef1")),
            ("-abcdef1", Some("abcdef1")),
            ("api-ABCDEF1 ", Some("ABCDEF1")),
            ("abcdef1", None),
            ("nginx", None),
            ("api-abc", None),
            ("api-abcdefg", None),
            ("api-abcdef1-beta", None),
            ("nginx-1.25.3", None),
            ("", None),
        ] {
            let found = version_of_header(&header::SERVER, server).map(|sha| sha.to_string());
            assert_eq!(found.as_deref(), version, "{server:?}");
        }
    }

    #[test]
    fn a_header_of_the_users_own_may_be_the_version_alone() {
        let header = HeaderName::from_static("x-version");
        for (value, version) in [("abcdef1", Some("abcdef1")), ("api-abcdef1", Some("abcdef1")), ("1.2.3", None)] {
            let found = version_of_header(&header, value).map(|sha| sha.to_string());
            assert_eq!(found.as_deref(), version, "{value:?}");
        }
        assert_eq!(spelled(&header), "X-Version");
    }

    #[test]
    fn a_body_is_a_version_only_as_a_whole() {
        assert_eq!(version_of_body(b"abcdef1\n"), "abcdef1".parse().ok());
        assert_eq!(version_of_body(b"version abcdef1"), None);
        assert_eq!(version_of_body(b"\xff\xfe"), None);
        assert_eq!(version_of_body(b""), None);
    }

    #[tokio::test]
    #[cfg(target_os = "linux")] // Other systems answer differently when nobody accepts.
    async fn a_host_that_drops_every_packet_is_not_waited_for_as_long_as_one_that_works() {
        use std::net::{TcpListener, TcpStream};

        // Linux drops the first packet of a connection for which the listener's queue has no room.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a local port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
        let queue: Vec<_> = (0..5000).map_while(connect).collect();
        assert!(queue.len() < 5000, "the queue is never full");
        let url = Url::parse(&format!("http://{address}/")).expect("a url");
        let answer = Ping::new().expect("a client").get(&url, &header::SERVER, Duration::from_mins(1)).await;
        assert_eq!(
            answer.to_string(),
            "gives no answer: the connection timed out after 3.1 s; does a firewall or a security group drop it?"
        );
    }

    proptest! {
        #[test]
        fn no_header_and_no_body_makes_it_panic(bytes in any::<Vec<u8>>()) {
            let _ = (version_of_header(&header::SERVER, &String::from_utf8_lossy(&bytes)), version_of_body(&bytes));
        }

        #[test]
        fn what_is_named_is_found(name in "[ -~]{0,30}", sha in "[0-9a-fA-F]{7,64}") {
            let found = version_of_header(&header::SERVER, &format!("{name}-{sha}")).map(|sha| sha.to_string());
            prop_assert_eq!(found, Some(sha));
        }
    }
}

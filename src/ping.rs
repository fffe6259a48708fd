//! One GET of a service's url, and the version that its answer names. It decides nothing.

use std::{fmt, time::Duration};

use anyhow::Context as _;
use reqwest::{Client, Response, Url, header};

use crate::{git_sha::GitSha, text::excerpt};

/// A body that may be a Git SHA is no longer than this, white space included.
const LONGEST_BODY: usize = 256;

/// What one request of a url gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A 2xx answer that names a version.
    Version(GitSha),
    /// A 2xx answer that names none; what its `Server` header says instead.
    NoVersion(Option<String>),
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
            Self::NoVersion(Some(server)) => write!(formatter, "shows no version (Server: {})", excerpt(server)),
            Self::NoVersion(None) => formatter.write_str("shows no version (no Server header)"),
            Self::Failed(why) => formatter.write_str(&excerpt(why)),
        }
    }
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
            .build()
            .context("cannot prepare HTTP requests")?;
        Ok(Self { client })
    }

    /// Requests `url` up to three times, until it gives a 2xx answer.
    pub async fn get_patiently(&self, url: &Url, limit: Duration) -> Answer {
        for _ in 0..2 {
            let answer = self.get(url, limit).await;
            if !matches!(answer, Answer::Failed(_)) {
                return answer;
            }
        }
        self.get(url, limit).await
    }

    /// Requests `url` once, following redirects and asking caches to stay out of it. `limit` is how long it may take,
    /// redirects and body included.
    pub async fn get(&self, url: &Url, limit: Duration) -> Answer {
        let request = self.client.get(url.clone()).header(header::CACHE_CONTROL, "no-cache").timeout(limit);
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => Answer::Failed(failure(error, limit)),
        }
    }
}

async fn read(mut response: Response) -> Answer {
    let status = response.status();
    if !status.is_success() {
        return Answer::Failed(format!("answers {status}"));
    }
    let servers: Vec<_> = response
        .headers()
        .get_all(header::SERVER)
        .iter()
        .map(|server| String::from_utf8_lossy(server.as_bytes()).into_owned())
        .collect();
    if let Some(version) = servers.iter().find_map(|server| version_of_server(server)) {
        return Answer::Version(version);
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= LONGEST_BODY => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Ok(Some(_)) | Err(_) => return Answer::NoVersion(servers.into_iter().next()),
        }
    }
    match version_of_body(&body) {
        Some(version) => Answer::Version(version),
        None => Answer::NoVersion(servers.into_iter().next()),
    }
}

/// The version in a `Server` header of the form `*-<git sha>`.
fn version_of_server(server: &str) -> Option<GitSha> {
    server.rsplit_once('-')?.1.trim_end().parse().ok()
}

/// The version that a body is as a whole, which the Go original accepts too.
fn version_of_body(body: &[u8]) -> Option<GitSha> {
    std::str::from_utf8(body).ok()?.trim().parse().ok()
}

/// What kept a request from an answer: the causes from the outside in, without the url, which may hold a password.
fn failure(error: reqwest::Error, limit: Duration) -> String {
    if error.is_timeout() {
        return format!("gives no answer within {} s", limit.as_secs_f64());
    }
    let error = error.without_url();
    let mut said = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(cause) = next {
        said.push(cause.to_string());
        next = cause.source();
    }
    said.dedup();
    if said.is_empty() { format!("gives no answer: {error}") } else { format!("gives no answer: {}", said.join(": ")) }
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
            let found = version_of_server(server).map(|sha| sha.to_string());
            assert_eq!(found.as_deref(), version, "{server:?}");
        }
    }

    #[test]
    fn a_body_is_a_version_only_as_a_whole() {
        assert_eq!(version_of_body(b"abcdef1\n"), "abcdef1".parse().ok());
        assert_eq!(version_of_body(b"version abcdef1"), None);
        assert_eq!(version_of_body(b"\xff\xfe"), None);
        assert_eq!(version_of_body(b""), None);
    }

    proptest! {
        #[test]
        fn no_header_and_no_body_makes_it_panic(bytes in any::<Vec<u8>>()) {
            let _ = (version_of_server(&String::from_utf8_lossy(&bytes)), version_of_body(&bytes));
        }

        #[test]
        fn what_is_named_is_found(name in "[ -~]{0,30}", sha in "[0-9a-fA-F]{7,64}") {
            let found = version_of_server(&format!("{name}-{sha}")).map(|sha| sha.to_string());
            prop_assert_eq!(found, Some(sha));
        }
    }
}

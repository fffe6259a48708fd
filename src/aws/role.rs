//! The role that gehen.yml names: assumed through STS before the first other request, and anew whenever a session is
//! about to end.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use aws_config::{SdkConfig, sts::AssumeRoleProvider};
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, future},
};

use super::error::{self, Error, Fate};
use crate::{git_sha::GitSha, poll, report, text::excerpt};

/// How long the role is tried to be assumed while STS stumbles.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many digits of the version a session's name shows.
const DIGITS: usize = 7;

/// A source of credentials, each a session of the role. The SDK keeps a session until 5 to 10 seconds before it ends,
/// and then asks for another; the credentials of the caller are looked up anew for each.
#[derive(Debug)]
pub struct Role {
    arn: String,
    sessions: AssumeRoleProvider,
    /// What the caller's requests are made of.
    caller: SdkConfig,
    /// The first session, until the SDK asks for it.
    first: Mutex<Option<Credentials>>,
    first_ends: OnceLock<SystemTime>,
}

impl Role {
    /// Prepares to assume the role with this ARN as `caller`, for the deploy of `version`; nothing is sent.
    pub async fn new(arn: &str, caller: SdkConfig, version: &GitSha) -> Self {
        let name: String = version.to_string().chars().take(DIGITS).collect();
        let sessions =
            AssumeRoleProvider::builder(arn).configure(&caller).session_name(format!("gehen-{name}")).build().await;
        Self { arn: arn.to_owned(), sessions, caller, first: Mutex::default(), first_ends: OnceLock::new() }
    }

    /// Assumes the role for the first time, trying for a minute while STS stumbles. The error names the role and the
    /// caller, and says the way out.
    pub async fn assume(&self) -> anyhow::Result<()> {
        if self.caller.region().is_none() {
            return Err(anyhow!(
                "cannot assume role `{}`: no region is known to ask STS in: set AWS_REGION, or write a cluster's ARN; \
                 nothing has been changed",
                excerpt(&self.arn)
            ));
        }
        let mut is_told = false;
        let assumed = poll::answered(PATIENCE, async || {
            let session = self.sessions.provide_credentials().await.map_err(|error| error::of_credentials(&error));
            if let Err(error) = &session
                && error.fate != Fate::Refused
                && !std::mem::replace(&mut is_told, true)
            {
                report::tries_to_assume_again(&self.arn, error, PATIENCE);
            }
            session
        });
        match assumed.await {
            Ok(session) => {
                if let Some(ends) = session.expiry() {
                    let _ = self.first_ends.set(ends);
                }
                *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
                Ok(())
            }
            Err(error) => Err(self.explain(&error).await),
        }
    }

    /// When the first session ends, once there is one.
    pub fn first_ends(&self) -> Option<SystemTime> {
        self.first_ends.get().copied()
    }

    async fn explain(&self, error: &Error) -> anyhow::Error {
        let said = excerpt(&error.to_string());
        let caller = if said.contains("User: ") { None } else { self.caller().await };
        let caller = caller.map(|arn| format!("; the caller is {}", excerpt(&arn))).unwrap_or_default();
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        anyhow!("cannot assume role `{}`: {said}{caller}{hint}; nothing has been changed", excerpt(&self.arn))
    }

    /// GetCallerIdentity, which nobody needs a permission for: the caller's ARN.
    async fn caller(&self) -> Option<String> {
        aws_sdk_sts::Client::new(&self.caller).get_caller_identity().send().await.ok()?.arn
    }
}

impl ProvideCredentials for Role {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        future::ProvideCredentials::new(async move {
            match first {
                Some(session) => provider::Result::Ok(session),
                None => self.sessions.provide_credentials().await,
            }
        })
    }
}

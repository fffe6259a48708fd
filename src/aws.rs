//! What the clients of AWS services share: one set of credentials, one pool of connections, and how a request is tried.

mod error;
pub mod raw;
mod role;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::{
    AppName, BehaviorVersion, Region, SdkConfig, environment::region::EnvironmentVariableRegionProvider,
    meta::region::RegionProviderChain, profile::region::ProfileFileRegionProvider, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::{
    Builder as HttpClientBuilder, Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_types::{DateTime, date_time::Format};
use tokio::time::timeout;

pub use error::{Error, Fate, convert};

use self::role::Role;
use crate::{
    config::{Config, ScheduledTask, Service},
    git_sha::GitSha,
};

/// How long one request may take, connecting and reading included. AWS answers in well under a second; a request that
/// takes longer than this is better asked anew.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for credentials only to learn when they end.
const CREDENTIALS_PATIENCE: Duration = Duration::from_secs(5);

/// The usual AWS settings: credentials, profile, region and endpoints, from where the aws CLI takes them; and the role
/// that gehen.yml names, if it does, whose credentials then take the place of the caller's.
pub struct Aws {
    settings: SdkConfig,
    caller: Option<SharedCredentialsProvider>,
    role: Option<Arc<Role>>,
}

impl Aws {
    /// Reads the settings for deploying `version` as `config` says, as its role if there is one. Asks for nothing that
    /// this doesn't need, and for nothing of AWS: otherwise the SDK would look for a region that nobody needs, as far
    /// as EC2's metadata service.
    pub async fn load(config: &Config, version: &GitSha) -> Self {
        let Config { services, scheduled_tasks: tasks, common_region, role, .. } = config;
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client());
        let named = services.iter().find_map(|service| service.cluster.region());
        let named = named.or_else(|| tasks.iter().find_map(|task| task.region.as_deref())).map(str::to_owned);
        let loader = match (needed_region(services, tasks), common_region) {
            (Needed::None, _) => loader.region(named.clone().map(Region::new)),
            (Needed::ForTasks, Some(common)) => {
                let settings = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                    .or_else(ProfileFileRegionProvider::new());
                loader.region(settings.or_else(Region::new(common.to_owned())))
            }
            (Needed::ForTasks | Needed::ForServices, _) => loader,
        };
        let settings = loader.load().await;
        let caller = settings.credentials_provider();
        let Some(role) = role.as_deref() else { return Self { settings, caller, role: None } };
        // STS has no region of its own in the file, and any will do.
        let region = settings.region().map(ToString::to_string).or(named);
        let role = Arc::new(Role::new(role, for_client(&settings, region), version).await);
        let sessions: Arc<dyn ProvideCredentials> = Arc::<Role>::clone(&role);
        let settings = settings.to_builder().credentials_provider(SharedCredentialsProvider::from(sessions)).build();
        Self { settings, caller, role: Some(role) }
    }

    /// Assumes the role, if there is one. Errors: it can't be, in words for the user.
    pub async fn assume_role(&self) -> anyhow::Result<()> {
        match &self.role {
            Some(role) => role.assume().await,
            None => Ok(()),
        }
    }

    /// An AWS that `http_client` answers for.
    #[cfg(test)]
    pub async fn canned(http_client: impl aws_sdk_ecs::config::HttpClient + 'static) -> Self {
        let credentials = aws_credential_types::Credentials::new("access key", "secret", None, None, "tests");
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client);
        let settings = loader.credentials_provider(credentials).region("us-east-1").load().await;
        Self { caller: settings.credentials_provider(), settings, role: None }
    }

    /// The region that the settings give; where they give none, or nobody needs it, that of the services.
    pub fn region(&self) -> Option<&Region> {
        self.settings.region()
    }

    /// What a client for `region`, or else for the region of the settings, is made of. It tries each request once:
    /// phases repeat what may be repeated, within the wait it belongs to.
    pub fn client_settings(&self, region: Option<String>) -> SdkConfig {
        for_client(&self.settings, region)
    }

    /// When the caller's credentials end, where their source says so within five seconds. Static credentials from the
    /// environment don't, but what exports them often says it in AWS_CREDENTIAL_EXPIRATION, as `aws configure
    /// export-credentials` does. A role is assumed anew as long as they last, and its first session may outlast them.
    pub async fn credentials_end(&self) -> Option<SystemTime> {
        let session_ends = self.role.as_ref().and_then(|role| role.first_ends());
        Some(self.caller_ends().await?.max(session_ends.unwrap_or(SystemTime::UNIX_EPOCH)))
    }

    async fn caller_ends(&self) -> Option<SystemTime> {
        let provider = self.caller.as_ref()?;
        let credentials = timeout(CREDENTIALS_PATIENCE, provider.provide_credentials()).await.ok()?.ok()?;
        credentials.expiry().or_else(|| {
            let environment = |name| std::env::var(name).ok();
            if environment("AWS_ACCESS_KEY_ID")? != credentials.access_key_id() {
                return None;
            }
            let text = environment("AWS_CREDENTIAL_EXPIRATION")?;
            SystemTime::try_from(DateTime::from_str(&text, Format::DateTimeWithOffset).ok()?).ok()
        })
    }
}

/// As [`Aws::client_settings`].
fn for_client(settings: &SdkConfig, region: Option<String>) -> SdkConfig {
    let timeouts = TimeoutConfig::builder().operation_timeout(REQUEST_TIMEOUT).build();
    let mut settings = settings.to_builder();
    settings.set_retry_config(Some(RetryConfig::disabled()));
    settings.set_timeout_config(Some(timeouts));
    settings.set_app_name(Some(AppName::new("gehen").expect("the name has letters only")));
    if let Some(region) = region {
        settings.set_region(Region::new(region));
    }
    settings.build()
}

/// Whether a region is needed that the file doesn't name.
#[derive(Debug, PartialEq, Eq)]
enum Needed {
    /// No: each cluster and each rule has one.
    None,
    /// Only scheduled tasks need one, for which that of the services will do.
    ForTasks,
    /// A cluster goes by its bare name.
    ForServices,
}

fn needed_region(services: &[Service], tasks: &[ScheduledTask]) -> Needed {
    if services.iter().any(|service| service.cluster.region().is_none()) {
        Needed::ForServices
    } else if tasks.iter().any(|task| task.region.is_none()) {
        Needed::ForTasks
    } else {
        Needed::None
    }
}

/// One pool of connections on the TLS stack that reqwest has too; proxies as reqwest finds them, in the environment.
fn http_client() -> impl aws_sdk_ecs::config::HttpClient + 'static {
    HttpClientBuilder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(aws_sdk_ecs::config::RuntimeComponents::sleep_impl));
        connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build()
    })
}

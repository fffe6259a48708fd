//! What the clients of AWS services share: one set of credentials, one pool of connections, and how a request is tried.

mod error;

use std::time::{Duration, SystemTime};

use aws_config::{AppName, BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::provider::ProvideCredentials as _;
use aws_smithy_http_client::{
    Builder as HttpClientBuilder, Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_types::{DateTime, date_time::Format};
use tokio::time::timeout;

pub use error::{Error, Fate, convert};

use crate::config::Service;

/// How long one request may take, connecting and reading included. AWS answers in well under a second; a request that
/// takes longer than this is better asked anew.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for credentials only to learn when they end.
const CREDENTIALS_PATIENCE: Duration = Duration::from_secs(5);

/// The usual AWS settings: credentials, profile, region and endpoints, from where the aws CLI takes them.
pub struct Aws {
    settings: SdkConfig,
}

impl Aws {
    /// Reads the settings for deploying `services`. Asks for nothing that they don't need.
    pub async fn load(services: &[Service]) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client());
        if services.iter().all(|service| service.cluster.region().is_some()) {
            // Otherwise the SDK would look for a region that nobody needs, as far as EC2's metadata service.
            let region = services.first().and_then(|service| service.cluster.region()).map(str::to_owned);
            loader = loader.region(region.map(Region::new));
        }
        Self { settings: loader.load().await }
    }

    /// An AWS that `http_client` answers for.
    #[cfg(test)]
    pub async fn canned(http_client: impl aws_sdk_ecs::config::HttpClient + 'static) -> Self {
        let credentials = aws_credential_types::Credentials::new("access key", "secret", None, None, "tests");
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client);
        Self { settings: loader.credentials_provider(credentials).region("us-east-1").load().await }
    }

    /// The region that the settings give, or the first service's where each names its own.
    pub fn region(&self) -> Option<&Region> {
        self.settings.region()
    }

    /// What a client for `region`, or else for the region of the settings, is made of. It tries each request once:
    /// phases repeat what may be repeated, within the wait it belongs to.
    pub fn client_settings(&self, region: Option<String>) -> SdkConfig {
        let timeouts = TimeoutConfig::builder().operation_timeout(REQUEST_TIMEOUT).build();
        let mut settings = self.settings.to_builder();
        settings.set_retry_config(Some(RetryConfig::disabled()));
        settings.set_timeout_config(Some(timeouts));
        settings.set_app_name(Some(AppName::new("gehen").expect("the name has letters only")));
        if let Some(region) = region {
            settings.set_region(Region::new(region));
        }
        settings.build()
    }

    /// When the credentials end, where their source says so within five seconds. Static credentials from the environment don't, but what
    /// exports them often says it in AWS_CREDENTIAL_EXPIRATION, as `aws configure export-credentials` does.
    pub async fn credentials_end(&self) -> Option<SystemTime> {
        let provider = self.settings.credentials_provider()?;
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

/// One pool of connections on the TLS stack that reqwest has too; proxies as reqwest finds them, in the environment.
fn http_client() -> impl aws_sdk_ecs::config::HttpClient + 'static {
    HttpClientBuilder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(aws_sdk_ecs::config::RuntimeComponents::sleep_impl));
        connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build()
    })
}

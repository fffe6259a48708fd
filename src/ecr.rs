//! The only module that names the SDK of Amazon ECR: whether an image is there. It decides nothing.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use aws_sdk_ecr::{
    Client,
    types::{ImageFailureCode, ImageIdentifier},
};
use tokio::time::timeout;

use crate::{
    aws::{Aws, Error, convert},
    image::Image,
    poll,
    text::excerpt,
};

/// How long looking for one image may take: the deploy must not wait for what it can do without.
const PATIENCE: Duration = Duration::from_secs(5);
/// The prefix of a pull-through cache rule that covers every repository of a registry (API_CreatePullThroughCacheRule).
const EVERY_REPOSITORY: &str = "ROOT";

/// Whether an image is where its reference says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// ECR has it.
    There,
    /// ECR says that it doesn't, and would not fetch it from elsewhere.
    Missing,
    /// That can't be told, and why.
    CannotTell(String),
}

/// A repository of Amazon ECR, as a reference names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repository<'a> {
    account: &'a str,
    region: &'a str,
    name: &'a str,
}

impl<'a> Repository<'a> {
    /// Takes `<account>.dkr.ecr.<region>.<domain>/<repository>`, or its FIPS and dual-stack forms (ECR user guide,
    /// "Private registries"); none for what lies elsewhere.
    fn of(name: &'a str) -> Option<Self> {
        let (host, name) = name.split_once('/')?;
        let (account, rest) = host.split_once('.')?;
        let rest = ["dkr.ecr.", "dkr.ecr-fips.", "dkr-ecr.", "dkr-ecr-fips."]
            .iter()
            .find_map(|service| rest.strip_prefix(service))?;
        let (region, domain) = rest.split_once('.')?;
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        (is_account && !region.is_empty() && !domain.is_empty() && !name.is_empty()).then_some(Self {
            account,
            region,
            name,
        })
    }
}

/// Clients for the regions that images lie in, made when first needed.
pub struct Ecr<'a> {
    aws: &'a Aws,
    clients: RefCell<HashMap<String, Client>>,
}

impl<'a> Ecr<'a> {
    /// Prepares to ask; nothing is sent.
    pub fn new(aws: &'a Aws) -> Self {
        Self { aws, clients: RefCell::default() }
    }

    /// Looks for the image that `reference` names, for five seconds at most.
    pub async fn find(&self, reference: &str) -> Found {
        let image = Image::parse(reference);
        let Some(repository) = Repository::of(image.name) else {
            return Found::CannotTell("not in Amazon ECR".to_owned());
        };
        let client = self.client(repository.region);
        let found = poll::answered(PATIENCE, async || find(&client, repository, &image).await);
        match timeout(PATIENCE, found).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => Found::CannotTell(error.in_short()),
            Err(_) => Found::CannotTell(format!("ECR gave no answer within {} s", PATIENCE.as_secs())),
        }
    }

    fn client(&self, region: &str) -> Client {
        let mut clients = self.clients.borrow_mut();
        let made = || Client::new(&self.aws.client_settings(Some(region.to_owned())));
        clients.entry(region.to_owned()).or_insert_with(made).clone()
    }
}

/// BatchGetImage of one image, which whoever pulls images may call, too.
async fn find(client: &Client, repository: Repository<'_>, image: &Image<'_>) -> Result<Found, Error> {
    const ACTION: &str = "ecr:BatchGetImage";
    let id = match image.digest {
        Some(digest) => ImageIdentifier::builder().image_digest(digest),
        None => ImageIdentifier::builder().image_tag(image.tag.unwrap_or("latest")),
    };
    let answer = client
        .batch_get_image()
        .registry_id(repository.account)
        .repository_name(repository.name)
        .image_ids(id.build())
        .send()
        .await
        .map_err(|error| convert(ACTION, &error))?;
    if !answer.images().is_empty() {
        return Ok(Found::There);
    }
    Ok(match answer.failures().first() {
        Some(failure) if failure.failure_code() == Some(&ImageFailureCode::ImageNotFound) => {
            match is_fetched_from_elsewhere(client, repository).await {
                Ok(false) => Found::Missing,
                Ok(true) => Found::CannotTell("its repository is a pull-through cache that doesn't hold it yet".into()),
                Err(error) if error.is_denied() => Found::CannotTell(format!(
                    "its repository doesn't hold it, but may be a pull-through cache: {}",
                    error.in_short()
                )),
                Err(error) => return Err(error),
            }
        }
        Some(failure) => {
            let code = failure.failure_code().map_or("without a code", ImageFailureCode::as_str);
            let reason = failure.failure_reason().unwrap_or("without a reason");
            Found::CannotTell(format!("{ACTION}: {}", excerpt(&format!("{code}: {reason}"))))
        }
        None => Found::CannotTell(format!("{ACTION}: the answer holds neither the image nor a failure")),
    })
}

/// DescribePullThroughCacheRules: whether ECR fetches what the repository lacks from another registry, when it is
/// pulled.
async fn is_fetched_from_elsewhere(client: &Client, repository: Repository<'_>) -> Result<bool, Error> {
    let mut pages = client.describe_pull_through_cache_rules().registry_id(repository.account).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| convert("ecr:DescribePullThroughCacheRules", &error))?;
        let mut prefixes = page.pull_through_cache_rules().iter().filter_map(|rule| rule.ecr_repository_prefix());
        if prefixes.any(|prefix| covers(prefix, repository.name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the rule with this prefix is about the repository.
fn covers(prefix: &str, repository: &str) -> bool {
    let rest = repository.strip_prefix(prefix.trim_end_matches('/'));
    prefix == EVERY_REPOSITORY || rest.is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ecr_repository_is_known_by_its_host() {
        let found =
            |name| Repository::of(name).map(|repository| (repository.account, repository.region, repository.name));
        let api = Some(("123456789012", "eu-west-1", "team/api"));
        for (name, expected) in [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/api", api),
            ("123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com/team/api", api),
            ("123456789012.dkr-ecr.eu-west-1.on.aws/team/api", api),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/api", Some(("123456789012", "cn-north-1", "api"))),
            ("public.ecr.aws/team/api", None),
            ("registry.example.com/team/api", None),
            ("12345.dkr.ecr.eu-west-1.amazonaws.com/api", None),
            ("123456789012.dkr.ecr.eu-west-1/api", None),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/", None),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("api", None),
            ("", None),
        ] {
            assert_eq!(found(name), expected, "{name}");
        }
    }

    #[test]
    fn a_rule_covers_the_repositories_below_its_prefix() {
        assert!(covers("ROOT", "api"));
        assert!(covers("docker-hub", "docker-hub/team/api"));
        assert!(covers("docker-hub/", "docker-hub/api"));
        assert!(!covers("docker-hub", "docker-hub"));
        assert!(!covers("docker", "docker-hub/api"));
    }
}

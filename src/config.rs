//! gehen.yml: every check and every default of the file happens here, once, before any request is made.

mod file;

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use reqwest::{Url, header::HeaderName};

use crate::text::excerpt;

/// The longest that one request of a url may take.
const LONGEST_REQUEST: Duration = Duration::from_secs(5);

/// What gehen.yml says, checked and complete.
#[derive(Debug)]
pub struct Config {
    /// The services in the order of the file.
    pub services: Vec<Service>,
    /// The scheduled tasks in the order of the file. There is at least one of these or one service.
    pub scheduled_tasks: Vec<ScheduledTask>,
    /// The ARN of the IAM role to assume for every request to AWS.
    pub role: Option<String>,
    /// How many services may be deployed at the same time; at least one.
    pub parallel: usize,
}

/// One service of gehen.yml.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The ECS service's name.
    pub name: String,
    /// The cluster that the service runs in.
    pub cluster: Cluster,
    /// Where the new version shows itself, if anywhere.
    pub url: Option<Url>,
    /// How long each check of this service may take.
    pub timeout: Duration,
    /// The header in which the url's answers name the version.
    pub header: HeaderName,
    /// What to deploy.
    pub update_strategy: UpdateStrategy,
    /// The names of the containers that get the new tag; all of them without.
    pub containers: Option<Vec<String>>,
}

/// What is deployed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateStrategy {
    /// A new revision of the one that runs.
    #[default]
    Current,
    /// A new revision of the family's newest one.
    Latest,
    /// What is there, in a new deployment.
    Redeploy,
    /// Nothing: only the checks are made.
    None,
}

/// One scheduled task of gehen.yml: a rule of EventBridge, each of whose ECS targets gets a new revision.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledTask {
    /// The rule's name.
    pub rule: String,
    /// The event bus that the rule belongs to, by name or ARN; the default one without.
    pub event_bus: Option<String>,
    /// The region of the rule, where the file names one.
    pub region: Option<String>,
    /// What to deploy; with [`UpdateStrategy::Redeploy`] and [`UpdateStrategy::None`] the rule stays as it is.
    pub update_strategy: UpdateStrategy,
    /// The names of the containers that get the new tag; all of them without.
    pub containers: Option<Vec<String>>,
}

impl Service {
    /// How long one request of the url may take: short enough for several in one check.
    pub fn request_timeout(&self) -> Duration {
        LONGEST_REQUEST.min(self.timeout / 4)
    }
}

/// A cluster's ARN, or its bare name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    written: String,
}

impl Cluster {
    /// The ARN or name as ECS takes it.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The region that the ARN names; none for a bare name, whose region the usual AWS settings give.
    pub fn region(&self) -> Option<&str> {
        self.written.strip_prefix("arn:")?.split(':').nth(2)
    }
}

impl std::str::FromStr for Cluster {
    type Err = &'static str;

    /// Takes `arn:<partition>:ecs:<region>:<account>:cluster/<name>` or a name as API_CreateCluster allows it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = if text.starts_with("arn:") {
            match text.splitn(6, ':').collect::<Vec<_>>()[..] {
                ["arn", partition, "ecs", region, account, resource]
                    if !partition.is_empty() && !region.is_empty() && !account.is_empty() =>
                {
                    resource.strip_prefix("cluster/").unwrap_or_default()
                }
                _ => "",
            }
        } else {
            text
        };
        if is_name(name) {
            return Ok(Self { written: text.to_owned() });
        }
        Err("a cluster is an ARN such as `arn:aws:ecs:us-east-1:123456789012:cluster/staging`, or a name of letters, \
             digits, `-` and `_`")
    }
}

/// What ECS takes as the name of a cluster or a service (API_CreateCluster, API_CreateService).
fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Reads and checks the file at `path`. Errors name the file, the line and the key, and say the way out.
pub fn load(path: &Path) -> anyhow::Result<Config> {
    let shown = excerpt(&path.display().to_string());
    let text = std::fs::read(path)
        .with_context(|| format!("cannot read {shown}; give the file's place with `-path <file>`"))?;
    let text = String::from_utf8(text).with_context(|| format!("{shown} is not a text in UTF-8"))?;
    file::parse(&text).map_err(|mistake| match mistake.line {
        Some(line) => anyhow::anyhow!("{shown}:{line}: {}", mistake.message),
        None => anyhow::anyhow!("{shown}: {}", mistake.message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_good_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gehen.example.yml");
        let config = load(&path).expect("the example is a good file");
        assert!(!config.services.is_empty());
    }
}

//! gehen.yml: every check and every default of the file happens here, once, before any request is made.

#[cfg(test)]
mod agreement;
mod file;
mod maps;
mod values;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use reqwest::{Url, header::HeaderName};

use self::file::Mistake;
use crate::text::{excerpt, listed, without_passwords};

/// The longest that one request of a url may take.
const LONGEST_REQUEST: Duration = Duration::from_secs(5);

/// Most characters of a line of the file that an error shows.
const LONGEST_QUOTE: usize = 100;

/// What gehen.yml says, checked and complete.
#[derive(Debug)]
pub struct Config {
    /// The services in the order of the file.
    pub services: Vec<Service>,
    /// The scheduled tasks in the order of the file. There is at least one of these or one service.
    pub scheduled_tasks: Vec<ScheduledTask>,
    /// The region of the services of the file, where each names one and all the same; also of those that `-only` leaves
    /// out.
    pub common_region: Option<String>,
    /// The ARN of the IAM role to assume for every request to AWS.
    pub role: Option<String>,
    /// How many services may be deployed at the same time; at least one.
    pub parallel: usize,
}

impl Config {
    /// What of this `names` ask for, each the name of a service, of a scheduled task's rule or of both; without names
    /// all. A name that isn't in the file is an error.
    pub fn only(mut self, names: &[String]) -> anyhow::Result<Self> {
        if names.is_empty() {
            return Ok(self);
        }
        let mut known: Vec<_> = self.services.iter().map(|service| &*service.name).collect();
        for task in &self.scheduled_tasks {
            if !known.contains(&&*task.rule) {
                known.push(&task.rule);
            }
        }
        let unknown: Vec<_> = names.iter().map(String::as_str).filter(|name| !known.contains(name)).collect();
        if !unknown.is_empty() {
            bail!(
                "-only: the file has no service or scheduled task {}, it has {}",
                excerpt(&listed(&unknown, "or")),
                excerpt(&listed(&known, "and"))
            );
        }
        self.services.retain(|service| names.contains(&service.name));
        self.scheduled_tasks.retain(|task| names.contains(&task.rule));
        Ok(self)
    }
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

impl UpdateStrategy {
    /// Whether a new revision is registered.
    pub fn makes_revision(self) -> bool {
        matches!(self, Self::Current | Self::Latest)
    }
}

/// One scheduled task of gehen.yml: a rule of EventBridge, each of whose ECS targets gets a new revision.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledTask {
    /// The rule's name.
    pub rule: String,
    /// The event bus that the rule belongs to, by name or ARN; the default one without.
    pub event_bus: Option<String>,
    /// The region of the rule, where the file names one, if only in the ARN of the event bus.
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

/// Why the text of gehen.yml was refused. Says the file, the line, the key and the way out.
#[derive(Debug)]
pub struct Refused {
    said: String,
    /// The line that it is about, by its number and its text.
    pub line: Option<(usize, String)>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.said)
    }
}

impl std::error::Error for Refused {}

/// Reads and checks the file at `path`. A mistake in it is a [`Refused`].
pub fn load(path: &Path) -> anyhow::Result<Config> {
    let shown = excerpt(&path.display().to_string());
    let text = std::fs::read(path)
        .with_context(|| format!("cannot read {shown}; give the file's place with `-path <file>`"))?;
    let text = String::from_utf8(text).with_context(|| format!("{shown} is not a text in UTF-8"))?;
    file::parse(&text).map_err(|Mistake { place, message }| {
        let said = match place {
            Some((line, _)) => format!("{shown}:{line}: {message}"),
            None => format!("{shown}: {message}"),
        };
        let line = place.and_then(|(line, column)| Some((line, quote(&text, line, column)?)));
        Refused { said, line }.into()
    })
}

/// The JSON Schema of gehen.yml, for editors.
pub fn schema() -> String {
    format!("{:#}\n", file::schema().as_value())
}

/// The line of this number, from 1, as it may be shown: without passwords, and of a long one what is around `column`.
fn quote(text: &str, line: usize, column: usize) -> Option<String> {
    let text = text.replace("\r\n", "\n");
    // What ends a line for YAML, and so for the one who counted.
    let line = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).nth(line.checked_sub(1)?)?.trim_end();
    let before: String = line.chars().take(column.saturating_sub(1)).collect();
    let skipped = without_passwords(&before).chars().count().saturating_sub(LONGEST_QUOTE / 4);
    let line = without_passwords(line);
    let length = line.chars().count();
    if length <= LONGEST_QUOTE {
        return Some(excerpt(&line)).filter(|line| !line.is_empty());
    }
    let skipped = skipped.min(length - LONGEST_QUOTE);
    let part: String = line.chars().skip(skipped).take(LONGEST_QUOTE).collect();
    let more = |more: bool| if more { "…" } else { "" };
    Some(format!("{}{}{}", more(skipped > 0), excerpt(&part), more(skipped + LONGEST_QUOTE < length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(config: &Config) -> (Vec<&str>, Vec<&str>) {
        let services = config.services.iter().map(|service| &*service.name).collect();
        (services, config.scheduled_tasks.iter().map(|task| &*task.rule).collect())
    }

    #[test]
    fn only_keeps_what_is_named_in_the_order_of_the_file() {
        let text = "services: {b: {cluster: c}, a: {cluster: c}, d: {cluster: c}}\nscheduledTasks: {d: , e: , f: }";
        for (only, services, tasks) in [
            (&[][..], &["b", "a", "d"][..], &["d", "e", "f"][..]),
            (&["a", "b"], &["b", "a"], &[]),
            (&["a", "a"], &["a"], &[]),
            (&["d"], &["d"], &["d"]),
            (&["f", "b"], &["b"], &["f"]),
            (&["e"], &[], &["e"]),
        ] {
            let only: Vec<_> = only.iter().copied().map(str::to_owned).collect();
            let config = file::parse(text).expect("a good file").only(&only).expect("good names");
            assert_eq!(names(&config), (services.to_vec(), tasks.to_vec()), "{only:?}");
        }
    }

    #[test]
    fn only_refuses_names_that_the_file_does_not_have() {
        let text = "services: {b: {cluster: c}, a: {cluster: c}}\nscheduledTasks: {b: , e: }";
        for (only, said) in
            [(&["x"][..], "`x`"), (&["a", "x"], "`x`"), (&["x", "B", "b"], "`x` or `B`"), (&["a\nb"], "`a\\u{a}b`")]
        {
            let only: Vec<_> = only.iter().copied().map(str::to_owned).collect();
            let refused = file::parse(text).expect("a good file").only(&only).expect_err("a bad name");
            let said = format!("-only: the file has no service or scheduled task {said}, it has `b`, `a` and `e`");
            assert_eq!(refused.to_string(), said);
        }
    }

    #[test]
    fn a_line_is_shown_as_it_is_written_without_what_must_not_be_shown() {
        for (text, line, column, shown) in [
            ("a\n  b: c  \nd", 2, 3, Some("  b: c")),
            ("a\r\nb\r\n", 2, 1, Some("b")),
            ("a\rb\u{2028}c", 3, 1, Some("c")),
            ("a\n\tb", 2, 1, Some("\\u{9}b")),
            ("a\n\n", 2, 1, None),
            ("a", 2, 1, None),
            ("a", 0, 0, None),
            ("url: 'ftp://me:secret@host/'", 1, 6, Some("url: 'ftp://me:***@host/'")),
        ] {
            assert_eq!(quote(text, line, column).as_deref(), shown, "{text:?}");
        }
    }

    #[test]
    fn of_a_long_line_what_is_around_the_place_is_shown() {
        let line = format!("{}X{}", "a".repeat(200), "b".repeat(200));
        let around = |column| quote(&line, 1, column).expect("a line");
        assert_eq!(around(1), "a".repeat(100) + "…");
        assert_eq!(around(201), format!("…{}X{}…", "a".repeat(25), "b".repeat(74)));
        assert_eq!(around(401), "…".to_owned() + &"b".repeat(100));
        let secret = format!("{{a: 'http://me:{}@host/', b: {{X: {}}}}}", "s".repeat(90), "b".repeat(200));
        let shown = quote(&secret, 1, 120).expect("a line");
        assert!(shown.contains("X: ") && !shown.contains("ss"), "{shown}");
    }
}

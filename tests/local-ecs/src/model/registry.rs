//! Amazon ECR: which images its repositories hold, and what its pull-through cache rules cover.

use std::collections::BTreeMap;

use super::{At, arn, ids::Ids};

/// The repositories of every account and region; each pair is a registry of its own.
#[derive(Debug, Default)]
pub(crate) struct Registries(BTreeMap<(String, String), Registry>);

/// The repositories of one account in one region.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// The digest behind each tag of each repository.
    pub(crate) repositories: BTreeMap<String, BTreeMap<String, String>>,
    /// When each pull-through cache rule was made, by its repository prefix.
    pub(crate) rules: BTreeMap<String, At>,
}

impl Registries {
    /// A registry, if anything was ever put into it.
    pub(crate) fn get(&self, account: &str, region: &str) -> Option<&Registry> {
        self.0.get(&(account.to_owned(), region.to_owned()))
    }

    fn registry(&mut self, account: &str, region: &str) -> &mut Registry {
        self.0.entry((account.to_owned(), region.to_owned())).or_default()
    }

    /// Makes a repository if there is none, and images under the tags that it doesn't have yet.
    pub(crate) fn push(&mut self, account: &str, region: &str, name: &str, tags: &[&str], ids: &mut Ids) {
        let repository = self.registry(account, region).repositories.entry(name.to_owned()).or_default();
        for tag in tags {
            repository.entry((*tag).to_owned()).or_insert_with(|| format!("sha256:{}{}", ids.task(), ids.task()));
        }
    }

    /// Takes an image away; false if there was none.
    pub(crate) fn remove(&mut self, account: &str, region: &str, name: &str, tag: &str) -> bool {
        let repository = self.registry(account, region).repositories.get_mut(name);
        repository.is_some_and(|repository| repository.remove(tag).is_some())
    }

    /// Makes a pull-through cache rule.
    pub(crate) fn cover(&mut self, account: &str, region: &str, prefix: &str, now: At) {
        self.registry(account, region).rules.insert(prefix.to_owned(), now);
    }

    /// Whether a pull of this image finds nothing: it lies in a repository that lacks it and that no upstream fills.
    pub(crate) fn lacks(&self, image: &str) -> bool {
        let Some(wanted) = Wanted::of(image) else {
            return false;
        };
        let Some(registry) = self.get(wanted.account, wanted.region) else {
            return false;
        };
        let Some(repository) = registry.repositories.get(wanted.name) else {
            return false;
        };
        let held = match wanted.digest {
            Some(digest) => repository.values().any(|held| held == digest),
            None => repository.contains_key(wanted.tag.unwrap_or("latest")),
        };
        !held && !registry.covers(wanted.name)
    }
}

impl Registry {
    /// Whether a pull-through cache rule fills this repository; `ROOT` fills them all, as the user guide's page on
    /// customizing repository prefixes says, and every other prefix ends with a slash even when it isn't written.
    fn covers(&self, name: &str) -> bool {
        self.rules.keys().any(|prefix| {
            let inner = name.strip_prefix(prefix.trim_end_matches('/'));
            prefix == "ROOT" || inner.is_some_and(|inner| inner.starts_with('/'))
        })
    }
}

/// An image reference that points into Amazon ECR, in its parts.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    account: &'a str,
    region: &'a str,
    name: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Takes `<account>.dkr.ecr.<region>.amazonaws.com/<name>[:<tag>][@<digest>]` apart.
    fn of(image: &'a str) -> Option<Self> {
        let (host, path) = image.split_once('/')?;
        let (account, rest) = host.split_once(".dkr.ecr.")?;
        let (region, domain) = rest.split_once('.')?;
        if !matches!(domain, "amazonaws.com" | "amazonaws.com.cn") {
            return None;
        }
        let (path, digest) = path.split_once('@').map_or((path, None), |(path, digest)| (path, Some(digest)));
        let (name, tag) = path.split_once(':').map_or((path, None), |(name, tag)| (name, Some(tag)));
        Some(Self { account, region, name, tag, digest })
    }
}

/// The reference of an image in Amazon ECR.
pub(crate) fn reference(account: &str, region: &str, name: &str, tag: &str) -> String {
    let ending = if arn::partition(region) == "aws-cn" { ".cn" } else { "" };
    format!("{account}.dkr.ecr.{region}.amazonaws.com{ending}/{name}:{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "123456789012";

    fn registries() -> Registries {
        let mut registries = Registries::default();
        registries.push(ACCOUNT, "us-east-1", "team/api", &["a", "b"], &mut Ids::new(1));
        registries
    }

    #[test]
    fn an_image_is_lacking_only_where_its_repository_is_known() {
        let registries = registries();
        let digest = &registries.get(ACCOUNT, "us-east-1").expect("it was just made").repositories["team/api"]["a"];
        assert_eq!(digest.len(), "sha256:".len() + 64);
        let host = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
        for (image, lacks) in [
            (format!("{host}/team/api:a"), false),
            (format!("{host}/team/api:c"), true),
            (format!("{host}/team/api"), true),
            (format!("{host}/team/api@{digest}"), false),
            (format!("{host}/team/api:c@{digest}"), false),
            (format!("{host}/team/api:a@sha256:00"), true),
            (format!("{host}/team/web:c"), false),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/api:c".to_owned(), false),
            ("210987654321.dkr.ecr.us-east-1.amazonaws.com/team/api:c".to_owned(), false),
            ("registry.example.com/team/api:c".to_owned(), false),
            ("api:c".to_owned(), false),
        ] {
            assert_eq!(registries.lacks(&image), lacks, "{image}");
        }
    }

    #[test]
    fn a_rule_covers_what_lies_under_its_prefix() {
        for (prefix, covers) in
            [("team", true), ("team/", true), ("ROOT", true), ("te", false), ("team/api", false), ("other", false)]
        {
            let mut registries = registries();
            registries.cover(ACCOUNT, "us-east-1", prefix, At::ZERO);
            assert_eq!(!registries.lacks(&reference(ACCOUNT, "us-east-1", "team/api", "c")), covers, "{prefix}");
        }
    }

    #[test]
    fn references_follow_the_partition() {
        assert_eq!(reference(ACCOUNT, "eu-west-1", "a", "1"), "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a:1");
        let chinese = reference(ACCOUNT, "cn-north-1", "a", "1");
        assert_eq!(chinese, "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a:1");
        assert_eq!(Wanted::of(&chinese).map(|wanted| wanted.region), Some("cn-north-1"));
    }
}

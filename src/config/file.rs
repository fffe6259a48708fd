//! The text of gehen.yml, read key by key, so that every mistake is told with its line.

use std::{fmt, time::Duration};

use anyhow::bail;
use reqwest::{Url, header::SERVER};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};

use super::{Cluster, Config, Service, UpdateStrategy, is_name};
use crate::text::excerpt;

/// How long each check of a service may take where the file doesn't say.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(5);
/// The longest wait that can be asked for: a week, longer than any deployment that a person waits for.
const LONGEST_TIMEOUT_MINUTES: f64 = 7.0 * 24.0 * 60.0;

/// Something in the file that won't do.
#[derive(Debug)]
pub(super) struct Mistake {
    /// The line it was found in, if it has one.
    pub(super) line: Option<usize>,
    /// What is wrong, and the way out.
    pub(super) message: String,
}

/// Reads the text of a whole file.
pub(super) fn parse(text: &str) -> Result<Config, Mistake> {
    let file: Option<File> = serde_yaml::from_str(text).map_err(|error| explain(&error))?;
    file.unwrap_or_default().check().map_err(|error| Mistake { line: None, message: error.to_string() })
}

/// serde_yaml's message with its place taken out, and in the words of people who write YAML.
fn explain(error: &serde_yaml::Error) -> Mistake {
    let place = error.location();
    let at = place.as_ref().map(|place| format!(" at line {} column {}", place.line(), place.column()));
    let line = place.map(|place| place.line());
    let message = error.to_string().replace(at.as_deref().unwrap_or("\0"), "");
    let message = message
        .replace(
            "repetition limit exceeded",
            "aliases blow this file up to many times its size; write the values out, or use fewer aliases",
        )
        .replace("recursion limit exceeded", "this file is nested too deeply, or an alias contains itself");
    Mistake { line, message: excerpt(&message) }
}

/// Reads a scalar as the text it is written as and makes a value of it. `make` runs while serde_yaml stands on the
/// scalar, so that its error gets the line; after that only the line of the surrounding map would be known.
fn scalar<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    make: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Scalar<F>(&'static str, F);
    impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for Scalar<F> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Scalar(expected, make))
}

/// A key of a map: one that passes `check` and that `seen` doesn't hold yet.
struct Key<'a> {
    seen: &'a mut Vec<String>,
    check: fn(&str) -> Result<(), String>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        scalar(deserializer, "a key", |key| {
            (self.check)(key)?;
            if self.seen.iter().any(|seen| seen == key) {
                return Err(format!("`{key}` stands here a second time; keep one of the two"));
            }
            self.seen.push(key.to_owned());
            Ok(key.to_owned())
        })
    }
}

/// The file as it is written.
#[derive(Debug, Default)]
struct File {
    services: Option<Services>,
    timeout: Option<Parsed<Duration>>,
}

impl File {
    fn check(self) -> anyhow::Result<Config> {
        let services = self.services.unwrap_or_default().0;
        if services.is_empty() {
            bail!("no services: list at least one under `services:`, as gehen.example.yml shows");
        }
        let timeout = self.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
        let services = services
            .into_iter()
            .map(|(name, entry)| Service {
                name,
                cluster: entry.cluster,
                url: entry.url,
                timeout,
                header: SERVER,
                update_strategy: UpdateStrategy::default(),
                containers: None,
            })
            .collect();
        Ok(Config { services, scheduled_tasks: Vec::new(), role: None, parallel: 1 })
    }

    fn check_key(key: &str) -> Result<(), String> {
        if key.starts_with("x-") || ["services", "timeoutMinutes"].contains(&key) {
            return Ok(());
        }
        Err(format!(
            "unknown key `{key}`, the known keys are `services` and `timeoutMinutes`; a key that holds anchors begins \
             with `x-`"
        ))
    }
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = File;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map with the key `services`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
                let mut file = File::default();
                let mut seen = Vec::new();
                while let Some(key) = map.next_key_seed(Key { seen: &mut seen, check: File::check_key })? {
                    match key.as_str() {
                        "services" => file.services = map.next_value()?,
                        "timeoutMinutes" => file.timeout = map.next_value()?,
                        // Read, so that an alias that blows up is refused wherever it stands.
                        _ => drop(map.next_value::<serde_yaml::Value>()?),
                    }
                }
                Ok(file)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The entries under `services:`, in their order.
#[derive(Debug, Default)]
struct Services(Vec<(String, Entry)>);

impl Services {
    fn check_key(name: &str) -> Result<(), String> {
        if name == MERGE || is_name(name) {
            return Ok(());
        }
        Err(format!("`{name}` can't be the name of an ECS service, which has letters, digits, `-` and `_` only"))
    }
}

impl<'de> Deserialize<'de> for Services {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Services;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map from the name of an ECS service to its `cluster` and `url`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Services, A::Error> {
                let mut services: Vec<(String, Entry)> = Vec::new();
                let mut merged = Merged::<Services>::default();
                let mut seen = Vec::new();
                while let Some(name) = map.next_key_seed(Key { seen: &mut seen, check: Services::check_key })? {
                    if name == MERGE {
                        merged = map.next_value()?;
                    } else {
                        services.push((name, map.next_value()?));
                    }
                }
                for (name, entry) in merged.0.into_iter().flat_map(|services| services.0) {
                    if !services.iter().any(|(other, _)| *other == name) {
                        services.push((name, entry));
                    }
                }
                Ok(Services(services))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// One service, with what it merges filled in.
#[derive(Debug)]
struct Entry {
    cluster: Cluster,
    url: Option<Url>,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = Entry;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                EntryKeys::expecting(formatter)
            }

            // Checked in here, where serde_yaml still knows the place.
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                let keys = EntryKeys::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let cluster = keys.cluster.flatten().ok_or_else(|| {
                    A::Error::custom(
                        "`cluster` is missing; give the ARN or the name of the cluster that the service runs in",
                    )
                })?;
                Ok(Entry { cluster: cluster.0, url: keys.url.flatten().map(|url| url.0) })
            }
        }
        deserializer.deserialize_map(Whole)
    }
}

/// The keys that a service, or a map that services merge, may have. One that is there but empty (`url: ~`) is not filled
/// in by a merged map.
#[derive(Debug, Default)]
#[expect(clippy::option_option, reason = "a key may be missing, empty or filled in")]
struct EntryKeys {
    cluster: Option<Option<Parsed<Cluster>>>,
    url: Option<Option<Parsed<Url>>>,
}

impl EntryKeys {
    fn expecting(formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map with the keys `cluster` and `url`")
    }

    fn check_key(key: &str) -> Result<(), String> {
        if [MERGE, "cluster", "url"].contains(&key) {
            return Ok(());
        }
        Err(format!("unknown key `{key}`, the known keys are `cluster` and `url`"))
    }
}

impl<'de> Deserialize<'de> for EntryKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = EntryKeys;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                EntryKeys::expecting(formatter)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EntryKeys, A::Error> {
                let mut keys = EntryKeys::default();
                let mut merged = Merged::<EntryKeys>::default();
                let mut seen = Vec::new();
                while let Some(key) = map.next_key_seed(Key { seen: &mut seen, check: EntryKeys::check_key })? {
                    match key.as_str() {
                        "cluster" => keys.cluster = Some(map.next_value()?),
                        "url" => keys.url = Some(map.next_value()?),
                        _ => merged = map.next_value()?,
                    }
                }
                for base in merged.0 {
                    keys.cluster = keys.cluster.or(base.cluster);
                    keys.url = keys.url.or(base.url);
                }
                Ok(keys)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// YAML's merge key.
const MERGE: &str = "<<";

/// What a merge key refers to: one map, or a list of maps.
#[derive(Debug)]
struct Merged<T>(Vec<T>);

impl<T> Default for Merged<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Merged<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMore<T> {
            type Value = Merged<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map, or a list of maps, to merge")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Merged<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(|one| Merged(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merged<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(Merged(all))
            }
        }
        deserializer.deserialize_any(OneOrMore(std::marker::PhantomData))
    }
}

/// A value that is written as text and checked where it stands, so that an error names its line.
#[derive(Debug)]
struct Parsed<T>(T);

impl<'de> Deserialize<'de> for Parsed<Cluster> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, "the ARN or the name of a cluster", |text| {
            text.parse().map(Self).map_err(|rule| format!("`{text}` won't do: {rule}"))
        })
    }
}

impl<'de> Deserialize<'de> for Parsed<Url> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, "an address that begins with http:// or https://", |text| match Url::parse(text) {
            Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Ok(Self(url)),
            _ => Err(format!("`{text}` won't do: give a whole address that begins with http:// or https://")),
        })
    }
}

impl<'de> Deserialize<'de> for Parsed<Duration> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        scalar(deserializer, "a number of minutes", |text| {
            let minutes = text.parse().ok().filter(|minutes| (0.0..=LONGEST_TIMEOUT_MINUTES).contains(minutes));
            match minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)) {
                Some(timeout) if !timeout.is_zero() => Ok(Self(timeout)),
                _ => Err(format!(
                    "`{text}` won't do: give a number of minutes above 0 and up to {LONGEST_TIMEOUT_MINUTES}"
                )),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ARN: &str = "arn:aws:ecs:us-east-1:123456789012:cluster/staging";

    fn services(text: &str) -> Vec<Service> {
        match parse(text) {
            Ok(config) => config.services,
            Err(mistake) => panic!("{mistake:?} in\n{text}"),
        }
    }

    /// What is wrong with `text`, as the user reads it behind the file's name.
    fn mistake(text: &str) -> String {
        match parse(text) {
            Ok(config) => panic!("{config:?} was accepted"),
            Err(Mistake { line: Some(line), message }) => format!("{line}: {message}"),
            Err(Mistake { line: None, message }) => message,
        }
    }

    #[test]
    fn services_keep_the_order_of_the_file() {
        let names: Vec<_> = services("services: {b: {cluster: c}, a: {cluster: c}, c: {cluster: c}}")
            .into_iter()
            .map(|service| service.name)
            .collect();
        assert_eq!(names, ["b", "a", "c"]);
    }

    #[test]
    fn everything_that_may_be_left_out_has_its_default() {
        let found = services(&format!("services:\n  api:\n    cluster: {ARN}\n"));
        let expected = Service {
            name: "api".into(),
            cluster: ARN.parse().expect("an ARN"),
            url: None,
            timeout: DEFAULT_TIMEOUT,
            header: SERVER,
            update_strategy: UpdateStrategy::Current,
            containers: None,
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn fractions_of_minutes_count() {
        let found = services("timeoutMinutes: 0.5\nservices: {api: {cluster: c}}");
        assert_eq!(found[0].timeout, Duration::from_secs(30));
    }

    #[test]
    fn the_region_is_the_one_of_the_arn() {
        for (written, region) in [
            ("arn:aws:ecs:eu-west-1:123456789012:cluster/a", Some("eu-west-1")),
            ("arn:aws-cn:ecs:cn-north-1:123456789012:cluster/a", Some("cn-north-1")),
            ("arn:aws-us-gov:ecs:us-gov-west-1:123456789012:cluster/a", Some("us-gov-west-1")),
            ("staging", None),
        ] {
            assert_eq!(services(&format!("services: {{api: {{cluster: '{written}'}}}}"))[0].cluster.region(), region);
        }
    }

    #[test]
    fn merge_keys_and_anchors_work_at_every_level() {
        let text = "
x-base: &base {cluster: shared, url: 'https://example.com/'}
x-more: &more {cluster: other}
x-services: &all
  worker: {cluster: jobs}
  api: {cluster: hidden}
services:
  <<: *all
  api: {<<: *base}
  web: {<<: [*more, *base], url: 'https://example.org/'}
  mute: {<<: *base, url: ~}
";
        let found: Vec<_> = services(text)
            .into_iter()
            .map(|service| (service.name, service.cluster.as_str().to_owned(), service.url.map(String::from)))
            .collect();
        let url = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                ("api".to_owned(), "shared".to_owned(), url("https://example.com/")),
                ("web".to_owned(), "other".to_owned(), url("https://example.org/")),
                ("mute".to_owned(), "shared".to_owned(), None),
                ("worker".to_owned(), "jobs".to_owned(), None),
            ]
        );
    }

    #[test]
    fn every_mistake_names_its_line_and_the_way_out() {
        let no_services = "no services: list at least one under `services:`, as gehen.example.yml shows";
        for (text, expected) in [
            ("", no_services),
            ("services:", no_services),
            ("services: {}", no_services),
            ("x-anchors: 1", no_services),
            ("- services", "1: invalid type: sequence, expected a map with the key `services`"),
            (
                "services:\n  - api",
                "2: services: invalid type: sequence, expected a map from the name of an ECS service to its `cluster` and `url`",
            ),
            (
                "services:\n  api: [a]",
                "2: services.api: invalid type: sequence, expected a map with the keys `cluster` and `url`",
            ),
            (
                "services:\n  api:\n    url: https://example.com\n",
                "3: services.api: `cluster` is missing; give the ARN or the name of the cluster that the service runs in",
            ),
            (
                "services:\n  api:\n    cluster: c\n    clutser: c\n",
                "4: services.api: unknown key `clutser`, the known keys are `cluster` and `url`",
            ),
            (
                "services:\n  api:\n    cluster: c\n    cluster: d\n",
                "4: services.api: `cluster` stands here a second time; keep one of the two",
            ),
            (
                "services:\n  api: {cluster: c}\n  web: {cluster: c}\n  api: {cluster: d}\n",
                "4: services: `api` stands here a second time; keep one of the two",
            ),
            (
                "services:\n  api: {cluster: c}\nservices:\n  web: {cluster: c}\n",
                "3: `services` stands here a second time; keep one of the two",
            ),
            (
                "service:\n  api: {cluster: c}\n",
                "1: unknown key `service`, the known keys are `services` and `timeoutMinutes`; a key that holds anchors begins with `x-`",
            ),
            (
                "services:\n  a b: {cluster: c}\n",
                "2: services: `a b` can't be the name of an ECS service, which has letters, digits, `-` and `_` only",
            ),
            (
                "services:\n  api:\n    cluster: [c]\n",
                "3: services.api.cluster: invalid type: sequence, expected the ARN or the name of a cluster",
            ),
            (
                "services:\n  api:\n    cluster: 'a/b'\n",
                "3: services.api.cluster: `a/b` won't do: a cluster is an ARN such as `arn:aws:ecs:us-east-1:123456789012:cluster/staging`, or a name of letters, digits, `-` and `_`",
            ),
            (
                "services:\n  api:\n    cluster: c\n    url: example.com/ping\n",
                "4: services.api.url: `example.com/ping` won't do: give a whole address that begins with http:// or https://",
            ),
            (
                "services:\n  api:\n    cluster: c\n    url: ftp://example.com/\n",
                "4: services.api.url: `ftp://example.com/` won't do: give a whole address that begins with http:// or https://",
            ),
            (
                "services:\n  api:\n    cluster: c\n    url: 5\n",
                "4: services.api.url: `5` won't do: give a whole address that begins with http:// or https://",
            ),
            (
                "timeoutMinutes: 0\nservices: {api: {cluster: c}}",
                "1: timeoutMinutes: `0` won't do: give a number of minutes above 0 and up to 10080",
            ),
            (
                "timeoutMinutes: -1\nservices: {api: {cluster: c}}",
                "1: timeoutMinutes: `-1` won't do: give a number of minutes above 0 and up to 10080",
            ),
            (
                "timeoutMinutes: .nan\nservices: {api: {cluster: c}}",
                "1: timeoutMinutes: `.nan` won't do: give a number of minutes above 0 and up to 10080",
            ),
            (
                "timeoutMinutes: 1e9\nservices: {api: {cluster: c}}",
                "1: timeoutMinutes: `1e9` won't do: give a number of minutes above 0 and up to 10080",
            ),
            (
                "timeoutMinutes: soon\nservices: {api: {cluster: c}}",
                "1: timeoutMinutes: `soon` won't do: give a number of minutes above 0 and up to 10080",
            ),
            (
                "services: {api: {cluster: c}",
                "2: did not find expected ',' or '}', while parsing a flow mapping at line 1 column 11",
            ),
        ] {
            assert_eq!(mistake(text), expected, "in\n{text}");
        }
    }

    #[test]
    fn wrong_cluster_arns_are_refused() {
        for arn in [
            "arn:aws:ecs:us-east-1:123456789012:service/staging/api",
            "arn:aws:ecs::123456789012:cluster/a",
            "arn:aws:ecs:us-east-1::cluster/a",
            "arn:aws:s3:us-east-1:123456789012:cluster/a",
            "arn:aws:ecs:us-east-1:123456789012:cluster/",
            "arn:aws:ecs:us-east-1:123456789012:cluster/a/b",
            "arn:aws:ecs",
            "",
        ] {
            assert!(arn.parse::<Cluster>().is_err(), "{arn}");
        }
    }

    #[test]
    fn aliases_that_blow_up_are_refused() {
        use std::fmt::Write as _;
        let mut text = "x-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..12 {
            let _ = writeln!(text, "x-{level}: &a{level} [{}]", vec![format!("*a{}", level - 1); 9].join(", "));
        }
        text.push_str("services: {api: {cluster: c}}\n");
        assert!(mistake(&text).contains("aliases blow this file up"), "{}", mistake(&text));
    }

    #[test]
    fn an_alias_that_contains_itself_is_refused() {
        let text = "services:\n  api: &a\n    cluster: c\n    <<: *a\n";
        assert!(mistake(text).contains("an alias contains itself"), "{}", mistake(text));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn no_yaml_makes_it_panic(text in "(services|timeoutMinutes|x-a|api|cluster|url|<<|[:\\[\\]{}&*a, \n-]|  |\n  |\n){0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_well_formed_service_is_taken_as_written(
            name in "[A-Za-z0-9_-]{1,40}", cluster in "[A-Za-z0-9_-]{1,40}", path in "[a-z0-9/]{0,20}",
        ) {
            prop_assume!(name != "-" && cluster != "-");
            let url = format!("https://example.com/{path}");
            let found = services(&format!("services:\n  '{name}':\n    cluster: '{cluster}'\n    url: '{url}'\n"));
            prop_assert_eq!(&found[0].name, &name);
            prop_assert_eq!(found[0].cluster.as_str(), cluster);
            prop_assert_eq!(found[0].url.as_ref().map(Url::as_str), Some(url.as_str()));
        }
    }
}

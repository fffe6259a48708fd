//! The values that gehen.yml may hold: how each is read from its text, and what its schema says.

use std::{borrow::Cow, fmt, time::Duration};

use reqwest::{Url, header::HeaderName};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, Error as _, SeqAccess, Visitor},
};

use super::{
    Cluster, UpdateStrategy, is_name,
    maps::{Once, Said},
};

/// The longest wait that can be asked for, in minutes: a week, longer than any deployment that a person waits for.
const LONGEST_TIMEOUT: u32 = 7 * 24 * 60;
/// The most services that may be deployed at the same time.
const MOST_AT_ONCE: usize = 1000;

/// Reads a scalar as the text it is written as and makes a value of it. `make` runs while serde_yaml stands on the
/// scalar, so that its error gets the line; after that only the line of the surrounding map would be known.
pub fn text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    make: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Text<F>(&'static str, F);
    impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for Text<F> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(expected, make))
}

/// A value that is written as one text.
pub trait Scalar: Sized {
    /// What is expected where the value belongs.
    const WHAT: &'static str;
    /// The rule that a text that won't do breaks, as the way out.
    const RULE: &'static str;

    /// Reads the text.
    fn read(text: &str) -> Option<Self>;

    /// As much of the rule as a schema can say.
    fn schema() -> Schema;
}

/// A [`Scalar`] that is checked where it stands, so that an error names its line.
#[derive(Debug)]
pub struct Parsed<T>(pub T);

impl<'de, T: Scalar> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, T::WHAT, |text| T::read(text).map(Self).ok_or_else(|| wont_do::<T>(text)))
    }
}

impl<T> Said<Parsed<T>> {
    /// The value that was read, if there is one.
    pub fn parsed(self) -> Option<T> {
        self.value().map(|Parsed(value)| value)
    }
}

fn wont_do<T: Scalar>(text: &str) -> String {
    format!("`{text}` won't do: {}", T::RULE)
}

impl<T: Scalar> JsonSchema for Parsed<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::WHAT.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

impl Scalar for Cluster {
    const WHAT: &'static str = "the ARN or the name of a cluster";
    const RULE: &'static str = "a cluster is an ARN such as `arn:aws:ecs:us-east-1:123456789012:cluster/staging`, or a \
                                name of letters, digits, `-` and `_`";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn schema() -> Schema {
        // A name may look like a number or a truth value of YAML's.
        json_schema!({
            "type": ["string", "integer", "boolean"],
            "pattern": "^(arn:[^:]+:ecs:[^:]+:[^:]+:cluster/)?[A-Za-z0-9_-]{1,255}$",
        })
    }
}

impl Scalar for Url {
    const WHAT: &'static str = "an address that begins with http:// or https://";
    const RULE: &'static str = "give a whole address that begins with http:// or https://";

    fn read(text: &str) -> Option<Self> {
        let (scheme, _) = text.split_once("://")?;
        let is_web = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        Self::parse(text).ok().filter(|url| is_web && url.has_host())
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://[/\\]*[^/\\?#]" })
    }
}

/// A number as YAML writes it; its bases, infinities and signs included.
fn number(text: &str) -> Option<f64> {
    text.parse::<serde_yaml::Number>().ok()?.as_f64()
}

/// A time that is written in minutes.
#[derive(Debug)]
pub struct Minutes(pub Duration);

impl Scalar for Minutes {
    const WHAT: &'static str = "a number of minutes";
    const RULE: &'static str = "give a number of minutes above 0 and up to 10080, or leave the key out for the default";

    fn read(text: &str) -> Option<Self> {
        let minutes = number(text).filter(|minutes| (0.0..=f64::from(LONGEST_TIMEOUT)).contains(minutes))?;
        Some(Self(Duration::from_secs_f64(minutes * 60.0))).filter(|Self(timeout)| !timeout.is_zero())
    }

    fn schema() -> Schema {
        json_schema!({ "type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_TIMEOUT })
    }
}

/// How many services are deployed at the same time.
#[derive(Debug)]
pub struct Parallel(pub usize);

impl Scalar for Parallel {
    const WHAT: &'static str = "a number of services";
    const RULE: &'static str = "give a whole number from 1 to 1000";

    fn read(text: &str) -> Option<Self> {
        // `5.0` and `1e2` are whole numbers, too.
        let count = number(text)?.to_string().parse().ok()?;
        (1..=MOST_AT_ONCE).contains(&count).then_some(Self(count))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": MOST_AT_ONCE })
    }
}

impl Scalar for HeaderName {
    const WHAT: &'static str = "the name of an HTTP header";
    const RULE: &'static str = "give the name of an HTTP header, such as `Server`";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn schema() -> Schema {
        json_schema!({
            "type": ["string", "number", "boolean"],
            "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        })
    }
}

/// The strategies by the names they have in the file.
const STRATEGIES: [(&str, UpdateStrategy); 4] = [
    ("current", UpdateStrategy::Current),
    ("latest", UpdateStrategy::Latest),
    ("redeploy", UpdateStrategy::Redeploy),
    ("none", UpdateStrategy::None),
];

impl Scalar for UpdateStrategy {
    const WHAT: &'static str = "an update strategy";
    const RULE: &'static str = "give `current`, `latest`, `redeploy` or `none`";

    fn read(text: &str) -> Option<Self> {
        STRATEGIES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, strategy)| *strategy)
    }

    fn schema() -> Schema {
        let names = STRATEGIES.map(|(name, _)| name);
        let either = |letter: char| format!("[{}{letter}]", letter.to_ascii_uppercase());
        let in_any_case = names.map(|name| name.chars().map(either).collect::<String>()).join("|");
        // The first is what editors offer.
        json_schema!({ "anyOf": [
            { "enum": names },
            { "type": "string", "pattern": format!("^({in_any_case})$") },
        ] })
    }
}

/// The ARN of an IAM role.
#[derive(Debug)]
pub struct RoleArn(pub String);

impl Scalar for RoleArn {
    const WHAT: &'static str = "the ARN of an IAM role";
    const RULE: &'static str = "give the ARN of an IAM role, such as `arn:aws:iam::123456789012:role/deploy`";

    /// Takes a path and a name as API_CreateRole allows them.
    fn read(text: &str) -> Option<Self> {
        let ["arn", partition, "iam", "", account, resource] = text.splitn(6, ':').collect::<Vec<_>>()[..] else {
            return None;
        };
        let resource = resource.strip_prefix("role/")?;
        let (path, name) = resource.rsplit_once('/').unwrap_or(("", resource));
        let is_good = !partition.is_empty()
            && account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && path.bytes().all(|byte| byte.is_ascii_graphic())
            && (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte));
        is_good.then(|| Self(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^arn:[^:]+:iam::[0-9]{12}:role/([!-~]*/)?[A-Za-z0-9_+=,.@-]{1,64}$",
        })
    }
}

/// The name or the ARN of an event bus.
#[derive(Debug)]
pub struct EventBus(pub String);

impl EventBus {
    /// The region that the ARN names.
    pub fn region(&self) -> Option<&str> {
        self.0.strip_prefix("arn:")?.split(':').nth(2)
    }
}

impl Scalar for EventBus {
    const WHAT: &'static str = "the name or the ARN of an event bus";
    const RULE: &'static str = "an event bus is a name of letters, digits, `.`, `-`, `_` and `/`, or an ARN such as \
                                `arn:aws:events:us-east-1:123456789012:event-bus/jobs`";

    /// Takes what API_ListTargetsByRule takes as EventBusName.
    fn read(text: &str) -> Option<Self> {
        let name = if text.starts_with("arn:") {
            match text.splitn(6, ':').collect::<Vec<_>>()[..] {
                ["arn", partition, "events", region, account, resource]
                    if !partition.is_empty() && Region::read(region).is_some() && !account.is_empty() =>
                {
                    resource.strip_prefix("event-bus/")?
                }
                _ => return None,
            }
        } else {
            text
        };
        let is_good = (1..=256).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/.-_".contains(&byte));
        is_good.then(|| Self(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": ["string", "number", "boolean"],
            "pattern": format!("^(arn:[^:]+:events:{REGION}:[^:]+:event-bus/)?[/._A-Za-z0-9-]{{1,256}}$"),
        })
    }
}

/// The name of a region.
#[derive(Debug)]
pub struct Region(pub String);

/// What the name of a region looks like, for the schema.
const REGION: &str = "[a-z][a-z0-9]*(-[a-z0-9]+)+";

impl Scalar for Region {
    const WHAT: &'static str = "the name of a region";
    const RULE: &'static str = "give the name of a region, such as `us-east-1`";

    fn read(text: &str) -> Option<Self> {
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let is_good = text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.contains('-')
            && text.split('-').all(is_part);
        is_good.then(|| Self(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": format!("^{REGION}$") })
    }
}

/// The name of a container in a task definition.
struct Container;

impl Scalar for Container {
    const WHAT: &'static str = "the name of a container";
    const RULE: &'static str = "the name of a container has letters, digits, `-` and `_` only";

    /// Takes what API_ContainerDefinition takes.
    fn read(text: &str) -> Option<Self> {
        is_name(text).then_some(Self)
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"], "pattern": NAME })
    }
}

/// What a text that [`is_name`] looks like, for the schema.
const NAME: &str = "^[A-Za-z0-9_-]{1,255}$";

/// Names of containers: at least one, and none twice.
#[derive(Debug)]
pub struct Containers(pub Vec<String>);

impl<'de> Deserialize<'de> for Containers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Containers;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of names of containers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Containers, A::Error> {
                let mut names = Vec::new();
                let what = Container::WHAT;
                let check = |name: &str| Container::read(name).map(drop).ok_or_else(|| wont_do::<Container>(name));
                while list.next_element_seed(Once { seen: &mut names, what, check })?.is_some() {}
                if names.is_empty() {
                    return Err(A::Error::custom("an empty list won't do: leave the key out for all containers"));
                }
                Ok(Containers(names))
            }
        }
        deserializer.deserialize_seq(Names)
    }
}

impl JsonSchema for Containers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "containers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": Container::schema(), "minItems": 1, "uniqueItems": true })
    }
}

/// A kind of names that are the keys of a map.
pub trait Name {
    /// What the map of them is called in the schema.
    const MANY: &'static str;
    /// What such a name is of.
    const WHAT: &'static str;
    /// What a map says of each name.
    const SAYS: &'static str;
    /// What such a name looks like, for the schema.
    const PATTERN: &'static str;

    /// Says what is wrong with a name.
    fn check(name: &str) -> Result<(), String>;
}

/// The names of ECS services.
#[derive(Debug)]
pub struct OfServices;

impl Name for OfServices {
    const MANY: &'static str = "services";
    const WHAT: &'static str = "the name of an ECS service";
    const SAYS: &'static str = "its `cluster` and its other keys";
    const PATTERN: &'static str = NAME;

    fn check(name: &str) -> Result<(), String> {
        if is_name(name) {
            return Ok(());
        }
        Err(format!("`{name}` can't be the name of an ECS service, which has letters, digits, `-` and `_` only"))
    }
}

/// The names of EventBridge rules.
#[derive(Debug)]
pub struct OfRules;

impl Name for OfRules {
    const MANY: &'static str = "scheduledTasks";
    const WHAT: &'static str = "the name of an EventBridge rule";
    const SAYS: &'static str = "its keys, if any";
    const PATTERN: &'static str = "^[._A-Za-z0-9-]{1,64}$";

    /// Takes what API_PutRule takes.
    fn check(name: &str) -> Result<(), String> {
        let is_good = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if is_good {
            return Ok(());
        }
        Err(format!(
            "`{name}` can't be the name of an EventBridge rule, which has up to 64 letters, digits, `.`, `-` and `_`"
        ))
    }
}

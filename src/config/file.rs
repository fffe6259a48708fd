//! The keys of gehen.yml: what each says, what it is where it isn't given, and the schema made of them.

use std::time::Duration;

use reqwest::{
    Url,
    header::{HeaderName, SERVER},
};
use schemars::{Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::Value;

use super::{
    Cluster, Config, ScheduledTask, Service, UpdateStrategy,
    maps::{Keys, Map, Named, Said, Whole, keys, not_empty},
    values::{Containers, EventBus, Minutes, OfRules, OfServices, Parallel, Parsed, Region, RoleArn},
};
use crate::text::{excerpt, without_passwords};

/// How long each check of a service may take where the file doesn't say.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(5);

/// Something in the file that won't do.
#[derive(Debug)]
pub struct Mistake {
    /// Where it was found, if it has a place: line and column, from 1.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and the way out.
    pub message: String,
}

/// Reads the text of a whole file.
pub fn parse(text: &str) -> Result<Config, Mistake> {
    let file: Option<Map<File>> = serde_yaml::from_str(text).map_err(|error| explain(&error))?;
    let file = file.map(|Map(file)| file).unwrap_or_default();
    file.whole().map_err(|message| Mistake { place: None, message })
}

/// serde_yaml's message with its place taken out, and in the words of people who write YAML.
fn explain(error: &serde_yaml::Error) -> Mistake {
    let place = error.location().map(|place| (place.line(), place.column()));
    let at = place.map(|(line, column)| format!(" at line {line} column {column}"));
    let message = error.to_string().replace(at.as_deref().unwrap_or("\0"), "");
    let message = message
        .replace("invalid type: unit value, expected", "nothing is given here, expected")
        .replace(
            "repetition limit exceeded",
            "aliases blow this file up to many times its size; write the values out, or use fewer aliases",
        )
        .replace("recursion limit exceeded", "this file is nested too deeply, or an alias contains itself")
        .replace(
            "deserializing from YAML containing more than one document is not supported",
            "there is more than one document; keep one, without `---` lines",
        );
    Mistake { place, message: excerpt(&without_passwords(&message)) }
}

/// The JSON Schema of the file, in the draft that editors know best.
pub fn schema() -> Schema {
    let mut schema = SchemaSettings::draft07()
        .with_transform(RecursiveTransform(unwrap_description))
        .into_generator()
        .into_root_schema_for::<Whole<File>>();
    schema.insert("title".to_owned(), "gehen.yml".into());
    schema
}

/// Joins the lines of a doc comment.
fn unwrap_description(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

/// The region of all services, where they are in one.
fn common_region(services: &[Service]) -> Option<&str> {
    let mut regions = services.iter().map(|service| service.cluster.region());
    let first = regions.next()??;
    regions.all(|region| region == Some(first)).then_some(first)
}

keys! {
    /// What `gehen -gitsha <sha>` deploys, and how.
    #[schemars(rename = "file")]
    struct File {
        /// The services to deploy, in this order, by the names of ECS services that exist.
        services: Named<OfServices, Whole<ServiceKeys>>,

        /// Tasks that run on a schedule, by the names of EventBridge rules that exist. Each ECS target of a rule gets a
        /// new revision, once all services are proven.
        scheduled_tasks: Named<OfRules, Option<Whole<TaskKeys>>>,

        /// The IAM role to assume for every request to AWS. Default: the credentials are used as they are.
        #[serde(deserialize_with = "not_empty")]
        #[schemars(with = "Whole<RoleKeys>")]
        role: Whole<RoleKeys>,

        /// Bounds each check of each service, in minutes; fractions are fine. Default: 5
        timeout_minutes: Parsed<Minutes>,

        /// What is deployed. current: a new revision of the one that runs. latest: a new revision of the family's
        /// newest one. redeploy: what is there, in a new deployment. none: nothing is changed, only the checks are
        /// made. Default: current
        update_strategy: Parsed<UpdateStrategy>,

        /// How many services may be deployed at the same time. Default: 1
        parallel: Parsed<Parallel>,
    }
}

impl Keys for File {
    const WHAT: &'static str = "a map with the key `services`";
    const REQUIRED: &'static [&'static str] = &["services", "scheduledTasks"];
    const HOLDS_ANCHORS: bool = true;
    type Whole = Config;

    fn whole(self) -> Result<Config, String> {
        let timeout = self.timeout_minutes.parsed().map_or(DEFAULT_TIMEOUT, |Minutes(timeout)| timeout);
        let strategy = self.update_strategy.parsed().unwrap_or_default();
        let services = self.services.value().map_or_else(Vec::new, |services| services.entries);
        let services = services.into_iter().map(|(name, Whole((cluster, keys)))| Service {
            name,
            cluster,
            url: keys.url.parsed(),
            timeout: keys.timeout_minutes.parsed().map_or(timeout, |Minutes(timeout)| timeout),
            header: keys.header.parsed().unwrap_or(SERVER),
            update_strategy: keys.update_strategy.parsed().unwrap_or(strategy),
            containers: keys.containers.value().map(|Containers(names)| names),
        });
        let services: Vec<_> = services.collect();
        let tasks = self.scheduled_tasks.value().map_or_else(Vec::new, |tasks| tasks.entries);
        let tasks = tasks.into_iter().map(|(rule, keys)| {
            let keys = keys.map(|Whole(keys)| keys).unwrap_or_default();
            let event_bus = keys.event_bus.parsed();
            let of_bus = event_bus.as_ref().and_then(EventBus::region).map(str::to_owned);
            ScheduledTask {
                rule,
                region: keys.region.parsed().map(|Region(name)| name).or(of_bus),
                event_bus: event_bus.map(|EventBus(bus)| bus),
                update_strategy: keys.update_strategy.parsed().unwrap_or(strategy),
                containers: keys.containers.value().map(|Containers(names)| names),
            }
        });
        let scheduled_tasks: Vec<_> = tasks.collect();
        if services.is_empty() && scheduled_tasks.is_empty() {
            return Err("nothing to deploy: list a service under `services:`, or a rule under `scheduledTasks:`, as \
                        gehen.example.yml shows"
                .to_owned());
        }
        let role = self.role.value().map(|Whole(RoleArn(arn))| arn);
        let parallel = self.parallel.parsed().map_or(1, |Parallel(count)| count);
        let common_region = common_region(&services).map(str::to_owned);
        Ok(Config { services, scheduled_tasks, common_region, role, parallel })
    }
}

keys! {
    /// One service.
    #[schemars(rename = "service")]
    struct ServiceKeys {
        /// The cluster that the service runs in: its ARN, whose region is then used, or its name, for the region of the
        /// usual AWS settings.
        cluster: Parsed<Cluster>,

        /// Where the new version shows itself. Default: ECS's counts of tasks are the proof, also where this is empty
        /// (`url: ~`), which undoes a merged one.
        url: Parsed<Url>,

        /// Bounds each check of this service, in minutes; fractions are fine. Default: what the whole file says
        timeout_minutes: Parsed<Minutes>,

        /// The header in which the answers of the url, which must be given, name the version. Default: Server
        header: Parsed<HeaderName>,

        /// The containers that get the new tag; the others stay as they are. Default: all
        containers: Containers,

        /// What is deployed to this service: current, latest, redeploy or none. Default: what the whole file says
        update_strategy: Parsed<UpdateStrategy>,
    }
}

impl Keys for ServiceKeys {
    const WHAT: &'static str = "a map with the `cluster` of a service and its other keys";
    const REQUIRED: &'static [&'static str] = &["cluster"];
    const NEEDS: Option<(&'static str, &'static str)> = Some(("header", "url"));
    type Whole = (Cluster, Self);

    fn whole(mut self) -> Result<(Cluster, Self), String> {
        let cluster = std::mem::take(&mut self.cluster).parsed();
        let missing = "`cluster` is missing; give the ARN or the name of the cluster that the service runs in";
        let cluster = cluster.ok_or(missing)?;
        if let (Said::Value(_), Said::Nothing) = (&self.header, &self.url) {
            return Err("`header` needs a `url`, whose answers carry it; give one, or leave `header` out".to_owned());
        }
        Ok((cluster, self))
    }
}

keys! {
    /// One rule of EventBridge.
    #[schemars(rename = "scheduledTask")]
    struct TaskKeys {
        /// The event bus that the rule belongs to, by name or ARN. Default: the default one
        event_bus: Parsed<EventBus>,

        /// The region of the rule. Default: the one of the usual AWS settings, else the one of all services
        region: Parsed<Region>,

        /// The containers that get the new tag; the others stay as they are. Default: all
        containers: Containers,

        /// What the targets of this rule get: current, latest, redeploy or none. Default: what the whole file says
        update_strategy: Parsed<UpdateStrategy>,
    }
}

impl Keys for TaskKeys {
    const WHAT: &'static str = "a map with the keys of a scheduled task, such as `eventBus`, or nothing";
    type Whole = Self;

    fn whole(self) -> Result<Self, String> {
        if let (Said::Value(Parsed(bus)), Said::Value(Parsed(Region(region)))) = (&self.event_bus, &self.region)
            && let Some(other) = bus.region().filter(|other| other != region)
        {
            return Err(format!("`region` says `{region}` but the ARN of `eventBus` `{other}`; leave `region` out"));
        }
        Ok(self)
    }
}

keys! {
    /// An IAM role.
    #[schemars(rename = "role")]
    struct RoleKeys {
        /// The role's ARN.
        arn: Parsed<RoleArn>,
    }
}

impl Keys for RoleKeys {
    const WHAT: &'static str = "a map with the key `arn`";
    const REQUIRED: &'static [&'static str] = &["arn"];
    type Whole = RoleArn;

    fn whole(self) -> Result<RoleArn, String> {
        Ok(self.arn.parsed().ok_or("`arn` is missing; give the ARN of the role, or leave `role` out")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ARN: &str = "arn:aws:ecs:us-east-1:123456789012:cluster/staging";

    fn config(text: &str) -> Config {
        parse(text).unwrap_or_else(|mistake| panic!("{mistake:?} in\n{text}"))
    }

    fn services(text: &str) -> Vec<Service> {
        config(text).services
    }

    /// What is wrong with `text`, as the user reads it behind the file's name.
    fn mistake(text: &str) -> String {
        match parse(text) {
            Ok(config) => panic!("{config:?} was accepted"),
            Err(Mistake { place: Some((line, _)), message }) => format!("{line}: {message}"),
            Err(Mistake { place: None, message }) => message,
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
    fn what_is_said_of_one_service_or_rule_goes_before_what_the_whole_file_says() {
        let config = config(
            "
timeoutMinutes: 2
updateStrategy: Latest
parallel: 1000
role: {arn: 'arn:aws:iam::123456789012:role/ci/deploy'}
services:
  api: {cluster: c}
  web: {cluster: c, url: ~, timeoutMinutes: 1, header: X-Version, containers: [app, worker], updateStrategy: NONE}
  worker: {cluster: c, timeoutMinutes: ~, header: ~, containers: ~, updateStrategy: ~}
scheduledTasks:
  nightly:
  hourly: {eventBus: jobs, region: eu-west-1, containers: [app], updateStrategy: redeploy}
  weekly: {eventBus: 'arn:aws:events:us-west-2:123456789012:event-bus/jobs', updateStrategy: ~}
",
        );
        let api = Service {
            name: "api".into(),
            cluster: "c".parse().expect("a name"),
            url: None,
            timeout: Duration::from_mins(2),
            header: SERVER,
            update_strategy: UpdateStrategy::Latest,
            containers: None,
        };
        let web = Service {
            name: "web".into(),
            timeout: Duration::from_mins(1),
            header: HeaderName::from_static("x-version"),
            update_strategy: UpdateStrategy::None,
            containers: Some(vec!["app".into(), "worker".into()]),
            ..api.clone()
        };
        let worker = Service { name: "worker".into(), ..api.clone() };
        assert_eq!(config.services, [api, web, worker]);
        let nightly = ScheduledTask {
            rule: "nightly".into(),
            event_bus: None,
            region: None,
            update_strategy: UpdateStrategy::Latest,
            containers: None,
        };
        let hourly = ScheduledTask {
            rule: "hourly".into(),
            event_bus: Some("jobs".into()),
            region: Some("eu-west-1".into()),
            update_strategy: UpdateStrategy::Redeploy,
            containers: Some(vec!["app".into()]),
        };
        let weekly = ScheduledTask {
            rule: "weekly".into(),
            event_bus: Some("arn:aws:events:us-west-2:123456789012:event-bus/jobs".into()),
            region: Some("us-west-2".into()),
            ..nightly.clone()
        };
        assert_eq!(config.scheduled_tasks, [nightly, hourly, weekly]);
        assert_eq!(config.role.as_deref(), Some("arn:aws:iam::123456789012:role/ci/deploy"));
        assert_eq!(config.parallel, 1000);
    }

    #[test]
    fn a_file_may_hold_scheduled_tasks_only() {
        let config = config("scheduledTasks:\n  nightly:\n");
        assert_eq!((config.services.len(), config.scheduled_tasks.len()), (0, 1));
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
    fn an_empty_value_is_not_filled_in_by_what_is_merged() {
        let found = services(
            "
x-base: &base {cluster: c, url: 'http://a', timeoutMinutes: 9, header: X-Version, containers: [app], updateStrategy: latest}
timeoutMinutes: 2
services:
  api: {<<: *base}
  web: {<<: *base, timeoutMinutes: ~, header: ~, containers: ~, updateStrategy: ~}
",
        );
        let said: Vec<_> = found
            .iter()
            .map(|service| (service.timeout.as_secs() / 60, service.header.as_str(), service.containers.is_some()))
            .collect();
        assert_eq!(said, [(9, "x-version", true), (2, "server", false)]);
        assert_eq!(found[1].update_strategy, UpdateStrategy::Current);
    }

    #[test]
    fn every_mistake_names_its_line_and_the_way_out() {
        let nothing = "nothing to deploy: list a service under `services:`, or a rule under `scheduledTasks:`, as gehen.example.yml shows";
        let known =
            "the known keys are `cluster`, `url`, `timeoutMinutes`, `header`, `containers` and `updateStrategy`";
        let service = "expected a map with the `cluster` of a service and its other keys";
        let timeout =
            "won't do: give a number of minutes above 0 and up to 10080, or leave the key out for the default";
        for (text, expected) in [
            ("", nothing),
            ("services:", nothing),
            ("services: {}", nothing),
            ("x-anchors: 1", nothing),
            ("- services", "1: invalid type: sequence, expected a map with the key `services`"),
            (
                "services:\n  - api",
                "2: services: invalid type: sequence, expected a map from the name of an ECS service to its `cluster` and its other keys",
            ),
            ("services:\n  api: [a]", &format!("2: services.api: invalid type: sequence, {service}")),
            (
                "services:\n  api:\n    url: https://example.com\n",
                "3: services.api: `cluster` is missing; give the ARN or the name of the cluster that the service runs in",
            ),
            (
                "services:\n  api:\n    cluster: c\n    clutser: c\n",
                &format!("4: services.api: unknown key `clutser`, {known}"),
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
                "1: unknown key `service`, the known keys are `services`, `scheduledTasks`, `role`, `timeoutMinutes`, `updateStrategy` and `parallel`; a key that holds anchors begins with `x-`",
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
            ("timeoutMinutes: 0\nservices: {api: {cluster: c}}", &format!("1: timeoutMinutes: `0` {timeout}")),
            ("timeoutMinutes: -1\nservices: {api: {cluster: c}}", &format!("1: timeoutMinutes: `-1` {timeout}")),
            ("timeoutMinutes: .nan\nservices: {api: {cluster: c}}", &format!("1: timeoutMinutes: `.nan` {timeout}")),
            ("timeoutMinutes: 1e9\nservices: {api: {cluster: c}}", &format!("1: timeoutMinutes: `1e9` {timeout}")),
            ("timeoutMinutes: soon\nservices: {api: {cluster: c}}", &format!("1: timeoutMinutes: `soon` {timeout}")),
            (
                "x-base: &base\n  url: example.com\nservices:\n  api:\n    <<: *base\n    cluster: c\n",
                "2: services.api.<<.url: `example.com` won't do: give a whole address that begins with http:// or https://",
            ),
            (
                "services:\n  api:\n    <<: base\n    cluster: c\n",
                "3: services.api.<<: invalid type: string \"base\", expected a map, or a list of maps, to merge",
            ),
            (
                "services: {api: {cluster: c}}\n---\nservices: {web: {cluster: c}}\n",
                "there is more than one document; keep one, without `---` lines",
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
    fn every_mistake_in_a_key_of_a_service_names_its_line() {
        for (text, expected) in [
            (
                "services:\n  api:\n    cluster: c\n    timeoutMinutes: 0\n",
                "4: services.api.timeoutMinutes: `0` won't do: give a number of minutes above 0 and up to 10080, or leave the key out for the default",
            ),
            (
                "services:\n  api:\n    cluster: c\n    header: 'X Version'\n",
                "4: services.api.header: `X Version` won't do: give the name of an HTTP header, such as `Server`",
            ),
            (
                "services:\n  api:\n    cluster: c\n    header: X-Version\n",
                "3: services.api: `header` needs a `url`, whose answers carry it; give one, or leave `header` out",
            ),
            (
                "services:\n  api:\n    cluster: c\n    containers: []\n",
                "4: services.api.containers: an empty list won't do: leave the key out for all containers",
            ),
            (
                "services:\n  api:\n    cluster: c\n    containers: app\n",
                "4: services.api.containers: invalid type: string \"app\", expected a list of names of containers",
            ),
            (
                "services:\n  api:\n    cluster: c\n    containers:\n      - app\n      - log router\n",
                "6: services.api.containers[1]: `log router` won't do: the name of a container has letters, digits, `-` and `_` only",
            ),
            (
                "services:\n  api:\n    cluster: c\n    containers:\n      - app\n      - app\n",
                "6: services.api.containers[1]: `app` stands here a second time; keep one of the two",
            ),
            (
                "services:\n  api:\n    cluster: c\n    updateStrategy: newest\n",
                "4: services.api.updateStrategy: `newest` won't do: give `current`, `latest`, `redeploy` or `none`",
            ),
        ] {
            assert_eq!(mistake(text), expected, "in\n{text}");
        }
    }

    #[test]
    fn every_mistake_in_a_key_of_the_whole_file_names_its_line() {
        for (text, expected) in [
            (
                "updateStrategy: [none]\nservices: {api: {cluster: c}}",
                "1: updateStrategy: invalid type: sequence, expected an update strategy",
            ),
            (
                "services: {api: {cluster: c}}\nparallel: 0\n",
                "2: parallel: `0` won't do: give a whole number from 1 to 1000",
            ),
            (
                "services: {api: {cluster: c}}\nparallel: 2.5\n",
                "2: parallel: `2.5` won't do: give a whole number from 1 to 1000",
            ),
            (
                "services: {api: {cluster: c}}\nrole: arn:aws:iam::123456789012:role/deploy\n",
                "2: role: invalid type: string \"arn:aws:iam::123456789012:role/deploy\", expected a map with the key `arn`",
            ),
            (
                "services: {api: {cluster: c}}\nrole: {}\n",
                "2: role: `arn` is missing; give the ARN of the role, or leave `role` out",
            ),
            (
                "services: {api: {cluster: c}}\nrole:\n",
                "2: role: `arn` is missing; give the ARN of the role, or leave `role` out",
            ),
            (
                "services: {api: {cluster: c}}\nrole: ~\n",
                "2: role: nothing is given here, expected a map with the key `arn`",
            ),
            (
                "services: {api: {cluster: c}}\nrole:\n  name: deploy\n",
                "3: role: unknown key `name`, the known key is `arn`",
            ),
            (
                "services: {api: {cluster: c}}\nrole:\n  arn: arn:aws:iam::123456789012:user/deploy\n",
                "3: role.arn: `arn:aws:iam::123456789012:user/deploy` won't do: give the ARN of an IAM role, such as `arn:aws:iam::123456789012:role/deploy`",
            ),
        ] {
            assert_eq!(mistake(text), expected, "in\n{text}");
        }
    }

    #[test]
    fn every_mistake_in_a_key_of_a_scheduled_task_names_its_line() {
        for (text, expected) in [
            (
                "scheduledTasks:\n  - nightly\n",
                "2: scheduledTasks: invalid type: sequence, expected a map from the name of an EventBridge rule to its keys, if any",
            ),
            (
                "scheduledTasks:\n  every night:\n",
                "2: scheduledTasks: `every night` can't be the name of an EventBridge rule, which has up to 64 letters, digits, `.`, `-` and `_`",
            ),
            (
                "scheduledTasks:\n  nightly:\n  hourly:\n  nightly:\n",
                "4: scheduledTasks: `nightly` stands here a second time; keep one of the two",
            ),
            (
                "scheduledTasks:\n  nightly: jobs\n",
                "2: scheduledTasks.nightly: invalid type: string \"jobs\", expected a map with the keys of a scheduled task, such as `eventBus`, or nothing",
            ),
            (
                "scheduledTasks:\n  nightly:\n    url: https://example.com\n",
                "3: scheduledTasks.nightly: unknown key `url`, the known keys are `eventBus`, `region`, `containers` and `updateStrategy`",
            ),
            (
                "scheduledTasks:\n  nightly:\n    eventBus: arn:aws:events:us-east-1:123456789012:rule/a\n",
                "3: scheduledTasks.nightly.eventBus: `arn:aws:events:us-east-1:123456789012:rule/a` won't do: an event bus is a name of letters, digits, `.`, `-`, `_` and `/`, or an ARN such as `arn:aws:events:us-east-1:123456789012:event-bus/jobs`",
            ),
            (
                "scheduledTasks:\n  nightly:\n    region: Frankfurt\n",
                "3: scheduledTasks.nightly.region: `Frankfurt` won't do: give the name of a region, such as `us-east-1`",
            ),
            (
                "scheduledTasks:\n  nightly:\n    eventBus: arn:aws:events:us-east-1:123456789012:event-bus/a\n    region: us-west-2\n",
                "3: scheduledTasks.nightly: `region` says `us-west-2` but the ARN of `eventBus` `us-east-1`; leave `region` out",
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
        fn no_yaml_makes_it_panic(text in "(services|scheduledTasks|role|arn|timeoutMinutes|containers|x-a|api|cluster|url|<<|[:\\[\\]{}&*a, \n-]|  |\n  |\n){0,40}") {
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

//! Tests that the schema and the parser agree, and that what is shown to people is a good file to both.

use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::Value;

use super::file::{parse, schema};

const EXAMPLE: &str = include_str!("../../gehen.example.yml");
const README: &str = include_str!("../../README.md");

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::draft7::meta::validate(schema().as_value()).expect("the schema is one of draft 7");
    jsonschema::validator_for(schema().as_value()).expect("the schema can be used")
});

/// What is wrong with `text` by the schema. An editor follows merge keys or takes them for keys like others; `merged`
/// says which.
fn mistakes_by_schema(text: &str, merged: bool) -> Vec<String> {
    let mut document: serde_yaml::Value = serde_yaml::from_str(text).expect("good YAML");
    if merged {
        document.apply_merge().expect("good merge keys");
    }
    let document: Value = serde_json::to_value(document).expect("JSON can hold it");
    SCHEMA.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn is_good_by_schema(text: &str) -> bool {
    mistakes_by_schema(text, true).is_empty() && mistakes_by_schema(text, false).is_empty()
}

fn accept(text: &str) {
    if let Err(mistake) = parse(text) {
        panic!("{mistake:?} in\n{text}");
    }
    for merged in [true, false] {
        assert_eq!(mistakes_by_schema(text, merged), [""; 0], "merged: {merged}, in\n{text}");
    }
}

fn refuse(text: &str) {
    assert!(parse(text).is_err(), "the parser accepts\n{text}");
    assert!(!is_good_by_schema(text), "the schema accepts\n{text}");
}

/// The example with the keys that are commented out, whose `#` is not followed by one space and a word.
fn whole_example() -> String {
    let uncomment = |line: &str| {
        let (indent, rest) = line.split_at(line.find('#').unwrap_or(line.len()));
        match rest.strip_prefix('#') {
            Some(key) if indent.trim().is_empty() && (!key.starts_with(' ') || key.starts_with("  ")) => {
                format!("{indent}{key}\n")
            }
            _ => format!("{line}\n"),
        }
    };
    EXAMPLE.lines().map(uncomment).collect()
}

#[test]
fn the_example_is_good_with_and_without_the_keys_that_are_commented_out() {
    accept(EXAMPLE);
    accept(&whole_example());
    let config = parse(&whole_example()).expect("a good file");
    assert_eq!((config.services.len(), config.scheduled_tasks.len(), config.role.is_some()), (2, 2, true));
}

#[test]
fn every_key_of_the_schema_is_in_the_example() {
    fn keys(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(map) => {
                // A schema has a type beside its properties; what only says which keys are needed has none.
                if let (Some(Value::Object(properties)), true) = (map.get("properties"), map.contains_key("type")) {
                    found.extend(properties.keys().filter(|key| *key != "<<").cloned());
                }
                map.values().for_each(|value| keys(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    let (schema, mut found) = (schema(), Vec::new());
    keys(schema.as_value(), &mut found);
    let is_there = |key: &str| found.iter().any(|found| found == key);
    assert!(["services", "cluster", "eventBus", "arn"].into_iter().all(is_there), "{found:?}");
    for key in found {
        let is_key = |line: &str| line.trim_start().strip_prefix(&key).is_some_and(|rest| rest.starts_with(':'));
        assert!(whole_example().lines().any(is_key), "`{key}` is not in gehen.example.yml");
    }
}

#[test]
fn every_file_of_the_readme_is_good() {
    let files: Vec<_> = README.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!files.is_empty());
    files.into_iter().filter(|file| file.contains("cluster:")).for_each(accept);
}

#[test]
fn what_is_good_is_good_to_both() {
    for text in [
        "services: {api: {cluster: c}}",
        "services: {api: {cluster: c}}\nscheduledTasks:\n",
        "services: {api: {cluster: c}}\ntimeoutMinutes: ~\nparallel: ~\nupdateStrategy: ~\n",
        "services: {api: {cluster: 'arn:aws-cn:ecs:cn-north-1:123456789012:cluster/a_B-1'}}",
        "services: {123: {cluster: 123}, true: {cluster: true}}",
        "services: {api: {cluster: c, url: ~, timeoutMinutes: ~, header: ~, containers: ~, updateStrategy: ~}}",
        "services: {api: {cluster: c, url: 'HTTPS://user:password@[::1]:8443/a b?c#d'}}",
        "services: {api: {cluster: c, url: 'http://a', timeoutMinutes: 0.001, header: X-Version, containers: [a, B_1-2]}}",
        "services: {api: {cluster: c, url: ~, timeoutMinutes: 10080, header: '!#$%&''*+.^_`|~', updateStrategy: NONE}}",
        "services: {api: {cluster: c, timeoutMinutes: 0x10, updateStrategy: rEdEpLoY}}",
        "scheduledTasks: {nightly-report: , a.B_c: ~, c: {}}",
        "scheduledTasks: {a: {eventBus: jobs/a.b, region: us-gov-west-1, containers: [a], updateStrategy: Latest}}",
        "scheduledTasks: {a: {eventBus: 'arn:aws:events:eu-west-1:123456789012:event-bus/a', region: eu-west-1}}",
        "role: {arn: 'arn:aws:iam::123456789012:role/deploy'}\nservices: {api: {cluster: c}}",
        "role: {arn: 'arn:aws-us-gov:iam::123456789012:role/a/b:c/d+e=f,g.h@i-j_k'}\nservices: {api: {cluster: c}}",
        "parallel: 1\nservices: {api: {cluster: c}}",
        "parallel: 1e3\nservices: {api: {cluster: c}}",
        "parallel: 5.0\nservices: {api: {cluster: c}}",
        "x-a: 1\nx-: [2]\nservices: {api: {cluster: c}}",
        "x-a: &a {cluster: c, header: ~}\nservices: {api: {<<: *a}, web: {<<: [*a, {url: 'http://a'}], url: ~}}",
        "x-a: &a {url: 'http://a'}\nservices: {api: {<<: *a, cluster: c, header: X-Version}}",
        "x-a: &a {header: X-Version}\nservices: {api: {<<: *a, cluster: c, url: 'http://a'}}",
        "x-a: &a {api: {cluster: c}}\nservices: {<<: *a}",
        "x-a: &a {b: {eventBus: c}, d: }\nscheduledTasks: {<<: [*a], e: }",
        "x-a: &a {services: {api: {cluster: c}}}\n<<: *a",
        "x-a: &a {arn: 'arn:aws:iam::123456789012:role/a'}\nrole: {<<: *a}\nservices: {api: {cluster: c}}",
    ] {
        accept(text);
    }
}

#[test]
fn what_is_bad_is_bad_to_both() {
    for text in ["~", "[]", "text", "{}", "services: {}", "services: ~", "scheduledTasks: {}", "x-a: {}", "role: ~"] {
        refuse(text);
    }
    for text in [
        "services: [api]",
        "services: {a b: {cluster: c}}",
        "services: {'': {cluster: c}}",
        "services: {api: }",
        "services: {api: c}",
        "services: {api: {}}",
        "services: {api: {cluster: ~}}",
        "services: {api: {cluster: ''}}",
        "services: {api: {cluster: a/b}}",
        "services: {api: {cluster: [c]}}",
        "services: {api: {cluster: 'arn:aws:ecs:us-east-1:123456789012:service/a'}}",
        "services: {api: {cluster: 'arn:aws:ecs::123456789012:cluster/a'}}",
        "x-a: &a {cluster: c}\nservices: {api: {<<: *a, cluster: ~}}",
        "x-a: &a {clutser: c}\nservices: {api: {<<: *a, cluster: c}}",
        "services: {<<: {api: {}}}",
        "x-a: &a {api: {cluster: c}}\n<<: {services: {}}\nservices: ~\nscheduledTasks: ~",
    ] {
        refuse(text);
    }
    refuse("scheduledTasks: [a]");
    refuse("scheduledTasks: {a/b: }");
    refuse(&format!("scheduledTasks: {{{}: }}", "a".repeat(65)));
}

#[test]
fn a_bad_key_of_a_service_is_bad_to_both() {
    let service = |keys: &str| format!("services: {{api: {{cluster: c, {keys}}}}}");
    for keys in [
        "clutser: c",
        "x-a: c",
        "parallel: 1",
        "role: ~",
        "url: example.com",
        "url: 'https:example.com'",
        "url: 'ftp://example.com'",
        "url: 'https://'",
        "url: 'https:///?a'",
        "url: 5",
        "url: {}",
        "timeoutMinutes: 0",
        "timeoutMinutes: -1",
        "timeoutMinutes: 10080.5",
        "timeoutMinutes: 5m",
        "timeoutMinutes: true",
        "timeoutMinutes: [5]",
        "url: 'http://a', header: 'a b'",
        "url: 'http://a', header: ''",
        "url: 'http://a', header: 'Server:'",
        "url: 'http://a', header: [Server]",
        "header: X-Version",
        "header: X-Version, <<: {timeoutMinutes: 5}",
        "containers: []",
        "containers: app",
        "containers: [a b]",
        "containers: [app, app]",
        "containers: [[app]]",
        "containers: ['']",
        "updateStrategy: newest",
        "updateStrategy: ''",
        "updateStrategy: currentt",
        "updateStrategy: 1",
        "updateStrategy: true",
    ] {
        refuse(&service(keys));
    }
    refuse(&service(&format!("containers: [{}]", "a".repeat(256))));
}

#[test]
fn a_bad_key_of_the_whole_file_is_bad_to_both() {
    let top = |keys: &str| format!("{keys}\nservices: {{api: {{cluster: c}}}}");
    for keys in [
        "service: {}",
        "<<: {service: {}}",
        "cluster: c",
        "header: Server",
        "containers: [app]",
        "role: arn:aws:iam::123456789012:role/deploy",
        "role:",
        "role: ~",
        "<<: {role: ~}",
        "role: {}",
        "role: {arn: ~}",
        "role: {arn: deploy}",
        "role: {name: deploy}",
        "role: {arn: 'arn:aws:iam::12345678901:role/deploy'}",
        "role: {arn: 'arn:aws:iam::12345678901a:role/deploy'}",
        "role: {arn: 'arn:aws:iam:us-east-1:123456789012:role/deploy'}",
        "role: {arn: 'arn:aws:iam::123456789012:user/deploy'}",
        "role: {arn: 'arn:aws:iam::123456789012:role/'}",
        "role: {arn: 'arn:aws:iam::123456789012:role/a b'}",
        "role: {arn: 'arn::iam::123456789012:role/a'}",
        "parallel: 0",
        "parallel: -1",
        "parallel: 1001",
        "parallel: 1.5",
        "parallel: many",
        "parallel: true",
        "timeoutMinutes: 0",
        "updateStrategy: newest",
    ] {
        refuse(&top(keys));
    }
    refuse(&top(&format!("role: {{arn: 'arn:aws:iam::123456789012:role/{}'}}", "a".repeat(65))));
}

#[test]
fn a_bad_key_of_a_scheduled_task_is_bad_to_both() {
    let task = |keys: &str| format!("scheduledTasks: {{a: {{{keys}}}}}");
    for keys in [
        "cluster: c",
        "url: 'https://example.com'",
        "timeoutMinutes: 5",
        "eventBus: ''",
        "eventBus: a b",
        "eventBus: 'a:b'",
        "eventBus: 'arn:aws:events:us-east-1:123456789012:rule/a'",
        "eventBus: 'arn:aws:events::123456789012:event-bus/a'",
        "region: ''",
        "region: us",
        "region: US-EAST-1",
        "region: us-east-1.example.com",
        "region: -east-1",
        "region: us-east-",
        "region: 1",
        "containers: []",
        "updateStrategy: newest",
    ] {
        refuse(&task(keys));
    }
    refuse(&task(&format!("eventBus: {}", "a".repeat(257))));
}

/// The rules that a schema can't say, and what looks different in JSON: all that an editor may get wrong.
#[test]
fn what_the_schema_cannot_say_is_known() {
    for (why, text) in [
        (
            "two values are compared",
            "scheduledTasks: {a: {eventBus: 'arn:aws:events:eu-west-1:1:event-bus/a', region: eu-west-2}}",
        ),
        ("the host of a url is checked", "services: {api: {cluster: c, url: 'https://exa mple.com'}}"),
        ("so is its port", "services: {api: {cluster: c, url: 'https://example.com:65536'}}"),
        ("a number as a name counts as it is written", "services: {api: {cluster: 5.0}}"),
        ("JSON has no infinity", "timeoutMinutes: .inf\nservices: {api: {cluster: c}}"),
    ] {
        assert!(parse(text).is_err(), "{why}: {text}");
        assert!(is_good_by_schema(text), "{why}: {text}");
    }
    for (why, text) in [
        ("quotes don't matter", "timeoutMinutes: '5'\nservices: {api: {cluster: c}}"),
        ("an item of a list counts as it is written", "services: {api: {cluster: c, containers: [null]}}"),
    ] {
        assert!(parse(text).is_ok(), "{why}: {text}");
        assert!(!is_good_by_schema(text), "{why}: {text}");
    }
    // An editor that doesn't follow merge keys doesn't see what a merged map lacks.
    for text in ["x-a: &a {url: 'http://a'}\nservices: {api: {<<: *a}}", "services: {<<: {}}", "<<: {}"] {
        assert!(parse(text).is_err(), "{text}");
        assert!(mistakes_by_schema(text, false).is_empty(), "{text}");
        assert!(!mistakes_by_schema(text, true).is_empty(), "{text}");
    }
}

/// One key of a map with a value that may be good or bad for it.
fn entry() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "cluster",
        "url",
        "timeoutMinutes",
        "header",
        "containers",
        "updateStrategy",
        "eventBus",
        "region",
        "parallel",
        "role",
        "arn",
        "x-a",
        "unknown",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "~",
            "{}",
            "[]",
            "[a, b]",
            "[a, a]",
            "{arn: 'arn:aws:iam::123456789012:role/a'}",
            "{<<: {arn: 'arn:aws:iam::123456789012:role/a'}}",
            "'arn:aws:ecs:us-east-1:123456789012:cluster/a'",
            "'arn:aws:events:us-east-1:123456789012:event-bus/a'",
            "'https://example.com/ping'",
            "us-east-1",
            "Redeploy",
            "5",
            "2.5",
            "0",
            "true",
        ])
        .prop_map(str::to_owned),
        "'[a-zA-Z:/_@ ][a-zA-Z0-9:/._@ -]{0,11}'",
        "'[Hh]ttps?://[a-z.]{0,3}/?'",
        "'arn:aws:(ecs|iam|events):(us-east-1)?:[0-9]{11,12}:(cluster|role|event-bus)/[a-z/.]{0,4}'",
        "-?[0-9]{1,5}(\\.[1-9])?",
    ];
    (key, value).prop_map(|(key, value)| format!("{key}: {value}"))
}

/// A map of some of `entries`, no key twice.
fn map(entries: &[String]) -> String {
    let mut kept: Vec<&String> = Vec::new();
    for entry in entries {
        let key = |entry: &str| entry.split(':').next().map(str::to_owned);
        if !kept.iter().any(|other| key(other) == key(entry)) {
            kept.push(entry);
        }
    }
    format!("{{{}}}", kept.into_iter().map(String::as_str).collect::<Vec<_>>().join(", "))
}

proptest! {
    #[test]
    fn both_agree_on_any_service(entries in prop::collection::vec(entry(), 0..4), cluster in any::<bool>()) {
        let cluster = cluster.then(|| "cluster: c".to_owned());
        let keys: Vec<_> = cluster.into_iter().chain(entries).collect();
        agree(&format!("services: {{api: {}}}", map(&keys)))?;
    }

    #[test]
    fn both_agree_on_any_scheduled_task(entries in prop::collection::vec(entry(), 0..4)) {
        agree(&format!("scheduledTasks: {{a: {}}}", map(&entries)))?;
    }

    #[test]
    fn both_agree_on_any_top_level(entries in prop::collection::vec(entry(), 0..3)) {
        let keys: Vec<_> = entries.into_iter().chain(["services: {api: {cluster: c}}".to_owned()]).collect();
        agree(&map(&keys))?;
    }
}

fn agree(text: &str) -> Result<(), TestCaseError> {
    let parsed = parse(text);
    prop_assert_eq!(parsed.is_ok(), is_good_by_schema(text), "{:?} of {}", parsed, text);
    Ok(())
}

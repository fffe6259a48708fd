//! The only module that names the SDK of Amazon EventBridge: the targets of a rule, as they travel. It decides nothing
//! and repeats nothing.

use std::collections::HashMap;

use anyhow::Context as _;
use aws_sdk_eventbridge::{Client, types::PutTargetsResultEntry};
use serde_json::{Map, Value, json};

use crate::{
    aws::{
        Aws, Error, Fate, convert,
        raw::{KeepBody, with_body},
    },
    config::ScheduledTask,
    ecs::TaskDefinitionArn,
};

/// The most targets that one PutTargets takes (API_PutTargets).
const TARGETS_AT_ONCE: usize = 10;
/// The most pages that one listing may have: a rule has five targets, unless AWS granted more (EventBridge quotas).
const MOST_PAGES: usize = 100;

/// Clients for the regions of all scheduled tasks.
pub struct EventBridge {
    clients: HashMap<String, Client>,
    /// The region of the AWS settings, for rules that name none.
    default: Option<String>,
}

impl EventBridge {
    /// Prepares a client for each region of `tasks`; nothing is sent.
    pub fn connect(aws: &Aws, tasks: &[ScheduledTask]) -> Self {
        let default = aws.region().map(ToString::to_string);
        let mut clients = HashMap::new();
        for region in tasks.iter().filter_map(|task| task.region.as_deref().or(default.as_deref())) {
            let client = || Client::new(&aws.client_settings(Some(region.to_owned())));
            clients.entry(region.to_owned()).or_insert_with(client);
        }
        Self { clients, default }
    }

    /// The region of a task's rule: the one that it names, or else the one that the AWS settings give.
    pub fn region<'a>(&'a self, task: &'a ScheduledTask) -> Option<&'a str> {
        task.region.as_deref().or(self.default.as_deref())
    }

    /// The regions of all rules.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.clients.keys().map(String::as_str)
    }

    fn client(&self, region: &str) -> &Client {
        self.clients.get(region).expect("connect made a client for each region asked for")
    }

    /// ListTargetsByRule: the targets of a rule in `region`, all pages, with every field that EventBridge sent.
    pub async fn targets(&self, region: &str, task: &ScheduledTask) -> Result<Vec<Target>, Error> {
        const ACTION: &str = "events:ListTargetsByRule";
        let mut targets = Vec::new();
        let mut next = None;
        for _ in 0..MOST_PAGES {
            let body = KeepBody::default();
            let page = self
                .client(region)
                .list_targets_by_rule()
                .rule(&task.rule)
                .set_event_bus_name(task.event_bus.clone())
                .set_next_token(next.clone())
                .customize()
                .interceptor(body.clone())
                .send()
                .await
                .map_err(|error| convert(ACTION, &error))?;
            let listed = Target::from_answer(&body.take());
            targets.extend(listed.map_err(|error| Error::refused(ACTION, format!("{error:#}")))?);
            match page.next_token {
                None => return Ok(targets),
                token if token == next => break,
                token => next = token,
            }
        }
        Err(Error::unknown(ACTION, "the list has no end"))
    }

    /// PutTargets: puts `targets` whole in the place of those with their ids.
    pub async fn put(&self, region: &str, task: &ScheduledTask, targets: &[Target]) -> Result<(), NotAllPut> {
        const ACTION: &str = "events:PutTargets";
        for (index, targets) in targets.chunks(TARGETS_AT_ONCE).enumerate() {
            let answer = self
                .client(region)
                .put_targets()
                .rule(&task.rule)
                .customize()
                .mutate_request(with_body(request(task, targets)))
                .send()
                .await
                .map_err(|error| convert(ACTION, &error).without_values())
                .map_err(|error| NotAllPut { some: index > 0 || error.fate == Fate::Unknown, error })?;
            let failures = answer.failed_entries();
            if answer.failed_entry_count() > 0 || !failures.is_empty() {
                return Err(NotAllPut {
                    some: index > 0 || failures.len() < targets.len(),
                    error: failed(ACTION, failures).without_values(),
                });
            }
        }
        Ok(())
    }
}

/// Why not all targets were put.
pub struct NotAllPut {
    /// Why.
    pub error: Error,
    /// Whether some may have been put nevertheless.
    pub some: bool,
}

/// The body of a PutTargets.
fn request(task: &ScheduledTask, targets: &[Target]) -> Vec<u8> {
    let mut body = json!({"Rule": task.rule});
    if let Some(bus) = &task.event_bus {
        body["EventBusName"] = json!(bus);
    }
    body["Targets"] = targets.iter().map(|target| Value::Object(target.0.clone())).collect();
    serde_json::to_vec(&body).expect("a map with string keys can always be written as JSON")
}

/// The error that entries which failed in an answer with status 200 are.
fn failed(action: &'static str, entries: &[PutTargetsResultEntry]) -> Error {
    let said = entries.iter().map(|entry| {
        let code = entry.error_code().unwrap_or("without a code");
        let message = entry.error_message().unwrap_or("without a message");
        format!("target `{}`: {code}: {message}", entry.target_id().unwrap_or_default())
    });
    let said = said.collect::<Vec<_>>().join("; ");
    // "If the value is ConcurrentModificationException, too many requests were made at the same time"
    // (API_PutTargetsResultEntry).
    let is_all = |codes: &[&str]| {
        let is_one = |entry: &PutTargetsResultEntry| {
            codes.iter().any(|code| entry.error_code().is_some_and(|told| told.contains(code)))
        };
        !entries.is_empty() && entries.iter().all(is_one)
    };
    if is_all(&["ConcurrentModification", "Throttl"]) {
        return Error::deferred(action, said);
    }
    if is_all(&["ConcurrentModification", "Throttl", "Internal"]) {
        return Error::unknown(action, said);
    }
    Error::refused(
        action,
        if said.is_empty() { "some targets failed, but the answer doesn't hold which".into() } else { said },
    )
}

/// One target of a rule, as EventBridge sent it. It has no `Debug`, because it holds what is passed to tasks.
#[derive(Clone, PartialEq)]
pub struct Target(Map<String, Value>);

impl Target {
    /// Takes a page of ListTargetsByRule.
    fn from_answer(body: &[u8]) -> anyhow::Result<Vec<Self>> {
        let mut answer: Map<String, Value> = serde_json::from_slice(body).context("the answer is not a JSON object")?;
        let targets = match answer.remove("Targets") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(targets)) => targets,
            Some(_) => anyhow::bail!("the targets are no list"),
        };
        let target = |target| match target {
            Value::Object(target) if target.get("Id").is_some_and(Value::is_string) => Ok(Self(target)),
            _ => anyhow::bail!("a target has no id"),
        };
        targets.into_iter().map(target).collect()
    }

    /// What tells it from the rule's other targets.
    pub fn id(&self) -> &str {
        self.0.get("Id").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether ECS runs a task for it.
    pub fn is_task(&self) -> bool {
        self.0.get("EcsParameters").is_some_and(Value::is_object)
    }

    /// The task definition that it names: an ARN, with or without a revision.
    pub fn task_definition(&self) -> Option<TaskDefinitionArn> {
        let named = self.0.get("EcsParameters")?.get("TaskDefinitionArn")?.as_str()?;
        Some(TaskDefinitionArn(named.to_owned()))
    }

    /// The same target with another task definition.
    pub fn naming(&self, task_definition: &TaskDefinitionArn) -> Self {
        let mut target = self.0.clone();
        if let Some(Value::Object(parameters)) = target.get_mut("EcsParameters") {
            parameters.insert("TaskDefinitionArn".to_owned(), json!(task_definition.0));
        }
        Self(target)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::config::UpdateStrategy;
    use proptest::prelude::*;

    fn nightly(event_bus: Option<&str>) -> ScheduledTask {
        ScheduledTask {
            rule: "nightly".into(),
            event_bus: event_bus.map(str::to_owned),
            region: None,
            update_strategy: UpdateStrategy::Current,
            containers: None,
        }
    }

    /// A target that has ECS run the task definition `names`.
    pub fn target(id: &str, names: &str) -> Target {
        let target = json!({"Id": id, "EcsParameters": {"TaskDefinitionArn": names}});
        listed(&json!({"Targets": [target]})).remove(0)
    }

    fn listed(answer: &Value) -> Vec<Target> {
        Target::from_answer(answer.to_string().as_bytes()).expect("an answer with targets")
    }

    #[test]
    fn a_target_is_sent_back_as_it_came_but_for_its_task_definition() {
        let target = json!({
            "Id": "report", "Arn": "arn:cluster", "Input": "{\"containerOverrides\":[]}", "InventedIn2030": [1, null, 0.1],
            "EcsParameters": {"TaskDefinitionArn": "arn:x/report:1", "TaskCount": 2, "Invented": {"deep": true}},
        });
        let [report] = &listed(&json!({"Targets": [target]}))[..] else { panic!("there is one") };
        assert!(report.is_task());
        let new = report.naming(&TaskDefinitionArn("arn:x/report:2".into()));
        let sent: Value = serde_json::from_slice(&request(&nightly(Some("audit")), &[new])).expect("JSON");
        let mut expected = target;
        expected["EcsParameters"]["TaskDefinitionArn"] = json!("arn:x/report:2");
        assert_eq!(sent, json!({"Rule": "nightly", "EventBusName": "audit", "Targets": [expected]}));
        let sent: Value = serde_json::from_slice(&request(&nightly(None), &[])).expect("JSON");
        assert_eq!(sent, json!({"Rule": "nightly", "Targets": []}));
    }

    #[test]
    fn a_target_without_parameters_for_ecs_is_no_task() {
        for (target, is_task, names) in [
            (json!({"Id": "queue"}), false, None),
            (json!({"Id": "odd", "EcsParameters": {}}), true, None),
            (json!({"Id": "odd", "EcsParameters": {"TaskDefinitionArn": 1}}), true, None),
            (json!({"Id": "report", "EcsParameters": {"TaskDefinitionArn": "a/report"}}), true, Some("report")),
        ] {
            let target = listed(&json!({"Targets": [target]})).remove(0);
            assert_eq!(target.is_task(), is_task);
            assert_eq!(target.task_definition().map(|named| named.to_string()).as_deref(), names);
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_an_error() {
        for body in ["", "[]", r#"{"Targets": {}}"#, r#"{"Targets": [1]}"#, r#"{"Targets": [{"Arn": "a"}]}"#] {
            assert!(Target::from_answer(body.as_bytes()).is_err(), "{body}");
        }
        assert!(listed(&json!({})).is_empty());
    }

    #[test]
    fn an_entry_that_failed_is_an_error_that_says_why() {
        let entry = |code: Option<&str>| {
            let entry = PutTargetsResultEntry::builder().target_id("report").set_error_code(code.map(str::to_owned));
            entry.error_message("No.").build()
        };
        let error = failed("events:PutTargets", &[entry(Some("AccessDenied")), entry(None)]);
        assert_eq!(
            error.to_string(),
            "events:PutTargets: target `report`: AccessDenied: No.; target `report`: without a code: No."
        );
        for (codes, fate) in [
            (vec!["AccessDenied"], Fate::Refused),
            (vec!["ConcurrentModificationException"], Fate::Deferred),
            (vec!["ConcurrentModificationException", "InternalException"], Fate::Unknown),
            (vec!["ConcurrentModificationException", "AccessDenied"], Fate::Refused),
            (vec![], Fate::Refused),
        ] {
            let entries: Vec<_> = codes.iter().map(|code| entry(Some(code))).collect();
            assert_eq!(failed("events:PutTargets", &entries).fate, fate, "{codes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in any::<String>(), id in any::<String>(), parameter in any::<String>()) {
            let _ = Target::from_answer(text.as_bytes());
            let odd = json!({"Targets": [{"Id": id, "EcsParameters": {"TaskDefinitionArn": parameter}}]});
            for target in listed(&odd) {
                prop_assert_eq!(target.id(), &id);
                let named = target.task_definition().expect("it names one");
                prop_assert!(target.naming(&named) == target);
                let _ = (named.family(), named.to_string());
            }
        }
    }
}

//! What clients asked, what they were told, and what truly happened.

use std::time::Instant;

use serde_json::Value;

use crate::model::{arn, events::What};

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With what it asked for.
    Ok,
    /// With the exception of this name.
    Error(String),
    /// Not at all: the connection was reset.
    Dropped,
}

/// One request that came over the wire.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it came.
    pub at: Instant,
    /// The region in the scope of its signature.
    pub region: String,
    /// The service of AWS it was for, as actions of IAM begin with it: `ecs`, `ecr`, `events` or `sts`.
    pub service_name: &'static str,
    /// The operation's name.
    pub operation: String,
    /// Its body.
    pub body: Value,
    /// How it was answered.
    pub answer: Answer,
    /// The access key id that signed it.
    pub caller: String,
    /// Who that is, by ARN: `…:user/local`, or `…:assumed-role/ROLE/SESSION`; empty where AWS didn't know the caller.
    pub identity: String,
    /// Its `User-Agent`.
    pub user_agent: String,
}

/// Something that truly happened to a deployment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When.
    pub at: Instant,
    /// The deployment's id, `ecs-svc/…`.
    pub deployment: String,
    /// The task definition it runs, as `family:revision`.
    pub task_definition: String,
    /// What.
    pub what: What,
}

/// The line for a request that changed something, such as `UpdateService api -> api:2`, or
/// `PutTargets nightly -> report:2`.
pub(crate) fn write_line(operation: &str, body: &Value) -> Option<String> {
    let changes = ["Create", "Update", "Delete", "Register", "Deregister", "Tag", "Untag", "Stop", "Put", "Remove"];
    if !changes.iter().any(|verb| operation.starts_with(verb)) {
        return None;
    }
    let named = |key: &str| {
        let value = body.get(key).and_then(Value::as_str)?;
        Some(value.rsplit('/').next().unwrap_or(value).to_owned())
    };
    // A service deployment is called by chance; what a test knows is the service.
    if let Some((_, service)) = body.get("serviceDeploymentArn").and_then(Value::as_str).and_then(arn::owner) {
        return Some(format!("{operation} {service}"));
    }
    if let Some(rule) = named("Rule") {
        let bus = named("EventBusName").filter(|bus| bus != "default").map(|bus| format!("{bus}/")).unwrap_or_default();
        let targets = body.get("Targets").and_then(Value::as_array).into_iter().flatten();
        let runs: Vec<&str> = targets.filter_map(task_definition).collect();
        let runs = if runs.is_empty() { String::new() } else { format!(" -> {}", runs.join(", ")) };
        return Some(format!("{operation} {bus}{rule}{runs}"));
    }
    let keys =
        ["family", "service", "serviceName", "clusterName", "task", "resourceArn", "taskDefinition", "cluster", "Name"];
    let subject = keys.iter().find_map(|key| named(key)).unwrap_or_default();
    let is_deployed = matches!(operation, "UpdateService" | "CreateService");
    let target = named("taskDefinition").filter(|_| is_deployed).map(|target| format!(" -> {target}"));
    Some(format!("{operation} {subject}{}", target.unwrap_or_default()).trim_end().to_owned())
}

/// What a target of EventBridge's has ECS run, as `family:revision`.
pub(crate) fn task_definition(target: &Value) -> Option<&str> {
    Some(arn::name(target.get("EcsParameters")?.get("TaskDefinitionArn")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn writes_are_named_by_what_they_change() {
        for (operation, body, line) in [
            ("RegisterTaskDefinition", json!({"family": "api"}), Some("RegisterTaskDefinition api")),
            (
                "UpdateService",
                json!({"cluster": "c", "service": "arn:aws:ecs:r:1:service/c/api", "taskDefinition": "arn:aws:ecs:r:1:task-definition/api:2"}),
                Some("UpdateService api -> api:2"),
            ),
            ("UpdateService", json!({"service": "api"}), Some("UpdateService api")),
            (
                "StopServiceDeployment",
                json!({"serviceDeploymentArn": "arn:aws:ecs:r:1:service-deployment/c/api/x"}),
                Some("StopServiceDeployment api"),
            ),
            (
                "PutTargets",
                json!({"Rule": "nightly", "EventBusName": "audit", "Targets": [
                    {"Id": "a", "EcsParameters": {"TaskDefinitionArn": "arn:aws:ecs:r:1:task-definition/report:2"}},
                    {"Id": "b"},
                    {"Id": "c", "EcsParameters": {"TaskDefinitionArn": "arn:aws:ecs:r:1:task-definition/clean"}},
                ]}),
                Some("PutTargets audit/nightly -> report:2, clean"),
            ),
            ("RemoveTargets", json!({"Rule": "nightly", "Ids": ["a"]}), Some("RemoveTargets nightly")),
            ("PutRule", json!({"Name": "nightly"}), Some("PutRule nightly")),
            ("DescribeServices", json!({"services": ["api"]}), None),
        ] {
            assert_eq!(write_line(operation, &body).as_deref(), line);
        }
    }
}

//! Amazon EventBridge: what it keeps of targets, and what it refuses.

use serde_json::{Value, json};

use super::Lab;
use crate::{
    builder::service,
    model::arn,
    rule::{RuleBuilder, rule},
};

fn lab(rule: RuleBuilder) -> Lab {
    let mut lab = Lab::with(service("api"));
    rule.build(&mut lab.0).expect("the rule of the test should be valid");
    lab
}

fn ids(answer: &Value) -> Vec<String> {
    let targets = answer["Targets"].as_array().cloned().unwrap_or_default();
    targets.iter().map(|target| super::text(&target["Id"])).collect()
}

fn definition(short: &str) -> String {
    arn::ecs("us-east-1", &format!("task-definition/{short}"))
}

#[test]
fn a_target_is_replaced_whole_and_keeps_what_nobody_has_heard_of() {
    let mut lab = lab(rule("nightly").task("report", "v1").with_parameter("Invented", json!({"A": [1.50]})));
    let listed = lab.ask("ListTargetsByRule", &json!({"Rule": "nightly"}));
    let target = &listed["Targets"][0];
    assert_eq!(target["EcsParameters"]["TaskDefinitionArn"], definition("report:1"));
    assert_eq!(target["EcsParameters"]["Invented"], json!({"A": [1.50]}));
    assert!(target["EcsParameters"]["NetworkConfiguration"].is_object());
    let plain = json!({"Id": "report", "Arn": target["Arn"], "RoleArn": target["RoleArn"],
        "EcsParameters": {"TaskDefinitionArn": definition("report:2")}});
    let queue = json!({"Id": "queue", "Arn": "arn:aws:sqs:us-east-1:123456789012:jobs"});
    let body = json!({"Rule": "nightly", "EventBusName": "default", "Targets": [plain, queue]});
    assert_eq!(lab.ask("PutTargets", &body), json!({"FailedEntryCount": 0, "FailedEntries": []}));
    assert_eq!(lab.ask("ListTargetsByRule", &json!({"Rule": "nightly"}))["Targets"], json!([plain, queue]));
    lab.ask("RemoveTargets", &json!({"Rule": "nightly", "Ids": ["report", "gone"]}));
    assert_eq!(ids(&lab.ask("ListTargetsByRule", &json!({"Rule": "nightly"}))), ["queue"]);
}

#[test]
fn targets_come_in_pages() {
    let mut lab = lab(rule("nightly").task("a", "v1").task("b", "v1").task("c", "v1"));
    let first = lab.ask("ListTargetsByRule", &json!({"Rule": "nightly", "Limit": 2}));
    let second = lab.ask("ListTargetsByRule", &json!({"Rule": "nightly", "NextToken": first["NextToken"]}));
    assert_eq!([ids(&first), ids(&second)], [vec!["a", "b"], vec!["c"]]);
    assert!(second.get("NextToken").is_none());
    lab.0.settings.targets_per_page = 1;
    assert_eq!(ids(&lab.ask("ListTargetsByRule", &json!({"Rule": "nightly"}))), ["a"]);
}

#[test]
fn buses_and_regions_have_rules_of_their_own() {
    let mut lab = lab(rule("nightly").bus("audit").task("report", "v1").without_revision());
    rule("nightly").region("eu-west-1").task("report", "v1").build(&mut lab.0).expect("it is another region");
    let bus = lab.ask("DescribeRule", &json!({"Name": "nightly", "EventBusName": "audit"}));
    assert_eq!(bus["Arn"], "arn:aws:events:us-east-1:123456789012:rule/audit/nightly");
    assert!(bus.get("ScheduleExpression").is_none() && bus["EventPattern"].is_string());
    let by_arn = json!({"Rule": "nightly", "EventBusName": "arn:aws:events:us-east-1:123456789012:event-bus/audit"});
    let listed = lab.ask("ListTargetsByRule", &by_arn);
    assert_eq!(listed["Targets"][0]["EcsParameters"]["TaskDefinitionArn"], definition("report"));
    assert_eq!(
        lab.refusal("ListTargetsByRule", &json!({"Rule": "nightly"})),
        "ResourceNotFoundException: Rule nightly does not exist on EventBus default."
    );
    lab.ask("PutRule", &json!({"Name": "nightly", "ScheduleExpression": "rate(1 day)", "Description": "mine"}));
    let described = lab.ask("DescribeRule", &json!({"Name": "nightly"}));
    assert_eq!(described["Arn"], "arn:aws:events:us-east-1:123456789012:rule/nightly");
    assert_eq!((&described["State"], &described["Description"]), (&json!("ENABLED"), &json!("mine")));
    lab.ask("DeleteRule", &json!({"Name": "nightly"}));
    assert!(lab.refusal("DescribeRule", &json!({"Name": "nightly"})).contains("does not exist on EventBus default."));
}

#[test]
fn refuses_what_eventbridge_refuses() {
    let mut lab = lab(rule("nightly").task("report", "v1"));
    rule("theirs").task("report", "v1").managed_by("backup.amazonaws.com").build(&mut lab.0).expect("it is a rule");
    let cluster = arn::ecs("us-east-1", "cluster/staging");
    let queue = |id: usize| json!({"Id": id.to_string(), "Arn": "arn:aws:sqs:us-east-1:123456789012:jobs"});
    let queues = |many: usize| (0..many).map(queue).collect::<Vec<_>>();
    let put = |targets: Value| json!({"Rule": "nightly", "Targets": targets});
    let role = "arn:aws:iam::123456789012:role/r";
    for (operation, body, refusal) in [
        (
            "ListTargetsByRule",
            json!({"Rule": "none"}),
            "ResourceNotFoundException: Rule none does not exist on EventBus default.",
        ),
        (
            "PutTargets",
            json!({"Rule": "nightly", "EventBusName": "none", "Targets": [queue(1)]}),
            "ResourceNotFoundException: Event bus none does not exist.",
        ),
        (
            "ListTargetsByRule",
            json!({"Rule": "a/b"}),
            "ValidationException: 1 validation error detected: Value 'a/b' at",
        ),
        ("ListTargetsByRule", json!({"Rule": "nightly", "Limit": 101}), "ValidationException: 1 validation error"),
        (
            "PutTargets",
            json!({"Rule": "theirs", "Targets": [queue(1)]}),
            "ManagedRuleException: theirs is a managed rule.",
        ),
        (
            "PutTargets",
            put(json!(queues(5))),
            "LimitExceededException: The requested resource exceeds the maximum number allowed.",
        ),
        ("PutTargets", put(json!(queues(11))), "ValidationException: 1 validation error detected: Value '["),
        ("PutTargets", put(json!([])), "ValidationException: 1 validation error detected: Value '[]' at 'targets'"),
        (
            "PutTargets",
            put(json!([{"Arn": cluster}])),
            "ValidationException: 1 validation error detected: Value 'null'",
        ),
        ("PutTargets", put(json!([{"Id": "a b", "Arn": cluster}])), "ValidationException: 1 validation error detected"),
        (
            "PutTargets",
            put(json!([{"Id": "a", "Arn": cluster, "RoleArn": role}])),
            "ValidationException: Parameter(s) EcsParameters must be specified for target: a.",
        ),
        (
            "PutTargets",
            put(
                json!([{"Id": "a", "Arn": cluster, "RoleArn": role, "EcsParameters": {"TaskDefinitionArn": "report:1"}}]),
            ),
            "ValidationException: Parameter TaskDefinitionArn is not valid. Reason: Provided Arn is not in correct format.",
        ),
        (
            "PutTargets",
            put(json!([{"Id": "a", "Arn": cluster, "EcsParameters": {"TaskDefinitionArn": definition("report:1")}}])),
            "ValidationException: RoleArn is required for target arn:aws:ecs:us-east-1:123456789012:cluster/staging.",
        ),
        ("DeleteRule", json!({"Name": "nightly"}), "ValidationException: Rule can't be deleted since it has targets."),
        ("PutRule", json!({"Name": "a"}), "ValidationException: "),
        (
            "PutRule",
            json!({"Name": "a", "EventBusName": "none", "ScheduleExpression": "rate(1 day)"}),
            "ValidationException: ScheduleExpression is supported only on the default event bus.",
        ),
        ("CreateEventBus", json!({"Name": "default"}), "ResourceAlreadyExistsException: "),
    ] {
        let answer = lab.refusal(operation, &body);
        assert!(answer.starts_with(refusal), "{operation} {body}: {answer}");
    }
    let listed = lab.ask("ListTargetsByRule", &json!({"Rule": "nightly"}));
    assert_eq!(ids(&listed), ["report"], "what is refused changes nothing");
}

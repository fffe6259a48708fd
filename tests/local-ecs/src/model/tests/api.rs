//! What ECS refuses, and how it lists, keeps and hides things.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Lab, text};
use crate::{builder::service, model::task_definition::DESCRIBE_ONLY};

fn definition() -> Value {
    json!({"family": "web", "memory": "64", "containerDefinitions": [{"name": "web", "image": "web:1"}]})
}

#[test]
fn refuses_what_ecs_refuses() {
    let mut lab = Lab::with(service("api"));
    let many: Vec<String> = (0..11).map(|number| format!("s{number}")).collect();
    for (operation, body, refusal) in [
        ("Nonsense", json!({}), "UnknownOperationException: "),
        (
            "DescribeServices",
            json!({"cluster": "none", "services": ["api"]}),
            "ClusterNotFoundException: Cluster not found.",
        ),
        ("DescribeServices", json!({"cluster": "staging", "services": many}), "InvalidParameterException: "),
        ("DescribeServices", json!({"cluster": "staging", "services": []}), "InvalidParameterException: "),
        ("DescribeServices", json!({"cluster": 1, "services": []}), "SerializationException: "),
        (
            "UpdateService",
            json!({"cluster": "staging", "service": "none"}),
            "ServiceNotFoundException: Service not found.",
        ),
        ("UpdateService", json!({"cluster": "staging"}), "InvalidParameterException: "),
        (
            "UpdateService",
            json!({"cluster": "staging", "service": "api", "taskDefinition": "api:9"}),
            "ClientException: ",
        ),
        ("ListTasks", json!({"cluster": "staging", "startedBy": "x", "family": "y"}), "InvalidParameterException: "),
        ("ListTasks", json!({"cluster": "staging", "serviceName": "none"}), "ServiceNotFoundException: "),
        ("DescribeTasks", json!({"cluster": "staging", "tasks": ["x"]}), "InvalidParameterException: taskId length"),
        (
            "DescribeTaskDefinition",
            json!({"taskDefinition": "none"}),
            "ClientException: Unable to describe task definition.",
        ),
        ("RegisterTaskDefinition", json!({}), "ClientException: Family"),
        (
            "RegisterTaskDefinition",
            json!({"family": "a", "containerDefinitions": []}),
            "ClientException: Container list",
        ),
        (
            "RegisterTaskDefinition",
            json!({"family": "a", "containerDefinitions": [{"image": "a"}]}),
            "ClientException: Container.name",
        ),
        ("DeleteService", json!({"cluster": "staging", "service": "api"}), "InvalidParameterException: "),
        ("DeleteCluster", json!({"cluster": "staging"}), "ClusterContainsServicesException: "),
    ] {
        let answer = lab.refusal(operation, &body);
        assert!(answer.starts_with(refusal), "{operation} {body}: {answer}");
    }
}

#[test]
fn refuses_to_register_what_only_describe_knows_and_reserved_tags() {
    let mut lab = Lab::with(service("api"));
    for key in DESCRIBE_ONLY {
        let mut input = definition();
        input[key] = json!("anything");
        let refusal = lab.refusal("RegisterTaskDefinition", &input);
        assert!(refusal.starts_with("InvalidParameterException"), "{refusal}");
    }
    let mut input = definition();
    input["tags"] = json!([{"key": "aws:stack", "value": "x"}]);
    assert!(lab.refusal("RegisterTaskDefinition", &input).contains("aws:"));
}

#[test]
fn a_missing_service_is_a_failure_of_a_successful_answer() {
    let mut lab = Lab::with(service("api"));
    let answer = lab.ask("DescribeServices", &json!({"cluster": "staging", "services": ["api", "none"]}));
    assert_eq!(answer["services"].as_array().map(Vec::len), Some(1));
    let arn = "arn:aws:ecs:us-east-1:123456789012:service/staging/none";
    assert_eq!(answer["failures"], json!([{"arn": arn, "reason": "MISSING"}]));
}

#[test]
fn a_task_definition_comes_back_as_it_was_registered_with_fields_nobody_knows() {
    let mut lab = Lab::with(service("api"));
    let mut input = definition();
    input["fieldOfNextYear"] = json!({"deep": [1, 2.5, null]});
    input["containerDefinitions"][0]["alsoNew"] = json!(true);
    input["tags"] = json!([{"key": "team", "value": "a"}]);
    lab.ask("RegisterTaskDefinition", &input);
    let described = lab.ask("DescribeTaskDefinition", &json!({"taskDefinition": "web", "include": ["TAGS"]}));
    let shown = &described["taskDefinition"];
    assert_eq!(shown["fieldOfNextYear"], input["fieldOfNextYear"]);
    assert_eq!(shown["containerDefinitions"][0]["alsoNew"], true);
    assert_eq!(shown["containerDefinitions"][0]["environment"], json!([]));
    assert!(shown.get("tags").is_none());
    assert_eq!(described["tags"], input["tags"]);
    assert_eq!(shown["revision"], 1);
    assert!(lab.ask("DescribeTaskDefinition", &json!({"taskDefinition": "web:1"})).get("tags").is_none());
}

#[test]
fn system_tags_can_be_shown() {
    let mut lab = Lab::with(service("api"));
    lab.0.settings.system_tags = true;
    let described = lab.ask("DescribeTaskDefinition", &json!({"taskDefinition": "api", "include": ["TAGS"]}));
    assert!(text(&described["tags"][0]["key"]).starts_with("aws:"));
}

#[test]
fn an_inactive_task_definition_is_described_but_not_deployed() {
    let mut lab = Lab::with(service("api"));
    lab.ask("RegisterTaskDefinition", &definition());
    lab.ask("DeregisterTaskDefinition", &json!({"taskDefinition": "web:1"}));
    let described = lab.ask("DescribeTaskDefinition", &json!({"taskDefinition": "web:1"}));
    assert_eq!(described["taskDefinition"]["status"], "INACTIVE");
    let body = json!({"cluster": "staging", "service": "api", "taskDefinition": "web:1"});
    assert_eq!(lab.refusal("UpdateService", &body), "ClientException: TaskDefinition is inactive");
    assert_eq!(lab.ask("ListTaskDefinitions", &json!({"familyPrefix": "web"}))["taskDefinitionArns"], json!([]));
}

#[test]
fn other_controllers_refuse_a_task_definition() {
    for controller in ["CODE_DEPLOY", "EXTERNAL"] {
        let mut lab = Lab::with(service("api").controller(controller));
        let body = json!({"cluster": "staging", "service": "api", "taskDefinition": "api:1"});
        let refusal = lab.refusal("UpdateService", &body);
        assert!(refusal.starts_with("InvalidParameterException: Unable to update task definition"), "{refusal}");
        let service = lab.service();
        assert_eq!(service["deployments"], json!([]));
        assert_eq!(service["taskSets"][0]["runningCount"], 2);
    }
}

#[test]
fn reads_are_stale_for_a_while_after_a_write() {
    let mut lab = Lab::with(service("api"));
    lab.0.settings.stale_reads = Duration::from_millis(50);
    let id = lab.deploy("new");
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"]);
    lab.pass(49);
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"]);
    lab.pass(1);
    assert_eq!(lab.service()["deployments"][0]["id"], id);
}

#[test]
fn tasks_are_listed_by_the_hundred() {
    let mut lab = Lab::with(service("api").desired(230));
    let first = lab.ask("ListTasks", &json!({"cluster": "staging"}));
    assert_eq!(first["taskArns"].as_array().map(Vec::len), Some(100));
    let second = lab.ask("ListTasks", &json!({"cluster": "staging", "nextToken": first["nextToken"]}));
    let third = lab.ask("ListTasks", &json!({"cluster": "staging", "nextToken": second["nextToken"]}));
    assert_eq!(third["taskArns"].as_array().map(Vec::len), Some(30));
    assert!(third.get("nextToken").is_none());
    let few = lab.ask("ListTasks", &json!({"cluster": "staging", "maxResults": 7}));
    assert_eq!(few["taskArns"].as_array().map(Vec::len), Some(7));
}

#[test]
fn tasks_can_be_listed_by_who_started_them() {
    let mut lab = Lab::with(service("api"));
    let id = lab.deploy("new");
    lab.pass(20);
    let listed = lab.ask("ListTasks", &json!({"cluster": "staging", "startedBy": id}));
    assert_eq!(listed["taskArns"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_deleted_service_drains_and_is_described_for_a_while() {
    let mut lab = Lab::with(service("api"));
    lab.ask("DeleteService", &json!({"cluster": "staging", "service": "api", "force": true}));
    assert_eq!(lab.service()["status"], "DRAINING");
    assert_eq!(lab.ask("ListServices", &json!({"cluster": "staging"}))["serviceArns"], json!([]));
    lab.pass(1000);
    assert_eq!(lab.service()["status"], "INACTIVE");
    let refusal = lab.refusal("UpdateService", &json!({"cluster": "staging", "service": "api"}));
    assert!(refusal.starts_with("ServiceNotActiveException"), "{refusal}");
    lab.pass(3_600_000);
    let answer = lab.ask("DescribeServices", &json!({"cluster": "staging", "services": ["api"]}));
    assert_eq!(answer["failures"][0]["reason"], "MISSING");
}

#[test]
fn the_service_deployment_leads_to_the_task_definition() {
    let mut lab = Lab::with(service("api"));
    lab.deploy("new");
    lab.pass(20);
    let arn = lab.service()["currentServiceDeployment"].clone();
    let body = json!({"serviceDeploymentArns": [arn, "arn:aws:ecs:us-east-1:1:service-deployment/a/b/c"]});
    let described = lab.ask("DescribeServiceDeployments", &body);
    let ours = &described["serviceDeployments"][0];
    assert_eq!(ours["status"], "IN_PROGRESS");
    assert_eq!(described["failures"][0]["reason"], "MISSING");
    let revision = ours["targetServiceRevision"]["arn"].clone();
    let revisions = lab.ask("DescribeServiceRevisions", &json!({"serviceRevisionArns": [revision]}));
    assert!(text(&revisions["serviceRevisions"][0]["taskDefinition"]).ends_with("task-definition/api:2"));
    lab.pass(2000);
    let listed = lab.ask("ListServiceDeployments", &json!({"cluster": "staging", "service": "api"}));
    assert_eq!(listed["serviceDeployments"][0]["status"], "SUCCESSFUL");
}

#[test]
fn tags_can_be_added_and_removed() {
    let mut lab = Lab::with(service("api"));
    let arn = "arn:aws:ecs:us-east-1:123456789012:service/staging/api";
    lab.ask(
        "TagResource",
        &json!({"resourceArn": arn, "tags": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]}),
    );
    lab.ask("UntagResource", &json!({"resourceArn": arn, "tagKeys": ["a"]}));
    let listed = lab.ask("ListTagsForResource", &json!({"resourceArn": arn}));
    assert_eq!(listed["tags"], json!([{"key": "b", "value": "2"}]));
}

#[test]
fn five_hundred_services_are_cheap() {
    let mut lab = Lab::with(service("api"));
    for number in 0..500 {
        let more = service(&format!("s{number}"));
        more.build(&mut lab.0).expect("the services should be valid");
    }
    let began = std::time::Instant::now();
    for _ in 0..100 {
        lab.pass(10);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

//! Amazon ECR: what it answers, and what becomes of tasks whose image it lacks.

use serde_json::{Value, json};

use super::{Lab, text};
use crate::{
    builder::{ecr_image, service},
    model::arn::ACCOUNT,
};

/// A service whose image lies in repository `team/api`, which holds `1nitia1` and these tags.
fn lab(tags: &[&str]) -> Lab {
    let mut lab = Lab::with(service("api").in_ecr("us-east-1", "team/api"));
    lab.0.registries.push(ACCOUNT, "us-east-1", "team/api", tags, &mut lab.0.ids);
    lab
}

/// Deploys an image of that repository; gives the oldest task of it that is STOPPED after a while, if any is.
fn deploy(lab: &mut Lab, image: &str) -> Option<Value> {
    let container = json!({"name": "api", "image": image, "memory": 64});
    lab.ask("RegisterTaskDefinition", &json!({"family": "api", "containerDefinitions": [container]}));
    let updated = lab.update(&json!({"taskDefinition": "api"}));
    lab.pass(400);
    let mut tasks = lab.tasks("STOPPED").into_iter();
    tasks.find(|task| task["startedBy"] == updated["deployments"][0]["id"])
}

#[test]
fn images_are_found_by_tag_and_by_digest() {
    let mut lab = lab(&["a"]);
    let by_tag = lab.ask("BatchGetImage", &json!({"repositoryName": "team/api", "imageIds": [{"imageTag": "a"}]}));
    let image = &by_tag["images"][0];
    assert_eq!((&image["registryId"], &image["repositoryName"]), (&json!(ACCOUNT), &json!("team/api")));
    assert_eq!(image["imageId"]["imageTag"], "a");
    assert_eq!(by_tag["failures"], json!([]));
    let digest = image["imageId"]["imageDigest"].clone();
    let ids = json!([{"imageDigest": digest}, {"imageTag": "a", "imageDigest": digest}]);
    let body = json!({"registryId": ACCOUNT, "repositoryName": "team/api", "imageIds": ids});
    let by_digest = lab.ask("BatchGetImage", &body);
    assert_eq!(by_digest["images"][0]["imageId"], json!({"imageDigest": digest}));
    assert_eq!(by_digest["images"][1]["imageId"], image["imageId"]);
}

#[test]
fn what_a_repository_lacks_is_a_failure_of_a_successful_answer() {
    let mut lab = lab(&["a"]);
    let other = format!("sha256:{}", "0".repeat(64));
    for (id, code, reason) in [
        (json!({"imageTag": "b"}), "ImageNotFound", "Requested image not found"),
        (json!({"imageDigest": other}), "ImageNotFound", "Requested image not found"),
        (
            json!({"imageTag": "a", "imageDigest": other}),
            "ImageTagDoesNotMatchDigest",
            "Invalid request parameters: given tag does not map to the given digest",
        ),
        (json!({"imageTag": "b", "imageDigest": other}), "ImageNotFound", "Requested image not found"),
        (
            json!({"imageDigest": "nonsense"}),
            "InvalidImageDigest",
            "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'",
        ),
        (json!({}), "MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null"),
    ] {
        let answer = lab.ask("BatchGetImage", &json!({"repositoryName": "team/api", "imageIds": [id.clone()]}));
        assert_eq!(answer["images"], json!([]));
        let failure = json!({"imageId": id, "failureCode": code, "failureReason": reason});
        assert_eq!(answer["failures"], json!([failure]));
    }
}

#[test]
fn refuses_what_ecr_refuses() {
    let mut lab = lab(&[]);
    let many = vec![json!({"imageTag": "a"}); 101];
    for (operation, body, refusal) in [
        (
            "BatchGetImage",
            json!({"repositoryName": "none", "imageIds": [{"imageTag": "a"}]}),
            "RepositoryNotFoundException: The repository with name 'none' does not exist in the registry with id '123456789012'",
        ),
        (
            "BatchGetImage",
            json!({"registryId": "210987654321", "repositoryName": "team/api", "imageIds": [{"imageTag": "a"}]}),
            "RepositoryNotFoundException: The repository with name 'team/api' does not exist in the registry with id '210987654321'",
        ),
        (
            "BatchGetImage",
            json!({"repositoryName": "team/api", "imageIds": []}),
            "InvalidParameterException: Invalid parameter at 'imageIds' failed to satisfy constraint: 'Member must have length greater than or equal to 1'",
        ),
        (
            "BatchGetImage",
            json!({"repositoryName": "team/api", "imageIds": many}),
            "InvalidParameterException: Invalid parameter at 'imageIds' failed to satisfy constraint: 'Member must have length less than or equal to 100'",
        ),
        (
            "BatchGetImage",
            json!({"registryId": "1", "repositoryName": "team/api", "imageIds": []}),
            "InvalidParameterException: Invalid parameter at 'registryId'",
        ),
        (
            "BatchGetImage",
            json!({"imageIds": [{"imageTag": "a"}]}),
            "InvalidParameterException: Invalid parameter at 'repositoryName'",
        ),
        (
            "DescribePullThroughCacheRules",
            json!({"ecrRepositoryPrefixes": ["team"]}),
            "PullThroughCacheRuleNotFoundException: The pull through cache rule with Amazon ECR repository prefix 'team' does not exist in the registry with id '123456789012'",
        ),
        ("DescribePullThroughCacheRules", json!({"ecrRepositoryPrefixes": []}), "InvalidParameterException: "),
        ("DescribePullThroughCacheRules", json!({"maxResults": 1001}), "InvalidParameterException: "),
    ] {
        let answer = lab.refusal(operation, &body);
        assert!(answer.starts_with(refusal), "{operation} {body}: {answer}");
    }
}

#[test]
fn cache_rules_are_listed_in_pages() {
    let mut lab = lab(&[]);
    assert_eq!(lab.ask("DescribePullThroughCacheRules", &json!({}))["pullThroughCacheRules"], json!([]));
    for prefix in ["hub", "quay", "ROOT"] {
        lab.0.registries.cover(ACCOUNT, "us-east-1", prefix, lab.0.now);
    }
    let prefixes = |answer: &Value| -> Vec<String> {
        let rules = answer["pullThroughCacheRules"].as_array().cloned().unwrap_or_default();
        rules.iter().map(|rule| text(&rule["ecrRepositoryPrefix"])).collect()
    };
    let first = lab.ask("DescribePullThroughCacheRules", &json!({"maxResults": 2}));
    let second = lab.ask("DescribePullThroughCacheRules", &json!({"maxResults": 2, "nextToken": first["nextToken"]}));
    assert_eq!([prefixes(&first), prefixes(&second)].concat(), ["ROOT", "hub", "quay"]);
    assert!(second.get("nextToken").is_none());
    let some = lab.ask("DescribePullThroughCacheRules", &json!({"ecrRepositoryPrefixes": ["quay", "ROOT"]}));
    assert_eq!(prefixes(&some), ["ROOT", "quay"]);
}

#[test]
fn a_task_fails_to_start_while_its_repository_lacks_the_image() {
    let mut lab = lab(&["there"]);
    let image = |tag: &str| ecr_image(ACCOUNT, "us-east-1", "team/api", tag);
    assert!(deploy(&mut lab, &image("there")).is_none());
    let gone = deploy(&mut lab, &image("gone")).expect("a task without an image should stop");
    assert_eq!(gone["stopCode"], "TaskFailedToStart");
    let wanted = image("gone");
    assert_eq!(
        text(&gone["stoppedReason"]),
        format!(
            "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref {wanted}: {wanted}: not found"
        )
    );
    let held = lab.0.registries.get(ACCOUNT, "us-east-1").map(|registry| registry.repositories["team/api"].clone());
    let digest = &held.expect("the repository was made")["there"];
    let base = image("there").replace(":there", "");
    assert!(deploy(&mut lab, &format!("{base}@{digest}")).is_none());
    assert!(deploy(&mut lab, &format!("{base}@sha256:{}", "0".repeat(64))).is_some());
    lab.0.registries.cover(ACCOUNT, "us-east-1", "team", lab.0.now);
    assert!(deploy(&mut lab, &image("upstream")).is_none());
}

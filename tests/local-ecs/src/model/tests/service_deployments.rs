//! Service deployments and revisions: how they are listed, described and stopped.

use serde_json::{Value, json};

use super::{Lab, text};
use crate::{behaviour::Behaviour, builder::service};

fn list(lab: &mut Lab, more: &Value) -> Value {
    let mut body = json!({"cluster": "staging", "service": "api"});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    lab.ask("ListServiceDeployments", &body)
}

fn statuses(lab: &mut Lab, more: &Value) -> Vec<String> {
    let listed = list(lab, more);
    let all = listed["serviceDeployments"].as_array().cloned().unwrap_or_default();
    all.iter().map(|one| text(&one["status"])).collect()
}

/// The newest service deployment, described.
fn newest(lab: &mut Lab) -> Value {
    let arn = lab.service()["currentServiceDeployment"].clone();
    lab.ask("DescribeServiceDeployments", &json!({"serviceDeploymentArns": [arn]}))["serviceDeployments"][0].take()
}

#[test]
fn are_listed_newest_first_by_the_score_and_by_filter() {
    let mut lab = Lab::with(service("api"));
    let mut middle = Value::Null;
    for number in 0..24 {
        lab.pass(10);
        lab.deploy("new");
        if number == 12 {
            middle = newest(&mut lab)["createdAt"].clone();
        }
    }
    lab.pass(20);
    let first = list(&mut lab, &json!({}));
    let second = list(&mut lab, &json!({"nextToken": first["nextToken"]}));
    let length = |page: &Value| page["serviceDeployments"].as_array().map(Vec::len);
    assert_eq!((length(&first), length(&second)), (Some(20), Some(5)));
    assert!(second.get("nextToken").is_none());
    let at = |page: &Value, index: usize| page["serviceDeployments"][index]["createdAt"].as_f64().unwrap_or_default();
    assert!(at(&first, 0) > at(&first, 1) && at(&first, 19) > at(&second, 0));
    assert_eq!(first["serviceDeployments"][0]["serviceDeploymentArn"], lab.service()["currentServiceDeployment"]);
    assert_eq!(statuses(&mut lab, &json!({"status": ["IN_PROGRESS", "SUCCESSFUL"]})), ["IN_PROGRESS", "SUCCESSFUL"]);
    assert_eq!(statuses(&mut lab, &json!({"createdAt": {"after": middle}})).len(), 11);
    assert_eq!(statuses(&mut lab, &json!({"createdAt": {"before": middle}})).len(), 13);
    let body = json!({"cluster": "staging", "service": "api", "status": ["DONE"]});
    assert!(lab.refusal("ListServiceDeployments", &body).starts_with("InvalidParameterException"));
}

#[test]
fn a_stop_is_requested_then_carried_out_and_may_be_repeated() {
    let mut lab = Lab::with(service("api"));
    lab.deploy("new");
    lab.pass(50);
    let before = newest(&mut lab);
    assert_eq!(before["alarms"], json!({"status": "DISABLED"}));
    let stop = json!({"serviceDeploymentArn": before["serviceDeploymentArn"]});
    let wanted = [("ROLLBACK_REQUESTED", 10), ("ROLLBACK_IN_PROGRESS", 10), ("ROLLBACK_IN_PROGRESS", 2000)];
    for (status, time) in wanted {
        assert_eq!(lab.ask("StopServiceDeployment", &stop), stop);
        let seen = newest(&mut lab);
        assert_eq!(seen["status"], status);
        assert_eq!(seen["statusReason"], "Service deployment rolled back by user.");
        assert!(seen["stoppedAt"].is_number() && seen.get("finishedAt").is_none());
        lab.pass(time);
    }
    let after = newest(&mut lab);
    assert_eq!(after["status"], "ROLLBACK_SUCCESSFUL");
    assert!(after["finishedAt"].is_number());
    assert_eq!(after["rollback"]["reason"], "Service deployment rolled back by user.");
    assert_eq!(after["rollback"]["serviceRevisionArn"], after["sourceServiceRevisions"][0]["arn"]);
    let refusal = lab.refusal("StopServiceDeployment", &stop);
    assert!(refusal.starts_with("ConflictException"), "{refusal}");
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"]);
}

#[test]
fn only_rollback_stops_and_only_what_exists() {
    let mut lab = Lab::with(service("api"));
    let arn = lab.service()["currentServiceDeployment"].clone();
    for (body, refusal) in [
        (json!({"serviceDeploymentArn": arn, "stopType": "ABORT"}), "InvalidParameterException"),
        (json!({"serviceDeploymentArn": arn}), "ConflictException"),
        (json!({}), "InvalidParameterException"),
        (json!({"serviceDeploymentArn": format!("{}x", text(&arn))}), "ServiceDeploymentNotFoundException"),
    ] {
        let answer = lab.refusal("StopServiceDeployment", &body);
        assert!(answer.starts_with(refusal), "{body}: {answer}");
    }
}

#[test]
fn keep_the_configuration_they_began_with_and_say_why_they_failed() {
    let mut lab = Lab::with(service("api").circuit_breaker(true));
    lab.version("bad", Behaviour::ImageMissing);
    lab.deploy("bad");
    lab.pass(3000);
    let off = json!({"deploymentCircuitBreaker": {"enable": false, "rollback": false}});
    lab.update(&json!({"deploymentConfiguration": off}));
    let failed = newest(&mut lab);
    assert_eq!(failed["deploymentConfiguration"]["deploymentCircuitBreaker"]["enable"], true);
    assert_eq!(failed["deploymentCircuitBreaker"]["status"], "TRIGGERED");
    assert!(text(&failed["statusReason"]).contains("circuit breaker"), "{failed}");
    assert_eq!(failed["status"], "ROLLBACK_SUCCESSFUL");
    assert!(failed.get("stoppedAt").is_none());
}

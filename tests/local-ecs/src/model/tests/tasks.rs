//! Tasks that stop, as `DescribeTasks` shows them on their way.

use serde_json::{Value, json};

use super::{Lab, text};
use crate::{behaviour::Behaviour, builder::service};

/// The tasks with desiredStatus STOPPED in short: their status and which times and exit code they show.
fn leaving(lab: &mut Lab) -> Vec<String> {
    let tasks = lab.tasks("STOPPED");
    let shown = |task: &Value| {
        assert_eq!(task["desiredStatus"], "STOPPED");
        assert!(!text(&task["stopCode"]).is_empty() && !text(&task["stoppedReason"]).is_empty(), "{task}");
        let times = ["startedAt", "stoppingAt", "executionStoppedAt", "stoppedAt"];
        let times: Vec<&str> = times.into_iter().filter(|key| task.get(*key).is_some()).collect();
        let exit = task["containers"][0].get("exitCode").map(|code| format!(" exit {code}")).unwrap_or_default();
        format!("{} {}{exit}", text(&task["lastStatus"]), times.join(" "))
    };
    tasks.iter().map(shown).collect()
}

#[test]
fn a_replaced_task_shows_why_at_once_and_its_times_one_by_one() {
    let mut lab = Lab::with(service("api").desired(1));
    lab.deploy("new");
    lab.pass(310);
    assert_eq!(leaving(&mut lab), ["DEACTIVATING startedAt"]);
    lab.pass(300);
    assert_eq!(leaving(&mut lab), ["STOPPING startedAt stoppingAt"]);
    lab.pass(60);
    assert_eq!(leaving(&mut lab), ["DEPROVISIONING startedAt stoppingAt executionStoppedAt exit 143"]);
    lab.pass(60);
    assert_eq!(leaving(&mut lab), ["STOPPED startedAt stoppingAt executionStoppedAt stoppedAt exit 143"]);
}

#[test]
fn a_task_that_never_ran_has_no_start_and_no_exit_code() {
    let mut lab = Lab::with(service("api").desired(1));
    lab.version("bad", Behaviour::ImageMissing);
    lab.deploy("bad");
    lab.pass(140);
    assert_eq!(leaving(&mut lab), ["DEPROVISIONING stoppingAt executionStoppedAt"]);
}

#[test]
fn a_crash_shows_its_exit_code_while_the_task_is_taken_apart() {
    let mut lab = Lab::with(service("api").desired(1));
    lab.version("bad", Behaviour::CrashesOnStart { exit_code: 137 });
    lab.deploy("bad");
    lab.pass(245);
    assert_eq!(leaving(&mut lab), ["DEPROVISIONING startedAt stoppingAt executionStoppedAt exit 137"]);
}

#[test]
fn a_task_stopped_by_hand_is_replaced_and_no_failure() {
    let mut lab = Lab::with(service("api").circuit_breaker(true));
    lab.deploy("new");
    for _ in 0..8 {
        lab.pass(200);
        for arn in lab.tasks("RUNNING").iter().map(|task| task["taskArn"].clone()).collect::<Vec<_>>() {
            lab.ask("StopTask", &json!({"cluster": "staging", "task": arn, "reason": "by hand"}));
        }
        assert_eq!(lab.service()["deployments"][0]["failedTasks"], 0);
    }
    lab.pass(3000);
    assert_eq!(lab.deployments(), ["PRIMARY :2 COMPLETED 2/2 +0"]);
}

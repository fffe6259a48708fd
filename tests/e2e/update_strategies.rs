//! The key `updateStrategy`: what is deployed, and what is not touched.

use std::time::Duration;

use local_ecs::{Behaviour, LocalEcs, Settings, image, service};
use serde_json::{Value, json};

use crate::support::{NEW, OLD, SHORT, THEIRS, bodies, colleague_deploys, ecs, ecs_with, gehen_yml_with, updates};

/// Somebody registers a newer revision of `api` with another size, which no service runs.
fn somebody_registers(ecs: &LocalEcs, tag: &str) {
    let definition = json!({
        "family": "api", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "1024", "memory": "4096",
        "containerDefinitions": [{"name": "api", "image": image("api", tag), "essential": true,
            "portMappings": [{"containerPort": 8080, "protocol": "tcp"}]}],
    });
    ecs.call("us-east-1", "RegisterTaskDefinition", definition).expect("a good task definition");
}

/// What was registered, in order.
fn registered(ecs: &LocalEcs) -> Vec<Value> {
    bodies(ecs, "RegisterTaskDefinition")
}

#[test]
fn latest_is_made_from_the_newest_revision_and_goes_back_to_what_ran() {
    let ecs = ecs([service("api").running(OLD)]);
    somebody_registers(&ecs, "untested");
    ecs.version("bad0000", Behaviour::CrashesOnStart { exit_code: 1 });
    let gehen = gehen_yml_with(&ecs, "updateStrategy: Latest", &[("api", "")]);
    let run = gehen.deploy("bad0000");
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    run.says("api: the new revision is made from api:2, the newest of its family\n");
    assert_eq!(updates(&ecs), ["UpdateService api -> api:3", "UpdateService api -> api:1"]);
    let run = gehen.deploy(NEW);
    run.exits(0).ends("api", &format!("DEPLOYED {NEW} as api:4"));
    assert_eq!(registered(&ecs).iter().map(|body| &body["cpu"]).collect::<Vec<_>>(), ["1024", "1024"]);
    assert_eq!(registered(&ecs)[1]["containerDefinitions"][0]["image"], image("api", NEW));
}

#[test]
fn latest_deploys_the_newest_revision_as_it_is_where_that_is_at_the_version() {
    let ecs = ecs([service("api").running(OLD)]);
    somebody_registers(&ecs, NEW);
    let run = gehen_yml_with(&ecs, "", &[("api", "updateStrategy: latest")]).deploy(NEW);
    run.exits(0)
        .says("all images of api:2 are at this version already")
        .ends("api", &format!("DEPLOYED {NEW} as api:2"));
    assert_eq!(ecs.writes(), ["UpdateService api -> api:2"]);
}

#[test]
fn latest_is_the_running_revision_where_none_is_newer() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen_yml_with(&ecs, "updateStrategy: latest", &[("api", "")]).deploy(NEW);
    run.exits(0).never_says("the newest of its family").ends("api", &format!("DEPLOYED {NEW} as api:2"));
}

#[test]
fn a_service_may_have_a_strategy_of_its_own() {
    let ecs = ecs([service("api").running(NEW), service("web").running(OLD)]);
    let gehen = gehen_yml_with(&ecs, "updateStrategy: redeploy", &[("api", ""), ("web", "updateStrategy: CURRENT")]);
    gehen.deploy(NEW).exits(0);
    assert_eq!(
        ecs.writes(),
        ["UpdateService api -> api:1", "RegisterTaskDefinition web", "UpdateService web -> web:2"]
    );
}

#[test]
fn redeploy_starts_a_new_deployment_of_what_is_there() {
    let ecs = ecs([service("api").running(NEW)]);
    let before = ecs.view(|view| view.deployment_of("api"));
    let run = gehen_yml_with(&ecs, "", &[("api", "updateStrategy: redeploy")]).deploy(NEW);
    run.exits(0).ends("api", &format!("DEPLOYED ANEW: {NEW} as api:1 in "));
    run.says("api: api:1 is deployed anew as it is, as `updateStrategy: redeploy` says\n");
    run.says("drain check passed: ECS runs no task of another deployment");
    assert_eq!(ecs.writes(), ["UpdateService api -> api:1"]);
    assert_ne!(ecs.view(|view| view.deployment_of("api")), before);
}

/// A service whose image has a tag that moves; the url of version `shows` says [`NEW`].
fn with_moving_tag(answers: &str) -> LocalEcs {
    let ecs = ecs([service("api").running("staging")]);
    let headers = vec![("Server".to_owned(), format!("api-{answers}"))];
    ecs.version("staging", Behaviour::Answers { status: 200, headers, body: String::new() });
    ecs
}

#[test]
fn redeploy_of_a_tag_that_moves_is_proven_by_the_url() {
    let ecs = with_moving_tag(OLD);
    let gehen = gehen_yml_with(&ecs, "", &[("api", "updateStrategy: redeploy")]);
    let running = gehen.start(&["-gitsha", NEW]).until_it_says("api: updated to api:1");
    let headers = vec![("Server".to_owned(), format!("api-{NEW}"))];
    ecs.version("staging", Behaviour::Answers { status: 200, headers, body: String::new() });
    let run = running.wait();
    run.exits(0).ends("api", &format!("DEPLOYED ANEW: {NEW} as api:1 in "));
    assert_eq!(ecs.writes(), ["UpdateService api -> api:1"]);
}

#[test]
fn redeploy_says_no_version_that_nothing_names() {
    let ecs = ecs([service("api").running("staging").without_load_balancer()]);
    let file = format!("services: {{api: {{cluster: '{}', updateStrategy: redeploy}}}}", ecs.cluster_arn("api"));
    let run = crate::support::gehen_file(&ecs, &file).deploy(NEW);
    run.exits(0).ends("api", "DEPLOYED ANEW: api:1 in ").never_says(NEW);
}

#[test]
fn redeploy_refuses_a_version_that_is_not_there() {
    let ecs = ecs([service("api").running(OLD)]);
    for strategy in ["redeploy", "none"] {
        let run = gehen_yml_with(&ecs, "", &[("api", &format!("updateStrategy: {strategy}"))]).deploy(NEW);
        run.exits(1).says(&format!(
            "error: service `api`: api:1 runs, whose images are tagged {OLD}, not {NEW}, and `updateStrategy: {strategy}` \
             registers no other\n"
        ));
        run.says("hint: give that version with -gitsha, or use `updateStrategy: current` or `latest`\n");
    }
    assert!(ecs.writes().is_empty());
}

#[test]
fn redeploy_of_a_deregistered_revision_is_refused() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.deregister("api:1");
    let run = gehen_yml_with(&ecs, "", &[("api", "updateStrategy: redeploy")]).deploy(OLD);
    run.exits(1).says("api:1 has been deregistered, and `updateStrategy: redeploy` registers nothing\n");
    assert!(ecs.writes().is_empty());
}

#[test]
fn a_redeploy_that_fails_has_nothing_to_return_to() {
    let ecs = with_moving_tag(OLD);
    let run = gehen_yml_with(&ecs, SHORT, &[("api", "updateStrategy: redeploy")]).deploy(NEW);
    run.exits(1).says("there is nothing to return to if this run fails: api:1 is what this run deploys, too");
    run.ends("api", "FAILED after ").says(", WITH NOTHING TO RETURN TO: api:1 is what this run deploys, too; ");
    assert_eq!(ecs.writes(), ["UpdateService api -> api:1"]);
}

#[test]
fn none_only_checks_what_somebody_else_deploys() {
    let settings = Settings { healthy_after: Duration::from_secs(2), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD)]);
    colleague_deploys(&ecs, "api");
    let run = gehen_yml_with(&ecs, "updateStrategy: none", &[("api", "")]).deploy(THEIRS);
    run.exits(0).ends("api", &format!("FOUND LIVE: {THEIRS} as api:2 in ")).says("api: found live in ");
    run.says("deploy check passed").says("drain check passed");
    assert!(ecs.writes().is_empty(), "{:?}", ecs.writes());
}

#[test]
fn none_finds_what_runs_already() {
    let ecs = ecs([service("api").running(NEW)]);
    let run = gehen_yml_with(&ecs, "updateStrategy: none", &[("api", "")]).deploy(NEW);
    run.exits(0).ends("api", &format!("FOUND LIVE: {NEW} as api:1 in "));
    assert!(ecs.writes().is_empty());
}

#[test]
fn a_check_that_fails_rolls_nothing_back_and_lets_nothing_further_be_updated() {
    let ecs = ecs([
        service("api").running(OLD),
        service("web").running("staging"),
        service("worker").running(OLD),
        service("mail").running(NEW),
    ]);
    let headers = vec![("Server".to_owned(), format!("web-{OLD}"))];
    ecs.version("staging", Behaviour::Answers { status: 200, headers, body: String::new() });
    let none = "updateStrategy: none";
    let gehen =
        gehen_yml_with(&ecs, SHORT, &[("api", "timeoutMinutes: 1"), ("web", none), ("worker", ""), ("mail", none)]);
    let run = gehen.deploy(NEW);
    run.exits(1).ends("api", &format!("DEPLOYED {NEW} as api:2"));
    run.ends("web", "NOT PROVEN LIVE after ").ends("worker", "NOT TOUCHED").ends("mail", "FOUND LIVE: ");
    run.says(&format!(", and nothing was changed; now run 2 tasks of web:1 (staging)\nweb: why: {}", ecs.url("web")));
    assert_eq!(updates(&ecs), ["UpdateService api -> api:2"]);
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_service_that_is_only_checked_is_not_rolled_back_when_another_fails() {
    let ecs = ecs([service("api").running("bad0000"), service("web").running(OLD)]);
    ecs.version("bad0000", Behaviour::Healthy);
    let gehen = gehen_yml_with(&ecs, SHORT, &[("api", "updateStrategy: none"), ("web", "")]);
    // Healthy where it runs already, and never to start on web.
    ecs.repository("123456789012", "us-east-1", "web", &[OLD]);
    ecs.fault(local_ecs::Fault::on("UpdateService").denied().always());
    let run = gehen.deploy("bad0000");
    run.exits(1).ends("api", "FOUND LIVE: bad0000 as api:1").ends("web", "NOT UPDATED after ");
    assert!(updates(&ecs).is_empty());
}

#[test]
fn none_leaves_alone_what_somebody_deploys_meanwhile() {
    let settings = Settings { healthy_after: Duration::from_secs(3), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running("staging")]);
    let gehen = gehen_yml_with(&ecs, "updateStrategy: none", &[("api", "")]);
    let running = gehen.start(&["-gitsha", NEW]).until_it_says("api: deploy check: ");
    colleague_deploys(&ecs, "api");
    let run = running.wait();
    run.exits(1).ends("api", "LEFT ALONE after ");
    assert!(ecs.writes().is_empty());
}

#[test]
fn tasks_that_failed_before_the_run_are_no_reason_to_call_a_service_that_is_only_checked_failed() {
    let ecs = ecs([service("api").running(NEW)]);
    for _ in 0..3 {
        assert!(ecs.wait_until(Duration::from_secs(20), |view| view.is_steady("api")));
        ecs.crash_tasks("api", 2, 1);
    }
    assert!(ecs.wait_until(Duration::from_secs(20), |view| view.is_steady("api")));
    let run = gehen_yml_with(&ecs, "updateStrategy: none", &[("api", "")]).deploy(NEW);
    run.exits(0).ends("api", &format!("FOUND LIVE: {NEW} as api:1 in "));
}

#[test]
fn a_sidecar_with_a_git_sha_of_its_own_does_not_keep_a_service_from_being_redeployed() {
    let containers = [("api", "api:ae30000"), ("logs", "log-router:abcdef1")];
    let containers = containers.map(|(name, image)| json!({"name": name, "image": image, "essential": true}));
    let definition = json!({
        "family": "api", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512",
        "containerDefinitions": containers,
    });
    let ecs = ecs([service("api").task_definition(definition).without_load_balancer()]);
    let run = gehen_yml_with(&ecs, "updateStrategy: redeploy", &[("api", "")]).deploy(NEW);
    run.exits(0).ends("api", "DEPLOYED ANEW: ");
}

//! Deploys that go well.

use std::time::Duration;

use local_ecs::{Behaviour, LocalEcs, Settings, What, service};

use crate::support::{NEW, OLD, SHORT, ecs, ecs_with, gehen_yml, gehen_yml_without_urls};

/// [`NEW`] in full.
const NEW_IN_FULL: &str = "ae30000123456789012345678901234567890123";
/// What a deploy of `api` alone writes.
const WRITES: [&str; 2] = ["RegisterTaskDefinition api", "UpdateService api -> api:2"];

/// A version that answers 200 with this `Server` header and this body.
fn answers(server: &str, body: &str) -> Behaviour {
    Behaviour::Answers { status: 200, headers: vec![("Server".into(), server.into())], body: body.into() }
}

/// Whether this has happened to the deployment of `task_definition`.
fn happened(ecs: &LocalEcs, service: &str, task_definition: &str, what: What) -> bool {
    ecs.moments(service).iter().any(|moment| moment.task_definition == task_definition && moment.what == what)
}

#[test]
fn one_service_is_deployed_and_proven() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), WRITES);
    assert_eq!(ecs.runs("api"), NEW);
    assert_eq!(run.stdout, "");
}

#[test]
fn a_deploy_tells_its_story() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0);
    // How the counts move from one look to the next, and whether old tasks still shut down, is a matter of timing.
    let story: String =
        run.transcript().lines().filter(|line| !line.contains(" tasks run api:")).fold(String::new(), |story, line| {
            let line = line.split("; old tasks are out of reach").next().unwrap_or_default();
            story + line + "\n"
        });
    assert_eq!(
        story,
        "\
TIME api: runs api:1 (01d0000)
TIME api: whether image registry.example.com/api:ae30000 exists can't be told (not in Amazon ECR); going on
TIME api: registered api:2: registry.example.com/api:01d0000 -> registry.example.com/api:ae30000
TIME api: updated to api:2: deployment ecs-svc/ID
TIME api: deploy check: waiting up to 5 min until http://127.0.0.1:PORT/lb/us-east-1/staging/api/ping shows ae30000
TIME api: the url shows 01d0000
TIME api: the url shows ae30000
TIME api: deploy check passed: the url shows ae30000
TIME api: drain check: waiting up to 5 min until http://127.0.0.1:PORT/lb/us-east-1/staging/api/ping shows nothing but ae30000 and no old task runs
TIME api: drain check passed: 5 requests in a row show only ae30000
TIME api: deployed in SECONDS s
api: DEPLOYED ae30000 as api:2 in SECONDS s; now run 2 tasks of api:2 (ae30000)
"
    );
}

#[test]
fn services_are_deployed_in_the_order_of_the_file_each_once_the_one_before_has_drained() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    let run = gehen_yml(&ecs, "", &["web", "api"]).deploy(NEW);
    run.exits(0).ends("web", &format!("DEPLOYED {NEW}")).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(
        ecs.writes(),
        [
            "RegisterTaskDefinition web",
            "UpdateService web -> web:2",
            "RegisterTaskDefinition api",
            "UpdateService api -> api:2",
        ]
    );
    let mut moments = ecs.moments("web").into_iter();
    let drained = moments.find(|moment| moment.task_definition == "web:2" && moment.what == What::OldUnreachable);
    let drained = drained.expect("the old version of web became unreachable");
    let registered = |family: &str| {
        let requests = ecs.requests();
        let mut of_family = requests.iter().filter(|request| request.body["family"] == family);
        of_family.next().expect("the family was registered").at
    };
    assert!(registered("web") < drained.at);
    assert!(drained.at < registered("api"));
    assert_eq!((ecs.runs("web"), ecs.runs("api")), (NEW.into(), NEW.into()));
}

#[test]
fn services_that_are_not_in_the_file_are_left_alone() {
    let ecs = ecs([service("api").running(OLD), service("other").running(OLD)]);
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0).never_says("other");
    assert_eq!(ecs.writes(), WRITES);
    assert!(ecs.requests().iter().all(|request| !request.body.to_string().contains("other")));
    assert_eq!(ecs.runs("other"), OLD);
    assert_eq!(ecs.lb_requests("other"), 0);
}

#[test]
fn without_a_url_the_counts_of_a_load_balanced_service_are_proof_enough() {
    let ecs = ecs([service("api").running(OLD).deregistration_delay(Duration::from_mins(1))]);
    let run = gehen_yml_without_urls(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), WRITES);
    assert_eq!(ecs.runs("api"), NEW);
    assert_eq!(ecs.lb_requests("api"), 0);
    assert!(!happened(&ecs, "api", "api:2", What::Completed));
}

#[test]
fn without_a_url_and_without_a_load_balancer_the_rollout_must_be_completed() {
    let slow = Settings { stopping: Duration::from_secs(3), ..Settings::fast() };
    let ecs = ecs_with(slow, [service("api").running(OLD).without_load_balancer()]);
    gehen_yml_without_urls(&ecs, "", &["api"]).deploy(NEW).exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), WRITES);
    assert_eq!(ecs.runs("api"), NEW);
    assert!(happened(&ecs, "api", "api:2", What::Completed));
}

#[test]
fn without_a_url_and_with_half_of_the_tasks_healthy_the_rollout_must_be_completed() {
    let slow = Duration::from_secs(3);
    let ecs = ecs([service("api").running(OLD).minimum_healthy_percent(50).deregistration_delay(slow)]);
    gehen_yml_without_urls(&ecs, "", &["api"]).deploy(NEW).exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), WRITES);
    assert_eq!(ecs.runs("api"), NEW);
    assert!(happened(&ecs, "api", "api:2", What::Completed));
}

#[test]
fn a_service_behind_a_classic_load_balancer_shows_no_rollout_state_and_is_deployed_all_the_same() {
    let ecs = ecs([service("api").running(OLD).classic_load_balancer()]);
    let described = ecs.view(|view| view.described("api"));
    assert!(described["deployments"][0].get("rolloutState").is_none());
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), WRITES);
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn behind_a_classic_load_balancer_and_without_a_url_the_counts_decide() {
    let ecs = ecs([service("api").running(OLD).classic_load_balancer().minimum_healthy_percent(50)]);
    gehen_yml_without_urls(&ecs, "", &["api"]).deploy(NEW).exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), WRITES);
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_short_version_is_proven_by_a_header_with_the_full_one() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, answers(&format!("api-{NEW_IN_FULL}"), ""));
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).says(&format!("the url shows {NEW_IN_FULL}")).ends("api", &format!("DEPLOYED {NEW} "));
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_full_version_is_proven_by_a_header_with_a_short_one() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW_IN_FULL, answers(&format!("api-{NEW}"), ""));
    gehen_yml(&ecs, "", &["api"]).deploy(NEW_IN_FULL).exits(0).ends("api", &format!("DEPLOYED {NEW_IN_FULL}"));
    assert_eq!(ecs.runs("api"), NEW_IN_FULL);
}

#[test]
fn a_header_in_upper_case_proves_the_version() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, answers(&format!("api-{}", NEW.to_uppercase()), ""));
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_body_that_is_the_version_proves_it_where_the_header_does_not() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, answers("nginx", &format!("{NEW}\n")));
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_body_that_never_ends_is_not_waited_for_once_the_header_names_the_version() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::Trickles);
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_redirect_is_followed_to_the_version() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::Redirects);
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), WRITES);
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn deploying_the_version_that_runs_registers_nothing_and_starts_its_tasks_anew() {
    let ecs = ecs([service("api").running(NEW)]);
    let before = ecs.view(|view| view.deployment_of("api"));
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0)
        .says("no new revision is needed")
        .says("so the url can't tell them apart")
        .ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), ["UpdateService api -> api:1"]);
    assert_eq!(ecs.runs("api"), NEW);
    assert_ne!(ecs.view(|view| view.deployment_of("api")), before);
}

#[test]
fn a_version_deployed_twice_is_registered_once() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    gehen.deploy(NEW).exits(0);
    gehen.deploy(NEW).exits(0).says("so the url can't tell them apart").ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(
        ecs.writes(),
        ["RegisterTaskDefinition api", "UpdateService api -> api:2", "UpdateService api -> api:2"]
    );
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_service_that_is_to_run_no_task_has_nothing_to_prove() {
    let ecs = ecs([service("api").running(OLD).desired(0)]);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).says("the desired count is 0").ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), WRITES);
    assert_eq!(ecs.task_definition_of("api"), "api:2");
    assert_eq!(ecs.runs("api"), "");
}

#[test]
fn reads_that_lag_behind_the_update_are_waited_out() {
    let lagging = Settings { stale_reads: Duration::from_secs(3), ..Settings::fast() };
    let ecs = ecs_with(lagging, [service("api").running(OLD)]);
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), WRITES);
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn reads_that_lag_behind_the_update_prove_nothing_without_a_url() {
    let lagging = Settings { stale_reads: Duration::from_secs(3), ..Settings::fast() };
    let ecs = ecs_with(lagging, [service("api").running(OLD)]);
    gehen_yml_without_urls(&ecs, "", &["api"]).deploy(NEW).exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), WRITES);
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_hostile_header_can_neither_move_the_cursor_nor_command_the_ci_system() {
    let ecs = ecs([service("api").running(OLD)]);
    let hostile = format!("::error::gotcha \u{9b}2J\u{202e}\u{2028}::error::{}", "é".repeat(5000));
    ecs.version(NEW, answers(&hostile, "\n::error::gotcha\n"));
    let run = gehen_yml(&ecs, SHORT, &["api"]).deploy(NEW);
    run.exits(1).says("shows no version (Server: ").says("gotcha");
    for line in run.stderr.lines() {
        assert!(!line.trim_start().starts_with("::"), "{line}");
        assert!(!line.contains(|character: char| character.is_control() || "\u{202e}\u{2028}".contains(character)));
        assert!(line.chars().count() < 3000, "{line}");
    }
    assert_eq!(ecs.runs("api"), OLD);
}

//! Deploys while ECS stumbles: requests are throttled, lost or refused, and answers are lost or old.

use std::time::Duration;

use local_ecs::{Answer, Fault, Limits, LocalEcs, Settings, What, service};

use crate::support::{Gehen, NEW, OLD, bodies, ecs, ecs_with, gehen_yml, gehen_yml_without_urls};

/// Asserts that exactly one deployment was made, that it took exactly one update, and that it is what runs.
#[track_caller]
fn assert_deployed_once(ecs: &LocalEcs, story: &str) {
    let updates: Vec<_> = ecs.writes().into_iter().filter(|write| write.starts_with("UpdateService")).collect();
    assert_eq!(updates.len(), 1, "{story}: {:?}", ecs.writes());
    assert_eq!(deployments(ecs, "api"), 1, "{story}");
    assert_eq!(ecs.runs("api"), NEW, "{story}");
}

/// How many deployments of a service were made since the story began.
fn deployments(ecs: &LocalEcs, service: &str) -> usize {
    ecs.moments(service).iter().filter(|moment| moment.what == What::UpdateRequested).count()
}

/// Deploys once for each fault, all of them side by side, and asserts that each deploy ends well.
#[track_caller]
fn survives(gehen: impl Fn(&LocalEcs) -> Gehen, faults: impl IntoIterator<Item = Fault>) {
    let runs = faults.into_iter().map(|fault| {
        let story = format!("{fault:?}");
        let ecs = ecs([service("api").running(OLD)]);
        ecs.fault(fault);
        let gehen = gehen(&ecs);
        let running = gehen.start(&["-gitsha", NEW]);
        (story, ecs, gehen, running)
    });
    for (story, ecs, _gehen, running) in runs.collect::<Vec<_>>() {
        let run = running.wait();
        assert_eq!(run.status.code(), Some(0), "{story}:\n{}", run.stderr);
        assert!(ecs.requests().iter().any(|request| request.answer != Answer::Ok), "{story}: the fault never struck");
        assert_deployed_once(&ecs, &story);
    }
}

/// All that can go wrong with the requests of one operation without being final.
fn stumbles(operation: &str) -> [Fault; 4] {
    let fault = || Fault::on(operation);
    [fault().throttled().times(3), fault().reset_before(), fault().reset_after(), fault().server_error()]
}

fn with_url(ecs: &LocalEcs) -> Gehen {
    gehen_yml(ecs, "", &["api"])
}

fn without_url(ecs: &LocalEcs) -> Gehen {
    gehen_yml_without_urls(ecs, "", &["api"])
}

#[test]
fn describing_the_service_may_stumble() {
    survives(with_url, stumbles("DescribeServices"));
}

#[test]
fn describing_the_service_may_stumble_before_the_first_write() {
    survives(with_url, stumbles("DescribeServices").map(|fault| fault.after(1)));
}

#[test]
fn describing_the_service_may_stumble_while_it_is_watched() {
    survives(without_url, stumbles("DescribeServices").map(|fault| fault.after(3)));
}

#[test]
fn describing_the_task_definition_may_stumble() {
    survives(with_url, stumbles("DescribeTaskDefinition"));
}

#[test]
fn registering_may_stumble() {
    survives(with_url, stumbles("RegisterTaskDefinition"));
}

#[test]
fn updating_may_stumble_where_there_is_a_url() {
    survives(with_url, stumbles("UpdateService"));
}

#[test]
fn updating_may_stumble_where_there_is_no_url() {
    survives(without_url, stumbles("UpdateService"));
}

#[test]
fn listing_tasks_may_stumble() {
    survives(without_url, stumbles("ListTasks"));
}

#[test]
fn describing_tasks_may_stumble() {
    survives(without_url, stumbles("DescribeTasks"));
}

#[test]
fn all_of_ecs_may_be_away_for_a_while() {
    let away = || Fault::on_any().for_the_next(Duration::from_secs(3));
    survives(
        without_url,
        [
            away().server_error(),
            away().reset_before(),
            away().throttled(),
            away().server_error().after(5),
            away().throttled().after(5),
        ],
    );
}

#[test]
fn an_update_that_hangs_is_not_sent_twice() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("UpdateService").slow(Duration::from_secs(12)));
    let run = with_url(&ecs).deploy(NEW);
    run.exits(0);
    let updates = bodies(&ecs, "UpdateService").len();
    assert_eq!((updates, ecs.runs("api").as_str()), (1, NEW), "{}", run.stderr);
    assert_deployed_once(&ecs, "a slow update");
}

#[test]
fn a_lost_answer_and_reads_from_before_make_no_second_deployment() {
    let settings = Settings { stale_reads: Duration::from_secs(4), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD)]);
    ecs.fault(Fault::on("UpdateService").reset_after());
    with_url(&ecs).deploy(NEW).exits(0).says("looking whether it happened");
    assert_eq!(bodies(&ecs, "UpdateService").len(), 1);
    assert_deployed_once(&ecs, "a lost answer and stale reads");
}

#[test]
fn a_lost_registration_leaves_an_equal_revision_behind_and_the_answered_one_is_deployed() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("RegisterTaskDefinition").reset_after());
    with_url(&ecs).deploy(NEW).exits(0);
    assert_eq!(
        ecs.writes(),
        ["RegisterTaskDefinition api", "RegisterTaskDefinition api", "UpdateService api -> api:3"]
    );
    let sent = bodies(&ecs, "RegisterTaskDefinition");
    assert_eq!(sent[0], sent[1]);
}

#[test]
fn reads_from_before_the_update_are_waited_out() {
    for gehen in [with_url, without_url] {
        let settings = Settings { stale_reads: Duration::from_secs(2), ..Settings::fast() };
        let ecs = ecs_with(settings, [service("api").running(OLD)]);
        let run = gehen(&ecs).deploy(NEW);
        run.exits(0).says("api: DEPLOYED ae30000 as api:2 in ");
        assert_deployed_once(&ecs, &run.stderr);
    }
}

#[test]
fn a_busy_account_only_takes_longer() {
    let settings = Settings { limits: Some(Limits { used_by_others: 0.9 }), ..Settings::fast() };
    let names = ["a", "b", "c", "d"];
    let ecs = ecs_with(settings, names.map(|name| service(name).running(OLD)));
    gehen_yml(&ecs, "", &names).deploy(NEW).exits(0);
    assert!(ecs.requests().iter().any(|request| request.answer != Answer::Ok), "nothing was throttled");
    for name in names {
        assert_eq!(ecs.runs(name), NEW, "{name}");
    }
}

#[test]
fn a_look_that_is_denied_ends_the_run_before_anything_is_changed() {
    for operation in ["DescribeServices", "DescribeTaskDefinition"] {
        let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
        ecs.fault(Fault::on(operation).denied().always());
        let run = gehen_yml(&ecs, "", &["api", "web"]).deploy(NEW);
        run.exits(1);
        assert!(ecs.writes().is_empty(), "{operation}: {:?}", ecs.writes());
        let denial = |name: &str| {
            let lines: Vec<_> = run.stderr.lines().collect();
            let error = format!("error: service `{name}`: {operation}: AccessDeniedException: ");
            let hint = format!("hint: the role needs ecs:{operation}");
            lines.windows(2).any(|pair| pair[0].starts_with(&error) && pair[1] == hint)
        };
        assert!(denial("api") && denial("web"), "{}", run.stderr);
        run.says_line("nothing has been changed");
        assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 2, "{}", run.stderr);
    }
}

#[test]
fn a_registration_that_is_denied_ends_the_run_before_anything_is_changed() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    ecs.fault(Fault::on("RegisterTaskDefinition").denied().always());
    let run = gehen_yml(&ecs, "", &["api", "web"]).deploy(NEW);
    run.exits(1).says("api: NOT UPDATED after ").says("web: NOT TOUCHED: ");
    run.says("RegisterTaskDefinition: AccessDeniedException: ").says("the role needs ecs:RegisterTaskDefinition");
    assert!(ecs.writes().is_empty(), "{:?}", ecs.writes());
    assert_eq!((ecs.runs("api").as_str(), ecs.runs("web").as_str()), (OLD, OLD));
}

#[test]
fn an_update_that_is_denied_leaves_every_service_as_it_was() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    ecs.fault(Fault::on("UpdateService").denied().always());
    let run = gehen_yml(&ecs, "", &["api", "web"]).deploy(NEW);
    run.exits(1).says("api: NOT UPDATED after ").says("web: NOT TOUCHED: ").says("the role needs ecs:UpdateService");
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api"]);
    assert_eq!((ecs.task_definition_of("api").as_str(), ecs.runs("api").as_str()), ("api:1", OLD));
    assert_eq!((deployments(&ecs, "api"), deployments(&ecs, "web")), (0, 0));
}

#[test]
fn listing_tasks_is_not_needed_where_there_is_a_url() {
    let ecs = ecs([service("api").running(OLD)]);
    for operation in ["ListTasks", "DescribeTasks"] {
        ecs.fault(Fault::on(operation).denied().always());
    }
    with_url(&ecs).deploy(NEW).exits(0);
    assert_deployed_once(&ecs, "without permission to look at tasks");
}

#[test]
fn without_permission_to_look_at_tasks_a_service_without_a_url_says_what_is_missing() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("ListTasks").denied().always());
    let run = gehen_yml_without_urls(&ecs, "timeoutMinutes: 0.1", &["api"]).deploy(NEW);
    run.exits(1).says("ecs:ListTasks");
}

#[test]
fn without_credentials_the_run_ends_at_once() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = with_url(&ecs).with("AWS_ACCESS_KEY_ID", "").with("AWS_SECRET_ACCESS_KEY", "").deploy(NEW);
    run.exits(1)
        .says_line("hint: gehen finds credentials where the aws CLI does: check with `aws sts get-caller-identity`");
    run.says_line("nothing has been changed");
    assert!(run.took < Duration::from_secs(20), "it took {:?}", run.took);
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn a_permission_that_is_taken_away_in_mid_deploy_is_waited_for() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = with_url(&ecs);
    let running = gehen.start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    for operation in ["DescribeServices", "ListTasks", "DescribeTasks"] {
        ecs.fault(Fault::on(operation).denied().for_the_next(Duration::from_secs(6)));
    }
    let run = running.wait();
    run.exits(0).says("ECS could not be asked (DescribeServices: AccessDeniedException").never_says("rolling back");
    assert_deployed_once(&ecs, "denied in mid-deploy");
}

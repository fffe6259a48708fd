//! Versions whose tasks fail: noticed in seconds and told with ECS's reason, while what is no failure is waited out.
//!
//! `timeoutMinutes` stays at its five minutes wherever gehen is to notice by itself: nothing else would end the wait.

use std::time::{Duration, Instant};

use local_ecs::{Behaviour, Fault, LocalEcs, ServiceBuilder, Settings, StopCode, View, What, service};
use serde_json::{Value, json};

use crate::support::{
    Gehen, LONG, NEW, OLD, Run, SHORT, ecs, ecs_with, gehen_yml, gehen_yml_without_urls, moments, tries, updates,
};

/// What a deploy that is undone writes after registering.
const THERE_AND_BACK: [&str; 2] = ["UpdateService api -> api:2", "UpdateService api -> api:1"];
/// A version whose container exits with 7.
const CRASHES: Behaviour = Behaviour::CrashesOnStart { exit_code: 7 };

fn with_url(ecs: &LocalEcs) -> Gehen {
    gehen_yml(ecs, "", &["api"])
}

fn without_url(ecs: &LocalEcs) -> Gehen {
    gehen_yml_without_urls(ecs, "", &["api"])
}

/// A version that fails, and how it is to be noticed.
#[derive(Clone)]
struct Failing {
    settings: Settings,
    service: ServiceBuilder,
    behaviour: Behaviour,
    gehen: fn(&LocalEcs) -> Gehen,
}

/// One for each desired count, of a service that is made and deployed like this.
fn failing(
    settings: &Settings,
    desired: impl IntoIterator<Item = u32>,
    behaviour: &Behaviour,
    shape: fn(ServiceBuilder) -> ServiceBuilder,
    gehen: fn(&LocalEcs) -> Gehen,
) -> Vec<Failing> {
    let one = |desired| Failing {
        settings: settings.clone(),
        service: shape(service("api").running(OLD).desired(desired)),
        behaviour: behaviour.clone(),
        gehen,
    };
    desired.into_iter().map(one).collect()
}

/// As it is made.
fn plain(service: ServiceBuilder) -> ServiceBuilder {
    service
}

/// The longest from the moment at which ECS knows of a failure until the rollback is requested.
const SOON: Duration = Duration::from_secs(3);

/// Deploys each of these, side by side; asserts that each rollback was requested within three seconds of the moment at
/// which ECS knew of the `nth` failure, not before it, and that the service went back. Gives the runs, by the best of
/// several [`tries`].
#[track_caller]
fn noticed_at(nth: usize, failing: Vec<Failing>) -> Vec<Run> {
    let (mut todo, mut told, mut runs) = (failing, Vec::new(), Vec::new());
    for () in tries() {
        let (ended, late) = told_together(nth, todo);
        runs.extend(ended);
        (todo, told) = late.into_iter().unzip();
        if todo.is_empty() {
            break;
        }
    }
    assert!(told.is_empty(), "too late each time:\n{}", told.join("\n"));
    runs
}

/// Deploys each of these, side by side, and asserts all that [`noticed_at`] does but how soon. Gives the runs that
/// noticed in time, and the others to be tried again, with what they told.
#[track_caller]
fn told_together(nth: usize, failing: Vec<Failing>) -> (Vec<Run>, Vec<(Failing, String)>) {
    let runs = failing.into_iter().map(|failing| {
        let Failing { settings, service, behaviour, gehen } = failing.clone();
        let story = format!("{service:?} {behaviour:?} exits_count: {}", settings.exits_count);
        let ecs = ecs_with(settings, [service]);
        ecs.version(NEW, behaviour);
        let gehen = gehen(&ecs);
        let running = gehen.start(&["-gitsha", NEW]);
        (failing, story, ecs, gehen, running)
    });
    let (mut ended, mut late) = (Vec::new(), Vec::new());
    for (failing, story, ecs, _gehen, running) in runs.collect::<Vec<_>>() {
        let run = running.wait();
        let story = format!("{story}:\n{}", run.stderr);
        assert_eq!(run.status.code(), Some(1), "{story}");
        assert_eq!(updates(&ecs), THERE_AND_BACK, "{story}");
        let failures = moments(&ecs, "api", "api:2", What::TaskFailed);
        let known = *failures.get(nth - 1).unwrap_or_else(|| panic!("{} failures only, {story}", failures.len()));
        let requested = rollback_of(&ecs);
        assert!(requested > known, "{:?} too early, {story}", known - requested);
        run.ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
        assert_eq!(ecs.runs("api"), OLD, "{story}");
        let delay = requested - known;
        if delay <= SOON {
            ended.push(run);
        } else {
            late.push((failing, format!("noticed after {delay:?}, {story}")));
        }
    }
    (ended, late)
}

/// When the service was asked to go back.
#[track_caller]
fn rollback_of(ecs: &LocalEcs) -> Instant {
    let requests = ecs.requests();
    let mut updates = requests.iter().filter(|request| request.operation == "UpdateService");
    updates.nth(1).expect("a rollback was requested").at
}

/// The ARNs of the tasks of api:2 that RUN and are to.
fn running(view: &View<'_>) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tasks = view.tasks("api").into_iter();
    let runs =
        tasks.filter(|task| (&*text(&task["lastStatus"]), &*text(&task["desiredStatus"])) == ("RUNNING", "RUNNING"));
    runs.filter(|task| text(&task["taskDefinitionArn"]).ends_with("/api:2"))
        .map(|task| text(&task["taskArn"]))
        .collect()
}

/// How many tasks of a task definition have failed.
fn failures(view: &View<'_>, task_definition: &str) -> usize {
    let moments = view.moments("api").into_iter();
    moments.filter(|moment| moment.task_definition == task_definition && moment.what == What::TaskFailed).count()
}

fn stop_task(ecs: &LocalEcs, arn: &str) {
    ecs.call("us-east-1", "StopTask", json!({"cluster": "staging", "task": arn})).expect("the task can be stopped");
}

fn scale(ecs: &LocalEcs, desired: u32) {
    let update = json!({"cluster": "staging", "service": "api", "desiredCount": desired});
    ecs.call("us-east-1", "UpdateService", update).expect("the service can be scaled");
}

#[test]
fn a_missing_image_ends_the_deploy_at_the_first_task() {
    // Another task is not tried for an hour.
    let hour = Duration::from_hours(1);
    let rare = Settings { failure_spacing: hour, longest_spacing: hour, ..Settings::fast() };
    let missing = Behaviour::ImageMissing;
    let mut all = failing(&rare, [1, 10], &missing, plain, with_url);
    all.extend(failing(&rare, [1, 2], &missing, ServiceBuilder::without_load_balancer, without_url));
    all.extend(failing(&rare, [1], &missing, ServiceBuilder::classic_load_balancer, without_url));
    for run in noticed_at(1, all) {
        let end = run.end_of("api");
        assert!(end.contains("the image of a new task can't be found; "), "{end}");
        assert!(end.contains("CannotPullContainerError: ") && end.contains(": not found"), "{end}");
    }
}

#[test]
fn tasks_that_crash_at_once_end_the_deploy_at_the_third() {
    let mut all = Vec::new();
    for exits_count in [true, false] {
        let settings = Settings { exits_count, ..Settings::fast() };
        all.extend(failing(&settings, [1, 2], &CRASHES, plain, with_url));
        all.extend(failing(&settings, [4], &CRASHES, ServiceBuilder::without_load_balancer, without_url));
    }
    for run in noticed_at(3, all) {
        let end = run.end_of("api");
        assert!(end.contains(" new tasks failed one after another; "), "{end}");
        assert!(end.contains("Essential container in task exited; container `api` exited with 7"), "{end}");
        assert!(end.contains("; ECS's newest events: (service api) "), "{end}");
    }
}

#[test]
fn tasks_that_run_for_seconds_before_they_crash_end_the_deploy_at_the_third() {
    let second = Duration::from_secs(1);
    let mut all = Vec::new();
    for exits_count in [true, false] {
        let settings =
            Settings { crashes_after: 2 * second, healthy_after: 4 * second, exits_count, ..Settings::fast() };
        all.extend(failing(&settings, [1, 2], &CRASHES, plain, with_url));
        all.extend(failing(&settings, [4], &CRASHES, ServiceBuilder::without_load_balancer, without_url));
    }
    noticed_at(3, all);
}

#[test]
fn tasks_that_crash_by_turns_end_the_deploy_at_the_third() {
    let second = Duration::from_secs(1);
    let mut all = Vec::new();
    for exits_count in [true, false] {
        let settings = Settings {
            stagger: 3 * second,
            crashes_after: 2 * second,
            healthy_after: 4 * second,
            exits_count,
            ..Settings::fast()
        };
        all.extend(failing(&settings, [4], &CRASHES, plain, without_url));
        all.extend(failing(&settings, [10], &CRASHES, ServiceBuilder::without_load_balancer, without_url));
    }
    noticed_at(3, all);
}

#[test]
fn ten_tasks_that_seemed_to_run_and_then_crash_end_the_deploy_at_the_third() {
    let settings = Settings { stagger: Duration::from_millis(800), exits_count: false, ..Settings::fast() };
    let settings = Settings { healthy_after: Duration::from_secs(8), ..settings };
    let crashes = Behaviour::CrashesAfter(Duration::from_secs(6));
    let all = failing(&settings, [10], &crashes, ServiceBuilder::without_load_balancer, without_url);
    let runs = noticed_at(3, all);
    runs[0].says("deploy check passed");
}

#[test]
fn tasks_that_fail_health_checks_or_cannot_start_end_the_deploy_at_the_third() {
    let second = Duration::from_secs(1);
    let slow = Settings { unhealthy_after: second / 2, healthy_after: second, ..Settings::fast() };
    let spaced = Settings { failure_spacing: second / 2, longest_spacing: 60 * second, ..Settings::fast() };
    let balancer = Behaviour::FailsLoadBalancerHealthCheck;
    let mut all = failing(&slow, [1], &balancer, plain, with_url);
    all.extend(failing(&slow, [2], &balancer, plain, without_url));
    all.extend(failing(&slow, [10], &balancer, ServiceBuilder::without_health_check, without_url));
    for run in noticed_at(3, all) {
        run.says("a new task stopped: Task failed ELB health checks in (target-group ");
    }
    let container = Behaviour::FailsContainerHealthCheck;
    let mut all = failing(&slow, [2], &container, ServiceBuilder::without_load_balancer, without_url);
    all.extend(failing(&slow, [1], &container, plain, with_url));
    for run in noticed_at(3, all) {
        run.says("a new task stopped: Task failed container health checks");
    }
    // The fourth comes only more than four seconds after the third.
    for run in noticed_at(3, failing(&spaced, [1], &Behaviour::ResourceInitialization, plain, with_url)) {
        run.says("a new task stopped: ResourceInitializationError: unable to pull secrets");
    }
}

#[test]
fn a_few_tasks_that_fail_before_the_others_run_do_not_end_the_deploy() {
    for (desired, tasks) in [(1, 2), (4, 1), (10, 2)] {
        for exits_count in [true, false] {
            let settings = Settings { exits_count, ..Settings::fast() };
            let ecs = ecs_with(settings, [service("api").running(OLD).desired(desired)]);
            ecs.version(NEW, Behaviour::FailsFirst { tasks });
            let run = without_url(&ecs).deploy(NEW);
            run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
            assert_eq!(moments(&ecs, "api", "api:2", What::TaskFailed).len(), tasks as usize);
            assert_eq!((updates(&ecs), ecs.runs("api")), (vec![THERE_AND_BACK[0].into()], NEW.into()));
        }
    }
}

/// Breaks a version once ten of its tasks are healthy, and gives how long after the fifth failure the rollback was
/// requested.
#[track_caller]
fn rollback_after_the_fifth() -> Duration {
    let settings = Settings { exits_count: false, crashes_after: Duration::from_millis(400), ..Settings::fast() };
    let settings = Settings { healthy_after: Duration::from_secs(1), ..settings };
    let ecs = ecs_with(settings, [service("api").running(OLD).desired(10)]);
    ecs.protect_tasks("api");
    let deploy = with_url(&ecs).start(&["-gitsha", NEW]).until_it_says("10 of 10 tasks run api:2");
    let is_healthy = |task: &Value| task["healthStatus"] == "HEALTHY";
    assert!(ecs.wait_until(LONG, |view| view.tasks("api").iter().filter(|task| is_healthy(task)).count() == 20));
    ecs.version(NEW, CRASHES);
    stop_task(&ecs, &ecs.view(running)[0]);
    let run = deploy.wait();
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    let known = moments(&ecs, "api", "api:2", What::TaskFailed)[4];
    let delay = rollback_of(&ecs).checked_duration_since(known);
    delay.expect("four failures of ten tasks are not enough")
}

#[test]
fn once_a_task_is_healthy_only_as_many_failures_as_trip_the_circuit_breaker_end_the_deploy() {
    let is_in_time = tries().any(|()| rollback_after_the_fifth() <= SOON);
    assert!(is_in_time, "too late after the fifth failure each time");
}

#[test]
fn tasks_that_are_stopped_from_outside_are_no_failures() {
    use StopCode::{InfrastructureHealth, SpotInterruption, TerminationNotice, UserInitiated};
    for gehen in [with_url, without_url] {
        let settings = Settings { healthy_after: Duration::from_secs(1), ..Settings::fast() };
        let ecs = ecs_with(settings, [service("api").running(OLD)]);
        let deploy = gehen(&ecs).start(&["-gitsha", NEW]).until_it_says("updated to api:2");
        let mut gone = Vec::new();
        for code in [UserInitiated, SpotInterruption, TerminationNotice, InfrastructureHealth, UserInitiated] {
            let others = |view: &View<'_>| running(view).into_iter().filter(|task| !gone.contains(task)).count();
            assert!(ecs.wait_until(LONG, |view| others(view) == 2));
            gone.extend(ecs.view(running));
            ecs.interrupt_tasks("api", code);
        }
        let run = deploy.wait();
        run.exits(0).never_says("failed").ends("api", &format!("DEPLOYED {NEW}"));
        assert_eq!((updates(&ecs), ecs.runs("api")), (vec![THERE_AND_BACK[0].into()], NEW.into()));
    }
}

#[test]
fn tasks_that_autoscaling_takes_away_are_no_failures() {
    let settings = Settings { healthy_after: Duration::from_secs(6), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).desired(2)]);
    let deploy = with_url(&ecs).start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    for desired in [6, 2, 5, 1, 3] {
        scale(&ecs, desired);
        assert!(ecs.wait_until(LONG, |view| running(view).len() == desired as usize), "{desired}");
    }
    let run = deploy.wait();
    run.exits(0).never_says("failed").says("now run 3 tasks of api:2").ends("api", &format!("DEPLOYED {NEW}"));
}

#[test]
fn the_failing_tasks_of_the_version_before_say_nothing_about_the_new_one() {
    let settings = Settings { healthy_after: Duration::from_secs(2), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD)]);
    ecs.version(OLD, Behaviour::CrashesAfter(Duration::from_millis(200)));
    ecs.interrupt_tasks("api", StopCode::InfrastructureHealth);
    assert!(ecs.wait_until(LONG, |view| failures(view, "api:1") >= 3));
    let run = without_url(&ecs).deploy(NEW);
    run.exits(0).never_says("a new task stopped").ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn trouble_with_placing_tasks_is_told_as_it_happens_and_waited_out() {
    for behaviour in [Behaviour::NoCapacity, Behaviour::NeverStarts] {
        let ecs = ecs([service("api").running(OLD)]);
        ecs.version(NEW, behaviour);
        let deploy =
            with_url(&ecs).start(&["-gitsha", NEW]).until_it_says("ECS says: (service api) was unable to place a task");
        assert_eq!(updates(&ecs), [THERE_AND_BACK[0]]);
        let are_placed = |view: &View<'_>| !view.tasks("api").iter().any(|task| task["lastStatus"] == "PROVISIONING");
        assert!(ecs.wait_until(LONG, are_placed));
        ecs.version(NEW, Behaviour::Healthy);
        let pending = ecs.view(|view| view.tasks("api")).into_iter().filter(|task| task["lastStatus"] == "PENDING");
        pending.filter_map(|task| task["taskArn"].as_str().map(str::to_owned)).for_each(|task| stop_task(&ecs, &task));
        let run = deploy.wait();
        run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
        let told = run.stderr.matches("was unable to place a task").count();
        assert_eq!(told, 1, "{}", run.stderr);
    }
}

#[test]
fn trouble_with_placing_tasks_fails_only_with_the_deadline() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::NoCapacity);
    let run = gehen_yml_without_urls(&ecs, SHORT, &["api"]).deploy(NEW);
    run.exits(1).says("the new tasks were not all seen to run and be healthy within 6 s");
    let updated = moments(&ecs, "api", "api:2", What::UpdateRequested)[0];
    assert!(rollback_of(&ecs) - updated >= Duration::from_secs(6));
    let end = run.end_of("api");
    assert!(end.contains("ECS's newest events: (service api) was unable to place a task"), "{end}");
}

#[test]
fn a_stumbling_api_delays_the_news_of_failures_no_longer_than_it_stumbles() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, CRASHES);
    ecs.fault(Fault::on("ListTasks").throttled().times(2));
    ecs.fault(Fault::on("DescribeTasks").server_error().times(2));
    let run = with_url(&ecs).deploy(NEW);
    run.exits(1).says("ECS could not be asked for the tasks").ends("api", "ROLLED BACK to api:1");
    let known = moments(&ecs, "api", "api:2", What::TaskFailed)[2];
    assert!(rollback_of(&ecs) - known < Duration::from_secs(30));
}

#[test]
fn a_rollback_whose_tasks_fail_is_given_up_in_seconds_too() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, CRASHES);
    ecs.version(OLD, Behaviour::ImageMissing);
    let run = with_url(&ecs).deploy(NEW);
    run.exits(1).ends("api", "FAILED after ");
    let end = run.end_of("api");
    assert!(end.contains(&format!("AND THE ROLLBACK to api:1 ({OLD}) FAILED TOO: ")), "{end}");
    assert!(end.contains("the image of a new task can't be found"), "{end}");
    assert!(end.contains("to go back by hand: "), "{end}");
    assert!(run.took < LONG, "{:?}", run.took);
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE_AND_BACK.map(String::from).to_vec(), OLD.into()));
}

#[test]
fn a_version_whose_tasks_crash_once_they_were_live_goes_back() {
    // Each task passes its health checks, is live for a while, and crashes: the old one is held back for the drain
    // check.
    let ecs = ecs([service("api").running(OLD)]);
    ecs.protect_tasks("api");
    ecs.version(NEW, Behaviour::CrashesAfter(Duration::from_secs(5)));
    let run = with_url(&ecs).deploy(NEW);
    run.exits(1)
        .says("deploy check passed")
        .says("the new version did not stay live until the old one was gone: ")
        .ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE_AND_BACK.map(String::from).to_vec(), OLD.into()));
}

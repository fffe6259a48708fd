//! Runs that are cancelled, as CI systems and people cancel them.

use std::time::{Duration, Instant};

use local_ecs::{Answer, Behaviour, Fault, Limits, LocalEcs, Settings, service};

use crate::support::{
    Gehen, LONG, NEW, OLD, Running, colleague_registers, ecs, ecs_with, gehen_yml, gehen_yml_without_urls, kill, tries,
    updates,
};

/// Starts a deploy of a version that never gets live, and waits until the update has been answered.
fn in_mid_deploy(ecs: &LocalEcs, gehen: &Gehen) -> Running {
    ecs.version(NEW, Behaviour::NeverStarts);
    gehen.start(&["-gitsha", NEW]).until_it_says("updated to api:2")
}

/// Cancels a deploy by this signal, and gives how long after it the rollback was requested.
fn rollback_on(signal: &str) -> Duration {
    let ecs = ecs([service("api").running(OLD)]);
    let running = in_mid_deploy(&ecs, &gehen_yml(&ecs, "", &["api"]));
    let since = Instant::now();
    kill(signal, running.child.id());
    let run = running.wait();
    run.exits(1).says(&format!("api: error: cancelled by SIG{signal}"));
    run.ends("api", "ROLLBACK REQUESTED").says(&format!("api: why: the run was cancelled by SIG{signal}"));
    assert_eq!(ecs.writes()[1..], ["UpdateService api -> api:2", "UpdateService api -> api:1"]);
    assert!(ecs.wait_until(LONG, |view| view.is_steady("api") && view.runs("api") == OLD));
    let requests = ecs.requests();
    let rollback = requests.iter().rfind(|request| request.operation == "UpdateService").expect("a rollback");
    rollback.at - since
}

#[test]
fn every_signal_that_ends_a_run_has_the_rollback_requested_at_once() {
    for signal in ["INT", "TERM", "HUP"] {
        let is_in_time = tries().any(|()| rollback_on(signal) < Duration::from_secs(2));
        assert!(is_in_time, "SIG{signal}: never requested within two seconds");
    }
}

#[test]
fn services_that_were_proven_before_go_back_too() {
    let ecs = ecs([
        service("web").running(OLD),
        service("api").running(OLD).cluster("other"),
        service("worker").running(OLD),
    ]);
    let gehen = gehen_yml(&ecs, "", &["web", "api", "worker"]);
    ecs.fault(Fault::on("UpdateService").about("api").slow(Duration::from_millis(1)));
    let running = gehen.start(&["-gitsha", NEW]).until_it_says("api: updated to api:2");
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1).ends("web", "ROLLBACK REQUESTED").ends("api", "ROLLBACK REQUESTED").ends("worker", "NOT TOUCHED");
    assert_eq!(ecs.writes()[4..], ["UpdateService api -> api:1", "UpdateService web -> web:1"]);
}

#[test]
fn an_update_whose_answer_is_awaited_is_found_and_undone() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("UpdateService").slow(Duration::from_secs(5)));
    let running = gehen_yml(&ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says("registered api:2");
    assert!(ecs.wait_until(LONG, |view| view.arrived("UpdateService") > 0));
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1).ends("api", "ROLLBACK REQUESTED");
    assert_eq!(updates(&ecs), ["UpdateService api -> api:2", "UpdateService api -> api:1"], "{}", run.stderr);
    assert!(ecs.wait_until(LONG, |view| view.is_steady("api") && view.runs("api") == OLD));
}

#[test]
fn before_the_first_write_a_signal_just_ends_the_run() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("DescribeTaskDefinition").slow(Duration::from_secs(5)).always());
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let running = gehen.start(&["-gitsha", NEW]);
    assert!(ecs.wait_until(LONG, |view| view.arrived("DescribeTaskDefinition") > 0));
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1).says("error: cancelled by SIGTERM; nothing has been changed\n");
    assert!(ecs.writes().is_empty());
}

#[test]
fn during_a_rollback_a_signal_skips_the_proof() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::NeverStarts);
    let running = gehen_yml(&ecs, "timeoutMinutes: 0.05", &["api"])
        .start(&["-gitsha", NEW])
        .until_it_says("rolling back to api:1");
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1).ends("api", "ROLLBACK REQUESTED").says("did not show ae30000 within 3 s");
    assert_eq!(ecs.writes()[1..], ["UpdateService api -> api:2", "UpdateService api -> api:1"]);
}

#[test]
fn further_signals_change_nothing() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("UpdateService").after(1).slow(Duration::from_secs(1)));
    let running = in_mid_deploy(&ecs, &gehen_yml(&ecs, "", &["api"]));
    for signal in ["INT", "INT", "TERM", "HUP", "TERM"] {
        kill(signal, running.child.id());
        std::thread::sleep(Duration::from_millis(50));
    }
    running.wait().exits(1).ends("api", "ROLLBACK REQUESTED");
    assert_eq!(ecs.writes()[1..], ["UpdateService api -> api:2", "UpdateService api -> api:1"]);
}

#[test]
fn a_hangup_that_was_ignored_from_the_start_stays_ignored() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let running =
        gehen.start_by("trap '' HUP; exec \"$0\" \"$@\"", &["-gitsha", NEW]).until_it_says("updated to api:2");
    kill("HUP", running.child.id());
    running.wait().exits(0).ends("api", "DEPLOYED");
}

#[cfg(target_os = "linux")]
#[test]
fn under_ci_the_death_of_the_shell_that_started_it_cancels_the_run() {
    let settings = Settings { pulling: 2 * LONG, ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]).with("CI", "true");
    let running = gehen.start_by("\"$0\" \"$@\"; exit $?", &["-gitsha", NEW]).until_it_says("updated to api:2");
    kill("KILL", running.child.id());
    let back = |view: &local_ecs::View<'_>| view.task_definition_of("api") == "api:1";
    assert!(ecs.wait_until(LONG, back), "{:?}", ecs.writes());
}

/// Cancels a run that has updated `count` services, while the API's published limits hold, and gives for each rollback
/// how long after the signal the request came that ECS took.
fn rollbacks_of(count: usize) -> Vec<Duration> {
    // Services of no tasks are proven at once, and what is registered already needs no turn to be registered, so that
    // many can be updated in a short time.
    let names: Vec<_> = (1..count).map(|number| format!("idle-{number}")).chain(["api".to_owned()]).collect();
    let ecs = ecs([]);
    ecs.create(service("api").running(OLD));
    for name in &names[..count - 1] {
        ecs.create(service(name).running(OLD).desired(0));
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for name in &names {
        colleague_registers(&ecs, name, NEW);
    }
    let gehen = gehen_yml_without_urls(&ecs, "updateStrategy: latest", &names);
    let running = in_mid_deploy(&ecs, &gehen);
    ecs.settings_mut(|settings| settings.limits = Some(Limits { used_by_others: 0.0 }));
    let since = Instant::now();
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1);
    for name in names {
        run.ends(name, "ROLLBACK REQUESTED");
        assert_eq!(ecs.task_definition_of(name), format!("{name}:1"));
    }
    let requests = ecs.requests().into_iter().filter(|request| request.operation == "UpdateService");
    let taken = requests.filter(|request| request.answer == Answer::Ok);
    taken.filter(|request| request.at > since).map(|request| request.at - since).collect()
}

/// Asserts that the rollbacks of `count` services come in time, by the best of several [`tries`].
#[track_caller]
fn rollbacks_come_in_time(count: usize, is_in_time: impl Fn(&[Duration]) -> bool) {
    let mut late = Vec::new();
    for () in tries() {
        let delays = rollbacks_of(count);
        assert_eq!(delays.len(), count);
        if is_in_time(&delays) {
            return;
        }
        late.push(delays);
    }
    panic!("too late: {late:?}");
}

#[test]
fn the_rollbacks_of_fifty_services_are_requested_within_two_seconds() {
    rollbacks_come_in_time(50, |delays| delays.iter().all(|delay| *delay < Duration::from_secs(2)));
}

#[test]
fn rollbacks_beyond_the_burst_are_requested_as_fast_as_the_bucket_allows() {
    // The bucket of UpdateService holds 50 and gets 5 a second: the last 20 take 4 seconds at least.
    rollbacks_come_in_time(70, |delays| {
        let at_once = delays.iter().filter(|delay| **delay < Duration::from_secs(2)).count();
        at_once >= 50 && delays.iter().all(|delay| *delay < Duration::from_secs(8))
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_second_ctrl_c_at_a_terminal_ends_the_run_at_once() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::NeverStarts);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let (running, _terminal) = gehen.start_at_terminal(&["-gitsha", NEW]);
    let running = running.until_it_says("updated to api:2");
    // ECS can't be asked, so the rollback can't be requested either.
    ecs.fault(Fault::on_any().server_error().always());
    kill("INT", running.child.id());
    let running = running.until_it_says("cancelled by SIGINT");
    // What comes at once may be the same Ctrl-C, passed on by another process.
    kill("INT", running.child.id());
    std::thread::sleep(Duration::from_millis(600));
    let since = Instant::now();
    kill("INT", running.child.id());
    let run = running.wait();
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    run.exits(1).says("error: ended by a second Ctrl-C while services were going back");
    run.says(
        "api: warning: to be rolled back to api:1 as soon as ECS says what runs (DescribeServices: ServerException: ",
    );
    run.ends("api", "NOT KNOWN: before this run it ran api:1 (01d0000); see what it runs now");
}

#[test]
fn a_cancelled_run_says_at_once_what_it_waits_for() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::NeverStarts);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let running = gehen.start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    ecs.fault(Fault::on("DescribeServices").slow(Duration::from_secs(5)).for_the_next(Duration::from_secs(4)));
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1).ends("api", "ROLLBACK REQUESTED after ");
    run.says("api: warning: to be rolled back to api:1 as soon as ECS says what runs (it has not answered yet); trying again");
}

#[test]
fn nobody_need_listen_to_a_run_that_rolls_back() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    let status = gehen_yml(&ecs, "", &["api"]).run_unheard(&["-gitsha", NEW]);
    assert_eq!(status.code(), Some(1));
    assert_eq!(updates(&ecs), ["UpdateService api -> api:2", "UpdateService api -> api:1"]);
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
#[cfg(target_os = "linux")]
fn a_run_in_which_every_signal_is_ignored_deploys() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let run = gehen.start_by(r#"trap "" INT TERM HUP; exec "$0" "$@""#, &["-gitsha", NEW]).wait();
    run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
}

//! The key `parallel`: several services at a time, which fail together.

use std::time::{Duration, Instant};

use local_ecs::{Answer, Behaviour, Fault, Limits, LocalEcs, Request, Settings, What, service};

use crate::support::{
    LONG, NEW, OLD, THEIRS, bodies, colleague_deploys, colleague_registers, ecs, ecs_with, gehen_yml, kill, moments,
    tries, updates,
};

/// When this first happened to the deployment of `name`:2.
fn at(ecs: &LocalEcs, name: &str, what: What) -> Instant {
    moments(ecs, name, &format!("{name}:2"), what)[0]
}

/// A rollout that takes some seconds.
fn slow() -> Settings {
    Settings { healthy_after: Duration::from_secs(6), ..Settings::fast() }
}

#[test]
fn as_many_services_as_asked_for_are_deployed_at_a_time_and_start_in_their_order() {
    let names = ["d", "c", "b", "a"];
    let ecs = ecs_with(slow(), names.map(|name| service(name).running(OLD)));
    let run = gehen_yml(&ecs, "parallel: 2", &names).deploy(NEW);
    run.exits(0);
    let requests = ecs.requests();
    let updated: Vec<_> = requests.iter().filter(|request| request.operation == "UpdateService").collect();
    let order: Vec<_> = updated.iter().map(|request| request.body["service"].as_str().expect("a name")).collect();
    let (mut first, mut second) = (order[..2].to_vec(), order[2..].to_vec());
    first.sort_unstable();
    second.sort_unstable();
    assert_eq!((first, second), (vec!["c", "d"], vec!["a", "b"]));
    let begun: Vec<_> = updated.iter().map(|request| request.at).collect();
    let done = order[..2].iter().map(|name| at(&ecs, name, What::OldUnreachable)).min().expect("there are two");
    assert!(begun[1] < done, "the first two go side by side");
    assert!(begun[2] > done, "the third waits for one of them");
    let ends: Vec<_> = run.stderr.lines().filter(|line| line.contains(": DEPLOYED ")).collect();
    assert!(ends.iter().zip(names).all(|(end, name)| end.starts_with(name)), "the last lines keep the file's order");
}

#[test]
fn one_at_a_time_is_what_happens_unasked() {
    let ecs = ecs_with(slow(), [service("api").running(OLD), service("web").running(OLD)]);
    gehen_yml(&ecs, "", &["api", "web"]).deploy(NEW).exits(0);
    assert!(at(&ecs, "api", What::OldUnreachable) < at(&ecs, "web", What::UpdateRequested));
    assert_eq!(updates(&ecs), ["UpdateService api -> api:2", "UpdateService web -> web:2"]);
}

#[test]
fn the_first_failure_ends_what_is_under_way_and_takes_all_back_together() {
    // Three are updated, and one of them fails while the others have yet to become healthy.
    let settings = Settings {
        healthy_after: Duration::from_secs(15),
        unhealthy_after: Duration::from_secs(3),
        ..Settings::fast()
    };
    let good = |name| service(name).running(OLD).without_health_check();
    let ecs = ecs_with(settings, [good("api"), service("web").running(OLD), good("worker"), good("mail")]);
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    let run = gehen_yml(&ecs, "parallel: 3", &["api", "web", "worker", "mail"]).deploy(NEW);
    run.exits(1).ends("mail", "NOT TOUCHED").says(", because service `web` failed\n");
    let mut back = Vec::new();
    for name in ["api", "web", "worker"] {
        run.ends(name, &format!("ROLLED BACK to {name}:1 ({OLD})"));
        let is_told = run.end_of(name).ends_with("why: service `web` failed");
        assert_eq!(is_told, name != "web", "{}", run.end_of(name));
        assert_eq!((ecs.runs(name), ecs.task_definition_of(name)), (OLD.into(), format!("{name}:1")));
        back.extend(moments(&ecs, name, &format!("{name}:1"), What::UpdateRequested).last().copied());
    }
    back.sort();
    assert!(back.len() == 3 && back[2] - back[0] < Duration::from_secs(10), "all go back at once: {back:?}");
    assert!(!ecs.writes().iter().any(|write| write.contains("mail")), "no further service is begun");
    assert!(run.took < Duration::from_mins(2), "{:?}", run.took);
}

#[test]
fn services_that_were_proven_before_the_failure_go_back_too() {
    let settings = Settings { unhealthy_after: Duration::from_secs(10), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("web").running(OLD).without_health_check(), service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    let run = gehen_yml(&ecs, "parallel: 2", &["web", "api"]).deploy(NEW);
    run.exits(1).says("web: deployed in ").ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    run.ends("web", &format!("ROLLED BACK to web:1 ({OLD})"));
    assert_eq!((ecs.runs("api").as_str(), ecs.task_definition_of("web").as_str()), (OLD, "web:1"));
}

#[test]
fn somebody_elses_deployment_stops_new_starts_and_nothing_else() {
    let names = ["api", "web", "worker"];
    let ecs = ecs_with(slow(), names.map(|name| service(name).running(OLD)));
    let gehen = gehen_yml(&ecs, "parallel: 2", &names);
    let running = gehen.start(&["-gitsha", NEW]);
    assert!(ecs.wait_until(LONG, |view| {
        view.task_definition_of("api") == "api:2" && view.task_definition_of("web") == "web:2"
    }));
    colleague_deploys(&ecs, "web");
    let run = running.wait();
    run.exits(1).ends("web", "LEFT ALONE after ").ends("worker", "NOT TOUCHED").ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!((ecs.runs("api"), ecs.task_definition_of("worker")), (NEW.into(), "worker:1".into()));
    assert!(ecs.wait_until(LONG, |view| view.runs("web") == THEIRS));
}

#[test]
fn a_signal_takes_all_that_are_under_way_back() {
    let names = ["api", "web", "worker", "mail"];
    // None of them is done before the signal comes.
    let settings = Settings { healthy_after: 2 * LONG, ..Settings::fast() };
    let ecs = ecs_with(settings, names.map(|name| service(name).running(OLD)));
    let gehen = gehen_yml(&ecs, "parallel: 3", &names);
    let running = gehen.start(&["-gitsha", NEW]);
    assert!(
        ecs.wait_until(LONG, |view| { view.writes().iter().filter(|write| write.starts_with("Update")).count() == 3 })
    );
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1).ends("mail", "NOT TOUCHED");
    for name in ["api", "web", "worker"] {
        run.ends(name, "ROLLBACK REQUESTED after ");
        assert_eq!(ecs.task_definition_of(name), format!("{name}:1"));
    }
}

#[test]
fn services_that_wait_for_their_registration_lose_no_time_for_it() {
    // Of the bucket of RegisterTaskDefinition others leave 2, and 0.1 a second: the last waits for more than a minute.
    let settings = Settings { limits: Some(Limits { used_by_others: 0.9 }), ..Settings::fast() };
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let ecs = ecs_with(settings, names.map(|name| service(name).running(OLD)));
    let run = gehen_yml(&ecs, "parallel: 9", &names).deploy(NEW);
    run.exits(0);
    assert!(run.took > Duration::from_mins(1), "{:?}", run.took);
}

/// The most reads that came in any second.
fn most_reads_in_a_second(requests: &[Request]) -> usize {
    let reads: Vec<_> = requests.iter().filter(|request| request.operation != "UpdateService").collect();
    let in_second = |first: &&Request| {
        let second = first.at..first.at + Duration::from_secs(1);
        reads.iter().filter(|request| second.contains(&request.at)).count()
    };
    reads.iter().map(in_second).max().unwrap_or_default()
}

/// Deploys 40 services at once while others use half of the limits. Gives how many answers said that the rate was
/// exceeded, and the most reads that came in a second.
fn forty_at_once() -> (usize, usize) {
    let names: Vec<_> = (1..=40).map(|number| format!("api-{number}")).collect();
    let limits = Some(Limits { used_by_others: 0.5 });
    let settings = Settings { limits, pulling: Duration::from_secs(3), ..Settings::fast() };
    let ecs = ecs_with(settings, names.iter().map(|name| service(name).running(OLD)));
    for name in &names {
        colleague_registers(&ecs, name, NEW);
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let run = gehen_yml(&ecs, "parallel: 40\nupdateStrategy: latest", &names).deploy(NEW);
    run.exits(0);
    let looks = bodies(&ecs, "DescribeServices");
    assert!(looks.iter().any(|body| body["services"].as_array().is_some_and(|services| services.len() == 10)));
    let requests = ecs.requests();
    let throttled = requests.iter().filter(|request| request.answer != Answer::Ok).count();
    (throttled, most_reads_in_a_second(&requests))
}

#[test]
fn many_services_at_once_share_their_looks_and_keep_to_half_of_the_limits() {
    let mut too_many = Vec::new();
    for () in tries() {
        // On a busy machine a read may be on its way until the second of later ones, and a write until less is left.
        match forty_at_once() {
            (0, ..=10) => return,
            told => too_many.push(told),
        }
    }
    panic!("throttled answers, and reads in a second: {too_many:?}");
}

#[test]
fn a_service_that_may_not_be_looked_at_keeps_nobody_else_from_being_looked_at() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD), service("worker").running(OLD)]);
    ecs.fault(Fault::on("DescribeServices").denied().about("web").always());
    let run = gehen_yml(&ecs, "", &["api", "web", "worker"]).deploy(NEW);
    run.exits(1).says("error: service `web`: DescribeServices: AccessDeniedException");
    run.never_says("error: service `api`").never_says("error: service `worker`");
    assert!(ecs.writes().is_empty());
}

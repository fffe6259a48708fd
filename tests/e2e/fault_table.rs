//! A table of faults: two services are deployed under each pair of an operation that gehen calls and a way in which it
//! can go wrong, and each deploy must end as it would have ended without.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    sync::Mutex,
    time::{Duration, Instant},
};

use local_ecs::{Answer, Behaviour, Fault, LocalEcs, Request, Settings, service};
use serde_json::json;

use crate::support::{LONG, NEW, OLD, Run, ecs_with, gehen_yml};

/// Longer than gehen waits for the answer of one request.
const PAST_THE_ATTEMPT: Duration = Duration::from_secs(11);
/// `timeoutMinutes` of a minute: every fault has ended long before.
const A_MINUTE: &str = "timeoutMinutes: 1";
/// No deploy under a fault takes longer.
const LONGEST: Duration = Duration::from_mins(3);
/// How many deploys run at the same time; they mostly wait.
const AT_ONCE: usize = 16;

/// The ways in which a request can go wrong without being refused. Each ends by itself.
pub fn faults(operation: &str) -> [(&'static str, Fault); 5] {
    let fault = || Fault::on(operation);
    [
        ("throttled", fault().throttled().times(2)),
        ("500", fault().server_error().times(2)),
        ("reset before the answer", fault().reset_before().times(2)),
        ("reset after the write happened", fault().reset_after()),
        ("slow past the attempt timeout", fault().slow(PAST_THE_ATTEMPT)),
    ]
}

/// What becomes of the deploy of `api` and then `web`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    /// Both versions are good. The fault strikes from the beginning.
    Good,
    /// As before, but the fault strikes only once `api` is being checked.
    GoodLate,
    /// That of `web` crashes, and both go back. The fault strikes from the beginning.
    Bad,
    /// As before, but the fault strikes only once `web` has failed.
    BadLate,
}

/// An ECS in whose deploys every operation of gehen is called. What `api` runs has not completed its last deployment,
/// so that the history of its service deployments is asked; its images come through a pull-through cache. `web` is
/// deployed blue/green.
fn stage(story: Story) -> LocalEcs {
    let settings = Settings { alarm_bake: Duration::from_secs(3), ..Settings::fast() };
    let ecs = ecs_with(
        settings,
        [
            service("api").running(OLD).in_ecr("us-east-1", "cache/api").alarms(false).without_health_check(),
            service("web").running(OLD).blue_green(1),
        ],
    );
    ecs.pull_through_cache("123456789012", "us-east-1", "cache");
    if !story.is_good() {
        // api has no container health check to fail.
        ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    }
    let again = json!({"cluster": "staging", "service": "api", "forceNewDeployment": true});
    ecs.call("us-east-1", "UpdateService", again).expect("api can be deployed anew");
    let is_baking = ecs.wait_until(LONG, |view| {
        view.described("api")["deployments"].as_array().is_some_and(|deployments| deployments.len() == 1)
    });
    assert!(is_baking, "the deployment of what api runs goes on until its alarms have been watched");
    ecs
}

impl Story {
    fn is_good(self) -> bool {
        matches!(self, Self::Good | Self::GoodLate)
    }

    /// The line after which the fault strikes; none if it does from the beginning.
    fn strikes_after(self) -> Option<&'static str> {
        match self {
            Self::Good | Self::Bad => None,
            Self::GoodLate => Some("api: deploy check: "),
            Self::BadLate => Some("web: error: failed after "),
        }
    }

    /// What must be written, whatever else is registered or asked for twice.
    fn writes(self) -> BTreeMap<String, usize> {
        let forth = ["UpdateService api -> api:2", "UpdateService web -> web:2"];
        let back = ["UpdateService api -> api:1", "StopServiceDeployment web"];
        let back = if self.is_good() { &[][..] } else { &back };
        forth.iter().chain(back).map(|write| ((*write).to_owned(), 1)).collect()
    }
}

/// Tells the story under `fault`; gives the run, the ECS, and when the fault could strike.
fn tell(story: Story, fault: Option<&Fault>) -> (Run, LocalEcs, Instant) {
    let ecs = stage(story);
    let gehen = gehen_yml(&ecs, A_MINUTE, &["api", "web"]);
    let mut since = Instant::now();
    let mut strike = || {
        since = Instant::now();
        if let Some(fault) = fault {
            ecs.fault(fault.clone());
        }
    };
    let run = if let Some(line) = story.strikes_after() {
        let running = gehen.start(&["-gitsha", NEW]).until_it_says(line);
        strike();
        running.wait()
    } else {
        strike();
        gehen.deploy(NEW)
    };
    (run, ecs, since)
}

/// What is wrong with how a story ended, if anything is.
fn mistakes(story: Story, run: &Run, ecs: &LocalEcs) -> Vec<String> {
    let mut found = Vec::new();
    let mut expect = |what: &str, holds: bool| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    let (code, version) = if story.is_good() { (0, NEW) } else { (1, OLD) };
    expect("the exit code is not true to the outcome", run.status.code() == Some(code));
    for name in ["api", "web"] {
        // After a rollback that is proven, tasks of the other version may still run for a moment.
        let ends = ecs.wait_until(LONG, |view| view.runs(name) == version);
        expect("a service is left on another version", ends);
        let end = run.end_of(name);
        let told = if story.is_good() { "DEPLOYED" } else { "ROLLED BACK" };
        expect("the last lines don't tell the outcome", end.starts_with(told));
    }
    let mut written = BTreeMap::new();
    for write in ecs.writes().into_iter().filter(|write| !write.starts_with("Register")) {
        // A registration whose answer is lost leaves a revision behind, and the next one is deployed. ECS takes the
        // request to stop a deployment as often as it comes.
        let count = written.entry(write.replace(":3", ":2")).or_insert(0);
        *count = if write.starts_with("Stop") { 1 } else { *count + 1 };
    }
    expect("something else was written, or something twice", written == story.writes());
    expect("it took too long", run.took < LONGEST);
    found
}

#[test]
fn every_deploy_ends_as_it_would_without_the_fault() {
    let stories = [Story::Good, Story::GoodLate, Story::Bad, Story::BadLate];
    let mut called = BTreeSet::new();
    for story in [Story::Good, Story::Bad] {
        let (run, ecs, _) = tell(story, None);
        let wrong = mistakes(story, &run, &ecs);
        assert!(wrong.is_empty(), "{story:?} without a fault: {wrong:?}\n{:?}\n{}", ecs.writes(), run.stderr);
        called.extend(ecs.requests().into_iter().map(|request| request.operation));
    }
    let pairs = || called.iter().flat_map(|operation| faults(operation).map(|(name, _)| (operation.as_str(), name)));
    let todo = Mutex::new(pairs().flat_map(|pair| stories.map(|story| (pair, story))).collect::<Vec<_>>());
    let struck = Mutex::new(BTreeSet::new());
    let wrong = Mutex::new(Vec::new());
    let next = || todo.lock().expect("no thread panics while it holds the lock").pop();
    let tell_under = |(operation, name), story| {
        let fault = faults(operation).into_iter().find(|(known, _)| *known == name).map(|(_, fault)| fault);
        let (run, ecs, since) = tell(story, fault.as_ref());
        // A slow answer is one that nobody waited for; the first request after the fault was set gets it.
        let has_struck = |request: &Request| {
            request.operation == operation
                && request.at >= since
                && (request.answer != Answer::Ok || name == "slow past the attempt timeout")
        };
        if ecs.requests().iter().any(has_struck) {
            struck.lock().expect("as above").insert((operation, name));
        }
        let found = mistakes(story, &run, &ecs);
        if !found.is_empty() {
            let found = found.join("; ");
            let told = format!("{operation}, {name}, {story:?}: {found}\n{:?}\n{}", ecs.writes(), run.stderr);
            wrong.lock().expect("as above").push(told);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((pair, story)) = next() {
                    tell_under(pair, story);
                }
            });
        }
    });
    // On a machine that is slow for a moment, what is to be asked for once may be over before it is asked for.
    for _ in 0..3 {
        let missed: Vec<_> = pairs().filter(|pair| !struck.lock().expect("as above").contains(pair)).collect();
        for pair in missed {
            tell_under(pair, Story::Good);
        }
    }
    let (struck, wrong) = (struck.into_inner().expect("no panic"), wrong.into_inner().expect("no panic"));
    let missed: Vec<_> = pairs().filter(|pair| !struck.contains(pair)).collect();
    // Past libtest, which keeps what print! writes in a test that passes.
    let told = format!("{} pairs of {} operations and {} faults\n", pairs().count(), called.len(), faults("").len());
    std::io::stdout().write_all(told.as_bytes()).expect("stdout takes a line");
    assert_eq!(pairs().count(), 60, "the README says so: {called:?}");
    assert!(missed.is_empty(), "these never struck: {missed:?}");
    assert!(wrong.is_empty(), "{} deploys ended wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

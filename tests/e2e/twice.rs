//! Two runs against one service at the same time: one version wins, and nobody undoes what the other did.

use std::time::Duration;

use local_ecs::{Behaviour, Fault, LocalEcs, Settings, View, service};

use crate::support::{
    Gehen, LONG, NEW, OLD, Run, Running, colleague_deploys, ecs, ecs_with, gehen_yml, gehen_yml_without_urls,
};

/// The version that the other run deploys.
const OTHER: &str = "07be400";
/// A version that won't do.
const BAD: &str = "bad0000";
/// `timeoutMinutes` of a minute: enough for a version that is good.
const ENOUGH: &str = "timeoutMinutes: 1";
/// How long after the first run the second starts.
const DELAYS: [u64; 7] = [0, 20, 60, 120, 200, 350, 600];

/// How a story prepares its ECS, how long after the first run the second starts, and the two of them.
struct Pair {
    story: String,
    ecs: LocalEcs,
    versions: [&'static str; 2],
    _gehen: Gehen,
    runs: [Running; 2],
}

/// Starts both runs, of good versions. There is no room for the tasks of either before [`Pair::make_room`].
fn start_held(story: &str, ecs: LocalEcs, gehen: Gehen, delay: u64) -> Pair {
    for version in [NEW, OTHER] {
        ecs.version(version, Behaviour::NoCapacity);
    }
    start(story, ecs, gehen, [NEW, OTHER], delay)
}

/// Starts both runs.
fn start(story: &str, ecs: LocalEcs, gehen: Gehen, versions: [&'static str; 2], delay: u64) -> Pair {
    let first = gehen.start(&["-gitsha", versions[0]]);
    std::thread::sleep(Duration::from_millis(delay));
    let second = gehen.start(&["-gitsha", versions[1]]);
    Pair { story: format!("{story}, {delay} ms apart"), ecs, versions, _gehen: gehen, runs: [first, second] }
}

/// What has come of both: the runs and the version that runs in the end.
struct Ended {
    story: String,
    ecs: LocalEcs,
    versions: [&'static str; 2],
    runs: [Run; 2],
    in_the_end: String,
}

impl Pair {
    /// Lets the good versions get live once both have updated the service, or one has ended without: so neither can be
    /// done before the other begins, however slow this machine is.
    fn make_room(mut self) -> Self {
        let updates = |view: &View<'_>| view.writes().iter().filter(|write| write.starts_with("UpdateService")).count();
        let runs = std::cell::RefCell::new(&mut self.runs);
        let have_written = |view: &View<'_>| {
            let has_ended = |run: &mut Running| run.child.try_wait().is_ok_and(|status| status.is_some());
            updates(view) == 2 || runs.borrow_mut().iter_mut().any(has_ended)
        };
        assert!(self.ecs.wait_until(LONG, have_written), "{}: nobody writes", self.story);
        for version in self.versions.into_iter().filter(|version| *version != BAD) {
            self.ecs.version(version, Behaviour::Healthy);
        }
        self
    }

    fn wait(self) -> Ended {
        let Self { story, ecs, versions, runs, .. } = self;
        let runs = runs.map(Running::wait);
        assert!(ecs.wait_until(LONG, |view| view.is_steady("api")), "{story}: never steady");
        let in_the_end = ecs.runs("api");
        Ended { story, ecs, versions, runs, in_the_end }
    }
}

impl Ended {
    /// What was printed and written, for the message of an assertion.
    fn told(&self) -> String {
        let [first, second] = &self.runs;
        format!(
            "{}: {} runs in the end, after {:?}\n{}:\n{}\n{}:\n{}",
            self.story,
            self.in_the_end,
            self.ecs.writes(),
            self.versions[0],
            first.stderr,
            self.versions[1],
            second.stderr
        )
    }

    /// Asserts that one of the two good versions runs, that its run says so, that the other says that it lost, and that
    /// nothing was put back.
    #[track_caller]
    fn has_one_winner(&self) {
        let told = self.told();
        let winner = self.versions.iter().position(|version| *version == self.in_the_end);
        let winner = winner.unwrap_or_else(|| panic!("neither runs: {told}"));
        let [won, lost] = if winner == 0 { [0, 1] } else { [1, 0] }.map(|index| &self.runs[index]);
        assert_eq!((won.status.code(), lost.status.code()), (Some(0), Some(1)), "{told}");
        assert!(won.end_of("api").starts_with(&format!("DEPLOYED {}", self.in_the_end)), "{told}");
        let end = lost.end_of("api");
        assert!(end.starts_with("LEFT ALONE") && end.contains("somebody else deployed api:"), "{told}");
        assert_eq!(end.lines().count(), 1, "{told}");
        for run in &self.runs {
            assert!(!run.stderr.contains("rolling back"), "{told}");
        }
        assert!(!self.ecs.writes().contains(&"UpdateService api -> api:1".to_owned()), "{told}");
    }

    /// Asserts that a version that won't do never stays, that what ran before or the good version runs, and that the
    /// good run's exit code is true.
    #[track_caller]
    fn ends_well(&self, good: usize) {
        let told = self.told();
        let [good_run, bad_run] = [&self.runs[good], &self.runs[1 - good]];
        assert_eq!(bad_run.status.code(), Some(1), "{told}");
        // A good version that the bad one displaced is returned to only if it had completed its deployment by then.
        let is_good = self.in_the_end == self.versions[good];
        assert!(is_good || (!good_run.status.success() && self.in_the_end == OLD), "{told}");
        assert!(matches!(good_run.status.code(), Some(0 | 1)), "{told}");
        for run in &self.runs {
            assert!(!run.stderr.contains("FAILED TOO"), "{told}");
        }
    }
}

fn with_url(ecs: &LocalEcs) -> Gehen {
    gehen_yml(ecs, ENOUGH, &["api"])
}

fn without_url(ecs: &LocalEcs) -> Gehen {
    gehen_yml_without_urls(ecs, ENOUGH, &["api"])
}

/// The faults that bring two runs in step: each looks before either writes, or writes before either looks.
fn in_step() -> [(&'static str, Option<Fault>); 5] {
    let slow = |operation: &str| Some(Fault::on(operation).slow(Duration::from_millis(800)).always());
    [
        ("undisturbed", None),
        ("slow updates", slow("UpdateService")),
        ("slow looks", slow("DescribeServices")),
        ("slow registrations", slow("RegisterTaskDefinition")),
        // The fourth look of both together: the first of them to look right before its update.
        ("one slow look", Some(Fault::on("DescribeServices").after(4).slow(Duration::from_millis(1500)))),
    ]
}

/// Two good versions, with every delay, some pairs side by side.
#[track_caller]
fn one_of_two_good_versions_wins(what: usize) {
    let stories = [with_url, without_url].into_iter().flat_map(|gehen| DELAYS.chunks(4).map(move |some| (gehen, some)));
    for (gehen, some) in stories {
        let pairs = some.iter().map(|delay| {
            let ecs = ecs([service("api").running(OLD)]);
            let (story, fault) = in_step()[what].clone();
            if let Some(fault) = fault {
                ecs.fault(fault);
            }
            let gehen = gehen(&ecs);
            start_held(story, ecs, gehen, *delay)
        });
        let pairs: Vec<_> = pairs.collect();
        for pair in pairs.into_iter().map(Pair::make_room).collect::<Vec<_>>() {
            pair.wait().has_one_winner();
        }
    }
}

#[test]
fn of_two_good_versions_one_wins_and_the_other_is_not_undone() {
    one_of_two_good_versions_wins(0);
}

#[test]
fn of_two_good_versions_one_wins_where_updates_are_slow() {
    one_of_two_good_versions_wins(1);
}

#[test]
fn of_two_good_versions_one_wins_where_looks_are_slow() {
    one_of_two_good_versions_wins(2);
}

#[test]
fn of_two_good_versions_one_wins_where_registrations_are_slow() {
    one_of_two_good_versions_wins(3);
}

#[test]
fn of_two_good_versions_one_wins_where_one_looks_long_before_it_writes() {
    one_of_two_good_versions_wins(4);
}

#[test]
fn of_two_good_versions_one_wins_where_reads_lag_or_answers_are_lost() {
    let lagging = Settings { stale_reads: Duration::from_secs(2), ..Settings::fast() };
    let update = || Fault::on("UpdateService");
    let stories = [
        ("lagging reads", lagging.clone(), None),
        ("lagging reads and slow updates", lagging, Some(update().slow(Duration::from_millis(500)).always())),
        ("a lost answer", Settings::fast(), Some(update().reset_after())),
        ("a lost update", Settings::fast(), Some(update().reset_before())),
        ("throttled updates", Settings::fast(), Some(update().throttled().times(3))),
        ("a late answer", Settings::fast(), Some(update().slow(Duration::from_secs(3)))),
    ];
    let pairs = stories.into_iter().flat_map(|(story, settings, fault)| {
        [0, 150].map(|delay| {
            let ecs = ecs_with(settings.clone(), [service("api").running(OLD)]);
            if let Some(fault) = fault.clone() {
                ecs.fault(fault);
            }
            let gehen = with_url(&ecs);
            start_held(story, ecs, gehen, delay)
        })
    });
    let pairs: Vec<_> = pairs.collect();
    for pair in pairs.into_iter().map(Pair::make_room).collect::<Vec<_>>() {
        pair.wait().has_one_winner();
    }
}

#[test]
fn behind_a_classic_load_balancer_one_of_two_good_versions_wins() {
    let pairs = DELAYS.map(|delay| {
        let ecs = ecs([service("api").running(OLD).classic_load_balancer()]);
        let gehen = with_url(&ecs);
        start_held("a Classic Load Balancer", ecs, gehen, delay)
    });
    for pair in pairs.map(Pair::make_room) {
        pair.wait().has_one_winner();
    }
}

/// A good and a bad version in either order, with several delays, side by side.
#[track_caller]
fn a_bad_version_never_stays(what: usize) {
    let pairs = [0, 150, 600].into_iter().flat_map(|delay| {
        [0, 1].map(|good| {
            let ecs = ecs([service("api").running(OLD)]);
            ecs.version(BAD, Behaviour::CrashesOnStart { exit_code: 1 });
            // A good run that is over before the bad one's update takes effect can't tell of it.
            ecs.version(NEW, Behaviour::NoCapacity);
            let (story, fault) = in_step()[what].clone();
            if let Some(fault) = fault {
                ecs.fault(fault);
            }
            let versions = if good == 0 { [NEW, BAD] } else { [BAD, NEW] };
            let gehen = with_url(&ecs);
            (good, start(story, ecs, gehen, versions, delay))
        })
    });
    let pairs: Vec<_> = pairs.collect();
    for (good, pair) in pairs.into_iter().map(|(good, pair)| (good, pair.make_room())).collect::<Vec<_>>() {
        pair.wait().ends_well(good);
    }
}

#[test]
fn of_a_good_and_a_bad_version_the_bad_one_never_stays() {
    a_bad_version_never_stays(0);
}

#[test]
fn of_a_good_and_a_bad_version_the_bad_one_never_stays_where_updates_are_slow() {
    a_bad_version_never_stays(1);
}

#[test]
fn of_a_good_and_a_bad_version_the_bad_one_never_stays_where_looks_are_slow() {
    a_bad_version_never_stays(2);
}

#[test]
fn of_two_bad_versions_neither_stays() {
    let pairs = [0, 100, 400].map(|delay| {
        let ecs = ecs([service("api").running(OLD)]);
        ecs.version(BAD, Behaviour::CrashesOnStart { exit_code: 1 });
        ecs.version(OTHER, Behaviour::CrashesOnStart { exit_code: 2 });
        let gehen = with_url(&ecs);
        start("two bad versions", ecs, gehen, [BAD, OTHER], delay)
    });
    for pair in pairs {
        let ended = pair.wait();
        let told = ended.told();
        assert_eq!(ended.in_the_end, OLD, "{told}");
        assert!(ended.runs.iter().all(|run| run.status.code() == Some(1)), "{told}");
    }
}

#[test]
fn the_same_version_twice_is_live_in_the_end() {
    let pairs = DELAYS.map(|delay| {
        let ecs = ecs([service("api").running(OLD)]);
        let gehen = with_url(&ecs);
        start("the same version", ecs, gehen, [NEW, NEW], delay)
    });
    for pair in pairs {
        let ended = pair.wait();
        let told = ended.told();
        assert_eq!(ended.in_the_end, NEW, "{told}");
        assert!(ended.runs.iter().any(|run| run.status.success()), "{told}");
        assert!(ended.runs.iter().all(|run| !run.stderr.contains("rolling back")), "{told}");
    }
}

#[test]
fn the_loser_says_whose_deployment_it_leaves_alone() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::NeverStarts);
    let gehen = with_url(&ecs);
    let first = gehen.start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    let second = gehen.start(&["-gitsha", OTHER]).until_it_says("updated to api:3");
    let theirs = ecs.view(|view| view.deployment_of("api"));
    let (first, second) = (first.wait(), second.wait());
    second
        .exits(0)
        .says("of api:2 is still in progress; this run replaces it")
        .ends("api", &format!("DEPLOYED {OTHER}"));
    first.exits(1).ends("api", "LEFT ALONE");
    first.says(&format!("Z api: error: somebody else deployed api:3 ({theirs}); leaving the service alone\n"));
    assert!(ecs.wait_until(LONG, |view: &View<'_>| view.is_steady("api")));
    assert_eq!(ecs.runs("api"), OTHER);
}

#[test]
fn a_deployment_that_begins_while_a_rollback_waits_for_its_turn_is_not_displaced() {
    let ecs = ecs([service("api").running(OLD).without_load_balancer(), service("web").running(OLD).cluster("other")]);
    ecs.version(NEW, Behaviour::FailsLoadBalancerHealthCheck);
    let gehen = gehen_yml_without_urls(&ecs, ENOUGH, &["api", "web"]);
    let running = gehen.start(&["-gitsha", NEW]).until_it_says("web: updated to web:2");
    // They are looked at one by one, since their clusters differ. The newest service goes back first, so api's rollback
    // waits for web's slow looks. Its own look after that is slow, too: what begins before it is answered is seen.
    ecs.fault(Fault::on("DescribeServices").about("web").slow(Duration::from_millis(800)).always());
    ecs.fault(Fault::on("DescribeServices").about("api").after(1).slow(Duration::from_secs(3)).always());
    let looks = |view: &View<'_>| {
        let looks = view.requests().iter().filter(|request| request.body["services"][0] == "api");
        looks.count()
    };
    let before = ecs.view(looks);
    assert!(ecs.wait_until(LONG, |view| looks(view) > before));
    colleague_deploys(&ecs, "api");
    let run = running.wait();
    run.exits(1).ends("api", "FAILED").says("left alone: somebody else deployed api:3 meanwhile");
    assert_eq!(ecs.task_definition_of("api"), "api:3", "{}", run.stderr);
    assert!(!ecs.writes().contains(&"UpdateService api -> api:1".to_owned()), "{:?}", ecs.writes());
}

//! Drain check: waits until the old version is unreachable and the tasks that run are the expected ones.

use std::{cell::Cell, ops::ControlFlow, time::Duration};

use reqwest::Url;
use tokio::time::Instant;

use super::{
    check::{Proof, ended},
    replaced::Replacement,
    standing::{Deployment, Standing, judge},
    watch::{Awaited, Watch},
};
use crate::{
    ecs::{Haste, Look, Meant, Rollout, SeenDeployment, Strategy, Task},
    git_sha::GitSha,
    outcome::Reason,
    ping::Answer,
    poll::{self, PACE},
    text::{duration, excerpt},
};

/// How a drain check ended.
#[derive(Debug)]
pub enum Drained {
    /// Only the new version can be reached; how that was seen.
    Complete(String),
    /// The time ran out while the new version is live; what remains of the old one.
    TimedOut(Reason),
    /// The new version did not stay live, and why.
    Failed(Reason),
    /// Another deployment took the place of ours.
    Replaced(Replacement),
}

/// Which tasks must be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Those of every other deployment.
    Every,
    /// Those of other task definitions: after a rollback, tasks that never left the previous version are welcome.
    OtherTaskDefinitions,
}

/// Waits, for as long as `patience`, until nothing but `ours` can be reached. To be called once the deploy check has
/// seen it live.
pub async fn drain(watch: &Watch<'_>, ours: &Deployment, proof: &Proof, old: Old, patience: Duration) -> Drained {
    let deadline = Instant::now() + patience;
    // Requests of a row are made one after another, with no others between them that could take their turns.
    let is_in_row = Cell::new(false);
    let by_ecs = poll::until(deadline, async || {
        let look = match watch.look().await {
            Ok(look) => look,
            Err(pause) => return ControlFlow::Continue(pause),
        };
        let primary = match watch.judge(&look) {
            Standing::NotShownYet => return ControlFlow::Continue(PACE),
            Standing::Failed(seen) => return ControlFlow::Break(Seen::Ended(seen.rollout_reason.clone())),
            Standing::Replaced(replacement) => return ControlFlow::Break(Seen::Replaced(replacement)),
            Standing::Primary(primary) => primary,
        };
        if let Some(why) = watch.failure(&look, matches!(proof, Proof::Url { .. })).await {
            return ControlFlow::Break(Seen::GivenUp(why));
        }
        watch.say_stage(&look).await;
        if !counts_agree(&look, ours.relieves_all, proof, old) {
            if let Some(why) = lacks_completed(&look, ours.relieves_all, proof, old) {
                watch.say_awaits_completed(why);
            }
            return ControlFlow::Continue(watch.pause(Awaited::End));
        }
        let (url, version) = match proof {
            Proof::Url { url, version } if primary.desired > 0 => (url, version),
            _ => return ControlFlow::Break(Seen::Gone("ECS runs no task of another deployment".to_owned())),
        };
        let (requests, since) = (requests_in_a_row(primary.desired), Instant::now());
        is_in_row.set(true);
        let is_alone = only_shows(watch, url, version, requests).await;
        is_in_row.set(false);
        // Where the url is slow, what ECS showed before the row is old.
        if is_alone && (since.elapsed() < PACE || still_agrees(watch, ours, proof, old).await) {
            return ControlFlow::Break(Seen::Gone(format!("{requests} requests in a row show only {version}")));
        }
        ControlFlow::Continue(watch.pause(Awaited::End))
    });
    // Asked all the while, so that at the end it is known how the version did while the old one drained.
    let by_url = poll::until(deadline, async || {
        let Proof::Url { url, .. } = proof else { return std::future::pending().await };
        if !is_in_row.get() {
            watch.ask(url).await;
        }
        ControlFlow::Continue(PACE)
    });
    let seen = tokio::select! {
        biased;
        seen = by_ecs => seen,
        seen = by_url => seen,
    };
    match seen {
        Some(Seen::Gone(how)) => Drained::Complete(how),
        Some(Seen::Ended(reason)) => Drained::Failed(ended(&reason, watch).await),
        Some(Seen::GivenUp(why)) => Drained::Failed(
            watch.explain(format!("the new version did not stay live until the old one was gone: {why}")).await,
        ),
        Some(Seen::Replaced(replacement)) => Drained::Replaced(replacement),
        None if is_still_live(watch, ours, proof).await => {
            Drained::TimedOut(watch.explain(remaining(watch, ours, proof, old).await).await)
        }
        None => {
            let within = duration(patience);
            let what = format!("the new version did not stay live until the old one was gone, in {within}");
            Drained::Failed(watch.explain(what).await)
        }
    }
}

/// What ended the wait before its time.
enum Seen {
    Gone(String),
    Ended(String),
    GivenUp(String),
    Replaced(Replacement),
}

/// Whether a new look says the same as one before it that agreed.
async fn still_agrees(watch: &Watch<'_>, ours: &Deployment, proof: &Proof, old: Old) -> bool {
    watch.look().await.is_ok_and(|look| {
        matches!(watch.judge(&look), Standing::Primary(_)) && counts_agree(&look, ours.relieves_all, proof, old)
    })
}

/// Whether ECS's counts say that only our deployment's tasks, those of the PRIMARY, can be reached.
///
/// While ECS counts failed tasks, those that run now may be on their way to crash (failedTasks falls back to 0 when one
/// runs, API_Deployment). Where the counts alone don't prove it, ECS must say COMPLETED, if it says at all how far it
/// is.
fn counts_agree(look: &Look, relieves_all: bool, proof: &Proof, old: Old) -> bool {
    let ours = &look.primary;
    let begun = ours.desired > 0 || look.desired == 0;
    begun
        && ours.running == ours.desired
        && ours.failed_tasks == 0
        && old_tasks(look, old) == 0
        && (needs_completed(look, relieves_all, proof).is_none()
            || matches!(ours.rollout, None | Some(Rollout::Completed)))
}

/// Why ECS's COMPLETED is needed beside its counts, if it is.
///
/// Behind a load balancer with a minimumHealthyPercent of at least 100, ECS takes an old task away only once a new one
/// is healthy, if all desired tasks ran before (`relieves_all`). With less, or with a DAEMON, it may stop old tasks
/// first, so RUNNING doesn't mean healthy (API_DeploymentConfiguration). Alarms and shifted traffic can end a
/// deployment as long as it isn't COMPLETED.
fn needs_completed(look: &Look, relieves_all: bool, proof: &Proof) -> Option<&'static str> {
    let by_url = matches!(proof, Proof::Url { .. });
    if look.desired == 0 && look.primary.desired == 0 {
        // No task runs that could be unhealthy, or reached.
        None
    } else if let Strategy::Shifting { .. } = look.strategy {
        Some("until then its traffic, or its bake time, isn't over")
    } else if look.has_alarms {
        Some("until then its alarms can end the deployment")
    } else if look.is_daemon {
        Some("it is a DAEMON service, whose old tasks stop before the new ones are healthy")
    } else if look.minimum_healthy_percent < 100 {
        Some("its minimumHealthyPercent is below 100, so tasks that run may not be healthy")
    } else if by_url || (look.load_balanced && relieves_all) {
        None
    } else {
        Some("nothing else tells whether tasks that run are healthy")
    }
}

/// Why ECS's COMPLETED is needed, where no old task is left and that is still to come.
fn lacks_completed(look: &Look, relieves_all: bool, proof: &Proof, old: Old) -> Option<&'static str> {
    let is_open = old_tasks(look, old) == 0 && look.primary.rollout == Some(Rollout::InProgress);
    needs_completed(look, relieves_all, proof).filter(|_| is_open)
}

/// How many tasks that must be gone run, or are about to.
fn old_tasks(look: &Look, old: Old) -> usize {
    let welcome = |other: &SeenDeployment| {
        old == Old::OtherTaskDefinitions && other.task_definition == look.primary.task_definition
    };
    look.others.iter().filter(|other| !welcome(other)).map(|other| other.running + other.pending).sum()
}

/// How many answers in a row must show the new version: each task of it twice on average, but at least 5, and at most
/// 20.
fn requests_in_a_row(desired: usize) -> usize {
    (2 * desired).clamp(5, 20)
}

/// Whether that many requests, back to back, all show `version`. Stops at the first that doesn't.
async fn only_shows(watch: &Watch<'_>, url: &Url, version: &GitSha, requests: usize) -> bool {
    for _ in 0..requests {
        if !watch.ask(url).await.shows(version) {
            return false;
        }
    }
    true
}

/// Whether the new version, which the deploy check saw live, still is, now that the time has run out: by the last look,
/// by the url's last answer, which gets a second and a third chance, and without a url by the health of its tasks.
async fn is_still_live(watch: &Watch<'_>, ours: &Deployment, proof: &Proof) -> bool {
    let (answer, healthy) = match proof {
        Proof::Url { url, .. } => match watch.last_answer() {
            Some(Answer::Failed(_)) => {
                let limit = watch.service.request_timeout();
                (Some(watch.clients.ping.get_patiently(url, &watch.service.header, limit).await), true)
            }
            answer => (answer, true),
        },
        Proof::Counts => {
            let tasks = watch.tasks().await.unwrap_or_default();
            (None, !tasks.iter().any(|task| task.is_of(&ours.id) && task.unhealthy))
        }
    };
    healthy && speaks_for_it(ours, watch.last_look().as_ref(), answer.as_ref())
}

/// Whether the last look and the last answer, if there were any, fit a version that is live and only waits for old ones
/// to go: some of its tasks run, none failed since, and the url names a version, be it the old one.
fn speaks_for_it(ours: &Deployment, look: Option<&Look>, answer: Option<&Answer>) -> bool {
    let looks_live = look.is_none_or(|look| match judge(ours, look) {
        Standing::NotShownYet => true,
        Standing::Primary(seen) => seen.running > 0 && seen.failed_tasks == 0,
        Standing::Failed(_) | Standing::Replaced(_) => false,
    });
    looks_live && matches!(answer, None | Some(Answer::Version(_)))
}

/// Whether `task` belongs to what is to be gone.
fn is_old(task: &Task, ours: &Deployment, old: Old) -> bool {
    !task.is_of(&ours.id) && (old == Old::Every || task.task_definition != ours.task_definition)
}

/// What there was to wait for at the end: old tasks that still run, or ECS's COMPLETED.
async fn remaining(watch: &Watch<'_>, ours: &Deployment, proof: &Proof, old: Old) -> String {
    if let Some(look) = watch.last_look()
        && let Some(why) = lacks_completed(&look, ours.relieves_all, proof, old)
    {
        return format!("ECS has not said COMPLETED ({why}); a higher timeoutMinutes waits longer");
    }
    let tasks = match watch.clients.ecs.tasks(watch.service, Meant::ToRun, Haste::Next).await {
        Ok(tasks) => tasks,
        Err(error) => return format!("the tasks that remain could not be listed: {}", excerpt(&error.to_string())),
    };
    let tasks = tasks.iter().filter(|task| is_old(task, ours, old));
    let tasks: Vec<_> =
        tasks.map(|task| format!("{} of {} ({})", task.id(), task.task_definition, task.status)).collect();
    if tasks.is_empty() {
        return match (proof, watch.last_answer()) {
            (Proof::Url { version, .. }, Some(answer @ Answer::Version(_))) if !answer.shows(version) => {
                format!("the url still {answer} at times, though ECS lists no old task: a target that it doesn't know?")
            }
            _ => "no old task was listed at the end".to_owned(),
        };
    }
    format!("old tasks remain: {}; task scale-in protection or a slow drain may be why", tasks.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{
        super::standing::tests::{look, ours, seen},
        *,
    };
    use Rollout::{Completed, InProgress};

    fn by_url() -> Proof {
        Proof::Url {
            url: Url::parse("https://example.com/").expect("a url"),
            version: "abcdef1".parse().expect("a Git SHA"),
        }
    }

    fn agree(look: &Look, proof: &Proof) -> bool {
        counts_agree(look, true, proof, Old::Every)
    }

    #[test]
    fn waits_while_an_old_task_runs_or_a_new_one_does_not() {
        for proof in [by_url(), Proof::Counts] {
            assert!(agree(&look(seen("2", 2, InProgress), vec![]), &proof));
            assert!(!agree(&look(seen("2", 1, InProgress), vec![]), &proof));
            assert!(!agree(&look(seen("2", 2, InProgress), vec![seen("1", 1, Completed)]), &proof));
            let pending = SeenDeployment { pending: 1, ..seen("1", 0, Completed) };
            assert!(!agree(&look(seen("2", 2, InProgress), vec![pending]), &proof));
        }
    }

    #[test]
    fn waits_while_tasks_keep_failing() {
        let failing = SeenDeployment { failed_tasks: 3, ..seen("2", 2, Completed) };
        assert!(!agree(&look(failing, vec![]), &by_url()));
    }

    #[test]
    fn does_not_wait_for_tasks_that_only_sit_out_their_delay() {
        assert!(agree(&look(seen("2", 2, InProgress), vec![seen("1", 0, Completed)]), &Proof::Counts));
    }

    #[test]
    fn needs_completed_where_running_does_not_mean_healthy() {
        let unbalanced = |rollout| Look { load_balanced: false, ..look(seen("2", 2, rollout), vec![]) };
        assert!(!agree(&unbalanced(InProgress), &Proof::Counts));
        assert!(agree(&unbalanced(Completed), &Proof::Counts));
        assert!(agree(&unbalanced(InProgress), &by_url()));
        let strict = |look: Look| assert!(!agree(&look, &by_url()) && !agree(&look, &Proof::Counts), "{look:?}");
        let rolling = || look(seen("2", 2, InProgress), vec![]);
        strict(Look { has_alarms: true, ..rolling() });
        strict(Look { is_daemon: true, ..rolling() });
        strict(Look { minimum_healthy_percent: 99, ..rolling() });
        strict(Look { strategy: Strategy::Shifting { name: "linear", takes: Duration::ZERO }, ..rolling() });
        let lenient = |rollout| Look { minimum_healthy_percent: 50, ..look(seen("2", 2, rollout), vec![]) };
        assert!(!agree(&lenient(InProgress), &Proof::Counts));
        assert!(agree(&lenient(Completed), &Proof::Counts));
        let mut unknown = lenient(InProgress);
        unknown.primary.rollout = None;
        assert!(agree(&unknown, &Proof::Counts));
    }

    #[test]
    fn tasks_that_never_left_the_previous_version_are_welcome_after_a_rollback() {
        let SeenDeployment { task_definition, .. } = seen("2", 0, InProgress);
        let same = look(seen("2", 2, InProgress), vec![SeenDeployment { task_definition, ..seen("1", 2, Completed) }]);
        assert!(counts_agree(&same, true, &Proof::Counts, Old::OtherTaskDefinitions));
        assert!(!counts_agree(&same, true, &Proof::Counts, Old::Every));
        let other = look(seen("2", 2, InProgress), vec![seen("1", 1, Completed)]);
        assert!(!counts_agree(&other, true, &Proof::Counts, Old::OtherTaskDefinitions));
    }

    #[test]
    fn asks_twice_per_task_within_bounds() {
        for (desired, requests) in [(1, 5), (2, 5), (3, 6), (10, 20), (500, 20)] {
            assert_eq!(requests_in_a_row(desired), requests);
        }
    }

    #[test]
    fn claims_that_the_version_is_live_only_if_nothing_speaks_against_it() {
        let version = |text: &str| Answer::Version(text.parse().expect("a Git SHA"));
        let full = || look(seen("2", 2, InProgress), vec![seen("1", 1, Completed)]);
        let live = |look: Option<Look>, answer: Option<Answer>| speaks_for_it(&ours(), look.as_ref(), answer.as_ref());
        assert!(live(Some(full()), Some(version("abcdef1"))));
        assert!(live(Some(full()), Some(version("0000000"))));
        assert!(live(None, None));
        assert!(live(Some(look(SeenDeployment { desired: 4, ..seen("2", 2, InProgress) }, vec![])), None));
        assert!(!live(Some(full()), Some(Answer::Failed("answers 503".into()))));
        assert!(!live(Some(full()), Some(Answer::NoVersion { header: reqwest::header::SERVER, says: None })));
        assert!(!live(Some(look(seen("2", 0, InProgress), vec![seen("1", 2, Completed)])), None));
        assert!(live(Some(look(seen("2", 2, Completed), vec![])), Some(version("0000000"))));
        let failing = SeenDeployment { failed_tasks: 1, ..seen("2", 2, InProgress) };
        assert!(!live(Some(look(failing, vec![seen("1", 1, Completed)])), None));
    }

    #[test]
    fn a_load_balancer_vouches_only_where_it_had_tasks_to_relieve() {
        let fresh = look(seen("2", 2, InProgress), vec![]);
        assert!(counts_agree(&fresh, true, &Proof::Counts, Old::Every));
        assert!(!counts_agree(&fresh, false, &Proof::Counts, Old::Every));
        assert!(counts_agree(&look(seen("2", 2, Completed), vec![]), false, &Proof::Counts, Old::Every));
    }
}

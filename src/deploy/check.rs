//! Deploy check: waits until the new version has shown itself, at its url or by ECS's counts.

use std::{ops::ControlFlow, time::Duration};

use reqwest::Url;
use tokio::time::Instant;

use super::{
    replaced::Replacement,
    standing::{Deployment, Standing},
    watch::{Awaited, Watch},
};
use crate::{
    ecs::{Rollout, SeenDeployment, Strategy, Task},
    git_sha::GitSha,
    outcome::Reason,
    poll::{self, PACE},
    text::{counted, duration, excerpt},
};

/// What proves that a version is live.
#[derive(Clone, Debug)]
pub enum Proof {
    /// The url names it.
    Url {
        /// Where to ask.
        url: Url,
        /// What it must name.
        version: GitSha,
    },
    /// ECS's counts: there is no url, or what it names tells the versions before and after not apart.
    Counts,
}

/// How a deploy check ended.
#[derive(Debug)]
pub enum Checked {
    /// The version is live; how that was seen.
    Live(String),
    /// It is not, and why.
    Failed(Reason),
    /// Another deployment took the place of ours.
    Replaced(Replacement),
}

/// Waits for `proof` that `ours` is live, for as long as `patience`. ECS and the new tasks are watched beside the url,
/// so that a deployment that ends early, or can't succeed any more, ends the wait.
pub async fn check(watch: &Watch<'_>, ours: &Deployment, proof: &Proof, patience: Duration) -> Checked {
    let deadline = Instant::now() + patience;
    let by_ecs =
        poll::until(deadline, async || {
            let look = match watch.look().await {
                Ok(look) => look,
                Err(pause) => return ControlFlow::Continue(pause),
            };
            match watch.judge(&look) {
                Standing::Failed(seen) => ControlFlow::Break(Seen::Ended(seen.rollout_reason.clone())),
                Standing::Replaced(replacement) => ControlFlow::Break(Seen::Replaced(replacement)),
                Standing::Primary(seen) if seen.desired == 0 && look.desired == 0 => {
                    ControlFlow::Break(Seen::Live("the desired count is 0, so there is nothing to verify".into()))
                }
                Standing::Primary(seen) => {
                    if let Some(why) = watch.failure(&look, false).await {
                        return ControlFlow::Break(Seen::GivenUp(why));
                    }
                    watch.say_stage(&look).await;
                    if matches!(proof, Proof::Url { .. }) {
                        return ControlFlow::Continue(watch.pause(Awaited::Failure));
                    }
                    let awaited = if seen.running > 0 { Awaited::End } else { Awaited::Failure };
                    if !all_run(seen) || !has_moved(&look.strategy, seen) {
                        return ControlFlow::Continue(watch.pause(awaited));
                    }
                    match watch.tasks().await {
                        Ok(tasks) if are_healthy(ours, seen.running, &tasks) => ControlFlow::Break(Seen::Live(
                            format!("{} of {} run and none is unhealthy", seen.running, counted(seen.desired, "task")),
                        )),
                        Ok(_) => ControlFlow::Continue(watch.pause(awaited)),
                        Err(pause) => ControlFlow::Continue(pause),
                    }
                }
                Standing::NotShownYet => ControlFlow::Continue(PACE),
            }
        });
    let by_url = poll::until(deadline, async || {
        let Proof::Url { url, version } = proof else { return std::future::pending().await };
        let answer = watch.ask(url).await;
        if answer.shows(version) {
            return ControlFlow::Break(Seen::Live(format!("the url {answer}")));
        }
        ControlFlow::Continue(PACE / 2)
    });
    let seen = tokio::select! {
        biased;
        seen = by_ecs => seen,
        seen = by_url => seen,
    };
    match seen {
        Some(Seen::Live(how)) => Checked::Live(how),
        Some(Seen::Ended(reason)) => Checked::Failed(ended(&reason, watch).await),
        Some(Seen::GivenUp(why)) => Checked::Failed(watch.explain(why).await),
        Some(Seen::Replaced(replacement)) => Checked::Replaced(replacement),
        None => {
            let what = match proof {
                Proof::Url { url, version } => format!("{} did not show {version}", crate::report::url(url)),
                Proof::Counts => "the new tasks were not all seen to run and be healthy".to_owned(),
            };
            Checked::Failed(watch.explain(format!("{what} within {}", duration(patience))).await)
        }
    }
}

/// What ended the wait before its time.
enum Seen {
    Live(String),
    Ended(String),
    GivenUp(String),
    Replaced(Replacement),
}

/// Why ECS ended a deployment, and what is known of its tasks.
pub async fn ended(reason: &str, watch: &Watch<'_>) -> Reason {
    watch.explain(format!("ECS ended the deployment: {}", excerpt(reason))).await
}

/// Whether as many tasks run as the deployment is to have, and none failed since one ran. A deployment that is to have
/// none yet has not begun.
fn all_run(seen: &SeenDeployment) -> bool {
    seen.desired > 0 && seen.running >= seen.desired && seen.failed_tasks == 0
}

/// Whether the tasks get requests, as far as ECS's counts can tell: where it shifts traffic, only once it is done.
fn has_moved(strategy: &Strategy, seen: &SeenDeployment) -> bool {
    *strategy == Strategy::Rolling || seen.rollout == Some(Rollout::Completed)
}

/// Whether `tasks` shows all `running` tasks of ours, and none that its container health checks find UNHEALTHY.
fn are_healthy(ours: &Deployment, running: usize, tasks: &[Task]) -> bool {
    let ours: Vec<_> = tasks.iter().filter(|task| task.is_of(&ours.id)).collect();
    ours.len() >= running && !ours.iter().any(|task| task.unhealthy)
}

#[cfg(test)]
mod tests {
    use super::{
        super::standing::tests::{ours, seen},
        *,
    };
    use crate::ecs::{DeploymentId, Rollout::InProgress, TaskDefinitionArn};

    #[test]
    fn as_many_tasks_must_run_as_are_desired_and_none_fail() {
        assert!(all_run(&seen("2", 2, InProgress)));
        assert!(!all_run(&seen("2", 1, InProgress)));
        assert!(!all_run(&SeenDeployment { desired: 0, ..seen("2", 0, InProgress) }));
        assert!(!all_run(&SeenDeployment { failed_tasks: 1, ..seen("2", 2, InProgress) }));
    }

    #[test]
    fn only_tasks_that_were_seen_count_as_healthy() {
        let task = |started_by: &str, unhealthy| Task {
            arn: String::new(),
            task_definition: TaskDefinitionArn(String::new()),
            started_by: Some(DeploymentId(started_by.into())),
            status: "RUNNING".into(),
            unhealthy,
            created: None,
            started: None,
            stopped: None,
        };
        assert!(are_healthy(&ours(), 2, &[task("2", false), task("2", false), task("1", true)]));
        assert!(!are_healthy(&ours(), 2, &[task("2", false), task("2", true)]));
        assert!(!are_healthy(&ours(), 2, &[task("2", false), task("1", false)]));
    }
}

//! Deploy check: waits until the new version has shown itself, at its url or by ECS's counts.

use std::ops::ControlFlow;

use reqwest::Url;
use tokio::time::{Instant, sleep};

use super::{
    standing::{Deployment, Replacement, Standing, judge},
    watch::Watch,
};
use crate::{
    ecs::{SeenDeployment, Task},
    git_sha::GitSha,
    poll::{self, PACE},
    text::{duration, excerpt},
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
    Failed(String),
    /// Another deployment took the place of ours.
    Replaced(Replacement),
}

/// Waits for `proof` that `ours` is live, for as long as the service's timeout. ECS is watched beside the url, so that
/// a deployment that ends early ends the wait.
pub async fn check(watch: &Watch<'_>, ours: &Deployment, proof: &Proof) -> Checked {
    let deadline = Instant::now() + watch.service.timeout;
    let by_ecs = poll::until(deadline, async || {
        let look = match watch.look().await {
            Ok(look) => look,
            Err(pause) => return ControlFlow::Continue(pause),
        };
        match judge(ours, &look) {
            Standing::Failed(seen) => ControlFlow::Break(Checked::Failed(ended(seen, watch).await)),
            Standing::Replaced(replacement) => ControlFlow::Break(Checked::Replaced(replacement)),
            Standing::Primary(seen) if seen.desired == 0 && look.desired == 0 => {
                ControlFlow::Break(Checked::Live("the desired count is 0, so there is nothing to verify".into()))
            }
            Standing::Primary(seen) if matches!(proof, Proof::Counts) && all_run(seen) => {
                let tasks = match watch.tasks().await {
                    Ok(tasks) => tasks,
                    Err(pause) => return ControlFlow::Continue(pause),
                };
                match unhealthy(ours, &tasks) {
                    0 => ControlFlow::Break(Checked::Live(format!(
                        "{} of {} tasks run and none is unhealthy",
                        seen.running, seen.desired
                    ))),
                    _ => ControlFlow::Continue(PACE),
                }
            }
            Standing::Primary(_) | Standing::NotShownYet => ControlFlow::Continue(PACE),
        }
    });
    let by_url = async {
        let Proof::Url { url, version } = proof else { return std::future::pending().await };
        loop {
            let answer = watch.clients.ping.get(url).await;
            watch.answered(&answer);
            if answer.shows(version) {
                return Checked::Live(format!("the url {answer}"));
            }
            sleep(PACE).await;
        }
    };
    let seen = tokio::select! {
        biased;
        seen = by_ecs => seen,
        seen = by_url => Some(seen),
    };
    match seen {
        Some(checked) => checked,
        None => Checked::Failed(format!(
            "{} within {}; at last: {}",
            match proof {
                Proof::Url { url, version } => format!("{} did not show {version}", crate::report::url(url)),
                Proof::Counts => "the new tasks did not all run and stay healthy".to_owned(),
            },
            duration(watch.service.timeout),
            watch.explain().await
        )),
    }
}

/// Why ECS ended a deployment, and what is known of its tasks.
pub async fn ended(seen: &SeenDeployment, watch: &Watch<'_>) -> String {
    format!("ECS ended the deployment: {}; {}", excerpt(&seen.rollout_reason), watch.explain().await)
}

/// Whether as many tasks run as the deployment is to have. One that is to have none yet has not begun.
fn all_run(seen: &SeenDeployment) -> bool {
    seen.desired > 0 && seen.running >= seen.desired
}

/// How many of our tasks their container health checks find UNHEALTHY.
fn unhealthy(ours: &Deployment, tasks: &[Task]) -> usize {
    tasks.iter().filter(|task| task.started_by.as_ref() == Some(&ours.id) && task.unhealthy).count()
}

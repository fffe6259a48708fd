//! Which ends of tasks are failures of the new version, and when there have been enough of them to give it up.

use std::time::{Duration, SystemTime};

use crate::ecs::{StopCode, Stopped, Task};

/// So many tasks that fail in a row end a deployment of which no task has become healthy.
const AT_FIRST: usize = 3;

/// What the end of a task says about its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its image can't be found: no task of this version will ever start.
    ImageMissing,
    /// It failed to start or to stay healthy.
    Failed,
    /// It was replaced, or stopped from outside.
    Ordinary,
}

/// Reads the end of a task (dg/stopped-task-error-codes).
pub fn end(stopped: &Stopped) -> End {
    let reasons = || stopped.containers.iter().filter_map(|(.., reason)| reason.as_deref()).chain([&*stopped.reason]);
    match stopped.code {
        Some(StopCode::FailedToStart) if reasons().any(is_missing_image) => End::ImageMissing,
        Some(StopCode::FailedToStart | StopCode::ContainerExited) => End::Failed,
        // The scheduler stops tasks that fail health checks, and those that are no longer needed.
        Some(StopCode::ByScheduler) | None if stopped.reason.starts_with("Task failed ") => End::Failed,
        Some(StopCode::ByScheduler | StopCode::FromOutside) | None => End::Ordinary,
    }
}

/// Whether a pull failed because there is no such image, or nobody may see it, rather than for trouble on the way.
fn is_missing_image(reason: &str) -> bool {
    reason.starts_with("CannotPullContainerError")
        && ["not found", "manifest unknown", "does not exist", "pull access denied"]
            .iter()
            .any(|cause| reason.contains(cause))
}

/// Why a deployment is to be given up, given its tasks that `failed` and those that are `living`. `desired` is how many
/// it is to run; `was_live` says that its version has been seen live.
///
/// A missing image counts at once, other failures when three of them come in a row before any new task has become
/// healthy, and after that at the threshold of ECS's circuit breaker: half the desired count, from 3 to 200
/// (dg/deployment-circuit-breaker). A task that has outlived a failed one, and began no earlier, ends the row before
/// it.
pub fn verdict(failed: &[Task], living: &[Task], desired: usize, was_live: bool) -> Option<String> {
    if failed.iter().filter_map(|task| task.stopped.as_ref()).any(|stopped| end(stopped) == End::ImageMissing) {
        return Some("the image of a new task can't be found".to_owned());
    }
    // Times are ECS's, never those of this machine: now is when the newest failure was.
    let now = failed.iter().filter_map(|task| task.stopped.as_ref()?.at).max();
    let running = living.iter().filter(|task| task.status == "RUNNING" && !task.unhealthy);
    let running: Vec<_> = running.filter_map(|task| Some((task.created, ran(task, now?)?))).collect();
    let is_over = |failed: &&Task| {
        failed.created.is_some()
            && running.iter().any(|(created, age)| *created >= failed.created && *age > lifetime(failed))
    };
    let row: Vec<_> = failed.iter().filter(|failed| !is_over(failed)).collect();
    let longest = row.iter().map(|failed| lifetime(failed)).max().unwrap_or_default();
    let is_any_healthy = was_live || running.iter().any(|(_, age)| *age > longest);
    let enough = if is_any_healthy { desired.div_ceil(2).clamp(AT_FIRST, 200) } else { AT_FIRST };
    (row.len() >= enough).then(|| format!("{} new tasks failed one after another", row.len()))
}

/// How many failures can be enough; with fewer there is no need to look at what lives.
pub fn can_be_enough(failed: usize) -> bool {
    failed >= AT_FIRST
}

/// How long a task had run by `now`. A task that runs is taken for healthy only by comparison with those that failed,
/// once it has run for longer: RUNNING alone doesn't mean healthy, as a task that is about to crash, or that its load
/// balancer doesn't accept, shows the same.
fn ran(task: &Task, now: SystemTime) -> Option<Duration> {
    now.duration_since(task.started?).ok()
}

/// How long a task ran that failed; not at all if it never started, or if ECS doesn't say.
fn lifetime(failed: &Task) -> Duration {
    let end = failed.stopped.as_ref().and_then(|stopped| stopped.at);
    end.and_then(|end| ran(failed, end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::TaskDefinitionArn;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    /// A task that was made and started at one second and runs on.
    fn runs_since(second: u64) -> Task {
        Task {
            arn: String::new(),
            task_definition: TaskDefinitionArn(String::new()),
            started_by: None,
            status: "RUNNING".into(),
            unhealthy: false,
            created: Some(at(second)),
            started: Some(at(second)),
            stopped: None,
        }
    }

    fn stopped(second: u64, code: StopCode, reason: &str) -> Stopped {
        Stopped { at: Some(at(second)), code: Some(code), reason: reason.into(), containers: Vec::new() }
    }

    /// A task that ran from one second to another and crashed.
    fn crashed(from: u64, to: u64) -> Task {
        let stopped = Some(stopped(to, StopCode::ContainerExited, "Essential container in task exited"));
        Task { status: "STOPPED".into(), stopped, ..runs_since(from) }
    }

    fn gives_up(failed: &[Task], living: &[Task], desired: usize) -> bool {
        verdict(failed, living, desired, false).is_some()
    }

    #[test]
    fn reads_why_a_task_ended() {
        use StopCode::{ByScheduler, ContainerExited, FailedToStart, FromOutside};
        for (code, reason, expected) in [
            (FailedToStart, "CannotPullContainerError: … api:1: not found", End::ImageMissing),
            (FailedToStart, "CannotPullContainerError: manifest unknown", End::ImageMissing),
            (FailedToStart, "CannotPullContainerError: dial tcp 10.0.0.1:443: i/o timeout", End::Failed),
            (FailedToStart, "ResourceInitializationError: secret not found", End::Failed),
            (ContainerExited, "Essential container in task exited", End::Failed),
            (ByScheduler, "Task failed ELB health checks in (target-group x)", End::Failed),
            (ByScheduler, "Task failed container health checks", End::Failed),
            (ByScheduler, "Scaling activity initiated by (deployment ecs-svc/1)", End::Ordinary),
            (FromOutside, "Task stopped by user", End::Ordinary),
            (FromOutside, "Your Spot Task was interrupted.", End::Ordinary),
        ] {
            assert_eq!(end(&stopped(0, code, reason)), expected, "{reason}");
        }
        let odd = |reason: &str| end(&Stopped { code: None, ..stopped(0, FromOutside, reason) });
        assert_eq!((odd("Task failed container health checks"), odd("")), (End::Failed, End::Ordinary));
    }

    #[test]
    fn a_missing_image_is_enough_at_once() {
        let mut task = crashed(0, 0);
        let reason = Some("CannotPullContainerError: api:1: not found".to_owned());
        task.stopped = Some(Stopped {
            containers: vec![("api".into(), None, reason)],
            ..stopped(0, StopCode::FailedToStart, "CannotPullContainerError")
        });
        assert!(gives_up(&[task], &[], 10));
    }

    #[test]
    fn three_failures_in_a_row_are_enough_while_none_is_healthy() {
        let crashes = |count: u64| (0..count).map(|nth| crashed(nth * 10, nth * 10 + 5)).collect::<Vec<_>>();
        assert!(!gives_up(&crashes(2), &[], 1));
        assert!(gives_up(&crashes(3), &[], 1));
        assert!(gives_up(&crashes(3), &[], 100));
        // It started after the last crash, and may well be the next.
        assert!(gives_up(&crashes(3), &[runs_since(30)], 100));
    }

    #[test]
    fn tasks_that_crash_by_turns_are_never_taken_for_healthy() {
        let failed: Vec<_> = (0..6).map(|nth| crashed(nth * 5, nth * 5 + 20)).collect();
        let living: Vec<_> = (6..10).map(|nth| runs_since(nth * 5)).collect();
        assert!(gives_up(&failed, &living, 4));
    }

    #[test]
    fn with_a_healthy_task_half_the_desired_count_is_enough() {
        let failed = |count: u64| (0..count).map(|nth| crashed(1 + nth, 5 + nth)).collect::<Vec<_>>();
        assert!(!gives_up(&failed(4), &[runs_since(0)], 10));
        assert!(gives_up(&failed(5), &[runs_since(0)], 10));
        assert!(gives_up(&failed(3), &[runs_since(0)], 2));
        let unhealthy = Task { unhealthy: true, ..runs_since(0) };
        assert!(gives_up(&failed(3), &[unhealthy], 10));
        assert!(verdict(&failed(4), &[], 10, true).is_none());
    }

    #[test]
    fn failures_that_a_healthy_task_followed_are_forgiven() {
        let failed: Vec<_> = (0..4).map(|nth| crashed(nth * 10, nth * 10 + 2)).collect();
        assert!(!gives_up(&failed, &[runs_since(35), runs_since(29)], 2), "only the last came after a healthy task");
        assert!(gives_up(&failed, &[runs_since(31)], 2), "it has run for less time than those that crashed");
        // Two failed at the start; an hour later one of those that lived ever since.
        let failed = [crashed(0, 5), crashed(0, 5), crashed(10, 3600)];
        assert!(!gives_up(&failed, &[runs_since(10)], 2));
    }

    #[test]
    fn odd_tasks_without_times_count_as_failed() {
        let odd = || Task { created: None, started: None, ..crashed(0, 0) };
        assert!(gives_up(&[odd(), odd(), odd()], &[runs_since(0)], 1));
    }
}

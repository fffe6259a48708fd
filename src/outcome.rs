//! How the deploy of one service ended, and the one conversion of outcomes to the run's exit code.

use std::time::Duration;

use crate::{
    config::{Refused, UpdateStrategy},
    deploy::{Problems, PutBack, Replacement, RolledBack},
    ecs::{Look, SeenDeployment, TaskDefinitionArn},
    git_sha::GitSha,
};

/// How one service ended, and everything that its last line says.
pub struct Ended {
    /// The service's name.
    pub service: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What it was updated to, if an update was sent.
    pub updated_to: Option<TaskDefinitionArn>,
    /// Somebody else's deployments that the update took the place of.
    pub displaced: Vec<SeenDeployment>,
    /// What ECS shows of it at the end of the run, or why that isn't known.
    pub last_look: Result<Look, String>,
    /// The task definitions that were known before the run, with their versions for people.
    pub known: Vec<(TaskDefinitionArn, String)>,
    /// Whether tasks of what ran before the run were seen to run, or none was to.
    pub had_tasks: bool,
    /// The version that was to be deployed.
    pub version: GitSha,
    /// What was to be deployed.
    pub update_strategy: UpdateStrategy,
    /// From the service's first look to its end.
    pub took: Duration,
    /// The command that puts the previous version back by hand.
    pub way_back: String,
}

/// How one rule ended, and everything that its last line says.
pub struct EndedSchedule {
    /// The rule's name.
    pub rule: String,
    /// How it ended.
    pub outcome: ScheduleOutcome,
    /// What it ran before the run; empty where it was to stay as it is.
    pub before: Vec<TaskDefinitionArn>,
    /// What EventBridge shows that it runs at the end of the run, or why that isn't known.
    pub last_look: Result<Vec<TaskDefinitionArn>, String>,
    /// The newest revision, at the end of the run, of the families in `last_look`, where ECS could be asked.
    pub newest: Vec<(TaskDefinitionArn, TaskDefinitionArn)>,
    /// The task definitions that are known, with their versions for people.
    pub known: Vec<(TaskDefinitionArn, String)>,
    /// The version that was to be deployed.
    pub version: GitSha,
    /// From the rule's first look to its end.
    pub took: Duration,
    /// The commands that put what it ran back by hand, one for each target.
    pub ways_back: Vec<String>,
}

/// How each part of a run ended, in the order of the file.
pub struct AllEnded {
    /// The services.
    pub services: Vec<Ended>,
    /// The rules of the scheduled tasks.
    pub schedules: Vec<EndedSchedule>,
}

/// Why something failed, or did not come to its end.
#[derive(Clone, Debug)]
pub struct Reason {
    /// What went wrong.
    pub what: String,
    /// What was seen at last; empty where nothing was.
    pub seen: String,
}

impl From<String> for Reason {
    fn from(what: String) -> Self {
        Self { what, seen: String::new() }
    }
}

/// How one service ended.
#[derive(Debug)]
pub enum Outcome {
    /// The new version was proven live and the old one unreachable.
    Deployed {
        /// What runs.
        task_definition: TaskDefinitionArn,
        /// The version that it was seen to be, where anything names one.
        version: Option<GitSha>,
    },
    /// The new version is live, but the time for draining the old one ran out.
    Undetermined {
        /// What is live.
        task_definition: TaskDefinitionArn,
        /// The version that it was seen to be, where anything names one.
        version: Option<GitSha>,
        /// What remains of the old version.
        remaining: Reason,
    },
    /// It failed after the update was sent, or another service did; what became of the rollback.
    RolledBack {
        /// Why.
        why: Reason,
        /// How the rollback ended.
        rollback: RolledBack,
    },
    /// It was proven live and is kept, though another service failed, because there is nothing to return to.
    Kept {
        /// What is live.
        task_definition: TaskDefinitionArn,
        /// The version that it was seen to be, where anything names one.
        version: Option<GitSha>,
        /// Why there is nothing to return to.
        nothing: String,
        /// Why it was to be rolled back.
        why: Reason,
    },
    /// It failed before the update was sent: the service runs what it ran.
    NotUpdated {
        /// Why.
        why: Reason,
    },
    /// The checks, which were all that was asked for, failed: nothing was changed.
    NotProven {
        /// Why.
        why: Reason,
    },
    /// Somebody else's deployment has taken over and was left alone.
    Superseded(Replacement),
    /// The run ended before its turn.
    NotReached,
}

impl Outcome {
    /// The outcome's exit code: 0 deployed, 1 failed, 2 live but not drained.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Deployed { .. } => 0,
            Self::RolledBack { .. }
            | Self::Kept { .. }
            | Self::NotUpdated { .. }
            | Self::NotProven { .. }
            | Self::Superseded(_)
            | Self::NotReached => 1,
            Self::Undetermined { .. } => 2,
        }
    }
}

/// How one rule ended.
#[derive(Debug)]
pub enum ScheduleOutcome {
    /// It was seen to run the new version, in these task definitions.
    Updated(Vec<TaskDefinitionArn>),
    /// It ran the version already.
    UpToDate,
    /// It was to stay as it is.
    Stays(UpdateStrategy),
    /// It was to stay as it is, and runs another revision nevertheless, because it names a family.
    Follows(UpdateStrategy),
    /// It failed, or the run did; how it went back.
    PutBack {
        /// Why.
        why: String,
        /// How.
        back: PutBack,
    },
    /// It failed before anything was put: it runs what it ran.
    NotUpdated {
        /// Why.
        why: String,
    },
    /// Somebody else has changed it, and it was left alone.
    Superseded,
    /// The run ended before its turn.
    NotReached,
}

impl ScheduleOutcome {
    /// The outcome's exit code: 0 deployed, 1 failed.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Updated(_) | Self::UpToDate | Self::Stays(_) | Self::Follows(_) => 0,
            Self::PutBack { .. } | Self::NotUpdated { .. } | Self::Superseded | Self::NotReached => 1,
        }
    }
}

/// How a run ended.
pub enum End<'a> {
    /// With each of its parts.
    All(&'a AllEnded),
    /// It was only to say what it would do.
    Planned,
    /// With problems that preflight found; nothing has been changed.
    Problems(&'a Problems),
    /// By a signal, named here, before anything was changed.
    Cancelled(&'static str),
    /// By a person who didn't wait until services had gone back.
    Abandoned,
    /// gehen.yml won't do.
    Refused(&'a Refused),
    /// It could not begin, and why.
    Error(&'a str),
}

impl End<'_> {
    /// The exit code of the run.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::All(AllEnded { services, schedules }) => {
                let services = services.iter().map(|ended| ended.outcome.exit_code());
                worst(services.chain(schedules.iter().map(|ended| ended.outcome.exit_code())))
            }
            Self::Planned => 0,
            Self::Problems(_) | Self::Cancelled(_) | Self::Abandoned | Self::Refused(_) | Self::Error(_) => 1,
        }
    }
}

/// The worst of these exit codes, where failed (1) is worse than undetermined (2), and that worse than deployed (0).
fn worst(codes: impl Iterator<Item = u8>) -> u8 {
    let badness = |code: &u8| [0, 2, 1].iter().position(|known| known == code);
    codes.max_by_key(badness).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_service_decides() {
        let arn = || TaskDefinitionArn("task-definition/api:2".into());
        let deployed = || Outcome::Deployed { task_definition: arn(), version: None };
        let undetermined =
            || Outcome::Undetermined { task_definition: arn(), version: None, remaining: String::new().into() };
        let failed = || Outcome::NotUpdated { why: String::new().into() };
        assert_eq!(worst([2, ScheduleOutcome::UpToDate.exit_code()].into_iter()), 2);
        assert_eq!(worst([2, 0, ScheduleOutcome::Superseded.exit_code()].into_iter()), 1);
        for (outcomes, code) in [
            (vec![deployed()], 0),
            (vec![deployed(), undetermined(), deployed()], 2),
            (vec![undetermined(), failed(), deployed()], 1),
            (vec![failed(), Outcome::NotReached], 1),
        ] {
            assert_eq!(worst(outcomes.iter().map(Outcome::exit_code)), code, "{outcomes:?}");
        }
    }
}

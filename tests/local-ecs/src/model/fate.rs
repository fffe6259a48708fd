//! What will become of a task, and why it stopped.

use std::time::Duration;

use super::task_definition::Blueprint;
use crate::{behaviour::Behaviour, settings::Settings};

/// Why a task stopped (`API_Task`, `dg/stopped-task-error-codes`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// The `stopCode`.
    pub(crate) code: &'static str,
    /// The `stoppedReason`.
    pub(crate) reason: String,
    /// The reason beside the container, when there is one.
    pub(crate) container: Option<String>,
    /// The container's exit code, when it ran.
    pub(crate) exit_code: Option<i32>,
}

impl Stop {
    /// The scheduler's own decision, such as a replacement.
    pub(crate) fn by_scheduler(reason: impl Into<String>) -> Self {
        Self { code: "ServiceSchedulerInitiated", reason: reason.into(), container: None, exit_code: Some(143) }
    }
}

/// What will become of a task, decided when it starts.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Lives,
    FailsToStart(Stop),
    PendsForever,
    Exits { after: Duration, code: i32 },
    FailsTargetHealth,
    FailsContainerHealth,
}

impl Fate {
    /// The fate of the `attempt`th task (from 1) of a version that behaves like this.
    pub(crate) fn of(behaviour: &Behaviour, attempt: u32, blueprint: &Blueprint, settings: &Settings) -> Self {
        match behaviour {
            Behaviour::ImageMissing => Self::without_image(&blueprint.version_image),
            Behaviour::ResourceInitialization => Self::fails_to_start(
                "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve secret from asm: service call has been retried 1 time(s): failed to fetch secret arn:aws:secretsmanager:us-east-1:123456789012:secret:api from secrets manager: ResourceNotFoundException: Secrets Manager can't find the specified secret."
                    .to_owned(),
            ),
            Behaviour::NeverStarts | Behaviour::NoCapacity => Self::PendsForever,
            Behaviour::CrashesOnStart { exit_code } => Self::Exits { after: settings.crashes_after, code: *exit_code },
            Behaviour::FailsFirst { tasks } if attempt <= *tasks => {
                Self::Exits { after: settings.crashes_after, code: 1 }
            }
            Behaviour::CrashesAfter(after) => Self::Exits { after: *after, code: 1 },
            Behaviour::FailsLoadBalancerHealthCheck => Self::FailsTargetHealth,
            Behaviour::FailsContainerHealthCheck => Self::FailsContainerHealth,
            Behaviour::Healthy
            | Behaviour::Answers { .. }
            | Behaviour::Hangs
            | Behaviour::Trickles
            | Behaviour::Floods
            | Behaviour::Stale { .. }
            | Behaviour::RedirectLoop
            | Behaviour::Redirects
            | Behaviour::FailsFirst { .. } => Self::Lives,
        }
    }

    /// The fate of a task whose image its registry doesn't have; Amazon ECR says no more than any other registry.
    pub(crate) fn without_image(image: &str) -> Self {
        Self::fails_to_start(format!(
            "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref {image}: {image}: not found"
        ))
    }

    fn fails_to_start(reason: String) -> Self {
        Self::FailsToStart(Stop { code: "TaskFailedToStart", container: Some(reason.clone()), reason, exit_code: None })
    }
}

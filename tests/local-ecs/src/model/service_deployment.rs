//! Service deployments and service revisions (`API_ServiceDeployment`, `API_ServiceRevision`).

use std::sync::Arc;

use super::{At, blue_green::Stage, configuration::Configuration, task_definition::Blueprint};

/// The state of a service deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Pending,
    InProgress,
    Stopped,
    Successful,
    RollbackRequested,
    RollbackInProgress,
    RollbackSuccessful,
    RollbackFailed,
}

impl Status {
    /// The name ECS gives it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::InProgress => "IN_PROGRESS",
            Self::Stopped => "STOPPED",
            Self::Successful => "SUCCESSFUL",
            Self::RollbackRequested => "ROLLBACK_REQUESTED",
            Self::RollbackInProgress => "ROLLBACK_IN_PROGRESS",
            Self::RollbackSuccessful => "ROLLBACK_SUCCESSFUL",
            Self::RollbackFailed => "ROLLBACK_FAILED",
        }
    }

    /// Whether it can still change.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::InProgress | Self::RollbackRequested | Self::RollbackInProgress)
    }
}

/// One attempt to bring a service to a revision, including the way back.
#[derive(Clone, Debug)]
pub(crate) struct ServiceDeployment {
    pub(crate) arn: String,
    /// The deployment (`ecs-svc/…`) it began with.
    pub(crate) deployment: String,
    pub(crate) target: String,
    pub(crate) source: Option<String>,
    /// How the service was to be deployed when it began.
    pub(crate) configuration: Configuration,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
    pub(crate) created: At,
    pub(crate) started: Option<At>,
    pub(crate) updated: At,
    pub(crate) finished: Option<At>,
    pub(crate) stopped: Option<At>,
    /// Whether the circuit breaker tripped, and at how many failures.
    pub(crate) tripped: Option<u32>,
    /// Whether alarms ended it.
    pub(crate) alarmed: bool,
    pub(crate) rollback: Option<Rollback>,
    /// When a rollback that was requested begins.
    pub(crate) rollback_due: Option<At>,
    /// The stage of a native blue/green deployment.
    pub(crate) stage: Option<Stage>,
    /// When that stage ends, unless it waits for tasks.
    pub(crate) stage_due: Option<At>,
}

/// The way back of a service deployment.
#[derive(Clone, Debug)]
pub(crate) struct Rollback {
    pub(crate) reason: String,
    pub(crate) at: At,
    pub(crate) revision: String,
}

/// A service as it was configured for one deployment.
#[derive(Clone, Debug)]
pub(crate) struct ServiceRevision {
    pub(crate) arn: String,
    pub(crate) blueprint: Arc<Blueprint>,
    pub(crate) created: At,
}

impl ServiceDeployment {
    /// Ends it in this state.
    pub(crate) fn end(&mut self, status: Status, reason: Option<String>, now: At) {
        self.status = status;
        self.updated = now;
        if reason.is_some() {
            self.reason = reason;
        }
        match status {
            Status::Stopped => self.stopped = Some(now),
            _ => self.finished = Some(now),
        }
    }
}

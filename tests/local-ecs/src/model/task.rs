//! One task: its life from PROVISIONING to STOPPED (`dg/task-lifecycle-explanation`).

use std::{sync::Arc, time::Duration};

use super::{
    At,
    fate::{Fate, Stop},
    task_definition::Blueprint,
};
use crate::settings::Settings;

/// A task's `lastStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Provisioning,
    Pending,
    Activating,
    Running,
    Deactivating,
    Stopping,
    Deprovisioning,
    Stopped,
}

impl Phase {
    /// The name ECS gives it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Activating => "ACTIVATING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Stopping => "STOPPING",
            Self::Deprovisioning => "DEPROVISIONING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// The state of a task as a target of the load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Absent,
    Initial,
    Healthy,
    Unhealthy,
    Draining,
}

/// What a task's service tells it about its surroundings.
pub(crate) struct Rules<'a> {
    /// The pace.
    pub(crate) settings: &'a Settings,
    /// Whether tasks register with a load balancer.
    pub(crate) load_balanced: bool,
    /// How long a target drains.
    pub(crate) deregistration_delay: Duration,
    /// How long failing load balancer health checks are forgiven (`healthCheckGracePeriodSeconds`).
    pub(crate) grace: Duration,
}

/// What just changed about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is a target now, not yet healthy.
    Registered,
    /// It runs, not yet known to be healthy.
    Running,
    /// It runs and has passed what health checks there are.
    Settled,
    /// It could not start.
    FailedToStart,
    /// Its container exited by itself.
    Exited,
    /// The load balancer finds it unhealthy.
    TargetUnhealthy,
    /// Its container's health check fails.
    ContainerUnhealthy,
    /// It is gone.
    Stopped,
    /// It was gone for so long that ECS forgets it.
    Forgotten,
    /// It moved on without consequence.
    Moved,
}

/// One task.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: String,
    /// The id of the deployment that started it.
    pub(crate) started_by: String,
    /// The id of the deployment that it counts for: another one only once a rollback has taken it over.
    pub(crate) deployment: String,
    pub(crate) blueprint: Arc<Blueprint>,
    pub(crate) phase: Phase,
    pub(crate) target: Target,
    /// Whether it passed what health checks there are, or ran long enough without any.
    pub(crate) settled: bool,
    /// Whether its container health check has failed.
    pub(crate) container_unhealthy: bool,
    pub(crate) protected_until: Option<At>,
    pub(crate) stop: Option<Stop>,
    pub(crate) created: At,
    pub(crate) started: Option<At>,
    /// When it left the load balancer, if it did, and its container was told to stop.
    pub(crate) stopping: Option<At>,
    /// When its container had exited or could not be started.
    pub(crate) execution_stopped: Option<At>,
    pub(crate) stopped: Option<At>,
    pub(crate) fate: Fate,
    phase_due: Option<At>,
    health_due: Option<At>,
    exit_due: Option<At>,
}

impl Task {
    /// A task that the scheduler has just asked for.
    pub(crate) fn start(
        id: String,
        deployment: String,
        blueprint: Arc<Blueprint>,
        fate: Fate,
        now: At,
        provisioning: Duration,
    ) -> Self {
        Self {
            id,
            started_by: deployment.clone(),
            deployment,
            blueprint,
            phase: Phase::Provisioning,
            target: Target::Absent,
            settled: false,
            container_unhealthy: false,
            protected_until: None,
            stop: None,
            created: now,
            started: None,
            stopping: None,
            execution_stopped: None,
            stopped: None,
            fate,
            phase_due: Some(now + provisioning),
            health_due: None,
            exit_due: None,
        }
    }

    /// A task that has been running well for a while.
    pub(crate) fn running(
        id: String,
        deployment: String,
        blueprint: Arc<Blueprint>,
        load_balanced: bool,
        now: At,
    ) -> Self {
        let mut task = Self::start(id, deployment, blueprint, Fate::Lives, now, Duration::ZERO);
        task.phase = Phase::Running;
        task.phase_due = None;
        task.started = Some(now);
        task.settled = true;
        task.target = if load_balanced { Target::Healthy } else { Target::Absent };
        task
    }

    /// Whether ECS means it to run; a task that leaves the load balancer has desiredStatus STOPPED.
    pub(crate) fn wanted(&self) -> bool {
        self.stop.is_none()
    }

    /// Whether it counts in `runningCount`.
    pub(crate) fn runs(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether it counts in `pendingCount`.
    pub(crate) fn pends(&self) -> bool {
        self.wanted() && self.phase < Phase::Running
    }

    /// Whether the scheduler may count on it: RUNNING, and healthy by what checks there are
    /// (`API_DeploymentConfiguration`).
    pub(crate) fn healthy(&self) -> bool {
        let checked = self.target != Target::Absent || self.blueprint.has_health_check;
        self.runs() && self.wanted() && (self.settled || !checked)
    }

    /// Whether it gets new requests.
    pub(crate) fn reachable(&self) -> bool {
        self.runs() && matches!(self.target, Target::Absent | Target::Healthy)
    }

    /// Whether it may not be stopped for a deployment or a scale-in (`API_UpdateTaskProtection`).
    pub(crate) fn protected(&self, now: At) -> bool {
        self.protected_until.is_some_and(|until| until > now)
    }

    /// When it next changes by itself.
    pub(crate) fn due(&self) -> Option<At> {
        [self.phase_due, self.health_due, self.exit_due].into_iter().flatten().min()
    }

    /// Makes one change that is due, if one is.
    pub(crate) fn proceed(&mut self, now: At, rules: &Rules<'_>) -> Option<Change> {
        let is_due = |due: Option<At>| due.is_some_and(|due| due <= now);
        if is_due(self.phase_due) {
            return Some(self.next_phase(now, rules));
        }
        if is_due(self.exit_due) {
            self.exit_due = None;
            return Some(self.exit(now, rules));
        }
        if is_due(self.health_due) {
            self.health_due = None;
            return Some(self.judge_health(rules));
        }
        None
    }

    /// Begins to stop it; false if it was stopping already.
    pub(crate) fn stop(&mut self, stop: Stop, now: At, rules: &Rules<'_>) -> bool {
        if self.stop.is_some() {
            return false;
        }
        self.stop = Some(stop);
        self.health_due = None;
        let settings = rules.settings;
        let (phase, lasts) = match self.phase {
            Phase::Running if self.target != Target::Absent => (Phase::Deactivating, rules.deregistration_delay),
            Phase::Provisioning => (Phase::Deprovisioning, settings.deprovisioning),
            _ => (Phase::Stopping, settings.stopping),
        };
        if self.target != Target::Absent {
            self.target = Target::Draining;
        }
        if phase != Phase::Deactivating {
            self.exit_due = None;
            self.stopping = Some(now);
        }
        self.enter(phase, now, lasts);
        true
    }

    /// Has its container exit now, by itself.
    pub(crate) fn crash(&mut self, code: i32, now: At) {
        self.fate = Fate::Exits { after: Duration::ZERO, code };
        self.exit_due = Some(now);
    }

    fn enter(&mut self, phase: Phase, now: At, lasts: Duration) {
        self.phase = phase;
        self.phase_due = Some(now + lasts);
    }

    fn next_phase(&mut self, now: At, rules: &Rules<'_>) -> Change {
        let settings = rules.settings;
        match self.phase {
            Phase::Provisioning => {
                self.enter(Phase::Pending, now, settings.pulling);
                if matches!(self.fate, Fate::PendsForever) {
                    self.phase_due = None;
                }
                Change::Moved
            }
            Phase::Pending => {
                if let Fate::FailsToStart(stop) = &self.fate {
                    self.stop = Some(stop.clone());
                    self.stopping = Some(now);
                    self.execution_stopped = Some(now);
                    self.enter(Phase::Deprovisioning, now, settings.deprovisioning);
                    return Change::FailedToStart;
                }
                if rules.load_balanced {
                    self.target = Target::Initial;
                    self.enter(Phase::Activating, now, settings.activating);
                    return Change::Registered;
                }
                self.run(now, rules)
            }
            Phase::Activating => self.run(now, rules),
            Phase::Running => {
                self.phase_due = None;
                Change::Moved
            }
            Phase::Deactivating => {
                self.exit_due = None;
                self.stopping = Some(now);
                self.enter(Phase::Stopping, now, settings.stopping);
                Change::Moved
            }
            Phase::Stopping => {
                self.execution_stopped = Some(now);
                self.enter(Phase::Deprovisioning, now, settings.deprovisioning);
                Change::Moved
            }
            Phase::Deprovisioning => {
                self.stopped = Some(now);
                self.target = Target::Absent;
                self.enter(Phase::Stopped, now, settings.stopped_visible);
                Change::Stopped
            }
            Phase::Stopped => {
                self.phase_due = None;
                Change::Forgotten
            }
        }
    }

    fn run(&mut self, now: At, rules: &Rules<'_>) -> Change {
        self.phase = Phase::Running;
        self.phase_due = None;
        self.started = Some(now);
        let settings = rules.settings;
        self.health_due = Some(match self.fate {
            Fate::FailsTargetHealth if rules.load_balanced => now + settings.unhealthy_after.max(rules.grace),
            Fate::FailsContainerHealth if self.blueprint.has_health_check => now + settings.unhealthy_after,
            _ => now + settings.healthy_after,
        });
        if let Fate::Exits { after, .. } = self.fate {
            self.exit_due = Some(now + after);
        }
        Change::Running
    }

    fn exit(&mut self, now: At, rules: &Rules<'_>) -> Change {
        let Fate::Exits { code, .. } = self.fate else {
            return Change::Moved;
        };
        self.health_due = None;
        let by_itself = self.stop.is_none();
        let stop = self.stop.get_or_insert_with(|| Stop {
            code: "EssentialContainerExited",
            reason: "Essential container in task exited".to_owned(),
            container: None,
            exit_code: None,
        });
        stop.exit_code = Some(code);
        self.stopping = Some(now);
        self.execution_stopped = Some(now);
        self.enter(Phase::Deprovisioning, now, rules.settings.deprovisioning);
        if by_itself { Change::Exited } else { Change::Moved }
    }

    fn judge_health(&mut self, rules: &Rules<'_>) -> Change {
        match self.fate {
            Fate::FailsTargetHealth if rules.load_balanced => {
                self.target = Target::Unhealthy;
                Change::TargetUnhealthy
            }
            Fate::FailsContainerHealth if self.blueprint.has_health_check => {
                self.container_unhealthy = true;
                Change::ContainerUnhealthy
            }
            _ => {
                self.settled = true;
                if self.target == Target::Initial {
                    self.target = Target::Healthy;
                }
                Change::Settled
            }
        }
    }
}

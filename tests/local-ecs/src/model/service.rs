//! One service: its deployments, tasks and events.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};

use super::{
    At, arn,
    blue_green::ALL,
    configuration::Configuration,
    deployment::{Deployment, Rollout},
    events::{Events, Happened, What},
    ids::Ids,
    registry::Registries,
    service_deployment::{ServiceDeployment, ServiceRevision, Status as ServiceDeploymentStatus},
    task::{Rules, Task},
    task_definition::Blueprint,
};
use crate::{behaviour::Behaviour, settings::Settings};

/// Who decides about a service's deployments (`API_DeploymentController`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Ecs,
    CodeDeploy,
    External,
}

impl Controller {
    /// The name ECS gives it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ecs => "ECS",
            Self::CodeDeploy => "CODE_DEPLOY",
            Self::External => "EXTERNAL",
        }
    }

    /// The controller of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Ecs, Self::CodeDeploy, Self::External].into_iter().find(|controller| controller.name() == name)
    }
}

/// Where a service's tasks register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Balancing {
    None,
    TargetGroup(String),
    Classic(String),
}

/// Whether a service is in use (`API_Service`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Active,
    Draining,
    Inactive { since: At },
}

impl Status {
    /// The name ECS gives it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive { .. } => "INACTIVE",
        }
    }
}

/// What reads show for a moment after a write; nothing if the service did not exist before.
#[derive(Clone, Debug)]
pub(crate) struct Stale {
    pub(crate) until: At,
    pub(crate) shown: Option<Value>,
}

/// What a service may use while it moves.
pub(crate) struct World<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) versions: &'a HashMap<String, Behaviour>,
    pub(crate) registries: &'a Registries,
    pub(crate) ids: &'a mut Ids,
}

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) cluster: String,
    pub(crate) region: String,
    pub(crate) status: Status,
    pub(crate) desired: u32,
    pub(crate) daemon: bool,
    pub(crate) controller: Controller,
    pub(crate) balancing: Balancing,
    pub(crate) deregistration_delay: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) configuration: Configuration,
    /// Members that are kept and shown without meaning anything to the model.
    pub(crate) kept: Map<String, Value>,
    pub(crate) tags: Vec<Value>,
    /// The deployments, PRIMARY first.
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) tasks: Vec<Task>,
    /// The service deployments, newest first.
    pub(crate) history: Vec<ServiceDeployment>,
    pub(crate) revisions: Vec<ServiceRevision>,
    pub(crate) events: Events,
    pub(crate) happened: Vec<Happened>,
    pub(crate) noted: HashSet<(String, What)>,
    /// The deployment that completed last: where a rollback goes.
    pub(crate) last_completed: Option<(String, Arc<Blueprint>, String)>,
    /// How many tasks of each version were started.
    pub(crate) attempts: HashMap<String, u32>,
    pub(crate) stale: Option<Stale>,
    /// Whether the service's deployment alarms are in ALARM.
    pub(crate) alarm: bool,
    pub(crate) steady: bool,
    /// When each request came through the load balancer.
    pub(crate) requests: Vec<At>,
    pub(crate) turn: usize,
    pub(crate) created: At,
    /// When something next happens by itself.
    pub(crate) wake: Option<At>,
}

impl Service {
    /// Its ARN.
    pub(crate) fn arn(&self) -> String {
        arn::ecs(&self.region, &format!("service/{}/{}", self.cluster, self.name))
    }

    /// The deployment that the service is moving to.
    pub(crate) fn primary(&self) -> Option<&Deployment> {
        self.deployments.first()
    }

    /// How many tasks it should run.
    pub(crate) fn target_count(&self, settings: &Settings) -> u32 {
        match self.status {
            Status::Active if self.daemon => settings.container_instances,
            Status::Active => self.desired,
            Status::Draining | Status::Inactive { .. } => 0,
        }
    }

    /// Whether deployments show a `rolloutState` (`API_Deployment`).
    pub(crate) fn shows_rollout(&self) -> bool {
        self.controller == Controller::Ecs && !matches!(self.balancing, Balancing::Classic(_))
    }

    /// What its tasks need to know.
    pub(crate) fn rules<'a>(&self, settings: &'a Settings) -> Rules<'a> {
        Rules {
            settings,
            load_balanced: self.balancing != Balancing::None,
            deregistration_delay: self.deregistration_delay.unwrap_or(settings.deregistration_delay),
            grace: self.grace,
        }
    }

    /// The tasks of a deployment.
    pub(crate) fn tasks_of<'a>(&'a self, deployment: &'a str) -> impl Iterator<Item = &'a Task> {
        self.tasks.iter().filter(move |task| task.deployment == deployment)
    }

    /// How many tasks of a deployment are so.
    pub(crate) fn count(&self, deployment: &str, is_so: impl Fn(&Task) -> bool) -> u32 {
        let tasks = self.tasks_of(deployment).filter(|task| is_so(task)).count();
        u32::try_from(tasks).unwrap_or(u32::MAX)
    }

    /// Writes an event, after `(service NAME) `.
    pub(crate) fn tell(&mut self, now: At, ids: &mut Ids, text: &str) {
        let message = format!("(service {}) {text}", self.name);
        if !self.events.newest_is(&message) {
            self.events.push(ids.uuid(), now, message);
        }
    }

    /// Notes for the truth log that something happened to a deployment; only the first time counts, except of failures.
    pub(crate) fn note(&mut self, now: At, deployment: &str, what: What) {
        if self.noted.insert((deployment.to_owned(), what)) || what == What::TaskFailed {
            let known = self.deployments.iter().find(|other| other.id == deployment);
            let task_definition = known.map(|known| known.blueprint.short.clone()).unwrap_or_default();
            self.happened.push(Happened { at: now, deployment: deployment.to_owned(), task_definition, what });
        }
    }

    /// Makes a new PRIMARY that belongs to a new service deployment (`API_UpdateService`).
    pub(crate) fn deploy(&mut self, blueprint: Arc<Blueprint>, now: At, world: &mut World<'_>) {
        for open in self.history.iter_mut().filter(|past| past.status.is_open()) {
            let reason = "Service deployment stopped because of a newer service deployment.".to_owned();
            open.end(ServiceDeploymentStatus::Stopped, Some(reason), now);
        }
        let scope = format!("{}/{}", self.cluster, self.name);
        let revision = ServiceRevision {
            arn: arn::ecs(&self.region, &format!("service-revision/{scope}/{}", world.ids.revision())),
            blueprint: Arc::clone(&blueprint),
            created: now,
        };
        let deployment = world.ids.deployment();
        let service_deployment = ServiceDeployment {
            arn: arn::ecs(&self.region, &format!("service-deployment/{scope}/{}", world.ids.service_deployment())),
            deployment: deployment.clone(),
            target: revision.arn.clone(),
            source: self.primary().map(|primary| primary.revision.clone()),
            configuration: self.configuration.clone(),
            status: ServiceDeploymentStatus::Pending,
            reason: None,
            created: now,
            started: None,
            updated: now,
            finished: None,
            stopped: None,
            tripped: None,
            alarmed: false,
            rollback: None,
            rollback_due: None,
            stage: self.first_stage(),
            stage_due: Some(now + world.settings.scheduling),
        };
        let reason = format!("ECS deployment {deployment} in progress.");
        let (arn, target) = (service_deployment.arn.clone(), revision.arn.clone());
        self.history.insert(0, service_deployment);
        self.revisions.push(revision);
        self.become_primary(deployment, blueprint, reason, (arn, target), false, now, world.settings);
    }

    /// Puts a deployment before the others; what was given up before is drained like any old one.
    #[expect(clippy::too_many_arguments, reason = "the parts of a deployment that its two makers know")]
    pub(crate) fn become_primary(
        &mut self,
        id: String,
        blueprint: Arc<Blueprint>,
        reason: String,
        (part_of, revision): (String, String),
        rolls_back: bool,
        now: At,
        settings: &Settings,
    ) {
        let is_first = self.deployments.is_empty();
        let kept: Vec<u32> = self.deployments.iter().map(|old| self.count(&old.id, Task::wanted)).collect();
        for (old, keep) in self.deployments.iter_mut().zip(kept) {
            old.keep = keep;
        }
        let noted = id.clone();
        self.deployments.insert(
            0,
            Deployment {
                id,
                blueprint,
                rollout: Rollout::InProgress,
                reason,
                failed_tasks: 0,
                start_failures: 0,
                not_before: now + settings.scheduling,
                keep: 0,
                part_of,
                revision,
                rolls_back,
                alarms_ignored: self.alarm,
                bake_until: None,
                traffic: if is_first { ALL } else { 0 },
                created: now,
                updated: now,
            },
        );
        self.note(now, &noted, What::UpdateRequested);
        self.steady = false;
        self.rouse(now);
    }

    /// Has the scheduler look at the service again.
    pub(crate) fn rouse(&mut self, now: At) {
        self.wake = Some(self.wake.map_or(now, |wake| wake.min(now)));
    }

    /// Remembers what reads are to show for a while after a write.
    pub(crate) fn go_stale(&mut self, shown: Option<Value>, now: At, settings: &Settings) {
        if !settings.stale_reads.is_zero() {
            self.stale = Some(Stale { until: now + settings.stale_reads, shown });
        }
    }
}

//! The service scheduler: starts and stops tasks so that the PRIMARY deployment takes over.

use std::{sync::Arc, time::Duration};

use super::{
    At,
    deployment::Deployment,
    events::What,
    fate::{Fate, Stop},
    service::{Balancing, Service, Status, World},
    task::{Change, Phase, Task},
};
use crate::behaviour::Behaviour;

/// The shortest time between two looks of the scheduler at one service.
const SHORTEST: Duration = Duration::from_millis(1);

impl Service {
    /// Lets everything happen that is due until `now`, each thing at its own time.
    pub(crate) fn advance(&mut self, now: At, world: &mut World<'_>) {
        while let Some(wake) = self.wake.filter(|wake| *wake <= now) {
            self.wake = None;
            self.step(wake, world);
            let next = [self.wake, self.next_wake(wake)].into_iter().flatten().min();
            self.wake = next.map(|next| next.max(wake + SHORTEST));
        }
    }

    fn next_wake(&self, now: At) -> Option<At> {
        let tasks = self.tasks.iter().filter_map(Task::due);
        let primary = self.primary().into_iter();
        let waits = primary.flat_map(|primary| [Some(primary.not_before), primary.bake_until]).flatten();
        let history = self.history.first().into_iter();
        let staged = history.flat_map(|current| [current.rollback_due, current.stage_due]).flatten();
        let protected = self.tasks.iter().filter_map(|task| task.protected_until);
        tasks.chain(waits.chain(protected).chain(staged).filter(|due| *due > now)).min()
    }

    fn step(&mut self, now: At, world: &mut World<'_>) {
        let rules = self.rules(world.settings);
        let mut registered = 0;
        let mut forgotten = false;
        for index in 0..self.tasks.len() {
            while let Some(change) = self.tasks[index].proceed(now, &rules) {
                registered += usize::from(change == Change::Registered);
                forgotten |= change == Change::Forgotten;
                self.react(index, change, now, world);
            }
        }
        if forgotten {
            let visible = world.settings.stopped_visible;
            self.tasks.retain(|task| task.stopped.is_none_or(|stopped| stopped + visible > now));
        }
        if let (Balancing::TargetGroup(group), 1..) = (self.balancing.clone(), registered) {
            self.tell(now, world.ids, &format!("registered {registered} targets in (target-group {group})"));
        }
        if !matches!(self.status, Status::Inactive { .. }) {
            self.start_tasks(now, world);
            self.stop_tasks(now, world);
            self.conclude(now, world);
        }
    }

    /// Draws the consequences of a task's change for its deployment.
    fn react(&mut self, index: usize, change: Change, now: At, world: &mut World<'_>) {
        let id = self.tasks[index].deployment.clone();
        match change {
            Change::Settled => {
                if let Some(deployment) = self.deployments.iter_mut().find(|deployment| deployment.id == id) {
                    deployment.failed_tasks = 0;
                    deployment.start_failures = 0;
                }
            }
            Change::FailedToStart => {
                self.count_failure(&id, now);
                if let Some(deployment) = self.deployments.iter_mut().find(|deployment| deployment.id == id) {
                    deployment.space_out(now, world.settings);
                    if deployment.start_failures >= 3 {
                        self.tell(
                            now,
                            world.ids,
                            "is unable to consistently start tasks successfully. For more information, see the Troubleshooting section.",
                        );
                    }
                }
            }
            Change::Exited if world.settings.exits_count => self.count_failure(&id, now),
            Change::Exited => {
                self.note(now, &id, What::TaskFailed);
                self.steady = false;
            }
            Change::TargetUnhealthy => {
                let group = self.group();
                let why = "due to (reason Health checks failed with these codes: [502])";
                let task = self.tasks[index].id.clone();
                self.tell(
                    now,
                    world.ids,
                    &format!("(task {task}) (port {}) is unhealthy in (target-group {group}) {why}.", self.port()),
                );
                let reason = format!("Task failed ELB health checks in (target-group {group})");
                self.stop_batch(&[index], &Stop::by_scheduler(reason), now, world);
                self.count_failure(&id, now);
            }
            Change::ContainerUnhealthy => {
                let task = self.tasks[index].id.clone();
                self.tell(now, world.ids, &format!("(task {task}) failed container health checks."));
                self.stop_batch(&[index], &Stop::by_scheduler("Task failed container health checks"), now, world);
                self.count_failure(&id, now);
            }
            Change::Registered | Change::Running | Change::Stopped | Change::Forgotten | Change::Moved => {}
        }
    }

    /// `failedTasks`: failures in a row (`API_Deployment`).
    fn count_failure(&mut self, id: &str, now: At) {
        self.note(now, id, What::TaskFailed);
        self.steady = false;
        if let Some(deployment) = self.deployments.iter_mut().find(|deployment| deployment.id == id) {
            deployment.failed_tasks += 1;
        }
    }

    /// Starts what is missing, as far as `maximumPercent` allows (`API_DeploymentConfiguration`).
    fn start_tasks(&mut self, now: At, world: &mut World<'_>) {
        let desired = self.target_count(world.settings);
        let Some(primary) = self.primary().cloned() else {
            return;
        };
        let total = u32::try_from(self.tasks.iter().filter(|task| task.wanted()).count()).unwrap_or(u32::MAX);
        if primary.is_given_up() {
            self.keep_old(now, world);
            return;
        }
        if self.keeps_old() {
            self.keep_old(now, world);
        }
        if !self.may_scale_up() {
            return;
        }
        let missing = desired.saturating_sub(self.count(&primary.id, Task::wanted));
        let room = self.configuration.maximum(desired).saturating_sub(total);
        let allowed = if self.is_blue_green() { missing } else { missing.min(room) };
        if now >= primary.not_before && allowed > 0 {
            self.start_batch(&primary, allowed, now, world);
        }
    }

    /// While the newest deployment is given up or has yet to prove itself, the one before it is kept at its count.
    fn keep_old(&mut self, now: At, world: &mut World<'_>) {
        let old = self.deployments.iter().skip(1).find(|deployment| !deployment.is_given_up());
        let Some(old) = old.cloned().filter(|_| self.status == Status::Active) else {
            return;
        };
        let missing = old.keep.saturating_sub(self.count(&old.id, Task::wanted));
        if missing > 0 && now >= old.not_before {
            self.start_batch(&old, missing, now, world);
        }
    }

    fn start_batch(&mut self, deployment: &Deployment, count: u32, now: At, world: &mut World<'_>) {
        let settings = world.settings;
        let blueprint = &deployment.blueprint;
        let behaviour = world.versions.get(&blueprint.tag).cloned().unwrap_or_default();
        if matches!(behaviour, Behaviour::NoCapacity | Behaviour::NeverStarts) {
            self.tell(
                now,
                world.ids,
                "was unable to place a task because no container instance met all of its requirements. Reason: No Container Instances were found in your cluster. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
            );
        }
        if behaviour == Behaviour::NoCapacity {
            self.count_failure(&deployment.id, now);
            if let Some(deployment) = self.deployments.iter_mut().find(|other| other.id == deployment.id) {
                deployment.space_out(now, settings);
            }
            return;
        }
        let stagger = u64::try_from(settings.stagger.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut images = blueprint.containers.iter().map(|(_, image)| image);
        let missing = images.find(|image| world.registries.lacks(image));
        let mut names = Vec::new();
        for _ in 0..count {
            let attempts = self.attempts.entry(blueprint.tag.clone()).or_default();
            *attempts += 1;
            let fate = match &missing {
                Some(image) => Fate::without_image(image),
                None => Fate::of(&behaviour, *attempts, blueprint, settings),
            };
            let provisioning = settings.provisioning + Duration::from_millis(world.ids.number() % stagger);
            let id = world.ids.task();
            names.push(format!("(task {id})"));
            let task = Task::start(id, deployment.id.clone(), Arc::clone(blueprint), fate, now, provisioning);
            self.tasks.push(task);
        }
        self.tell(now, world.ids, &format!("has started {count} tasks: {}.", names.join(" ")));
    }

    /// Stops what is too much, as far as `minimumHealthyPercent` and protection allow.
    fn stop_tasks(&mut self, now: At, world: &mut World<'_>) {
        let desired = self.target_count(world.settings);
        let Some(primary) = self.primary().cloned() else {
            return;
        };
        let stoppable = |task: &Task| task.wanted() && !task.protected(now);
        let is_new = |task: &Task| task.deployment == primary.id;
        let indices = |service: &Self, is_so: &dyn Fn(&Task) -> bool| -> Vec<usize> {
            (0..service.tasks.len()).filter(|index| is_so(&service.tasks[*index])).collect()
        };
        let new = self.count(&primary.id, Task::wanted);
        let mut surplus = indices(self, &|task| is_new(task) && stoppable(task));
        surplus.sort_by_key(|index| self.tasks[*index].healthy());
        surplus.truncate(new.saturating_sub(desired) as usize);

        let begun = now >= primary.created + world.settings.scheduling;
        let holds = primary.is_given_up() && self.status == Status::Active;
        if begun && !holds && (!self.is_blue_green() || self.may_clean_up(&primary)) {
            surplus.extend(indices(self, &|task| !is_new(task) && stoppable(task) && !task.healthy()));
            let healthy = self.tasks.iter().filter(|task| task.healthy()).count();
            let spare = healthy.saturating_sub(self.configuration.minimum(desired) as usize);
            let mut old = indices(self, &|task| !is_new(task) && stoppable(task) && task.healthy());
            old.truncate(spare);
            surplus.extend(old);
            self.complain_if_stuck(&primary, desired, surplus.is_empty(), now, world);
        }
        if !surplus.is_empty() {
            let reason = format!("Scaling activity initiated by (deployment {})", primary.id);
            self.stop_batch(&surplus, &Stop::by_scheduler(reason), now, world);
        }
    }

    /// Says so when the percentages allow neither starting nor stopping.
    fn complain_if_stuck(
        &mut self,
        primary: &Deployment,
        desired: u32,
        stops_none: bool,
        now: At,
        world: &mut World<'_>,
    ) {
        let new = self.count(&primary.id, Task::wanted);
        let old_run = self.tasks.iter().any(|task| task.wanted() && task.deployment != primary.id);
        let all_healthy = self.tasks.iter().filter(|task| task.wanted()).all(Task::healthy);
        if stops_none && old_run && all_healthy && new < desired && now >= primary.not_before {
            self.tell(
                now,
                world.ids,
                "was unable to stop or start tasks during a deployment because of the service deployment configuration. Update the minimumHealthyPercent or maximumPercent value and try again.",
            );
        }
    }

    /// Begins to stop these tasks and writes the events that go with it.
    pub(crate) fn stop_batch(&mut self, indices: &[usize], stop: &Stop, now: At, world: &mut World<'_>) {
        let rules = self.rules(world.settings);
        let (mut names, mut draining) = (Vec::new(), 0);
        for index in indices {
            let task = &mut self.tasks[*index];
            if task.stop(stop.clone(), now, &rules) {
                names.push(format!("(task {})", task.id));
                draining += usize::from(task.phase == Phase::Deactivating);
            }
        }
        if names.is_empty() {
            return;
        }
        self.tell(now, world.ids, &format!("has stopped {} running tasks: {}.", names.len(), names.join(" ")));
        if draining > 0 {
            let group = self.group();
            self.tell(now, world.ids, &format!("deregistered {draining} targets in (target-group {group})"));
            self.tell(now, world.ids, &format!("has begun draining connections on {draining} tasks."));
        }
        self.rouse(now);
    }

    fn group(&self) -> String {
        match &self.balancing {
            Balancing::None => String::new(),
            Balancing::TargetGroup(name) | Balancing::Classic(name) => name.clone(),
        }
    }

    fn port(&self) -> u64 {
        let balancer = self.kept.get("loadBalancers").and_then(|balancers| balancers.get(0));
        balancer.and_then(|balancer| balancer.get("containerPort")).and_then(serde_json::Value::as_u64).unwrap_or(80)
    }
}

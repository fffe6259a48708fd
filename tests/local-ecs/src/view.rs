//! What tests may ask of the account at one instant.

use std::{collections::BTreeSet, time::Instant};

use serde_json::Value;

use crate::{
    log::{Moment, Request, task_definition},
    model::{service::Service, task::Task},
    rule::is_called as is_rule,
    state::State,
};

/// The account at one instant; services go by name, or by `cluster/name` or `region/cluster/name` where names repeat.
#[derive(Debug)]
pub struct View<'a>(pub(crate) &'a State);

impl View<'_> {
    /// The tags of a service's RUNNING tasks, sorted, each once, joined by `+`; empty if there are none.
    #[must_use]
    pub fn runs(&self, service: &str) -> String {
        let running = self.service(service).tasks.iter().filter(|task| task.runs());
        let tags: BTreeSet<&str> = running.map(|task| task.blueprint.tag.as_str()).collect();
        tags.into_iter().collect::<Vec<_>>().join("+")
    }

    /// How many of a service's tasks are RUNNING.
    #[must_use]
    pub fn running_count(&self, service: &str) -> usize {
        self.service(service).tasks.iter().filter(|task| task.runs()).count()
    }

    /// The task definition of a service's PRIMARY deployment, as `family:revision`; empty if there is none.
    #[must_use]
    pub fn task_definition_of(&self, service: &str) -> String {
        self.service(service).primary().map(|primary| primary.blueprint.short.clone()).unwrap_or_default()
    }

    /// The `rolloutState` of a service's PRIMARY deployment, whether or not clients are shown one.
    #[must_use]
    pub fn rollout_of(&self, service: &str) -> &'static str {
        self.service(service).primary().map_or("", |primary| primary.rollout.name())
    }

    /// The id of a service's PRIMARY deployment; empty if there is none.
    #[must_use]
    pub fn deployment_of(&self, service: &str) -> String {
        self.service(service).primary().map(|primary| primary.id.clone()).unwrap_or_default()
    }

    /// A service as `DescribeServices` would show it, were it never stale.
    #[must_use]
    pub fn described(&self, service: &str) -> Value {
        self.0.account.lens().service(self.service(service), true)
    }

    /// A service's tasks as `DescribeTasks` shows them, stopped ones too, oldest first.
    #[must_use]
    pub fn tasks(&self, service: &str) -> Vec<Value> {
        let service = self.service(service);
        service.tasks.iter().map(|task| self.0.account.lens().task(service, task)).collect()
    }

    /// The targets of a rule as they came; rules go by name, or by `bus/name` or `region/bus/name` where names repeat.
    ///
    /// # Panics
    ///
    /// If there is no such rule, or more than one: the test asks for the wrong thing.
    #[must_use]
    pub fn targets(&self, rule: &str) -> Vec<Value> {
        let regions = self.0.account.regions.iter();
        let rules = regions.flat_map(|(region, inner)| inner.buses.rules().map(move |found| (region, found)));
        let mut found = rules.filter(|(region, (bus, name, _))| is_rule(region, bus, name, rule));
        let Some((_, (_, _, first))) = found.next() else { panic!("there is no rule `{rule}`") };
        assert!(found.next().is_none(), "there is more than one rule `{rule}`: say `region/bus/name`");
        first.targets.clone()
    }

    /// What a rule's targets have ECS run, as `family:revision`, or as `family` where they name no revision.
    ///
    /// # Panics
    ///
    /// As [`Self::targets`].
    #[must_use]
    pub fn schedules(&self, rule: &str) -> Vec<String> {
        self.targets(rule).iter().filter_map(task_definition).map(str::to_owned).collect()
    }

    /// Whether a service is in a steady state: one deployment, all of its tasks running and healthy, no others left.
    #[must_use]
    pub fn is_steady(&self, service: &str) -> bool {
        let service = self.service(service);
        let left = service.tasks.iter().filter(|task| task.stopped.is_none());
        service.deployments.len() == 1 && service.steady && left.clone().all(Task::healthy)
    }

    /// How many requests came for a service through its load balancer.
    #[must_use]
    pub fn lb_requests(&self, service: &str) -> usize {
        self.service(service).requests.len()
    }

    /// When each of those requests came.
    #[must_use]
    pub fn lb_requests_at(&self, service: &str) -> Vec<Instant> {
        self.service(service).requests.iter().map(|at| self.0.instant(*at)).collect()
    }

    /// What truly happened to a service's deployments, in order.
    #[must_use]
    pub fn moments(&self, service: &str) -> Vec<Moment> {
        let service = self.service(service);
        let happened = service.happened.iter();
        happened
            .map(|happened| Moment {
                at: self.0.instant(happened.at),
                deployment: happened.deployment.clone(),
                task_definition: happened.task_definition.clone(),
                what: happened.what,
            })
            .collect()
    }

    /// Every request that came over the wire.
    #[must_use]
    pub fn requests(&self) -> &[Request] {
        &self.0.requests
    }

    /// How many requests of an operation have come over the wire; unlike [`Self::requests`], with those that a fault
    /// still holds back.
    #[must_use]
    pub fn arrived(&self, operation: &str) -> usize {
        self.0.arrived.iter().filter(|arrived| *arrived == operation).count()
    }

    /// The writes that came over the wire and took effect, such as `UpdateService api -> api:2`, in order.
    #[must_use]
    pub fn writes(&self) -> &[String] {
        &self.0.writes
    }

    /// The service of this name.
    ///
    /// # Panics
    ///
    /// If there is none, or more than one: the test asks for the wrong thing.
    pub(crate) fn service(&self, name: &str) -> &Service {
        let mut found = self.0.account.services().filter(|service| is_called(service, name));
        let Some(first) = found.next() else { panic!("there is no service `{name}`") };
        assert!(found.next().is_none(), "there is more than one service `{name}`: say `region/cluster/name`");
        first
    }
}

/// Whether a service goes by this name, `cluster/name` or `region/cluster/name`.
pub(crate) fn is_called(service: &Service, name: &str) -> bool {
    let Service { region, cluster, name: own, .. } = service;
    name == own || name == format!("{cluster}/{own}") || name == format!("{region}/{cluster}/{own}")
}

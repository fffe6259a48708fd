//! The account: regions, their clusters and families, and the way through time.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{
    At, arn,
    failure::Failure,
    ids::Ids,
    registry::Registries,
    render::Lens,
    schedule::Buses,
    service::{Service, Status, World},
    sessions::Sessions,
    task_definition::TaskDefinition,
};
use crate::{behaviour::Behaviour, settings::Settings};

/// A cluster and its services.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) is_deleted: bool,
    pub(crate) tags: Vec<Value>,
    pub(crate) services: BTreeMap<String, Service>,
}

/// What one region holds.
#[derive(Debug, Default)]
pub(crate) struct Region {
    pub(crate) clusters: BTreeMap<String, Cluster>,
    /// The revisions of each family, oldest first.
    pub(crate) families: BTreeMap<String, Vec<TaskDefinition>>,
    /// Amazon EventBridge's event buses.
    pub(crate) buses: Buses,
}

/// Everything that one account has in ECS, what Amazon ECR holds for it, and who may act in it.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) settings: Settings,
    pub(crate) versions: HashMap<String, Behaviour>,
    pub(crate) regions: BTreeMap<String, Region>,
    /// What Amazon ECR holds, in this account and in others.
    pub(crate) registries: Registries,
    /// The temporary credentials that roles gave.
    pub(crate) sessions: Sessions,
    pub(crate) ids: Ids,
    pub(crate) now: At,
    /// The model's beginning, in seconds since the epoch.
    pub(crate) origin: f64,
}

impl Account {
    /// An empty account.
    pub(crate) fn new(settings: Settings, origin: f64) -> Self {
        Self {
            settings,
            versions: HashMap::new(),
            regions: BTreeMap::new(),
            registries: Registries::default(),
            sessions: Sessions::default(),
            ids: Ids::new(7),
            now: At::ZERO,
            origin,
        }
    }

    /// Lets everything happen that is due until `now`.
    pub(crate) fn advance(&mut self, now: At) {
        self.now = self.now.max(now);
        let now = self.now;
        let visible = self.settings.inactive_visible;
        let mut world = World {
            settings: &self.settings,
            versions: &self.versions,
            registries: &self.registries,
            ids: &mut self.ids,
        };
        for cluster in self.regions.values_mut().flat_map(|region| region.clusters.values_mut()) {
            for service in cluster.services.values_mut() {
                service.advance(now, &mut world);
            }
            cluster.services.retain(|_, service| match service.status {
                Status::Inactive { since } => since + visible > now,
                _ => true,
            });
        }
    }

    /// What shows the account to clients.
    pub(crate) fn lens(&self) -> Lens<'_> {
        Lens { origin: self.origin, settings: &self.settings }
    }

    /// A region; it is made when first asked for.
    pub(crate) fn region(&mut self, name: &str) -> &mut Region {
        if !self.regions.contains_key(name) {
            self.regions.insert(name.to_owned(), Region::default());
        }
        self.regions.entry(name.to_owned()).or_default()
    }

    /// A cluster by name or ARN.
    pub(crate) fn cluster(&self, region: &str, reference: &str) -> Result<&Cluster, Failure> {
        let cluster = self.regions.get(region).and_then(|region| region.clusters.get(arn::name(reference)));
        cluster.filter(|cluster| !cluster.is_deleted).ok_or_else(Failure::no_cluster)
    }

    /// A service of a cluster, each by name or ARN.
    pub(crate) fn service(&self, region: &str, cluster: &str, service: &str) -> Result<&Service, Failure> {
        let cluster = self.cluster(region, cluster)?;
        cluster.services.get(arn::name(service)).ok_or_else(Failure::no_service)
    }

    /// A service to change, with what it needs to move.
    pub(crate) fn service_mut(
        &mut self,
        region: &str,
        cluster: &str,
        service: &str,
    ) -> Result<(&mut Service, World<'_>), Failure> {
        let clusters = self.regions.get_mut(region).map(|region| &mut region.clusters);
        let cluster = clusters.and_then(|clusters| clusters.get_mut(arn::name(cluster)));
        let cluster = cluster.filter(|cluster| !cluster.is_deleted).ok_or_else(Failure::no_cluster)?;
        let service = cluster.services.get_mut(arn::name(service)).ok_or_else(Failure::no_service)?;
        Ok((
            service,
            World {
                settings: &self.settings,
                versions: &self.versions,
                registries: &self.registries,
                ids: &mut self.ids,
            },
        ))
    }

    /// All services, wherever they are.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Service> {
        let clusters = self.regions.values().flat_map(|region| region.clusters.values());
        clusters.flat_map(|cluster| cluster.services.values())
    }

    /// A task definition by family (its latest ACTIVE revision), `family:revision` or ARN.
    pub(crate) fn task_definition(&self, region: &str, reference: &str) -> Option<&TaskDefinition> {
        let short = arn::name(reference);
        let families = &self.regions.get(region)?.families;
        match short.split_once(':') {
            Some((family, revision)) => {
                let revision: u32 = revision.parse().ok()?;
                families.get(family)?.iter().find(|definition| definition.revision == revision)
            }
            None => families.get(short)?.iter().rev().find(|definition| definition.is_active()),
        }
    }
}

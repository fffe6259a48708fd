//! The only module that names the SDK of Amazon ECS: one method per ECS operation that gehen uses, and gehen's own
//! types out of its answers. It decides nothing and repeats nothing.

mod answers;
mod definition;
mod looks;
mod pace;
mod seen;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use aws_sdk_ecs::{
    Client,
    types::{DesiredStatus, ServiceDeploymentStatus, StopServiceDeploymentStopType, TaskDefinitionField},
};
// A request is some kilobytes, which each service that waits would hold all the while.
use futures_util::FutureExt as _;

pub use definition::{Registration, TaskDefinition, Unclear};
pub use pace::{Haste, WriteTurn};
pub use seen::{
    DeploymentId, ImageChange, Look, Meant, Rollout, SeenDeployment, ServiceDeployment, ServiceDeploymentArn, StopCode,
    Stopped, Strategy, Task, TaskDefinitionArn,
};

use self::{
    answers::{Described, look},
    looks::Looks,
    pace::{Bucket, Reads},
};
use crate::{
    aws::{
        Aws, Error, convert,
        raw::{KeepBody, with_body},
    },
    config::Service,
};

/// The most tasks that DescribeTasks takes (API_DescribeTasks), and the most that a page of ListTasks holds.
const TASKS_AT_ONCE: usize = 100;
/// The most pages that one listing may have: more tasks than a service can have (5,000, Amazon ECS service quotas),
/// with room for as many that have stopped.
const MOST_PAGES: usize = 100;

/// Clients for the regions of all services, on one set of credentials and one pool of connections.
pub struct Ecs {
    regions: HashMap<String, Region>,
    /// That of the AWS settings, in which clusters are that go by their bare names.
    region: Option<String>,
    reads: Reads,
    looks: Looks,
}

/// One region, in which the account has limits of its own.
struct Region {
    client: Client,
    registrations: Bucket,
    updates: Bucket,
}

impl Region {
    fn new(client: Client) -> Self {
        Self { client, registrations: Bucket::of_registrations(), updates: Bucket::of_updates() }
    }
}

impl Ecs {
    /// Prepares a client for each region that `services` name, and for each of `regions`. Errors: a bare cluster name
    /// where the AWS settings give no region.
    pub fn connect<'a>(
        aws: &Aws,
        services: &[Service],
        regions: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<Self> {
        let region = aws.region().map(ToString::to_string);
        let mut named: Vec<_> = regions.into_iter().map(str::to_owned).collect();
        for service in services {
            let Some(region) = service.cluster.region().or(region.as_deref()) else {
                anyhow::bail!(
                    "service `{}`: no region for cluster `{}`; set AWS_REGION, or write the cluster's ARN",
                    service.name,
                    service.cluster.as_str()
                );
            };
            named.push(region.to_owned());
        }
        let mut regions = HashMap::new();
        for name in named {
            regions
                .entry(name)
                .or_insert_with_key(|name| Region::new(Client::new(&aws.client_settings(Some(name.clone())))));
        }
        Ok(Self { regions, region, reads: Reads::default(), looks: Looks::default() })
    }

    fn region_named(&self, region: &str) -> &Region {
        self.regions.get(region).expect("connect made a client for each region asked for")
    }

    fn client_in(&self, region: &str) -> &Client {
        &self.region_named(region).client
    }

    fn region_of(&self, service: &Service) -> &Region {
        self.region_named(self.region(service))
    }

    fn client(&self, service: &Service) -> &Client {
        &self.region_of(service).client
    }

    /// Waits for a turn to register a revision for `service`.
    pub async fn may_register(&self, service: &Service) -> WriteTurn<'_> {
        self.region_of(service).registrations.turn().await
    }

    /// As [`Self::may_register`], in `region`.
    pub async fn may_register_in(&self, region: &str) -> WriteTurn<'_> {
        self.region_named(region).registrations.turn().await
    }

    /// Waits for a turn to update `service`.
    pub async fn may_update(&self, service: &Service) -> WriteTurn<'_> {
        self.region_of(service).updates.turn().await
    }

    /// The region that requests for `service` go to.
    pub fn region<'a>(&'a self, service: &'a Service) -> &'a str {
        service.cluster.region().or(self.region.as_deref()).unwrap_or_default()
    }

    /// How long it takes to register so many revisions for services of this region, while ECS doesn't stumble.
    pub fn registrations_take(&self, region: &str, count: usize) -> Duration {
        self.region_named(region).registrations.takes(count)
    }

    /// DescribeServices, for all services of the cluster that wait for a look. A service that is missing, not ACTIVE or
    /// without a PRIMARY deployment is an error that is [`crate::aws::Fate::Refused`].
    pub async fn look(&self, service: &Service, haste: Haste) -> Result<Look, Error> {
        self.looks.look(self, service, haste).await
    }

    /// DescribeServices of these services, which are of the cluster of `service`.
    async fn describe(&self, service: &Service, names: &BTreeSet<&str>) -> Result<Described, Error> {
        let cluster = service.cluster.as_str();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let asked = self
            .client(service)
            .describe_services()
            .cluster(cluster)
            .set_services(Some(names))
            .send()
            .boxed_local()
            .await;
        asked.map(|answer| Described::new(cluster, answer)).map_err(|error| convert(Described::OPERATION, &error))
    }

    /// DescribeTaskDefinition of one revision, tags included, with every field that ECS sent.
    pub async fn task_definition(&self, service: &Service, arn: &TaskDefinitionArn) -> Result<TaskDefinition, Error> {
        self.reads.may_read(Haste::None).await;
        describe(self.client(service), &arn.0).await
    }

    /// As [`Self::task_definition`], in `region`; where `arn` names no revision, the newest of its family that is
    /// ACTIVE. API_DescribeTaskDefinition takes a family by its name only.
    pub async fn task_definition_in(&self, region: &str, arn: &TaskDefinitionArn) -> Result<TaskDefinition, Error> {
        self.reads.may_read(Haste::None).await;
        describe(self.client_in(region), if arn.names_revision() { &arn.0 } else { arn.family() }).await
    }

    /// As [`Self::task_definition`], of the newest ACTIVE revision of the family that `arn` belongs to
    /// (API_DescribeTaskDefinition).
    pub async fn newest_of_family(&self, service: &Service, arn: &TaskDefinitionArn) -> Result<TaskDefinition, Error> {
        self.reads.may_read(Haste::None).await;
        describe(self.client(service), arn.family()).await
    }

    /// As [`Self::newest_of_family`], in `region`.
    pub async fn newest_of_family_in(&self, region: &str, arn: &TaskDefinitionArn) -> Result<TaskDefinition, Error> {
        self.reads.may_read(Haste::None).await;
        describe(self.client_in(region), arn.family()).await
    }

    /// RegisterTaskDefinition with exactly the body of `registration`. Not idempotent: a repeated request may make two
    /// revisions.
    pub async fn register(&self, service: &Service, registration: &Registration) -> Result<TaskDefinitionArn, Error> {
        register(self.client(service), registration).await
    }

    /// As [`Self::register`], in `region`.
    pub async fn register_in(&self, region: &str, registration: &Registration) -> Result<TaskDefinitionArn, Error> {
        register(self.client_in(region), registration).await
    }

    /// UpdateService to `task_definition` with forceNewDeployment and without a desired count; gives the service as it
    /// is from then on.
    pub async fn update(&self, service: &Service, task_definition: &TaskDefinitionArn) -> Result<Look, Error> {
        const OPERATION: &str = "UpdateService";
        let answer = self
            .client(service)
            .update_service()
            .cluster(service.cluster.as_str())
            .service(&service.name)
            .task_definition(&task_definition.0)
            .force_new_deployment(true)
            .send()
            .boxed_local()
            .await
            .map_err(|error| convert(OPERATION, &error))?;
        // ECS said yes: an answer that can't be read leaves open what it did.
        let seen = answer.service().ok_or_else(|| Error::unknown(OPERATION, "the answer doesn't hold the service"))?;
        look(OPERATION, seen).map_err(|error| Error::unknown(OPERATION, format!("the answer can't be read: {error}")))
    }

    /// ListTasks: the ARNs of the service's tasks that are meant to run, or to stop.
    pub async fn task_arns(&self, service: &Service, meant: Meant, haste: Haste) -> Result<Vec<String>, Error> {
        const OPERATION: &str = "ListTasks";
        let mut arns = Vec::new();
        let mut next = None;
        for _ in 0..MOST_PAGES {
            self.reads.may_read(haste).await;
            let page = self
                .client(service)
                .list_tasks()
                .cluster(service.cluster.as_str())
                .service_name(&service.name)
                .desired_status(match meant {
                    Meant::ToRun => DesiredStatus::Running,
                    Meant::ToStop => DesiredStatus::Stopped,
                })
                .set_next_token(next.clone())
                .send()
                .boxed_local()
                .await
                .map_err(|error| convert(OPERATION, &error))?;
            arns.extend(page.task_arns.unwrap_or_default());
            match page.next_token {
                None => return Ok(arns),
                // The same page again, as the SDK's own paginators would end here, too.
                token if token == next => break,
                token => next = token,
            }
        }
        Err(Error::unknown(OPERATION, "the list has no end"))
    }

    /// DescribeTasks: these tasks, as far as ECS still knows them.
    pub async fn describe_tasks(&self, service: &Service, arns: &[String], haste: Haste) -> Result<Vec<Task>, Error> {
        let mut tasks = Vec::new();
        for arns in arns.chunks(TASKS_AT_ONCE) {
            self.reads.may_read(haste).await;
            let described = self
                .client(service)
                .describe_tasks()
                .cluster(service.cluster.as_str())
                .set_tasks(Some(arns.to_vec()))
                .send()
                .boxed_local()
                .await
                .map_err(|error| convert("DescribeTasks", &error))?;
            tasks.extend(described.tasks().iter().map(answers::task));
        }
        Ok(tasks)
    }

    /// ListTasks and DescribeTasks: the service's tasks that are meant to run, or to stop.
    pub async fn tasks(&self, service: &Service, meant: Meant, haste: Haste) -> Result<Vec<Task>, Error> {
        let arns = self.task_arns(service, meant, haste).await?;
        self.describe_tasks(service, &arns, haste).await
    }

    /// ListServiceDeployments and DescribeServiceRevisions: the task definition of the newest service deployment that
    /// was SUCCESSFUL, of those within the 90 days that ECS keeps.
    pub async fn last_successful(&self, service: &Service) -> Result<Option<TaskDefinitionArn>, Error> {
        const OPERATION: &str = "DescribeServiceRevisions";
        let mut newest: Option<aws_sdk_ecs::types::ServiceDeploymentBrief> = None;
        let mut next = None;
        for _ in 0..MOST_PAGES {
            self.reads.may_read(Haste::None).await;
            let page = self
                .client(service)
                .list_service_deployments()
                .cluster(service.cluster.as_str())
                .service(&service.name)
                .status(ServiceDeploymentStatus::Successful)
                .set_next_token(next.clone())
                .send()
                .boxed_local()
                .await
                .map_err(|error| convert("ListServiceDeployments", &error))?;
            let listed = newest.into_iter().chain(page.service_deployments.unwrap_or_default());
            // Of two of the same millisecond the one listed first counts.
            newest = listed.rev().max_by_key(|deployment| deployment.created_at().copied());
            if page.next_token.is_none() || page.next_token == next {
                break;
            }
            next = page.next_token;
        }
        let Some(revision) = newest.and_then(|newest| newest.target_service_revision_arn) else { return Ok(None) };
        self.reads.may_read(Haste::None).await;
        let described = self
            .client(service)
            .describe_service_revisions()
            .service_revision_arns(revision)
            .send()
            .boxed_local()
            .await
            .map_err(|error| convert(OPERATION, &error))?;
        let task_definition = described.service_revisions().first().and_then(|revision| revision.task_definition());
        let missing = || Error::refused(OPERATION, "the answer doesn't hold the service revision");
        Ok(Some(TaskDefinitionArn(task_definition.ok_or_else(missing)?.to_owned())))
    }

    /// DescribeServiceDeployments of one service deployment.
    pub async fn service_deployment(
        &self,
        service: &Service,
        arn: &ServiceDeploymentArn,
        haste: Haste,
    ) -> Result<ServiceDeployment, Error> {
        const OPERATION: &str = "DescribeServiceDeployments";
        self.reads.may_read(haste).await;
        let described = self
            .client(service)
            .describe_service_deployments()
            .service_deployment_arns(&arn.0)
            .send()
            .boxed_local()
            .await
            .map_err(|error| convert(OPERATION, &error))?;
        let found = described.service_deployments().first().map(answers::service_deployment);
        found.ok_or_else(|| Error::refused(OPERATION, "the answer doesn't hold the service deployment"))
    }

    /// StopServiceDeployment with stop type ROLLBACK: ECS itself takes the service back to what ran before.
    pub async fn stop(&self, service: &Service, arn: &ServiceDeploymentArn) -> Result<(), Error> {
        let stopped = self
            .client(service)
            .stop_service_deployment()
            .service_deployment_arn(&arn.0)
            .stop_type(StopServiceDeploymentStopType::Rollback)
            .send()
            .boxed_local()
            .await;
        stopped.map(drop).map_err(|error| convert("StopServiceDeployment", &error))
    }
}

/// DescribeTaskDefinition of `name`, which is an ARN or a family.
async fn describe(client: &Client, name: &str) -> Result<TaskDefinition, Error> {
    const OPERATION: &str = "DescribeTaskDefinition";
    let body = KeepBody::default();
    client
        .describe_task_definition()
        .task_definition(name)
        .include(TaskDefinitionField::Tags)
        .customize()
        .interceptor(body.clone())
        .send()
        .boxed_local()
        .await
        .map_err(|error| convert(OPERATION, &error))?;
    TaskDefinition::from_answer(&body.take()).map_err(|error| Error::refused(OPERATION, format!("{error:#}")))
}

/// RegisterTaskDefinition with exactly the body of `registration`.
async fn register(client: &Client, registration: &Registration) -> Result<TaskDefinitionArn, Error> {
    const OPERATION: &str = "RegisterTaskDefinition";
    let answer = client
        .register_task_definition()
        .family(registration.family())
        .customize()
        .mutate_request(with_body(registration.to_json()))
        .send()
        .boxed_local()
        .await
        .map_err(|error| convert(OPERATION, &error))?;
    let arn = answer.task_definition().and_then(|definition| definition.task_definition_arn());
    arn.map(|arn| TaskDefinitionArn(arn.to_owned()))
        .ok_or_else(|| Error::refused(OPERATION, "the answer doesn't hold the new revision's ARN"))
}

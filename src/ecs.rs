//! The only module that names the AWS SDK: one method per ECS operation that gehen uses, and gehen's own types out of
//! its answers. It decides nothing and repeats nothing.

mod definition;
mod error;
mod seen;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ecs::{
    Client,
    config::{
        AppName, ConfigBag, Intercept, RuntimeComponents, interceptors::AfterDeserializationInterceptorContextRef,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
    types::{DeploymentConfiguration, DeploymentRolloutState, DesiredStatus, HealthStatus, TaskDefinitionField},
};
use aws_smithy_http_client::{
    Builder as HttpClientBuilder, Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};

use aws_smithy_types::body::SdkBody;

pub use definition::{Registration, TaskDefinition};
pub use error::{Error, Fate};
pub use seen::{
    DeploymentId, ImageChange, Look, Meant, Rollout, SeenDeployment, Stopped, Task, TaskDefinitionArn, version_of,
};

use crate::config::Service;

/// How long one request may take, connecting and reading included. ECS answers in well under a second; a request that
/// takes longer than this is better asked anew.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients for the regions of all services, on one set of credentials and one pool of connections.
pub struct Ecs {
    clients: HashMap<Option<String>, Client>,
}

impl Ecs {
    /// Prepares a client for each region that `services` name. Errors: a bare cluster name where the AWS settings give
    /// no region.
    pub async fn connect(services: &[Service]) -> anyhow::Result<Self> {
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client());
        if services.iter().all(|service| service.cluster.region().is_some()) {
            // Otherwise the SDK would look for a region that nobody needs, as far as EC2's metadata service.
            let region = services.first().and_then(|service| service.cluster.region()).map(str::to_owned);
            loader = loader.region(region.map(Region::new));
        }
        let settings = loader.load().await;
        let mut clients = HashMap::new();
        for service in services {
            let region = service.cluster.region().map(str::to_owned);
            if region.is_none() && settings.region().is_none() {
                anyhow::bail!(
                    "service `{}`: no region for cluster `{}`; set AWS_REGION, or write the cluster's ARN",
                    service.name,
                    service.cluster.as_str()
                );
            }
            clients.entry(region.clone()).or_insert_with(|| client(&settings, region));
        }
        Ok(Self { clients })
    }

    fn client(&self, service: &Service) -> &Client {
        let region = service.cluster.region().map(str::to_owned);
        self.clients.get(&region).expect("connect made a client for the region of each service")
    }

    /// The region that requests for `service` go to.
    pub fn region(&self, service: &Service) -> String {
        self.client(service).config().region().map(ToString::to_string).unwrap_or_default()
    }

    /// DescribeServices of one service. A service that is missing, not ACTIVE or without a PRIMARY deployment is an
    /// error that is [`Fate::Refused`].
    pub async fn look(&self, service: &Service) -> Result<Look, Error> {
        const OPERATION: &str = "DescribeServices";
        let answer = self
            .client(service)
            .describe_services()
            .cluster(service.cluster.as_str())
            .services(&service.name)
            .send()
            .await
            .map_err(|error| error::convert(OPERATION, &error))?;
        if let Some(failure) = answer.failures().first() {
            let reason = failure.reason().unwrap_or("without a reason");
            return Err(Error::refused(
                OPERATION,
                match reason {
                    "MISSING" => format!(
                        "there is no service `{}` in cluster `{}`; gehen deploys services that exist",
                        service.name,
                        service.cluster.as_str()
                    ),
                    _ => format!("ECS can't describe the service: {reason}"),
                },
            ));
        }
        match answer.services() {
            [seen] => look(OPERATION, seen),
            _ => Err(Error::refused(OPERATION, "the answer doesn't hold the service")),
        }
    }

    /// DescribeTaskDefinition, tags included, with every field that ECS sent.
    pub async fn task_definition(&self, service: &Service, arn: &TaskDefinitionArn) -> Result<TaskDefinition, Error> {
        const OPERATION: &str = "DescribeTaskDefinition";
        let body = KeepBody::default();
        self.client(service)
            .describe_task_definition()
            .task_definition(&arn.0)
            .include(TaskDefinitionField::Tags)
            .customize()
            .interceptor(body.clone())
            .send()
            .await
            .map_err(|error| error::convert(OPERATION, &error))?;
        TaskDefinition::from_answer(&body.take()).map_err(|error| Error::refused(OPERATION, format!("{error:#}")))
    }

    /// RegisterTaskDefinition with exactly the body of `registration`. Not idempotent: a repeated request may make two
    /// revisions.
    pub async fn register(&self, service: &Service, registration: &Registration) -> Result<TaskDefinitionArn, Error> {
        const OPERATION: &str = "RegisterTaskDefinition";
        let body = registration.to_json();
        let answer = self
            .client(service)
            .register_task_definition()
            .family(registration.family())
            .customize()
            .mutate_request(move |request| {
                request.headers_mut().insert("content-length", body.len().to_string());
                *request.body_mut() = SdkBody::from(body.clone());
            })
            .send()
            .await
            .map_err(|error| error::convert(OPERATION, &error))?;
        let arn = answer.task_definition().and_then(|definition| definition.task_definition_arn());
        arn.map(|arn| TaskDefinitionArn(arn.to_owned()))
            .ok_or_else(|| Error::refused(OPERATION, "the answer doesn't hold the new revision's ARN"))
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
            .await
            .map_err(|error| error::convert(OPERATION, &error))?;
        // ECS said yes: an answer that can't be read leaves open what it did.
        let seen = answer.service().ok_or_else(|| Error::unknown(OPERATION, "the answer doesn't hold the service"))?;
        look(OPERATION, seen).map_err(|error| Error::unknown(OPERATION, format!("the answer can't be read: {error}")))
    }

    /// ListTasks and DescribeTasks: the tasks of the service that are meant to run, or to stop.
    pub async fn tasks(&self, service: &Service, meant: Meant) -> Result<Vec<Task>, Error> {
        let mut tasks = Vec::new();
        let mut next = None;
        loop {
            let page = self
                .client(service)
                .list_tasks()
                .cluster(service.cluster.as_str())
                .service_name(&service.name)
                .desired_status(match meant {
                    Meant::ToRun => DesiredStatus::Running,
                    Meant::ToStop => DesiredStatus::Stopped,
                })
                .set_next_token(next)
                .send()
                .await
                .map_err(|error| error::convert("ListTasks", &error))?;
            if !page.task_arns().is_empty() {
                // A page has at most 100 tasks (API_ListTasks), as many as DescribeTasks takes.
                let described = self
                    .client(service)
                    .describe_tasks()
                    .cluster(service.cluster.as_str())
                    .set_tasks(Some(page.task_arns().to_vec()))
                    .send()
                    .await
                    .map_err(|error| error::convert("DescribeTasks", &error))?;
                tasks.extend(described.tasks().iter().map(task));
            }
            match page.next_token {
                Some(token) => next = Some(token),
                None => return Ok(tasks),
            }
        }
    }
}

/// One pool of connections on the TLS stack that reqwest has too; proxies as reqwest finds them, in the environment.
fn http_client() -> impl aws_sdk_ecs::config::HttpClient + 'static {
    HttpClientBuilder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build()
    })
}

/// A client that tries each request once: phases repeat what may be repeated, within the wait it belongs to.
fn client(settings: &SdkConfig, region: Option<String>) -> Client {
    let timeouts = TimeoutConfig::builder().operation_timeout(REQUEST_TIMEOUT).build();
    let mut config = aws_sdk_ecs::config::Builder::from(settings)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .app_name(AppName::new("gehen").expect("the name has letters only"));
    if let Some(region) = region {
        config = config.region(Region::new(region));
    }
    Client::from_conf(config.build())
}

/// Keeps the body of an answer as it came over the wire.
#[derive(Clone, Debug, Default)]
struct KeepBody(Arc<Mutex<Vec<u8>>>);

impl KeepBody {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().expect("nobody panics while holding the lock"))
    }
}

impl Intercept for KeepBody {
    fn name(&self) -> &'static str {
        "KeepBody"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), aws_sdk_ecs::error::BoxError> {
        let body = context.response().body().bytes().unwrap_or_default().to_vec();
        *self.0.lock().expect("nobody panics while holding the lock") = body;
        Ok(())
    }
}

/// The look that `service` is, if it can be deployed to and watched.
fn look(operation: &'static str, service: &aws_sdk_ecs::types::Service) -> Result<Look, Error> {
    let status = service.status().unwrap_or("unknown");
    if status != "ACTIVE" {
        return Err(Error::refused(operation, format!("the service is {status}, not ACTIVE; it has been deleted")));
    }
    let controller = service.deployment_controller().map_or("ECS", |controller| controller.r#type().as_str());
    if controller != "ECS" {
        return Err(Error::refused(
            operation,
            format!(
                "the service's deployment controller is {controller}; gehen deploys services whose controller is ECS"
            ),
        ));
    }
    let (primary, others): (Vec<_>, Vec<_>) =
        service.deployments().iter().partition(|deployment| deployment.status() == Some("PRIMARY"));
    let [primary] = primary[..] else {
        return Err(Error::refused(operation, "the service has no PRIMARY deployment"));
    };
    let since = primary.created_at();
    let is_new = |event: &&aws_sdk_ecs::types::ServiceEvent| event.created_at() >= since;
    let configuration = service.deployment_configuration();
    Ok(Look {
        desired: count(service.desired_count()),
        primary: deployment(operation, primary)?,
        others: others.into_iter().map(|other| deployment(operation, other)).collect::<Result<_, _>>()?,
        load_balanced: !service.load_balancers().is_empty(),
        minimum_healthy_percent: configuration
            .and_then(DeploymentConfiguration::minimum_healthy_percent)
            .unwrap_or(100),
        newest_event: service.events().first().filter(is_new).and_then(|event| event.message()).map(str::to_owned),
    })
}

fn deployment(operation: &'static str, seen: &aws_sdk_ecs::types::Deployment) -> Result<SeenDeployment, Error> {
    let (Some(id), Some(task_definition)) = (seen.id(), seen.task_definition()) else {
        return Err(Error::refused(operation, "a deployment has no id or no task definition"));
    };
    Ok(SeenDeployment {
        id: DeploymentId(id.to_owned()),
        task_definition: TaskDefinitionArn(task_definition.to_owned()),
        desired: count(seen.desired_count()),
        pending: count(seen.pending_count()),
        running: count(seen.running_count()),
        failed_tasks: count(seen.failed_tasks()),
        rollout: seen.rollout_state().map(|state| match state {
            DeploymentRolloutState::Completed => Rollout::Completed,
            DeploymentRolloutState::Failed => Rollout::Failed,
            _ => Rollout::InProgress,
        }),
        rollout_reason: seen.rollout_state_reason().unwrap_or_default().to_owned(),
    })
}

fn task(seen: &aws_sdk_ecs::types::Task) -> Task {
    let status = seen.last_status().unwrap_or_default();
    let containers =
        seen.containers().iter().filter(|container| container.exit_code().is_some() || container.reason().is_some());
    Task {
        id: seen.task_arn().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned(),
        task_definition: TaskDefinitionArn(seen.task_definition_arn().unwrap_or_default().to_owned()),
        started_by: seen.started_by().map(|id| DeploymentId(id.to_owned())),
        status: status.to_owned(),
        unhealthy: seen.health_status() == Some(&HealthStatus::Unhealthy),
        stopped: (status == "STOPPED").then(|| Stopped {
            at: seen.stopped_at().and_then(|at| SystemTime::try_from(*at).ok()),
            reason: seen.stopped_reason().unwrap_or("stopped without a reason").to_owned(),
            containers: containers
                .map(|container| {
                    let name = container.name().unwrap_or_default().to_owned();
                    (name, container.exit_code(), container.reason().map(str::to_owned))
                })
                .collect(),
        }),
    }
}

/// ECS counts tasks in signed numbers that are never negative.
fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

//! Services that tests begin with: already running, completed and steady.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::{
    model::{
        account::Account, arn, deployment::Rollout, registry, service::Balancing, service_deployment::Status,
        task::Task,
    },
    operations,
};

/// A service to begin with; see [`service`].
#[derive(Clone, Debug)]
pub struct ServiceBuilder {
    name: String,
    cluster: String,
    region: String,
    tag: String,
    desired: u32,
    balancer: Balancer,
    health_check: bool,
    controller: Option<String>,
    is_daemon: bool,
    configuration: Map<String, Value>,
    deregistration_delay: Option<Duration>,
    task_definition: Option<Value>,
    ecr: Option<(String, String)>,
    more: Map<String, Value>,
}

#[derive(Clone, Copy, Debug)]
enum Balancer {
    TargetGroup,
    Classic,
    None,
}

/// A service of two tasks in cluster `staging` of `us-east-1`, behind a load balancer, running version `1nitia1`.
#[must_use]
pub fn service(name: &str) -> ServiceBuilder {
    ServiceBuilder {
        name: name.to_owned(),
        cluster: "staging".to_owned(),
        region: "us-east-1".to_owned(),
        tag: "1nitia1".to_owned(),
        desired: 2,
        balancer: Balancer::TargetGroup,
        health_check: true,
        controller: None,
        is_daemon: false,
        configuration: Map::new(),
        deregistration_delay: None,
        task_definition: None,
        ecr: None,
        more: Map::new(),
    }
}

/// The image that a version of a family has.
#[must_use]
pub fn image(family: &str, tag: &str) -> String {
    format!("registry.example.com/{family}:{tag}")
}

/// The reference of an image in Amazon ECR.
#[must_use]
pub fn ecr_image(account: &str, region: &str, name: &str, tag: &str) -> String {
    registry::reference(account, region, name, tag)
}

impl ServiceBuilder {
    /// The version it runs: the tag of its image.
    #[must_use]
    pub fn running(self, tag: &str) -> Self {
        Self { tag: tag.to_owned(), ..self }
    }

    /// Its cluster, which is made when it doesn't exist.
    #[must_use]
    pub fn cluster(self, cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), ..self }
    }

    /// Its region.
    #[must_use]
    pub fn region(self, region: &str) -> Self {
        Self { region: region.to_owned(), ..self }
    }

    /// Its desired count.
    #[must_use]
    pub fn desired(self, count: u32) -> Self {
        Self { desired: count, ..self }
    }

    /// Behind a load balancer with a target group, as is the default.
    #[must_use]
    pub fn behind_load_balancer(self) -> Self {
        Self { balancer: Balancer::TargetGroup, ..self }
    }

    /// Without a load balancer: any RUNNING task answers, as if by DNS.
    #[must_use]
    pub fn without_load_balancer(self) -> Self {
        Self { balancer: Balancer::None, ..self }
    }

    /// Behind a Classic Load Balancer: deployments show no `rolloutState`.
    #[must_use]
    pub fn classic_load_balancer(self) -> Self {
        Self { balancer: Balancer::Classic, ..self }
    }

    /// Without a container health check in its task definition.
    #[must_use]
    pub fn without_health_check(self) -> Self {
        Self { health_check: false, ..self }
    }

    /// `minimumHealthyPercent`.
    #[must_use]
    pub fn minimum_healthy_percent(self, percent: u32) -> Self {
        self.configured("minimumHealthyPercent", json!(percent))
    }

    /// `maximumPercent`.
    #[must_use]
    pub fn maximum_percent(self, percent: u32) -> Self {
        self.configured("maximumPercent", json!(percent))
    }

    /// With the deployment circuit breaker, with or without rollback.
    #[must_use]
    pub fn circuit_breaker(self, rollback: bool) -> Self {
        self.configured("deploymentCircuitBreaker", json!({"enable": true, "rollback": rollback}))
    }

    /// With a deployment alarm, with or without rollback.
    #[must_use]
    pub fn alarms(self, rollback: bool) -> Self {
        let names = [format!("{}-errors", self.name)];
        self.configured("alarms", json!({"alarmNames": names, "enable": true, "rollback": rollback}))
    }

    /// With native blue/green deployments that bake for so many minutes ([`crate::Settings::bake_minute`]).
    #[must_use]
    pub fn blue_green(self, bake_minutes: u32) -> Self {
        self.native("BLUE_GREEN", bake_minutes)
    }

    /// With native linear deployments: the traffic moves in steps of so many percent, each but the last followed by a
    /// bake of its own, and then everything bakes.
    #[must_use]
    pub fn linear(self, step_percent: f64, step_bake_minutes: u32, bake_minutes: u32) -> Self {
        let steps = json!({"stepPercent": step_percent, "stepBakeTimeInMinutes": step_bake_minutes});
        self.native("LINEAR", bake_minutes).configured("linearConfiguration", steps)
    }

    /// With native canary deployments: so many percent of the traffic move first and bake, then the rest moves, and
    /// then everything bakes.
    #[must_use]
    pub fn canary(self, percent: f64, canary_bake_minutes: u32, bake_minutes: u32) -> Self {
        let canary = json!({"canaryPercent": percent, "canaryBakeTimeInMinutes": canary_bake_minutes});
        self.native("CANARY", bake_minutes).configured("canaryConfiguration", canary)
    }

    fn native(self, strategy: &str, bake_minutes: u32) -> Self {
        self.configured("strategy", json!(strategy)).configured("bakeTimeInMinutes", json!(bake_minutes))
    }

    /// With one more member of its `deploymentConfiguration`.
    #[must_use]
    pub fn configured(mut self, key: &str, value: Value) -> Self {
        self.configuration.insert(key.to_owned(), value);
        self
    }

    /// With one more member of its `CreateService` request.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.more.insert(key.to_owned(), value);
        self
    }

    /// Its deployment controller: `ECS`, `CODE_DEPLOY` or `EXTERNAL`.
    #[must_use]
    pub fn controller(self, name: &str) -> Self {
        Self { controller: Some(name.to_owned()), ..self }
    }

    /// With the DAEMON scheduling strategy: a task on each container instance
    /// ([`crate::Settings::container_instances`]).
    #[must_use]
    pub fn daemon(self) -> Self {
        Self { is_daemon: true, ..self }
    }

    /// How long its targets drain.
    #[must_use]
    pub fn deregistration_delay(self, delay: Duration) -> Self {
        Self { deregistration_delay: Some(delay), ..self }
    }

    /// The whole input of its `RegisterTaskDefinition`, instead of the usual one; its image decides the version.
    #[must_use]
    pub fn task_definition(self, input: Value) -> Self {
        Self { task_definition: Some(input), ..self }
    }

    /// The image of its usual task definition lies in this repository of the own account, which holds the version.
    #[must_use]
    pub fn in_ecr(self, region: &str, name: &str) -> Self {
        Self { ecr: Some((region.to_owned(), name.to_owned())), ..self }
    }

    /// Makes it all, and brings it to a steady state at once.
    pub(crate) fn build(self, account: &mut Account) -> Result<()> {
        let Self { region, cluster, name, .. } = &self;
        if let Some((region, repository)) = &self.ecr {
            account.registries.push(arn::ACCOUNT, region, repository, &[&self.tag], &mut account.ids);
        }
        let mut ask = |operation: &str, body: &Value| {
            operations::dispatch(account, region, operation, body).with_context(|| format!("{operation} {body}"))
        };
        ask("CreateCluster", &json!({"clusterName": cluster}))?;
        let input = self.task_definition.clone().unwrap_or_else(|| self.usual_task_definition());
        let registered = ask("RegisterTaskDefinition", &input)?;
        let container = registered["taskDefinition"]["containerDefinitions"][0]["name"].clone();
        ask("CreateService", &self.request(&registered["taskDefinition"]["taskDefinitionArn"], &container))?;
        let now = account.now;
        let (service, world) = account.service_mut(region, cluster, name)?;
        service.deregistration_delay = self.deregistration_delay;
        service.stale = None;
        service.happened.clear();
        let primary = &mut service.deployments[0];
        primary.rollout = Rollout::Completed;
        primary.reason = format!("ECS deployment {} completed.", primary.id);
        let (id, blueprint) = (primary.id.clone(), Arc::clone(&primary.blueprint));
        service.last_completed = Some((id.clone(), Arc::clone(&blueprint), primary.revision.clone()));
        service.steady = true;
        let balanced = service.balancing != Balancing::None;
        for _ in 0..service.target_count(world.settings) {
            let task = Task::running(world.ids.task(), id.clone(), Arc::clone(&blueprint), balanced, now);
            service.tasks.push(task);
        }
        if let Some(first) = service.history.first_mut() {
            first.started = Some(now);
            first.stage = None;
            first.end(Status::Successful, None, now);
        }
        service.tell(now, world.ids, &format!("(deployment {id}) deployment completed."));
        service.tell(now, world.ids, "has reached a steady state.");
        Ok(())
    }

    fn usual_task_definition(&self) -> Value {
        let image = match &self.ecr {
            Some((region, repository)) => ecr_image(arn::ACCOUNT, region, repository, &self.tag),
            None => image(&self.name, &self.tag),
        };
        let mut container = json!({
            "name": self.name,
            "image": image,
            "essential": true,
            "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
        });
        if self.health_check {
            let command = ["CMD-SHELL", "curl -f http://localhost:8080/ping || exit 1"];
            container["healthCheck"] = json!({"command": command});
        }
        json!({
            "family": self.name,
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "containerDefinitions": [container],
        })
    }

    fn request(&self, task_definition: &Value, container: &Value) -> Value {
        let Self { name, region, .. } = self;
        let mut request = json!({
            "cluster": self.cluster,
            "serviceName": name,
            "taskDefinition": task_definition,
            "launchType": if self.is_daemon { "EC2" } else { "FARGATE" },
            "deploymentConfiguration": self.configuration,
        });
        let partition = arn::partition(region);
        let account = arn::ACCOUNT;
        let target = format!(
            "arn:{partition}:elasticloadbalancing:{region}:{account}:targetgroup/{}-{name}/0123456789abcdef",
            self.cluster
        );
        match self.balancer {
            Balancer::None => {}
            Balancer::TargetGroup => {
                request["loadBalancers"] =
                    json!([{"targetGroupArn": target, "containerName": container, "containerPort": 8080}]);
            }
            Balancer::Classic => {
                request["loadBalancers"] =
                    json!([{"loadBalancerName": name, "containerName": container, "containerPort": 8080}]);
            }
        }
        if self.is_daemon {
            request["schedulingStrategy"] = json!("DAEMON");
        } else {
            request["desiredCount"] = json!(self.desired);
        }
        if let Some(controller) = &self.controller {
            request["deploymentController"] = json!({"type": controller});
        }
        for (key, value) in &self.more {
            request[key] = value.clone();
        }
        request
    }
}

//! Rules of EventBridge that tests begin with.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    builder::image,
    model::{account::Account, arn, schedule::DEFAULT_BUS},
    operations,
};

/// A rule to begin with; see [`rule`].
#[derive(Clone, Debug)]
pub struct RuleBuilder {
    name: String,
    bus: String,
    region: String,
    cluster: String,
    managed_by: Option<String>,
    targets: Vec<Target>,
}

/// A target, and the task definition to register before it can be named.
#[derive(Clone, Debug)]
struct Target {
    registered: Option<Value>,
    names_revision: bool,
    value: Value,
}

/// A rule of the default event bus of `us-east-1`, without targets, whose tasks run in cluster `staging` every night.
#[must_use]
pub fn rule(name: &str) -> RuleBuilder {
    RuleBuilder {
        name: name.to_owned(),
        bus: DEFAULT_BUS.to_owned(),
        region: "us-east-1".to_owned(),
        cluster: "staging".to_owned(),
        managed_by: None,
        targets: Vec::new(),
    }
}

impl RuleBuilder {
    /// Its event bus, which is made when it doesn't exist. Only the default one knows schedules: on any other the rule
    /// waits for events.
    #[must_use]
    pub fn bus(self, bus: &str) -> Self {
        Self { bus: bus.to_owned(), ..self }
    }

    /// Its region.
    #[must_use]
    pub fn region(self, region: &str) -> Self {
        Self { region: region.to_owned(), ..self }
    }

    /// The cluster that its targets name.
    #[must_use]
    pub fn cluster(self, cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), ..self }
    }

    /// Managed by a service of AWS: nobody else may change it.
    #[must_use]
    pub fn managed_by(self, service: &str) -> Self {
        Self { managed_by: Some(service.to_owned()), ..self }
    }

    /// With a target, called like the family, that runs this version of a family: a new revision of it is registered.
    #[must_use]
    pub fn task(self, family: &str, tag: &str) -> Self {
        let container = json!({"name": family, "image": image(family, tag), "essential": true});
        self.task_definition(json!({
            "family": family,
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "containerDefinitions": [container],
        }))
    }

    /// The same, with the whole input of its `RegisterTaskDefinition`.
    #[must_use]
    pub fn task_definition(mut self, input: Value) -> Self {
        let family = input["family"].as_str().unwrap_or_default().to_owned();
        self.targets.push(Target { registered: Some(input), names_revision: true, value: json!({"Id": family}) });
        self
    }

    /// With a target, called like the family, that runs a task definition which need not exist, such as `api:1`.
    #[must_use]
    pub fn runs(mut self, task_definition: &str) -> Self {
        let family = task_definition.split(':').next().unwrap_or_default();
        let value = json!({"Id": family, "EcsParameters": {"TaskDefinitionArn": task_definition}});
        self.targets.push(Target { registered: None, names_revision: true, value });
        self
    }

    /// With this target as it is, say one that has nothing to do with ECS.
    #[must_use]
    pub fn target(mut self, target: Value) -> Self {
        self.targets.push(Target { registered: None, names_revision: true, value: target });
        self
    }

    /// The last target names no revision: it runs the newest that is ACTIVE.
    #[must_use]
    pub fn without_revision(mut self) -> Self {
        if let Some(last) = self.targets.last_mut() {
            last.names_revision = false;
        }
        self
    }

    /// The last target has one more member, or another one.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        if let Some(last) = self.targets.last_mut() {
            last.value[key] = value;
        }
        self
    }

    /// The last target has one more member of its `EcsParameters`, or another one.
    #[must_use]
    pub fn with_parameter(mut self, key: &str, value: Value) -> Self {
        if let Some(last) = self.targets.last_mut() {
            last.value["EcsParameters"][key] = value;
        }
        self
    }

    /// Makes it all.
    pub(crate) fn build(self, account: &mut Account) -> Result<()> {
        let Self { name, bus, region, cluster, managed_by, targets } = self;
        let mut ask = |operation: &str, body: &Value| {
            operations::dispatch(account, &region, operation, body).with_context(|| format!("{operation} {body}"))
        };
        let mut put = json!({"Name": name, "EventBusName": bus});
        if bus == DEFAULT_BUS {
            put["ScheduleExpression"] = json!("cron(0 3 * * ? *)");
        } else {
            drop(ask("CreateEventBus", &json!({"Name": bus})));
            put["EventPattern"] = json!("{\"source\":[\"shop\"]}");
        }
        ask("PutRule", &put)?;
        for target in targets {
            let registered = match &target.registered {
                Some(input) => Some(ask("RegisterTaskDefinition", input)?),
                None => None,
            };
            let target = target.whole(&region, &cluster, registered);
            ask("PutTargets", &json!({"Rule": name, "EventBusName": bus, "Targets": [target]}))?;
        }
        account.region(&region).buses.rule(&bus, &name)?.managed_by = managed_by;
        Ok(())
    }
}

impl Target {
    /// The target with everything that one of ECS's usually has, where it is one.
    fn whole(self, region: &str, cluster: &str, registered: Option<Value>) -> Value {
        let mut target = self.value;
        let named = registered.map(|answer| answer["taskDefinition"]["taskDefinitionArn"].clone());
        let Some(Value::String(definition)) =
            named.or_else(|| target.pointer("/EcsParameters/TaskDefinitionArn").cloned())
        else {
            return target;
        };
        let short = arn::name(&definition);
        let short = if self.names_revision { short } else { short.split(':').next().unwrap_or_default() };
        let parameters = json!({
            "TaskDefinitionArn": arn::ecs(region, &format!("task-definition/{short}")),
            "TaskCount": 1,
            "LaunchType": "FARGATE",
            "NetworkConfiguration": {"awsvpcConfiguration": {
                "Subnets": ["subnet-0123456789abcdef0"],
                "SecurityGroups": ["sg-0123456789abcdef0"],
                "AssignPublicIp": "DISABLED",
            }},
            "EnableECSManagedTags": true,
        });
        let role = format!("arn:{}:iam::{}:role/ecsEventsRole", arn::partition(region), arn::ACCOUNT);
        let usual = json!({"Arn": arn::ecs(region, &format!("cluster/{cluster}")), "RoleArn": role});
        for (key, value) in usual.as_object().into_iter().flatten() {
            if target.get(key).is_none() {
                target[key.as_str()] = value.clone();
            }
        }
        for (key, value) in parameters.as_object().into_iter().flatten() {
            if key == "TaskDefinitionArn" || target["EcsParameters"].get(key).is_none() {
                target["EcsParameters"][key.as_str()] = value.clone();
            }
        }
        target
    }
}

/// Whether a rule goes by this name, `bus/name` or `region/bus/name`.
pub(crate) fn is_called(region: &str, bus: &str, name: &str, wanted: &str) -> bool {
    wanted == name || wanted == format!("{bus}/{name}") || wanted == format!("{region}/{bus}/{name}")
}

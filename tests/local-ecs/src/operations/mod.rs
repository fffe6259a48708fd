//! The operations of ECS, ECR, EventBridge and STS, each a function from a request's body to an answer.

mod clusters;
mod create_service;
pub(crate) mod events;
mod parameters;
mod protection;
mod registry;
mod service_deployments;
mod services;
pub(crate) mod sts;
mod tags;
mod task_definitions;
mod tasks;
mod update_service;

use serde_json::Value;

use crate::model::{account::Account, failure::Failure};

/// What an operation answers.
pub(crate) type Answered = Result<Value, Failure>;

/// The service of AWS that an operation belongs to, as actions of IAM begin with it.
pub(crate) fn service_name(operation: &str) -> &'static str {
    match operation {
        "AssumeRole" | "GetCallerIdentity" => "sts",
        "CreateEventBus" | "DeleteRule" | "DescribeRule" | "ListTargetsByRule" | "PutRule" | "PutTargets"
        | "RemoveTargets" => "events",
        "BatchGetImage" | "DescribePullThroughCacheRules" => "ecr",
        _ => "ecs",
    }
}

/// Carries out one request, of a service other than STS.
pub(crate) fn dispatch(account: &mut Account, region: &str, operation: &str, body: &Value) -> Answered {
    if !body.is_object() {
        return Err(Failure::new("SerializationException", "The request's body must be a JSON object."));
    }
    match operation {
        "CreateCluster" => clusters::create(account, region, body),
        "DescribeClusters" => clusters::describe(account, region, body),
        "ListClusters" => clusters::list(account, region, body),
        "DeleteCluster" => clusters::delete(account, region, body),
        "RegisterTaskDefinition" => task_definitions::register(account, region, body),
        "DeregisterTaskDefinition" => task_definitions::deregister(account, region, body),
        "DescribeTaskDefinition" => task_definitions::describe(account, region, body),
        "ListTaskDefinitions" => task_definitions::list(account, region, body),
        "ListTaskDefinitionFamilies" => task_definitions::list_families(account, region, body),
        "CreateService" => create_service::create(account, region, body),
        "UpdateService" => update_service::update(account, region, body),
        "DeleteService" => services::delete(account, region, body),
        "DescribeServices" => services::describe(account, region, body),
        "ListServices" => services::list(account, region, body),
        "ListTasks" => tasks::list(account, region, body),
        "DescribeTasks" => tasks::describe(account, region, body),
        "StopTask" => tasks::stop(account, region, body),
        "UpdateTaskProtection" => protection::update(account, region, body),
        "GetTaskProtection" => protection::get(account, region, body),
        "TagResource" => tags::add(account, region, body),
        "UntagResource" => tags::remove(account, region, body),
        "ListTagsForResource" => tags::list(account, region, body),
        "ListServiceDeployments" => service_deployments::list(account, region, body),
        "DescribeServiceDeployments" => service_deployments::describe(account, region, body),
        "DescribeServiceRevisions" => service_deployments::describe_revisions(account, region, body),
        "StopServiceDeployment" => service_deployments::stop(account, region, body),
        "BatchGetImage" => registry::batch_get_image(account, region, body),
        "DescribePullThroughCacheRules" => registry::describe_pull_through_cache_rules(account, region, body),
        "CreateEventBus" => events::create_event_bus(account, region, body),
        "PutRule" => events::put_rule(account, region, body),
        "DescribeRule" => events::describe_rule(account, region, body),
        "DeleteRule" => events::delete_rule(account, region, body),
        "ListTargetsByRule" => events::list_targets(account, region, body),
        "PutTargets" => events::put_targets(account, region, body),
        "RemoveTargets" => events::remove_targets(account, region, body),
        _ => Err(Failure::new("UnknownOperationException", format!("Unknown operation {operation}."))),
    }
}

//! Clusters: `API_CreateCluster`, `API_DescribeClusters`, `API_ListClusters`, `API_DeleteCluster`.

use serde_json::{Value, json};

use super::{Answered, parameters};
use crate::model::{
    account::{Account, Cluster},
    arn,
    failure::Failure,
    service::Status,
    task::Task,
    task_definition::check_tags,
};

/// Creates a cluster; one that exists is answered as it is.
pub(crate) fn create(account: &mut Account, region: &str, body: &Value) -> Answered {
    let name = parameters::text(body, "clusterName")?.unwrap_or("default");
    if name.len() > 255 || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err(Failure::invalid("Cluster name is not valid."));
    }
    let tags = parameters::values(body, "tags")?;
    check_tags(&tags)?;
    let cluster = account.region(region).clusters.entry(name.to_owned()).or_default();
    if cluster.is_deleted || cluster.tags.is_empty() {
        cluster.tags = tags;
    }
    cluster.is_deleted = false;
    Ok(json!({"cluster": describe_one(region, name, cluster, true)}))
}

/// Describes clusters; missing ones are failures.
pub(crate) fn describe(account: &mut Account, region: &str, body: &Value) -> Answered {
    let mut wanted = parameters::list(body, "clusters")?;
    if wanted.is_empty() {
        wanted.push("default");
    }
    if wanted.len() > 100 {
        return Err(Failure::invalid("Clusters cannot have more than 100 elements."));
    }
    let with_tags = parameters::includes(body, "TAGS")?;
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for reference in wanted {
        let name = arn::name(reference);
        match account.region(region).clusters.get(name) {
            Some(cluster) => clusters.push(describe_one(region, name, cluster, with_tags)),
            None => failures.push(json!({"arn": arn::ecs(region, &format!("cluster/{name}")), "reason": "MISSING"})),
        }
    }
    Ok(json!({"clusters": clusters, "failures": failures}))
}

/// Lists the ARNs of active clusters.
pub(crate) fn list(account: &mut Account, region: &str, body: &Value) -> Answered {
    let clusters = account.region(region).clusters.iter().filter(|(_, cluster)| !cluster.is_deleted);
    let arns: Vec<Value> = clusters.map(|(name, _)| json!(arn::ecs(region, &format!("cluster/{name}")))).collect();
    parameters::page(body, "clusterArns", &arns, 100)
}

/// Deletes a cluster without services.
pub(crate) fn delete(account: &mut Account, region: &str, body: &Value) -> Answered {
    let name = arn::name(parameters::required(body, "cluster", "Cluster")?).to_owned();
    let cluster = account.region(region).clusters.get_mut(&name).filter(|cluster| !cluster.is_deleted);
    let cluster = cluster.ok_or_else(Failure::no_cluster)?;
    if cluster.services.values().any(|service| service.status == Status::Active) {
        return Err(Failure::new(
            "ClusterContainsServicesException",
            "The Cluster cannot be deleted while Services are active.",
        ));
    }
    if cluster.services.values().flat_map(|service| &service.tasks).any(|task| task.stopped.is_none()) {
        return Err(Failure::new(
            "ClusterContainsTasksException",
            "The Cluster cannot be deleted while Tasks are active.",
        ));
    }
    cluster.is_deleted = true;
    Ok(json!({"cluster": describe_one(region, &name, cluster, false)}))
}

fn describe_one(region: &str, name: &str, cluster: &Cluster, with_tags: bool) -> Value {
    let tasks = |is_so: fn(&Task) -> bool| {
        cluster.services.values().flat_map(|service| &service.tasks).filter(|task| is_so(task)).count()
    };
    let services = cluster.services.values().filter(|service| service.status == Status::Active).count();
    let mut shown = json!({
        "clusterArn": arn::ecs(region, &format!("cluster/{name}")),
        "clusterName": name,
        "status": if cluster.is_deleted { "INACTIVE" } else { "ACTIVE" },
        "registeredContainerInstancesCount": 0,
        "runningTasksCount": tasks(Task::runs),
        "pendingTasksCount": tasks(Task::pends),
        "activeServicesCount": services,
        "statistics": [],
        "settings": [{"name": "containerInsights", "value": "disabled"}],
        "capacityProviders": [],
        "defaultCapacityProviderStrategy": [],
        "tags": [],
    });
    if with_tags {
        shown["tags"] = json!(cluster.tags);
    }
    shown
}

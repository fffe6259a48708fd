//! Tags of clusters, services and task definitions: `API_TagResource` and its kin.

use serde_json::{Value, json};

use super::{Answered, parameters};
use crate::model::{account::Account, arn, failure::Failure, task_definition::check_tags};

/// Adds tags or replaces their values.
pub(crate) fn add(account: &mut Account, region: &str, body: &Value) -> Answered {
    let added = parameters::values(body, "tags")?;
    check_tags(&added)?;
    let tags = tags_of(account, region, body)?;
    for tag in added {
        tags.retain(|other| other["key"] != tag["key"]);
        tags.push(tag);
    }
    Ok(json!({}))
}

/// Removes tags by key.
pub(crate) fn remove(account: &mut Account, region: &str, body: &Value) -> Answered {
    let keys = parameters::list(body, "tagKeys")?;
    tags_of(account, region, body)?.retain(|tag| !keys.iter().any(|key| tag["key"] == *key));
    Ok(json!({}))
}

/// Lists a resource's tags.
pub(crate) fn list(account: &mut Account, region: &str, body: &Value) -> Answered {
    Ok(json!({"tags": tags_of(account, region, body)?}))
}

fn tags_of<'a>(account: &'a mut Account, region: &str, body: &Value) -> Result<&'a mut Vec<Value>, Failure> {
    let reference = parameters::required(body, "resourceArn", "Resource ARN")?;
    let resource = reference.splitn(6, ':').nth(5).unwrap_or_default();
    let missing = || Failure::invalid("The specified resource is missing. Specify a valid resource and try again.");
    let Some((kind, path)) = resource.split_once('/') else {
        return Err(Failure::invalid("Invalid resource ARN."));
    };
    match kind {
        "cluster" => {
            let cluster = account.region(region).clusters.get_mut(path).filter(|cluster| !cluster.is_deleted);
            cluster.map(|cluster| &mut cluster.tags).ok_or_else(Failure::no_cluster)
        }
        "service" => {
            let (cluster, name) = path.split_once('/').unwrap_or(("default", path));
            let (service, _) = account.service_mut(region, cluster, name)?;
            Ok(&mut service.tags)
        }
        "task-definition" => {
            let short = arn::name(reference).to_owned();
            let revisions = account.region(region).families.values_mut().flatten();
            let definition = revisions.into_iter().find(|definition| definition.blueprint.short == short);
            definition.map(|definition| &mut definition.tags).ok_or_else(missing)
        }
        _ => Err(missing()),
    }
}

//! Task definitions: `API_RegisterTaskDefinition` and its kin.

use serde_json::{Value, json};

use super::{Answered, parameters};
use crate::model::{
    account::Account,
    failure::Failure,
    task_definition::{TaskDefinition, family_of},
};

/// Registers a new revision; a repeated request makes another one.
pub(crate) fn register(account: &mut Account, region: &str, body: &Value) -> Answered {
    let family = family_of(body)?.to_owned();
    let now = account.now;
    let revisions = account.region(region).families.get(&family);
    let revision = revisions.and_then(|revisions| revisions.last()).map_or(1, |last| last.revision + 1);
    let definition = TaskDefinition::register(region, body, revision, now)?;
    let answer = described(account, &definition, true);
    account.region(region).families.entry(family).or_default().push(definition);
    Ok(answer)
}

/// Makes a revision INACTIVE; what runs goes on running.
pub(crate) fn deregister(account: &mut Account, region: &str, body: &Value) -> Answered {
    let reference = parameters::required(body, "taskDefinition", "TaskDefinition")?;
    if !reference.rsplit('/').next().unwrap_or_default().contains(':') {
        return Err(Failure::client("Invalid revision number. Number must be positive."));
    }
    let now = account.now;
    let blueprint = account.task_definition(region, reference).map(|definition| definition.blueprint.clone());
    let blueprint = blueprint.ok_or_else(not_described)?;
    let revisions = account.region(region).families.get_mut(&blueprint.family);
    let definition = revisions.into_iter().flatten().find(|definition| definition.blueprint == blueprint);
    let definition = definition.ok_or_else(not_described)?;
    definition.deregistered_at.get_or_insert(now);
    let definition = definition.clone();
    Ok(described(account, &definition, false))
}

/// Describes a revision; the tags lie beside it, when asked for.
pub(crate) fn describe(account: &mut Account, region: &str, body: &Value) -> Answered {
    let reference = parameters::required(body, "taskDefinition", "TaskDefinition")?;
    let with_tags = parameters::includes(body, "TAGS")?;
    let definition = account.task_definition(region, reference).ok_or_else(not_described)?;
    Ok(described(account, definition, with_tags))
}

/// Lists the ARNs of revisions, ACTIVE ones unless told otherwise.
pub(crate) fn list(account: &mut Account, region: &str, body: &Value) -> Answered {
    let prefix = parameters::text(body, "familyPrefix")?;
    let active = parameters::text(body, "status")?.unwrap_or("ACTIVE") == "ACTIVE";
    let families = &account.region(region).families;
    let mut arns: Vec<Value> = families
        .iter()
        .filter(|(family, _)| prefix.is_none_or(|prefix| *family == prefix))
        .flat_map(|(_, revisions)| revisions)
        .filter(|definition| definition.is_active() == active)
        .map(|definition| json!(definition.blueprint.arn))
        .collect();
    if parameters::text(body, "sort")? == Some("DESC") {
        arns.reverse();
    }
    parameters::page(body, "taskDefinitionArns", &arns, 100)
}

/// Lists families, those with ACTIVE revisions among them unless told otherwise.
pub(crate) fn list_families(account: &mut Account, region: &str, body: &Value) -> Answered {
    let prefix = parameters::text(body, "familyPrefix")?.unwrap_or_default();
    let status = parameters::text(body, "status")?.unwrap_or("ALL");
    let families = account.region(region).families.iter();
    let names: Vec<Value> = families
        .filter(|(family, _)| family.starts_with(prefix))
        .filter(|(_, revisions)| {
            let is_active = revisions.iter().any(TaskDefinition::is_active);
            status == "ALL" || is_active == (status == "ACTIVE")
        })
        .map(|(family, _)| json!(family))
        .collect();
    parameters::page(body, "families", &names, 100)
}

fn described(account: &Account, definition: &TaskDefinition, with_tags: bool) -> Value {
    let lens = account.lens();
    let mut answer = json!({"taskDefinition": definition.describe(|at| lens.epoch(at))});
    if with_tags {
        let mut tags = definition.tags.clone();
        if account.settings.system_tags {
            tags.push(json!({"key": "aws:cloudformation:stack-name", "value": "staging"}));
        }
        answer["tags"] = json!(tags);
    }
    answer
}

fn not_described() -> Failure {
    Failure::client("Unable to describe task definition.")
}

//! Amazon ECR: `API_BatchGetImage` and `API_DescribePullThroughCacheRules` of its API reference.

use serde_json::{Value, json};

use super::{Answered, parameters};
use crate::model::{account::Account, arn, failure::Failure};

/// The most elements that lists of ECR's requests may have.
const MOST: usize = 100;

/// Answers the images that a repository holds, and a failure for each that it doesn't.
///
/// What a pull-through cache rule could fetch from upstream isn't fetched.
pub(crate) fn batch_get_image(account: &mut Account, region: &str, body: &Value) -> Answered {
    let registry_id = registry_id(body)?;
    let name = parameters::text(body, "repositoryName")?.unwrap_or_default();
    check_length("repositoryName", name.len(), 2, 256)?;
    let wanted = parameters::values(body, "imageIds")?;
    check_length("imageIds", wanted.len(), 1, MOST)?;
    if body.get("acceptedMediaTypes").is_some_and(|types| !types.is_null()) {
        check_length("acceptedMediaTypes", parameters::list(body, "acceptedMediaTypes")?.len(), 1, MOST)?;
    }
    let registry = account.registries.get(registry_id, region);
    let repository = registry.and_then(|registry| registry.repositories.get(name)).ok_or_else(|| {
        let message =
            format!("The repository with name '{name}' does not exist in the registry with id '{registry_id}'");
        Failure::new("RepositoryNotFoundException", message)
    })?;
    let (mut images, mut failures) = (Vec::new(), Vec::new());
    for id in wanted {
        let (tag, digest) = (parameters::text(&id, "imageTag")?, parameters::text(&id, "imageDigest")?);
        let tagged = tag.and_then(|tag| repository.get(tag));
        let found = match (tag, digest) {
            (None, None) => {
                Err(("MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null"))
            }
            (Some(_), None) => tagged.ok_or(("ImageNotFound", "Requested image not found")),
            (_, Some(digest)) if !is_digest(digest) => Err((
                "InvalidImageDigest",
                "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'",
            )),
            (None, Some(digest)) => {
                repository.values().find(|held| *held == digest).ok_or(("ImageNotFound", "Requested image not found"))
            }
            (Some(_), Some(digest)) => match tagged {
                Some(held) if held == digest => Ok(held),
                Some(_) => Err((
                    "ImageTagDoesNotMatchDigest",
                    "Invalid request parameters: given tag does not map to the given digest",
                )),
                None => Err(("ImageNotFound", "Requested image not found")),
            },
        };
        match found {
            Ok(digest) => images.push(image(registry_id, name, tag, digest)),
            Err((code, reason)) => {
                failures.push(json!({"imageId": id, "failureCode": code, "failureReason": reason}));
            }
        }
    }
    Ok(json!({"images": images, "failures": failures}))
}

/// Answers a registry's pull-through cache rules, all of them or those of the prefixes asked for.
pub(crate) fn describe_pull_through_cache_rules(account: &mut Account, region: &str, body: &Value) -> Answered {
    let registry_id = registry_id(body)?;
    let wanted = parameters::list(body, "ecrRepositoryPrefixes")?;
    if body.get("ecrRepositoryPrefixes").is_some_and(|prefixes| !prefixes.is_null()) {
        check_length("ecrRepositoryPrefixes", wanted.len(), 1, MOST)?;
    }
    let lens = account.lens();
    let rules = account.registries.get(registry_id, region).map(|registry| &registry.rules);
    if let Some(missing) = wanted.iter().find(|prefix| !rules.is_some_and(|rules| rules.contains_key(**prefix))) {
        let message = format!(
            "The pull through cache rule with Amazon ECR repository prefix '{missing}' does not exist in the registry with id '{registry_id}'"
        );
        return Err(Failure::new("PullThroughCacheRuleNotFoundException", message));
    }
    let shown: Vec<Value> = rules
        .into_iter()
        .flatten()
        .filter(|(prefix, _)| wanted.is_empty() || wanted.contains(&prefix.as_str()))
        .map(|(prefix, created)| {
            json!({
                "ecrRepositoryPrefix": prefix,
                "upstreamRegistryUrl": "public.ecr.aws",
                "upstreamRegistry": "ecr-public",
                "upstreamRepositoryPrefix": "ROOT",
                "registryId": registry_id,
                "createdAt": lens.epoch(*created),
                "updatedAt": lens.epoch(*created),
            })
        })
        .collect();
    parameters::page_of(body, "pullThroughCacheRules", &shown, 100, 1000)
}

/// The registry that a request means: the caller's own when it names none.
fn registry_id(body: &Value) -> Result<&str, Failure> {
    let id = parameters::text(body, "registryId")?.unwrap_or(arn::ACCOUNT);
    if id.len() == 12 && id.chars().all(|c| c.is_ascii_digit()) {
        return Ok(id);
    }
    Err(unsatisfied("registryId", "must satisfy regular expression '[0-9]{12}'"))
}

/// Refuses what is shorter or longer than the API reference allows.
fn check_length(parameter: &str, length: usize, least: usize, most: usize) -> Result<(), Failure> {
    if length < least {
        return Err(unsatisfied(parameter, &format!("Member must have length greater than or equal to {least}")));
    }
    if length > most {
        return Err(unsatisfied(parameter, &format!("Member must have length less than or equal to {most}")));
    }
    Ok(())
}

fn unsatisfied(parameter: &str, constraint: &str) -> Failure {
    Failure::invalid(format!("Invalid parameter at '{parameter}' failed to satisfy constraint: '{constraint}'"))
}

fn is_digest(digest: &str) -> bool {
    let parts = digest.split_once(':');
    parts.is_some_and(|(algorithm, hex)| {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_+.".contains(c);
        !algorithm.is_empty()
            && algorithm.chars().all(is_word)
            && !hex.is_empty()
            && hex.chars().all(|c| c.is_ascii_hexdigit())
    })
}

/// An image as ECR shows it: asked for by its digest alone, it names no tag.
fn image(registry_id: &str, name: &str, tag: Option<&str>, digest: &str) -> Value {
    const MEDIA_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let mut id = json!({"imageDigest": digest});
    if let Some(tag) = tag {
        id["imageTag"] = json!(tag);
    }
    let manifest = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE, "layers": []});
    json!({
        "registryId": registry_id,
        "repositoryName": name,
        "imageId": id,
        "imageManifest": manifest.to_string(),
        "imageManifestMediaType": MEDIA_TYPE,
    })
}

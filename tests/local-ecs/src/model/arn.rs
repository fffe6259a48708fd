//! Amazon resource names, made and taken apart.

/// The account that everything belongs to.
pub(crate) const ACCOUNT: &str = "123456789012";

/// The partition a region belongs to.
pub(crate) fn partition(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}

/// The ARN of an ECS resource, such as `cluster/staging`.
pub(crate) fn ecs(region: &str, resource: &str) -> String {
    format!("arn:{}:ecs:{region}:{ACCOUNT}:{resource}", partition(region))
}

/// The ARN of a resource of EventBridge, such as `rule/nightly`.
pub(crate) fn events(region: &str, resource: &str) -> String {
    format!("arn:{}:events:{region}:{ACCOUNT}:{resource}", partition(region))
}

/// The ARN of the user whose keys live long.
pub(crate) fn user(region: &str) -> String {
    format!("arn:{}:iam::{ACCOUNT}:user/local", partition(region))
}

/// The ARN of a repository of Amazon ECR.
pub(crate) fn ecr(region: &str, account: &str, repository: &str) -> String {
    format!("arn:{}:ecr:{region}:{account}:repository/{repository}", partition(region))
}

/// The part of a name or ARN that comes after the resource's type: `staging/api` of `…:service/staging/api`.
pub(crate) fn path(reference: &str) -> &str {
    if reference.starts_with("arn:") {
        let resource = reference.splitn(6, ':').nth(5).unwrap_or_default();
        resource.split_once('/').map_or(resource, |(_, path)| path)
    } else {
        reference
    }
}

/// The last segment of a name or ARN.
pub(crate) fn name(reference: &str) -> &str {
    let path = path(reference);
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// The cluster and the service that a service deployment or revision belongs to: `…/CLUSTER/SERVICE/ID`.
pub(crate) fn owner(reference: &str) -> Option<(&str, &str)> {
    let mut parts = path(reference).split('/');
    let (cluster, service) = (parts.next()?, parts.next()?);
    parts.next().map(|_| (cluster, service))
}

/// The tag of an image reference, or the digest or `latest` when it has none.
pub(crate) fn image_tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let after_slash = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[after_slash..].rfind(':') {
        Some(colon) => &name[after_slash + colon + 1..],
        None => digest.unwrap_or("latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_follows_the_last_colon_after_the_last_slash() {
        for (image, tag) in [
            ("api", "latest"),
            ("api:1", "1"),
            ("host:5000/api", "latest"),
            ("host:5000/team/api:1", "1"),
            ("api@sha256:ab", "sha256:ab"),
            ("api:1@sha256:ab", "1"),
        ] {
            assert_eq!(image_tag(image), tag, "{image}");
        }
    }

    #[test]
    fn partitions_follow_the_region() {
        assert_eq!(ecs("cn-north-1", "cluster/a"), "arn:aws-cn:ecs:cn-north-1:123456789012:cluster/a");
        assert_eq!(partition("us-gov-west-1"), "aws-us-gov");
        assert_eq!(path("arn:aws:ecs:eu-west-1:1:service/staging/api"), "staging/api");
        assert_eq!(name("arn:aws:ecs:eu-west-1:1:service/staging/api"), "api");
        assert_eq!(owner("arn:aws:ecs:eu-west-1:1:service-revision/staging/api/1"), Some(("staging", "api")));
        assert_eq!(owner("arn:aws:ecs:eu-west-1:1:service/staging/api"), None);
    }
}

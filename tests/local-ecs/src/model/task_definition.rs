//! Task definitions: what was registered, kept as it came, and what ECS adds (`API_RegisterTaskDefinition`).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{At, arn, failure::Failure};

/// What `DescribeTaskDefinition` returns and `RegisterTaskDefinition` refuses.
pub(crate) const DESCRIBE_ONLY: [&str; 9] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
];

/// What a service needs of a task definition in order to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blueprint {
    pub(crate) arn: String,
    pub(crate) family: String,
    /// `family:revision`.
    pub(crate) short: String,
    /// Names and images of the containers.
    pub(crate) containers: Vec<(String, String)>,
    /// The image of the first essential container.
    pub(crate) version_image: String,
    /// Its tag: the version.
    pub(crate) tag: String,
    pub(crate) has_health_check: bool,
    pub(crate) cpu: Option<Value>,
    pub(crate) memory: Option<Value>,
}

/// One revision of a family.
#[derive(Clone, Debug)]
pub(crate) struct TaskDefinition {
    /// What was registered, with the defaults that ECS fills in, without the tags.
    pub(crate) registered: Map<String, Value>,
    pub(crate) tags: Vec<Value>,
    pub(crate) revision: u32,
    pub(crate) registered_at: At,
    pub(crate) deregistered_at: Option<At>,
    pub(crate) blueprint: Arc<Blueprint>,
}

impl TaskDefinition {
    /// Checks a registration and gives it a revision; unknown members stay as they came.
    pub(crate) fn register(region: &str, input: &Value, revision: u32, now: At) -> Result<Self, Failure> {
        let mut registered = input.as_object().cloned().unwrap_or_default();
        if let Some(key) = DESCRIBE_ONLY.iter().find(|key| registered.contains_key(**key)) {
            return Err(Failure::invalid(format!("Unknown parameter in input: \"{key}\".")));
        }
        let family = family_of(input)?.to_owned();
        let tags = match registered.shift_remove("tags") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(tags)) => tags,
            Some(_) => {
                return Err(Failure::new("SerializationException", "Expected a list for `tags`."));
            }
        };
        check_tags(&tags)?;
        let containers = registered.get_mut("containerDefinitions").and_then(Value::as_array_mut);
        let Some(containers) = containers.filter(|containers| !containers.is_empty()) else {
            return Err(Failure::client("Container list cannot be empty."));
        };
        let has_task_memory = input.get("memory").is_some_and(|memory| !memory.is_null());
        let mut seen = Vec::new();
        for container in containers.iter_mut() {
            let (name, image) = check_container(container, has_task_memory)?;
            if seen.iter().any(|(other, _)| *other == name) {
                return Err(Failure::client(format!("Duplicate container name '{name}'.")));
            }
            seen.push((name, image));
            fill_in(container);
        }
        let essential = containers.iter().position(|container| container["essential"] != json!(false)).unwrap_or(0);
        let has_health_check = containers.iter().any(|container| container.get("healthCheck").is_some());
        let version_image = seen[essential].1.clone();
        for (key, value) in [("volumes", json!([])), ("placementConstraints", json!([]))] {
            registered.entry(key).or_insert(value);
        }
        let short = format!("{family}:{revision}");
        let blueprint = Arc::new(Blueprint {
            arn: arn::ecs(region, &format!("task-definition/{short}")),
            family,
            short,
            containers: seen,
            tag: arn::image_tag(&version_image).to_owned(),
            version_image,
            has_health_check,
            cpu: registered.get("cpu").cloned(),
            memory: registered.get("memory").cloned(),
        });
        Ok(Self { registered, tags, revision, registered_at: now, deregistered_at: None, blueprint })
    }

    /// Whether it may be used for new deployments.
    pub(crate) fn is_active(&self) -> bool {
        self.deregistered_at.is_none()
    }

    /// What `DescribeTaskDefinition` shows.
    pub(crate) fn describe(&self, epoch: impl Fn(At) -> Value) -> Value {
        let mut shown = Map::new();
        shown.insert("taskDefinitionArn".to_owned(), json!(self.blueprint.arn));
        shown.extend(self.registered.clone());
        shown.insert("revision".to_owned(), json!(self.revision));
        shown.insert("status".to_owned(), json!(if self.is_active() { "ACTIVE" } else { "INACTIVE" }));
        shown.insert(
            "requiresAttributes".to_owned(),
            json!([{"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"}]),
        );
        let fargate = self.registered.get("networkMode").is_some_and(|mode| mode == "awsvpc");
        shown.insert("compatibilities".to_owned(), if fargate { json!(["EC2", "FARGATE"]) } else { json!(["EC2"]) });
        shown.insert("registeredAt".to_owned(), epoch(self.registered_at));
        shown.insert("registeredBy".to_owned(), json!(format!("arn:aws:iam::{}:user/local", arn::ACCOUNT)));
        if let Some(at) = self.deregistered_at {
            shown.insert("deregisteredAt".to_owned(), epoch(at));
        }
        Value::Object(shown)
    }
}

/// The family that a registration is for.
pub(crate) fn family_of(input: &Value) -> Result<&str, Failure> {
    let family = input.get("family").and_then(Value::as_str).unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if family.is_empty() {
        return Err(Failure::client("Family cannot be null or empty."));
    }
    if family.len() > 255 || !family.chars().all(allowed) {
        return Err(Failure::client(
            "Family contains invalid characters. Up to 255 letters, numbers, hyphens, and underscores are allowed.",
        ));
    }
    Ok(family)
}

/// Refuses tags that nobody may send (`API_Tag`).
pub(crate) fn check_tags(tags: &[Value]) -> Result<(), Failure> {
    for tag in tags {
        let key = tag.get("key").and_then(Value::as_str).unwrap_or_default();
        if key.is_empty() {
            return Err(Failure::invalid("Tag key cannot be null or empty."));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(Failure::invalid(format!("Tag key '{key}' cannot begin with reserved prefix 'aws:'.")));
        }
    }
    if tags.len() > 50 {
        return Err(Failure::invalid("Too many tags: at most 50 are allowed."));
    }
    Ok(())
}

fn check_container(container: &Value, has_task_memory: bool) -> Result<(String, String), Failure> {
    let text = |key: &str| container.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, image) = (text("name"), text("image"));
    if name.is_empty() {
        return Err(Failure::client("Container.name should not be null or empty."));
    }
    if image.is_empty() {
        return Err(Failure::client("Container.image should not be null or empty."));
    }
    if !has_task_memory && container.get("memory").is_none() && container.get("memoryReservation").is_none() {
        return Err(Failure::client(format!(
            "Invalid setting for container '{name}'. At least one of 'memory' or 'memoryReservation' must be specified."
        )));
    }
    Ok((name, image))
}

/// Adds the defaults that ECS shows for a container.
fn fill_in(container: &mut Value) {
    let Some(container) = container.as_object_mut() else {
        return;
    };
    for (key, value) in [
        ("cpu", json!(0)),
        ("portMappings", json!([])),
        ("essential", json!(true)),
        ("environment", json!([])),
        ("mountPoints", json!([])),
        ("volumesFrom", json!([])),
        ("systemControls", json!([])),
    ] {
        container.entry(key).or_insert(value);
    }
    if let Some(check) = container.get_mut("healthCheck").and_then(Value::as_object_mut) {
        for (key, value) in [("interval", 30), ("timeout", 5), ("retries", 3)] {
            check.entry(key).or_insert(json!(value));
        }
    }
    if let Some(mappings) = container.get_mut("portMappings").and_then(Value::as_array_mut) {
        for mapping in mappings.iter_mut().filter_map(Value::as_object_mut) {
            let port = mapping.get("containerPort").cloned().unwrap_or(json!(0));
            mapping.entry("hostPort").or_insert(port);
            mapping.entry("protocol").or_insert(json!("tcp"));
        }
    }
}

//! A task definition as raw JSON, from DescribeTaskDefinition to RegisterTaskDefinition, so that no field is lost.

use anyhow::Context as _;
use serde_json::{Map, Value};

use super::seen::{ImageChange, TaskDefinitionArn, version_of};
use crate::{
    git_sha::GitSha,
    image::{Image, common_git_sha},
};

/// What DescribeTaskDefinition returns and RegisterTaskDefinition refuses (API_TaskDefinition against the parameters of
/// API_RegisterTaskDefinition).
const DESCRIBED_ONLY: [&str; 9] = [
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

/// A described task definition. It has no `Debug`, because it holds the values of environment variables.
pub struct TaskDefinition {
    /// Its ARN.
    pub arn: TaskDefinitionArn,
    document: Map<String, Value>,
    tags: Vec<Value>,
    /// The names of the containers that get the new tag; all of them without.
    chosen: Option<Vec<String>>,
}

/// Why it isn't clear which containers are to get the new tag.
#[derive(Debug, PartialEq, Eq)]
pub enum Unclear {
    /// There is no container of this name, but there are these.
    NoSuchContainer {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// All containers are to get it, but their images are of several repositories and not all tagged with a Git SHA:
    /// each container and its image.
    SeveralRepositories(Vec<(String, String)>),
}

impl TaskDefinition {
    /// Takes the answer of DescribeTaskDefinition with `include: [TAGS]`.
    pub fn from_answer(body: &[u8]) -> anyhow::Result<Self> {
        let mut answer: Map<String, Value> = serde_json::from_slice(body).context("the answer is not a JSON object")?;
        let Some(Value::Object(document)) = answer.remove("taskDefinition") else {
            anyhow::bail!("the answer has no task definition");
        };
        let arn = document.get("taskDefinitionArn").and_then(Value::as_str);
        let arn = TaskDefinitionArn(arn.context("the task definition has no ARN")?.to_owned());
        let tags = match answer.remove("tags") {
            Some(Value::Array(tags)) => tags,
            _ => Vec::new(),
        };
        Ok(Self { arn, document, tags, chosen: None })
    }

    /// It, where only the containers of these names get the new tag. A name that it doesn't have changes nothing.
    pub fn choosing(self, containers: Option<&[String]>) -> Self {
        Self { chosen: containers.map(<[String]>::to_vec), ..self }
    }

    /// Whether it is clear which containers get the new tag: each one that was chosen is there; and where none was
    /// chosen, no image is one that can't be known to have the tag, such as that of a log router beside the service's
    /// own.
    pub fn check_choice(&self) -> Result<(), Unclear> {
        let known: Vec<_> = self.containers().map(name_of).collect();
        if let Some(chosen) = &self.chosen {
            return match chosen.iter().find(|name| !known.contains(&name.as_str())) {
                Some(name) => Err(Unclear::NoSuchContainer {
                    name: name.clone(),
                    known: known.into_iter().map(str::to_owned).collect(),
                }),
                None => Ok(()),
            };
        }
        let images: Vec<_> = self.images().map(Image::parse).collect();
        let is_one_repository = images.windows(2).all(|pair| pair[0].name == pair[1].name);
        // A date such as 20240115 has the digits of a Git SHA; that of one commit on all images is none.
        let is_sure = |image: &Image<'_>| {
            image.git_sha().is_some() && image.tag.is_some_and(|tag| tag.bytes().any(|byte| byte.is_ascii_alphabetic()))
        };
        let has_one_sha = common_git_sha(self.images()).is_some();
        if is_one_repository || has_one_sha || images.iter().all(is_sure) {
            return Ok(());
        }
        let with_image = self.containers().filter_map(|container| {
            Some((name_of(container).to_owned(), container.get("image")?.as_str()?.to_owned()))
        });
        Err(Unclear::SeveralRepositories(with_image.collect()))
    }

    /// Whether services can be updated to it; a deregistered one is INACTIVE, or about to be deleted.
    pub fn is_active(&self) -> bool {
        self.document.get("status").and_then(Value::as_str).is_none_or(|status| status == "ACTIVE")
    }

    /// The images of the containers that have one, in their order.
    pub fn images(&self) -> impl Iterator<Item = &str> + Clone {
        self.containers().filter_map(|container| container.get("image")?.as_str())
    }

    /// The version that the images of the chosen containers are tagged with, for people.
    pub fn version(&self) -> String {
        let chosen = self.containers().filter(|container| self.is_chosen(container));
        version_of(chosen.filter_map(|container| container.get("image")?.as_str()))
    }

    /// The docker labels of the first of the chosen containers, and their values.
    pub fn docker_labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let first = self.containers().find(|container| self.is_chosen(container));
        let labels = first.and_then(|container| container.get("dockerLabels")?.as_object()).into_iter().flatten();
        labels.filter_map(|(label, value)| Some((label.as_str(), value.as_str()?)))
    }

    /// What deploying `version` makes of the image of each chosen container.
    pub fn changes(&self, version: &GitSha) -> Vec<ImageChange> {
        self.containers()
            .filter(|container| self.is_chosen(container))
            .filter_map(|container| {
                let from = container.get("image")?.as_str()?.to_owned();
                let to = Image::parse(&from).at(version);
                Some(ImageChange { container: name_of(container).to_owned(), from, to })
            })
            .collect()
    }

    /// The body of the RegisterTaskDefinition request that makes this task definition anew at `version`: everything as
    /// described, but the images of the chosen containers, the fields that only describing shows, and the tags that AWS
    /// keeps for itself.
    pub fn registration(&self, version: &GitSha) -> Registration {
        let mut registration = self.copy();
        if let Some(Value::Array(containers)) = registration.body.get_mut("containerDefinitions") {
            let chosen = containers.iter_mut().filter(|container| self.is_chosen(container));
            for image in chosen.filter_map(|container| container.get_mut("image")) {
                if let Some(reference) = image.as_str() {
                    *image = Image::parse(reference).at(version).into();
                }
            }
        }
        registration
    }

    /// As [`Self::registration`], with the images as they are: an identical revision.
    pub fn copy(&self) -> Registration {
        let mut body = self.document.clone();
        for key in DESCRIBED_ONLY {
            body.shift_remove(key);
        }
        let tags: Vec<_> = self.tags.iter().filter(|tag| !is_reserved(tag)).cloned().collect();
        if !tags.is_empty() {
            body.insert("tags".into(), tags.into());
        }
        Registration { body }
    }

    fn containers(&self) -> impl Iterator<Item = &Value> + Clone {
        self.document.get("containerDefinitions").and_then(Value::as_array).into_iter().flatten()
    }

    fn is_chosen(&self, container: &Value) -> bool {
        self.chosen.as_ref().is_none_or(|chosen| chosen.iter().any(|name| name == name_of(container)))
    }
}

fn name_of(container: &Value) -> &str {
    container.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Whether AWS alone may set the tag: its key begins with `aws:` in any case (API_Tag).
fn is_reserved(tag: &Value) -> bool {
    let key = tag.get("key").and_then(Value::as_str).unwrap_or_default();
    key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:"))
}

/// A task definition that is ready to be registered. It has no `Debug`, for the reason that its source has none.
pub struct Registration {
    body: Map<String, Value>,
}

impl Registration {
    /// The family that the new revision belongs to.
    pub fn family(&self) -> &str {
        self.body.get("family").and_then(Value::as_str).unwrap_or_default()
    }

    /// The request's body.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.body).expect("a map with string keys can always be written as JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn sha() -> GitSha {
        "abcdef1".parse().expect("a Git SHA")
    }

    fn described(answer: &Value) -> TaskDefinition {
        TaskDefinition::from_answer(answer.to_string().as_bytes()).expect("an answer with a task definition")
    }

    fn registered(answer: &Value) -> Value {
        serde_json::from_slice(&described(answer).registration(&sha()).to_json()).expect("JSON")
    }

    /// A task definition with these containers, each a name and an image.
    fn with_containers(containers: &[(&str, &str)]) -> TaskDefinition {
        let containers: Vec<_> = containers.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        described(&json!({"taskDefinition": {"taskDefinitionArn": "arn:x", "containerDefinitions": containers}}))
    }

    #[test]
    fn only_chosen_containers_change_and_name_the_version() {
        let definition = with_containers(&[("app", "api:01d0000"), ("logs", "log-router:stable")]);
        let definition = definition.choosing(Some(&["app".to_owned()]));
        let changed: Vec<_> = definition.changes(&sha()).into_iter().map(|change| change.to).collect();
        assert_eq!(changed, ["api:abcdef1"]);
        assert_eq!(definition.version(), "01d0000");
        let sent: Value = serde_json::from_slice(&definition.registration(&sha()).to_json()).expect("JSON");
        let images: Vec<_> = sent["containerDefinitions"].as_array().expect("a list").iter().collect();
        assert_eq!((&images[0]["image"], &images[1]["image"]), (&json!("api:abcdef1"), &json!("log-router:stable")));
    }

    #[test]
    fn a_sidecar_that_may_not_have_the_tag_makes_the_choice_unclear() {
        let app = ["app".to_owned()];
        for (containers, chosen, is_clear) in [
            (&[("app", "api:01d0000")][..], None, true),
            (&[("app", "api:stable")], None, true),
            (&[("app", "api:01d0000"), ("worker", "worker:01d0000")], None, true),
            (&[("app", "api:01d0000"), ("worker", "worker:01d0001")], None, true),
            (&[("app", "api:01d0000"), ("worker", "api:stable")], None, true),
            (&[("app", "api:01d0000"), ("logs", "log-router:stable")], None, false),
            (&[("app", "api:01d0000"), ("logs", "log-router:20240115")], None, false),
            (&[("app", "api:1234567"), ("worker", "worker:1234567")], None, true),
            (&[("app", "api:01d0000"), ("logs", "log-router")], None, false),
            (&[("app", "api:01d0000"), ("logs", "log-router@sha256:abc")], None, false),
            (&[("app", "a.example.com/api:01d0000"), ("logs", "b.example.com/api:stable")], None, false),
            (&[("app", "api:01d0000"), ("logs", "log-router:stable")], Some(&app[..]), true),
            (&[("web", "api:01d0000"), ("logs", "log-router:stable")], Some(&app[..]), false),
        ] {
            let definition = with_containers(containers).choosing(chosen);
            assert_eq!(definition.check_choice().is_ok(), is_clear, "{containers:?} {chosen:?}");
        }
    }

    #[test]
    fn everything_but_images_and_described_fields_stays() {
        let answer = json!({
            "taskDefinition": {
                "taskDefinitionArn": "arn:aws:ecs:us-east-1:123456789012:task-definition/api:7",
                "family": "api", "revision": 7, "status": "ACTIVE", "requiresAttributes": [], "compatibilities": ["EC2"],
                "registeredAt": 1.5, "registeredBy": "someone", "deregisteredAt": 2, "deleteRequestedAt": 3,
                "containerDefinitions": [
                    {"name": "app", "image": "api:old", "inventedIn2030": {"deep": [1, 2.5, null, "x"]}},
                    {"name": "worker", "image": "r:5000/worker@sha256:abc", "environment": [{"name": "A", "value": "b"}]},
                ],
                "volumes": [], "alsoInvented": 12_345_678_901_234_567_890_u64, "exact": 0.1,
            },
            "tags": [
                {"key": "team", "value": "a"}, {"key": "aws:cloudformation:stack-name", "value": "s"},
                {"key": "AWS:x", "value": "s"},
            ],
        });
        assert_eq!(
            registered(&answer),
            json!({
                "family": "api",
                "containerDefinitions": [
                    {"name": "app", "image": "api:abcdef1", "inventedIn2030": {"deep": [1, 2.5, null, "x"]}},
                    {"name": "worker", "image": "r:5000/worker:abcdef1", "environment": [{"name": "A", "value": "b"}]},
                ],
                "volumes": [], "alsoInvented": 12_345_678_901_234_567_890_u64, "exact": 0.1,
                "tags": [{"key": "team", "value": "a"}],
            })
        );
    }

    #[test]
    fn the_docker_labels_are_those_of_the_first_chosen_container() {
        let answer = json!({"taskDefinition": {"taskDefinitionArn": "a/api:7", "containerDefinitions": [
            {"name": "router", "dockerLabels": {"team": "web", "tier": "1", "odd": 5}},
            {"name": "app", "dockerLabels": {"team": "api"}},
            {"name": "bare"},
        ]}});
        let labels = |chosen: Option<&[String]>| {
            let definition = described(&answer).choosing(chosen);
            definition.docker_labels().map(|(label, value)| format!("{label}:{value}")).collect::<Vec<_>>()
        };
        assert_eq!(labels(None), ["team:web", "tier:1"]);
        assert_eq!(labels(Some(&["bare".into(), "app".into()])), ["team:api"]);
        assert_eq!(labels(Some(&["bare".into()])), [""; 0]);
    }

    #[test]
    fn an_answer_without_a_task_definition_is_an_error() {
        for body in ["", "[]", "{}", r#"{"taskDefinition": []}"#, r#"{"taskDefinition": {}}"#] {
            assert!(TaskDefinition::from_answer(body.as_bytes()).is_err(), "{body}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no infinities", |number| number.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::hash_map("[a-zA-Z]{1,12}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_invented_field_travels_unchanged(invented in any_json(), in_container in any_json()) {
            let sent = registered(&json!({
                "taskDefinition": {
                    "taskDefinitionArn": "a/api:7", "family": "api", "invented": invented,
                    "containerDefinitions": [{"name": "app", "image": "api", "invented": in_container}],
                },
            }));
            prop_assert_eq!(&sent["invented"], &invented);
            prop_assert_eq!(&sent["containerDefinitions"][0]["invented"], &in_container);
        }

        #[test]
        fn no_answer_makes_it_panic(answer in any_json(), containers in any_json(), tags in any_json()) {
            let _ = TaskDefinition::from_answer(answer.to_string().as_bytes());
            let odd = described(&json!({
                "taskDefinition": {"taskDefinitionArn": "", "containerDefinitions": containers}, "tags": tags,
            }));
            let _ = (odd.changes(&sha()), odd.registration(&sha()).to_json());
        }
    }
}

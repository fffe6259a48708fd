//! Which containers get the new tag: those that the key `containers` names, or all where that is sure to be meant.

use local_ecs::{LocalEcs, service};
use serde_json::{Value, json};

use crate::support::{NEW, OLD, bodies, ecs, gehen_yml_with};

/// A task definition with these containers, each a name and an image.
fn definition(containers: &[(&str, &str)]) -> Value {
    let containers: Vec<_> = containers
        .iter()
        .map(|(name, image)| {
            json!({"name": name, "image": image, "essential": true,
                "portMappings": if *name == "app" { json!([{"containerPort": 8080, "protocol": "tcp"}]) } else { json!([]) }})
        })
        .collect();
    json!({
        "family": "api", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256",
        "memory": "512", "containerDefinitions": containers,
    })
}

/// An ECS with a service `api` of these containers; the first decides what its url says.
fn ecs_of(containers: &[(&str, &str)]) -> LocalEcs {
    ecs([service("api").task_definition(definition(containers))])
}

/// The images that gehen registered last, in order.
fn images(ecs: &LocalEcs) -> Vec<String> {
    let body = bodies(ecs, "RegisterTaskDefinition").pop().expect("a revision is registered");
    let containers = body["containerDefinitions"].as_array().expect("a list").clone();
    containers.iter().map(|container| container["image"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn only_the_containers_that_are_named_get_the_new_tag() {
    let ecs = ecs_of(&[("app", "api:01d0000"), ("worker", "worker:01d0000"), ("logs", "log-router:stable")]);
    let run = gehen_yml_with(&ecs, "", &[("api", "containers: [app, worker]")]).deploy(NEW);
    run.exits(0).says("api: runs api:1 (01d0000)\n").ends("api", &format!("DEPLOYED {NEW} as api:2"));
    run.says("registered api:2: api:01d0000 -> api:ae30000, worker:01d0000 -> worker:ae30000\n")
        .never_says("log-router");
    assert_eq!(images(&ecs), ["api:ae30000", "worker:ae30000", "log-router:stable"]);
}

#[test]
fn what_other_containers_run_is_no_reason_for_a_new_revision() {
    let ecs = ecs_of(&[("app", "api:ae30000"), ("logs", "log-router:stable")]);
    let run = gehen_yml_with(&ecs, "", &[("api", "containers: [app]")]).deploy(NEW);
    run.exits(0).says("all images of api:1 are at this version already; no new revision is needed");
    assert_eq!(ecs.writes(), ["UpdateService api -> api:1"]);
}

#[test]
fn a_container_that_does_not_exist_is_refused_with_those_that_do() {
    let ecs = ecs_of(&[("app", "api:01d0000"), ("logs", "log-router:stable")]);
    let run = gehen_yml_with(&ecs, "", &[("api", "containers: [app, web]")]).deploy(NEW);
    run.exits(1).says("error: service `api`: api:1 has no container `web`; it has `app`, `logs`\n");
    run.says("hint: name one of those under the key `containers`\n").says("nothing has been changed\n");
    assert!(ecs.writes().is_empty());
}

#[test]
fn a_sidecar_of_another_repository_without_a_git_sha_is_never_tagged_unasked() {
    let ecs = ecs_of(&[("app", "api:01d0000"), ("logs", "log-router:stable")]);
    let run = gehen_yml_with(&ecs, "", &[("api", "")]).deploy(NEW);
    run.exits(1).says(
        "error: service `api`: the images of api:1 are of several repositories and not all tagged with a Git SHA, so it \
         isn't clear which get the new tag: `app` (api:01d0000), `logs` (log-router:stable)\n",
    );
    run.says("hint: name those that do under the key `containers`, as in `containers: [app]`\n");
    assert!(ecs.writes().is_empty());
}

#[test]
fn the_hint_names_the_containers_that_are_tagged_with_a_git_sha() {
    for (containers, hint) in [
        (
            &[("web", "web:01d0000"), ("logs", "log-router:stable"), ("jobs", "jobs:01d0000")][..],
            ", as in `containers: [web, jobs]`",
        ),
        (&[("web", "web:latest"), ("logs", "log-router:stable")], ""),
    ] {
        let run = gehen_yml_with(&ecs_of(containers), "", &[("api", "")]).deploy(NEW);
        run.exits(1).says(&format!("hint: name those that do under the key `containers`{hint}\n"));
    }
}

#[test]
fn containers_of_several_repositories_all_tagged_with_git_shas_all_get_the_new_tag() {
    let ecs = ecs_of(&[("app", "api:01d0000"), ("worker", "worker:abcdef1")]);
    gehen_yml_with(&ecs, "", &[("api", "")]).deploy(NEW).exits(0);
    assert_eq!(images(&ecs), ["api:ae30000", "worker:ae30000"]);
}

#[test]
fn a_rollback_puts_every_container_back() {
    let ecs = ecs_of(&[("app", "api:01d0000"), ("logs", "log-router:stable")]);
    ecs.version("bad0000", local_ecs::Behaviour::CrashesOnStart { exit_code: 1 });
    let run = gehen_yml_with(&ecs, "", &[("api", "containers: [app]")]).deploy("bad0000");
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!(ecs.task_definition_of("api"), "api:1");
}

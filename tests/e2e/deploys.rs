//! Deploys that go well.

use local_ecs::service;

use crate::support::{NEW, OLD, ecs, gehen_yml};

#[test]
fn one_service_is_deployed_and_proven() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).says(&format!("api: DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
    assert_eq!(ecs.runs("api"), NEW);
    assert_eq!(run.stdout, "");
}

//! `-dry-run`: says what would be done, and does nothing.

use local_ecs::{Settings, service};

use crate::support::{NEW, OLD, colleague_deploys, ecs, ecs_with, gehen_yml, gehen_yml_with};

#[test]
fn says_what_would_be_deployed_and_where_a_rollback_would_go() {
    let ecs = ecs([service("api").running(OLD), service("web").running(NEW)]);
    let run = gehen_yml(&ecs, "", &["api", "web"]).run(&["-gitsha", NEW, "-dry-run"]);
    run.exits(0);
    assert_eq!(
        run.transcript(),
        "\
TIME api: runs api:1 (01d0000)
TIME api: whether image registry.example.com/api:ae30000 exists can't be told (not in Amazon ECR); going on
TIME web: runs web:1 (ae30000)
TIME web: warning: there is nothing to return to if this run fails: web:1 is what this run deploys, too; the service would be left as it is
TIME web: whether image registry.example.com/web:ae30000 exists can't be told (not in Amazon ECR); going on
TIME api: would deploy a new revision of api:1: registry.example.com/api:01d0000 -> registry.example.com/api:ae30000
TIME api: a rollback would go to api:1 (01d0000)
TIME web: would deploy web:1, whose images are at this version already
TIME web: a rollback would have nothing to return to: web:1 is what this run deploys, too
nothing has been changed: this was a dry run
"
    );
    assert!(ecs.writes().is_empty());
}

#[test]
fn lists_the_problems_that_a_deploy_would_list() {
    let ecs = ecs([service("api").running(OLD), service("old").running(OLD).controller("CODE_DEPLOY")]);
    let gehen = gehen_yml(&ecs, "", &["api", "old"]);
    let (planned, deployed) = (gehen.run(&["-gitsha", NEW, "-dry-run"]), gehen.deploy(NEW));
    planned.exits(1).says("error: service `old`: ").says("nothing has been changed\n");
    assert_eq!(planned.transcript(), deployed.transcript());
    assert!(ecs.writes().is_empty());
}

#[test]
fn says_what_each_strategy_would_do() {
    let settings = Settings { healthy_after: std::time::Duration::from_secs(30), ..Settings::fast() };
    let ecs = ecs_with(settings, ["a", "b", "c"].map(|name| service(name).running(OLD)));
    colleague_deploys(&ecs, "a");
    let gehen = gehen_yml_with(
        &ecs,
        "",
        &[("a", "updateStrategy: latest"), ("b", "updateStrategy: redeploy"), ("c", "updateStrategy: none")],
    );
    let run = gehen.run(&["-gitsha", OLD, "-dry-run"]);
    run.exits(0).says("a: would deploy a new revision of a:2: ").says("a: a rollback would go to a:1 (01d0000)\n");
    run.says("b: would deploy b:1 anew as it is, as `updateStrategy: redeploy` says\n");
    run.says("c: would only check that 01d0000 is live as c:1, as `updateStrategy: none` says\n");
    run.never_says("c: a rollback");
    assert!(ecs.writes().is_empty());
}

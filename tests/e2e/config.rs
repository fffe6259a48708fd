//! gehen.yml: where it is, what is wrong with it, and which clusters and regions it names.

use std::fmt::Write as _;

use local_ecs::{Behaviour, service};
use serde_json::json;

use crate::support::{NEW, OLD, SHORT, bodies, ecs, gehen_file, gehen_yml, gehen_yml_with, updates};

/// Asserts that each of these files is refused with what stands beside it, which begins with the number of a line, and
/// with that line, and that nothing is requested.
#[track_caller]
fn are_refused(files: &[(&str, &str)]) {
    let ecs = ecs([service("api").running(OLD)]);
    for (file, said) in files {
        let run = gehen_file(&ecs, file).deploy(NEW);
        let number: usize = said.split(':').next().and_then(|line| line.parse().ok()).expect("each has a line");
        // A file that ends too early is wrong at a line that isn't there.
        let line = file.lines().nth(number - 1);
        let quote = line.map(|line| format!("\n  {number} | {}", line.replace('\t', "\\u{9}"))).unwrap_or_default();
        run.exits(1).says_only(&format!("error: gehen.yml:{said}{quote}"));
    }
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn every_mistake_in_the_file_names_its_line_and_nothing_is_requested() {
    let url_rule = "won't do: give a whole address that begins with http:// or https://";
    let timeout_rule =
        "won't do: give a number of minutes above 0 and up to 10080, or leave the key out for the default";
    let service = "expected a map with the `cluster` of a service and its other keys";
    are_refused(&[
        (
            "services: {api: {cluster: c}",
            "2: did not find expected ',' or '}', while parsing a flow mapping at line 1 column 11",
        ),
        ("services:\n\tapi:\n", "2: found character that cannot start any token, while scanning for the next token"),
        ("just words", "1: invalid type: string \"just words\", expected a map with the key `services`"),
        ("- api\n- web\n", "1: invalid type: sequence, expected a map with the key `services`"),
        (
            "services:\n  - api\n",
            "2: services: invalid type: sequence, expected a map from the name of an ECS service to its `cluster` and its other keys",
        ),
        ("services:\n  api: staging\n", &format!("2: services.api: invalid type: string \"staging\", {service}")),
        (
            "services:\n  api: {cluster: c}\n  web: {cluster: c}\n  api: {cluster: d}\n",
            "4: services: `api` stands here a second time; keep one of the two",
        ),
        (
            "services:\n  api:\n    cluster: c\n    cluster: d\n",
            "4: services.api: `cluster` stands here a second time; keep one of the two",
        ),
        (
            "timeout: 5\nservices:\n  api: {cluster: c}\n",
            "1: unknown key `timeout`, the known keys are `services`, `scheduledTasks`, `role`, `timeoutMinutes`, `updateStrategy` and `parallel`; a key that holds anchors begins with `x-`",
        ),
        (
            "services:\n  api:\n    cluster: c\n    timeout: 5\n",
            "4: services.api: unknown key `timeout`, the known keys are `cluster`, `url`, `timeoutMinutes`, `header`, `containers` and `updateStrategy`",
        ),
        (
            "services:\n  api:\n    url: https://example.com\n",
            "3: services.api: `cluster` is missing; give the ARN or the name of the cluster that the service runs in",
        ),
        (
            "services:\n  api:\n    cluster: [c]\n",
            "3: services.api.cluster: invalid type: sequence, expected the ARN or the name of a cluster",
        ),
        (
            "services:\n  api:\n    cluster: arn:aws:ecs:us-east-1:123456789012:service/staging/api\n",
            "3: services.api.cluster: `arn:aws:ecs:us-east-1:123456789012:service/staging/api` won't do: a cluster is an ARN such as `arn:aws:ecs:us-east-1:123456789012:cluster/staging`, or a name of letters, digits, `-` and `_`",
        ),
        (
            "services:\n  api:\n    cluster: c\n    url: {https: a}\n",
            "4: services.api.url: invalid type: map, expected an address that begins with http:// or https://",
        ),
        (
            "services:\n  api:\n    cluster: c\n    url: example.com\n",
            &format!("4: services.api.url: `example.com` {url_rule}"),
        ),
        (
            "services:\n  api:\n    cluster: c\n    url: ftp://a.b/\n",
            &format!("4: services.api.url: `ftp://a.b/` {url_rule}"),
        ),
        (
            "services:\n  api:\n    cluster: c\n    url: file:///etc\n",
            &format!("4: services.api.url: `file:///etc` {url_rule}"),
        ),
        (
            "services:\n  api:\n    cluster: c\n    url: 'https://'\n",
            &format!("4: services.api.url: `https://` {url_rule}"),
        ),
        ("timeoutMinutes: 0\nservices: {api: {cluster: c}}\n", &format!("1: timeoutMinutes: `0` {timeout_rule}")),
        ("timeoutMinutes: -5\nservices: {api: {cluster: c}}\n", &format!("1: timeoutMinutes: `-5` {timeout_rule}")),
        ("services: {api: {cluster: c}}\ntimeoutMinutes: .inf\n", &format!("2: timeoutMinutes: `.inf` {timeout_rule}")),
        ("services: {api: {cluster: c}}\ntimeoutMinutes: 5m\n", &format!("2: timeoutMinutes: `5m` {timeout_rule}")),
    ]);
}

#[test]
fn every_mistake_in_a_key_of_a_service_is_refused() {
    are_refused(&[
        (
            "services:\n  api:\n    cluster: c\n    timeoutMinutes: 0\n",
            "4: services.api.timeoutMinutes: `0` won't do: give a number of minutes above 0 and up to 10080, or leave the key out for the default",
        ),
        (
            "services:\n  api:\n    cluster: c\n    header: 'X Version'\n",
            "4: services.api.header: `X Version` won't do: give the name of an HTTP header, such as `Server`",
        ),
        (
            "services:\n  api:\n    cluster: c\n    containers: []\n",
            "4: services.api.containers: an empty list won't do: leave the key out for all containers",
        ),
        (
            "services:\n  api:\n    cluster: c\n    containers: [app, worker, app]\n",
            "4: services.api.containers[2]: `app` stands here a second time; keep one of the two",
        ),
        (
            "services:\n  api:\n    cluster: c\n    containers:\n    - app\n    - log router\n",
            "6: services.api.containers[1]: `log router` won't do: the name of a container has letters, digits, `-` and `_` only",
        ),
        (
            "services:\n  api:\n    cluster: c\n    updateStrategy: newest\n",
            "4: services.api.updateStrategy: `newest` won't do: give `current`, `latest`, `redeploy` or `none`",
        ),
    ]);
}

#[test]
fn every_mistake_in_a_key_of_the_whole_file_is_refused() {
    are_refused(&[
        (
            "updateStrategy: always\nservices: {api: {cluster: c}}\n",
            "1: updateStrategy: `always` won't do: give `current`, `latest`, `redeploy` or `none`",
        ),
        (
            "services: {api: {cluster: c}}\nparallel: 0\n",
            "2: parallel: `0` won't do: give a whole number from 1 to 1000",
        ),
        (
            "services: {api: {cluster: c}}\nparallel: 1001\n",
            "2: parallel: `1001` won't do: give a whole number from 1 to 1000",
        ),
        (
            "services: {api: {cluster: c}}\nrole:\n  arn: deploy\n",
            "3: role.arn: `deploy` won't do: give the ARN of an IAM role, such as `arn:aws:iam::123456789012:role/deploy`",
        ),
        (
            "services: {api: {cluster: c}}\nrole:\n  name: deploy\n",
            "3: role: unknown key `name`, the known key is `arn`",
        ),
        (
            "services: {api: {cluster: c}}\nrole: {arn: }\n",
            "2: role: `arn` is missing; give the ARN of the role, or leave `role` out",
        ),
    ]);
}

#[test]
fn every_mistake_in_a_key_of_a_scheduled_task_is_refused() {
    are_refused(&[
        (
            "scheduledTasks:\n  every night:\n",
            "2: scheduledTasks: `every night` can't be the name of an EventBridge rule, which has up to 64 letters, digits, `.`, `-` and `_`",
        ),
        (
            "scheduledTasks:\n  nightly:\n    cluster: c\n",
            "3: scheduledTasks.nightly: unknown key `cluster`, the known keys are `eventBus`, `region`, `containers` and `updateStrategy`",
        ),
        (
            "scheduledTasks:\n  nightly:\n    eventBus: 'my bus'\n",
            "3: scheduledTasks.nightly.eventBus: `my bus` won't do: an event bus is a name of letters, digits, `.`, `-`, `_` and `/`, or an ARN such as `arn:aws:events:us-east-1:123456789012:event-bus/jobs`",
        ),
        (
            "scheduledTasks:\n  nightly:\n    region: Frankfurt\n",
            "3: scheduledTasks.nightly.region: `Frankfurt` won't do: give the name of a region, such as `us-east-1`",
        ),
        (
            "scheduledTasks:\n  nightly: {region: us-west-2, eventBus: 'arn:aws:events:us-east-1:123456789012:event-bus/a'}\n",
            "2: scheduledTasks.nightly: `region` says `us-west-2` but the ARN of `eventBus` `us-east-1`; leave `region` out",
        ),
        (
            "scheduledTasks:\n  nightly:\n    containers: []\n    updateStrategy: latest\n",
            "3: scheduledTasks.nightly.containers: an empty list won't do: leave the key out for all containers",
        ),
        (
            "scheduledTasks:\n  nightly:\n    updateStrategy: later\n",
            "3: scheduledTasks.nightly.updateStrategy: `later` won't do: give `current`, `latest`, `redeploy` or `none`",
        ),
    ]);
}

#[test]
fn the_line_that_is_wrong_is_shown_without_its_password() {
    let ecs = ecs([]);
    for (line, shown) in [
        ("url: ftp://me:secret@example.com/", "url: ftp://me:***@example.com/"),
        ("url: 'https://me:sec ret/@example.com:port'", "url: 'https://me:***@example.com:port'"),
    ] {
        let run = gehen_file(&ecs, &format!("services:\n  api:\n    cluster: c\n    {line}\n")).deploy(NEW);
        run.exits(1).never_says("sec").says(&format!("\n  4 |     {shown}\n"));
    }
    let missing = "services:\n  api:\n    url: https://me:secret@example.com/\n";
    gehen_file(&ecs, missing).deploy(NEW).exits(1).never_says("secret").says("me:***@example.com");
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn the_line_that_is_wrong_is_in_the_json_too() {
    let ecs = ecs([]);
    let gehen = gehen_file(&ecs, "services:\n  api:\n    clutser: c\n");
    let run = gehen.run(&["-gitsha", NEW, "-log-format", "json"]);
    run.exits(1);
    let summary: serde_json::Value = serde_json::from_str(&run.stderr).expect("one object on one line");
    assert_eq!((&summary["line"], &summary["line_text"]), (&json!(3), &json!("    clutser: c")));
}

#[test]
fn of_a_long_line_only_a_part_is_shown() {
    let ecs = ecs([]);
    let services: Vec<_> = (0..500).map(|index| format!("\"api-{index}\":{{\"cluster\":\"c\"}}")).collect();
    let file = format!("{{\"services\":{{{},\"api\":{{\"clutser\":\"c\"}}}}}}", services.join(","));
    let run = gehen_file(&ecs, &file).deploy(NEW);
    run.exits(1).says("error: gehen.yml:1: services.api: unknown key `clutser`");
    let shown = run.stderr.lines().nth(1).expect("the line is shown");
    assert!(shown.starts_with("  1 | …") && shown.contains("clutser") && shown.chars().count() < 120, "{shown}");
}

#[test]
fn a_file_with_nothing_to_deploy_is_refused() {
    let ecs = ecs([]);
    for file in ["", "# nothing\n", "services:\n", "services: {}\n", "timeoutMinutes: 5\n", "scheduledTasks:\n"] {
        let run = gehen_file(&ecs, file).deploy(NEW);
        run.exits(1).says_only(
            "error: gehen.yml: nothing to deploy: list a service under `services:`, or a rule under `scheduledTasks:`, as gehen.example.yml shows",
        );
    }
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let ecs = ecs([]);
    let gehen = gehen_file(&ecs, "").with_file("latin1.yml", b"services:\n  caf\xe9: {}\n").with_file("sub/a.yml", "");
    let cannot = |name: &str| format!("error: cannot read {name}; give the file's place with `-path <file>`: ");
    for (path, said) in [
        ("missing.yml", cannot("missing.yml") + "No such file or directory (os error 2)"),
        ("sub", cannot("sub") + "Is a directory (os error 21)"),
        ("sub/a.yml/b.yml", cannot("sub/a.yml/b.yml") + "Not a directory (os error 20)"),
        (
            "latin1.yml",
            "error: latin1.yml is not a text in UTF-8: invalid utf-8 sequence of 1 bytes from index 15".to_owned(),
        ),
    ] {
        gehen.run(&["-gitsha", NEW, "-path", path]).exits(1).says_only(&said);
    }
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn aliases_that_blow_up_are_refused_at_once() {
    let ecs = ecs([]);
    let mut file = "x-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        let _ = writeln!(file, "x-{level}: &a{level} [{aliases}]");
    }
    file.push_str("services: {api: {cluster: c}}\n");
    let run = gehen_file(&ecs, &file).deploy(NEW);
    run.exits(1).says("aliases blow this file up to many times its size; write the values out, or use fewer aliases");
    assert!(run.stderr.starts_with("error: gehen.yml") && run.stderr.lines().count() <= 2, "{}", run.stderr);
    assert!(run.took.as_secs() < 30, "it took {:?}", run.took);
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn the_schema_is_printed_as_json_on_stdout() {
    let ecs = ecs([]);
    let run = gehen_file(&ecs, "not: read\n").run(&["-schema"]);
    run.exits(0);
    assert_eq!(run.stderr, "");
    let schema: serde_json::Value = serde_json::from_str(&run.stdout).expect("the schema is JSON");
    let schema = jsonschema::validator_for(&schema).expect("the schema can be used");
    assert!(schema.is_valid(&json!({"services": {"api": {"cluster": "staging"}}})));
    assert!(!schema.is_valid(&json!({"services": {"api": {"clutser": "staging"}}})));
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn what_is_only_asked_for_is_deployed_and_nothing_else_is_touched() {
    let names = ["web", "api", "worker"];
    let ecs = ecs(names.map(|name| service(name).running(OLD)));
    let gehen = gehen_yml(&ecs, "", &names);
    gehen.run(&["-gitsha", NEW, "-only", "worker,web"]).exits(0);
    assert_eq!(updates(&ecs), ["UpdateService web -> web:2", "UpdateService worker -> worker:2"]);
    assert_eq!(names.map(|name| ecs.runs(name)), [NEW, OLD, NEW]);
    let asked =
        |name: &str| ecs.requests().iter().any(|request| request.body.to_string().contains(&format!("\"{name}\"")));
    assert_eq!(names.map(asked), [true, false, true]);
}

#[test]
fn a_name_that_the_file_does_not_have_is_refused() {
    let ecs = ecs([service("api").running(OLD)]);
    let file = format!("services: {{api: {{cluster: '{}'}}}}\nscheduledTasks: {{nightly: }}\n", ecs.cluster_arn("api"));
    for (only, unknown) in [("apj", "`apj`"), ("api,nightly,x,y", "`x` or `y`"), ("API", "`API`")] {
        let run = gehen_file(&ecs, &file).run(&["-gitsha", NEW, "-only", only]);
        run.exits(1).says_only(&format!(
            "error: -only: the file has no service or scheduled task {unknown}, it has `api` and `nightly`"
        ));
    }
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn a_service_may_have_a_shorter_timeout_than_the_rest_of_the_file() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    ecs.version(NEW, Behaviour::NeverStarts);
    // The default would have gehen wait for five minutes.
    let run = gehen_yml_with(&ecs, "", &[("api", SHORT), ("web", "")]).deploy(NEW);
    run.exits(1).says("api: deploy check: waiting up to 6 s").ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert!(run.took.as_secs() < 120, "it took {:?}", run.took);
}

#[test]
fn a_service_may_have_a_longer_timeout_than_the_rest_of_the_file() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen_yml_with(&ecs, SHORT, &[("api", "timeoutMinutes: 7")]).deploy(NEW);
    run.exits(0).says("api: deploy check: waiting up to 7 min").says("api: drain check: waiting up to 7 min");
}

#[test]
fn the_example_is_accepted() {
    let ecs = ecs([service("other").running(OLD)]);
    let example = include_str!("../../gehen.example.yml");
    let run = gehen_file(&ecs, example).deploy(NEW);
    let missing = |name: &str| {
        format!(
            "error: service `{name}`: DescribeServices: there is no service `{name}` in cluster \
             `arn:aws:ecs:us-east-1:123456789012:cluster/staging`; gehen deploys services that exist"
        )
    };
    let [api, worker] = ["api-staging", "worker-staging"].map(missing);
    run.exits(1).says_only(&format!("{api}\n{worker}\nnothing has been changed"));
    assert!(ecs.writes().is_empty());
}

#[test]
fn services_are_deployed_in_the_order_of_the_file() {
    let names = ["web", "api", "worker"];
    let ecs = ecs(names.map(|name| service(name).running(OLD)));
    let run = gehen_yml(&ecs, "", &names).deploy(NEW);
    run.exits(0);
    assert_eq!(
        ecs.writes(),
        [
            "RegisterTaskDefinition web",
            "UpdateService web -> web:2",
            "RegisterTaskDefinition api",
            "UpdateService api -> api:2",
            "RegisterTaskDefinition worker",
            "UpdateService worker -> worker:2",
        ]
    );
    let ends: Vec<_> =
        run.stderr.lines().filter_map(|line| line.split_once(": DEPLOYED ")).map(|(name, _)| name).collect();
    assert_eq!(ends, names);
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let ecs = ecs([service("api").running(OLD), service("worker").running(OLD).cluster("jobs")]);
    let (staging, jobs, url) = (ecs.cluster_arn("api"), ecs.cluster_arn("worker"), ecs.url("api"));
    let file = format!(
        "x-staging: &staging\n  cluster: {staging}\n  url: {url}\n\
         x-jobs: &jobs {{cluster: '{jobs}'}}\n\
         services:\n  api:\n    <<: *staging\n  worker:\n    <<: [*jobs, *staging]\n    url: {}\n",
        ecs.url("worker")
    );
    gehen_file(&ecs, &file).deploy(NEW).exits(0);
    assert_eq!((ecs.runs("api"), ecs.runs("worker")), (NEW.to_owned(), NEW.to_owned()));
    let clusters: Vec<_> = bodies(&ecs, "UpdateService").iter().map(|body| body["cluster"].clone()).collect();
    assert_eq!(clusters, [staging, jobs]);
}

#[test]
fn the_file_may_lie_elsewhere() {
    let ecs = ecs([service("api").running(OLD)]);
    let file = format!("services: {{api: {{cluster: '{}', url: '{}'}}}}\n", ecs.cluster_arn("api"), ecs.url("api"));
    let gehen = gehen_file(&ecs, "not: this one\n").with_file("deploy/staging services.yml", file);
    gehen.run(&["-gitsha", NEW, "-path", "deploy/staging services.yml"]).exits(0);
    gehen.run(&["-gitsha", OLD, "-path", &gehen.place_of("deploy/staging services.yml")]).exits(0);
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn a_file_elsewhere_is_named_as_it_was_given() {
    let ecs = ecs([]);
    let gehen = gehen_file(&ecs, "").with_file("deploy/staging.yml", "services: {api: {}}\n");
    let run = gehen.run(&["-gitsha", NEW, "-path", "deploy/staging.yml"]);
    run.exits(1).says("error: deploy/staging.yml:1: services.api: `cluster` is missing");
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn a_bare_cluster_name_is_in_the_region_of_the_settings() {
    for variable in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        let ecs = ecs([service("api").running(OLD).region("eu-central-1")]);
        let file = format!("services:\n  api:\n    cluster: staging\n    url: {}\n", ecs.url("api"));
        gehen_file(&ecs, &file).with(variable, "eu-central-1").deploy(NEW).exits(0);
        assert_eq!(ecs.runs("api"), NEW, "{variable}");
        assert!(ecs.requests().iter().all(|request| request.region == "eu-central-1"), "{variable}");
    }
}

#[test]
fn a_bare_cluster_name_is_in_the_region_of_the_profile() {
    let ecs = ecs([service("api").running(OLD).region("eu-central-1")]);
    let file = format!("services:\n  api:\n    cluster: staging\n    url: {}\n", ecs.url("api"));
    let gehen = gehen_file(&ecs, &file).with_file("aws", "[profile staging]\nregion = eu-central-1\n");
    let place = gehen.place_of("aws");
    gehen.with("AWS_CONFIG_FILE", &place).with("AWS_PROFILE", "staging").deploy(NEW).exits(0);
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_bare_cluster_name_without_a_region_shows_the_way_out() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    let file = format!("services:\n  web: {{cluster: '{}'}}\n  api: {{cluster: staging}}\n", ecs.cluster_arn("web"));
    let run = gehen_file(&ecs, &file).deploy(NEW);
    run.exits(1)
        .says_only("error: service `api`: no region for cluster `staging`; set AWS_REGION, or write the cluster's ARN");
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn each_service_is_asked_for_in_its_own_region() {
    let regions = [("api", "us-east-1"), ("web", "eu-west-1"), ("cn", "cn-north-1"), ("gov", "us-gov-west-1")];
    let ecs = ecs(regions.map(|(name, region)| service(name).running(OLD).region(region)));
    // An ARN's region goes before the one of the settings.
    let gehen = gehen_yml(&ecs, "", &regions.map(|(name, _)| name)).with("AWS_REGION", "ap-south-1");
    gehen.deploy(NEW).exits(0);
    for (name, region) in regions {
        assert_eq!(ecs.runs(name), NEW);
        for operation in ["DescribeServices", "DescribeTaskDefinition", "RegisterTaskDefinition", "UpdateService"] {
            let asked = ecs.requests().into_iter().filter(|request| {
                let body = &request.body;
                let subject = [&body["service"], &body["services"][0], &body["family"]].map(|value| value.as_str());
                let is_described = |arn: &str| arn.contains(&format!("/{name}:"));
                request.operation == operation
                    && (subject.contains(&Some(name)) || body["taskDefinition"].as_str().is_some_and(is_described))
            });
            let asked: Vec<_> = asked.map(|request| request.region).collect();
            assert!(!asked.is_empty() && asked.iter().all(|asked| asked == region), "{operation} of {name}: {asked:?}");
        }
    }
}

#[test]
fn the_arns_of_other_partitions_are_kept() {
    for (region, partition) in [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")] {
        let ecs = ecs([service("api").running(OLD).region(region)]);
        gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0);
        let update = bodies(&ecs, "UpdateService").remove(0);
        assert_eq!(update["cluster"], format!("arn:{partition}:ecs:{region}:123456789012:cluster/staging"));
        assert_eq!(
            update["taskDefinition"],
            format!("arn:{partition}:ecs:{region}:123456789012:task-definition/api:2")
        );
        assert!(ecs.requests().iter().all(|request| request.region == region));
    }
}

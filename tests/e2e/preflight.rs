//! What is looked at before the first write: problems, of which all are told at once, and remarks, of which none
//! blocks.

use std::{net::TcpListener, time::Duration};

use local_ecs::{Behaviour, Fault, LocalEcs, ServiceBuilder, Settings, ecr_image, service};
use serde_json::{Value, json};

use crate::support::{
    AMPLE, LONG, NEW, OLD, Run, SHORT, THEIRS, bodies, colleague_deploys, ecs, ecs_with, gehen_file, gehen_yml,
    gehen_yml_with, gehen_yml_without_urls, in_seconds,
};

const OWN: &str = "123456789012";
const OTHER: &str = "210987654321";
const US: &str = "us-east-1";
const EU: &str = "eu-west-1";

/// A service of one container, `api`, per image.
fn with_images(images: &[&str]) -> ServiceBuilder {
    let containers = images.iter().enumerate().map(|(nth, image)| {
        json!({
            "name": if nth == 0 { "api".to_owned() } else { format!("sidecar{nth}") }, "image": image, "memory": 256,
            "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
        })
    });
    let containers: Vec<Value> = containers.collect();
    service("api").task_definition(json!({"family": "api", "containerDefinitions": containers}))
}

/// A local ECS whose `api` runs [`OLD`] from the repository `team/api`, which holds [`NEW`], too.
fn with_both_images() -> LocalEcs {
    let ecs = ecs([service("api").running(OLD).in_ecr(US, "team/api")]);
    ecs.repository(OWN, US, "team/api", &[NEW]);
    ecs
}

/// Whether a warning of `service` says this, as a whole line but for its time.
#[track_caller]
fn warns(run: &Run, service: &str, warning: &str) {
    let line = format!("{service}: warning: {warning}");
    assert!(run.stderr.lines().any(|said| said.ends_with(&line)), "`{line}` ends no line of:\n{}", run.stderr);
}

#[test]
fn every_problem_of_every_service_in_every_region_is_told_at_once_and_nothing_is_changed() {
    let ecs = ecs([
        service("good").running(OLD),
        service("gone").running(OLD),
        service("blue").running(OLD).controller("CODE_DEPLOY"),
        service("sets").running(OLD).controller("EXTERNAL"),
        service("worker").running(OLD).in_ecr(US, "team/worker"),
        service("euro").running(OLD).region(EU).cluster("production").in_ecr(EU, "team/euro"),
    ]);
    let delete = json!({"cluster": "staging", "service": "gone", "force": true});
    ecs.call(US, "DeleteService", delete).expect("the service can be deleted");
    assert!(ecs.wait_until(LONG, |view| view.described("gone")["status"] == "INACTIVE"));
    ecs.fault(Fault::on("ListTasks").about("worker").denied().always());
    let [staging, production] = [ecs.cluster_arn("good"), ecs.cluster_arn("euro")];
    let file = format!(
        "services:
  good: {{cluster: '{staging}', url: '{}'}}
  unknown: {{cluster: '{staging}'}}
  lost: {{cluster: '{staging}-no-more'}}
  gone: {{cluster: '{staging}'}}
  blue: {{cluster: '{staging}'}}
  sets: {{cluster: '{staging}'}}
  worker: {{cluster: '{staging}'}}
  euro: {{cluster: '{production}'}}
",
        ecs.url("good")
    );
    let run = gehen_file(&ecs, &file).deploy(NEW);
    run.exits(1).says_only(&format!(
        "\
error: service `unknown`: DescribeServices: there is no service `unknown` in cluster `{staging}`; gehen deploys services that exist
error: service `lost`: DescribeServices: ClusterNotFoundException: Cluster not found.
hint: check `cluster` and its region in the file, and that the credentials are those of its account
error: service `gone`: DescribeServices: the service is INACTIVE, not ACTIVE; it has been deleted
error: service `blue`: DescribeServices: the service's deployment controller is CODE_DEPLOY; gehen deploys services whose controller is ECS: deploy it with AWS CodeDeploy, or move the service to the ECS controller, which has blue/green of its own
error: service `sets`: DescribeServices: the service's deployment controller is EXTERNAL; gehen deploys services whose controller is ECS: deploy it with the tool that manages its task sets
error: service `worker`: there is no image {} for container `worker`
hint: push the image first, and check -gitsha
error: service `worker`: ListTasks: AccessDeniedException: User: arn:aws:iam::{OWN}:user/local is not authorized to perform: ecs:ListTasks on resource: * because no identity-based policy allows the ecs:ListTasks action
hint: the role needs ecs:ListTasks
error: service `euro`: there is no image {} for container `euro`
hint: push the image first, and check -gitsha
nothing has been changed",
        ecr_image(OWN, US, "team/worker", NEW),
        ecr_image(OWN, EU, "team/euro", NEW),
    ));
    assert!(ecs.writes().is_empty(), "{:?}", ecs.writes());
    assert_eq!(ecs.runs("good"), OLD);
}

#[test]
fn a_problem_of_the_last_service_is_known_before_the_first_write() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD).in_ecr(US, "web")]);
    let run = gehen_yml(&ecs, "", &["api", "web"]).deploy(NEW);
    run.exits(1).says("error: service `web`: there is no image ").never_says("api:");
    assert!(ecs.writes().is_empty(), "{:?}", ecs.writes());
}

#[test]
fn a_task_definition_that_cannot_be_read_is_a_problem() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("DescribeTaskDefinition").refused("ClientException", "Unable to describe task definition."));
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(1).says_only(
        "error: service `api`: DescribeTaskDefinition: ClientException: Unable to describe task definition.\nnothing has been changed",
    );
    assert!(ecs.writes().is_empty());
}

#[test]
fn images_that_are_there_are_not_spoken_of() {
    let ecs = with_both_images();
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).never_says("image ").never_says("warning");
    let asked: Vec<_> = bodies(&ecs, "BatchGetImage").iter().map(|body| body["imageIds"].clone()).collect();
    assert!(asked.contains(&json!([{"imageTag": NEW}])) && asked.contains(&json!([{"imageTag": OLD}])), "{asked:?}");
}

#[test]
fn images_are_asked_for_in_the_account_and_the_region_of_their_reference() {
    let (own, foreign) = (ecr_image(OWN, EU, "api", OLD), ecr_image(OTHER, "ap-south-1", "team/proxy", OLD));
    let digest = format!("{}@sha256:{}", ecr_image(OWN, US, "log", OLD), "a".repeat(64));
    let ecs = ecs([with_images(&[&own, &foreign, &digest])]);
    ecs.repository(OWN, EU, "api", &[OLD]);
    ecs.repository(OTHER, "ap-south-1", "team/proxy", &[OLD]);
    ecs.repository(OWN, US, "log", &[OLD]);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    let missing = |image: &str, container: &str| {
        format!(
            "error: service `api`: there is no image {image} for container `{container}`\nhint: push the image first, and check -gitsha\n"
        )
    };
    run.exits(1).says_only(&format!(
        "{}{}{}nothing has been changed",
        missing(&ecr_image(OWN, EU, "api", NEW), "api"),
        missing(&ecr_image(OTHER, "ap-south-1", "team/proxy", NEW), "sidecar1"),
        missing(&ecr_image(OWN, US, "log", NEW), "sidecar2"),
    ));
    assert!(ecs.writes().is_empty());
    let requests = ecs.requests();
    let asked = requests.iter().filter(|request| request.operation == "BatchGetImage");
    let asked: Vec<_> = asked.map(|request| (&*request.region, request.body["registryId"].as_str())).collect();
    for place in [(EU, Some(OWN)), ("ap-south-1", Some(OTHER)), (US, Some(OWN))] {
        assert!(asked.contains(&place), "{place:?} is not in {asked:?}");
    }
}

/// What a run says of [`NEW`] in `team/api` where that can't be told.
fn cannot_be_told(why: &str) -> String {
    format!("Z api: whether image {} exists can't be told ({why}); going on\n", ecr_image(OWN, US, "team/api", NEW))
}

#[test]
fn an_image_that_cannot_be_told_of_never_blocks() {
    let image = || Fault::on("BatchGetImage");
    let odd = json!({"images": [], "failures": [{"failureCode": "KmsError", "failureReason": "no\u{1b}[2J"}]});
    let runs = [
        (image().denied(), "the role needs ecr:BatchGetImage"),
        (image().slow(Duration::from_mins(1)), "ECR gave no answer within 5 s"),
        (image().answers(odd), "ecr:BatchGetImage: KmsError: no\\u{1b}[2J"),
        (image().answers(json!({})), "ecr:BatchGetImage: the answer holds neither the image nor a failure"),
        (image().refused("KmsException", "the key is gone"), "ecr:BatchGetImage: KmsException: the key is gone"),
    ]
    .map(|(fault, why)| {
        let ecs = with_both_images();
        ecs.fault(fault.always());
        let gehen = gehen_yml(&ecs, "", &["api"]);
        let running = gehen.start(&["-gitsha", NEW]);
        (why, ecs, gehen, running)
    });
    for (why, ecs, _gehen, running) in runs {
        let run = running.wait();
        run.exits(0).says(&cannot_be_told(why));
        assert_eq!(ecs.runs("api"), NEW, "{why}");
        assert!(run.took < Duration::from_secs(30), "{why}: {:?}", run.took);
    }
}

#[test]
fn an_image_that_may_be_fetched_from_elsewhere_never_blocks() {
    let rules = || Fault::on("DescribePullThroughCacheRules");
    let runs = [
        (
            rules().denied(),
            "its repository doesn't hold it, but may be a pull-through cache: the role needs ecr:DescribePullThroughCacheRules",
        ),
        (rules().slow(Duration::from_mins(1)), "ECR gave no answer within 5 s"),
    ]
    .map(|(fault, why)| {
        let ecs = ecs([service("api").running(OLD).in_ecr(US, "team/api")]);
        ecs.fault(fault.always());
        let gehen = gehen_yml(&ecs, SHORT, &["api"]);
        let running = gehen.start(&["-gitsha", NEW]);
        (why, ecs, gehen, running)
    });
    for (why, ecs, _gehen, running) in runs {
        let run = running.wait();
        run.says(&cannot_be_told(why)).says("registered api:2");
        run.exits(1)
            .says("the image of a new task can't be found")
            .ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
        assert_eq!(ecs.runs("api"), OLD);
    }
}

#[test]
fn while_ecr_is_away_the_deploy_goes_on() {
    let faults = [Fault::on("BatchGetImage").server_error(), Fault::on("BatchGetImage").reset_before()];
    let faults = faults.into_iter().chain([Fault::on("BatchGetImage").throttled()]);
    let runs = faults.map(|fault| {
        let ecs = with_both_images();
        ecs.fault(fault.always());
        let gehen = gehen_yml(&ecs, "", &["api"]);
        let running = gehen.start(&["-gitsha", NEW]);
        (ecs, gehen, running)
    });
    for (ecs, _gehen, running) in runs.collect::<Vec<_>>() {
        let run = running.wait();
        run.exits(0).says("exists can't be told (").ends("api", &format!("DEPLOYED {NEW}"));
        assert_eq!(ecs.runs("api"), NEW);
    }
}

#[test]
fn a_stumble_of_ecr_is_no_reason_not_to_tell() {
    let ecs = ecs([service("api").running(OLD).in_ecr(US, "team/api")]);
    ecs.fault(Fault::on("BatchGetImage").throttled().times(2));
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(1).says("error: service `api`: there is no image ");
    assert!(ecs.writes().is_empty());
}

#[test]
fn a_repository_that_is_not_there_yet_or_fills_itself_does_not_block() {
    let ecs = ecs([with_images(&[
        &ecr_image(OWN, US, "docker-hub/library/api", OLD),
        &ecr_image(OWN, US, "nowhere", OLD),
        "public.ecr.aws/team/api:01d0000",
        "nginx",
    ])]);
    ecs.repository(OWN, US, "docker-hub/library/api", &[OLD]);
    ecs.pull_through_cache(OWN, US, "docker-hub");
    let chosen = "containers: [api, sidecar1, sidecar2, sidecar3]";
    let run = gehen_yml_with(&ecs, "", &[("api", chosen)]).deploy(NEW);
    run.exits(0);
    for (image, why) in [
        (
            ecr_image(OWN, US, "docker-hub/library/api", NEW),
            "its repository is a pull-through cache that doesn't hold it yet",
        ),
        (
            ecr_image(OWN, US, "nowhere", NEW),
            "ecr:BatchGetImage: RepositoryNotFoundException: The repository with name 'nowhere' does not exist in the registry with id '123456789012'",
        ),
    ] {
        run.says(&format!("Z api: whether image {image} exists can't be told ({why}); going on\n"));
    }
    run.says(&format!(
        "Z api: whether images public.ecr.aws/team/api:{NEW}, nginx:{NEW} exist can't be told (not in Amazon ECR); going on\n"
    ));
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn nothing_but_ecs_is_asked_where_no_image_lies_in_ecr() {
    let ecs = ecs([service("api").running(OLD)]);
    gehen_yml(&ecs, "", &["api"]).deploy(NEW).exits(0);
    assert!(ecs.requests().iter().all(|request| request.service_name == "ecs"));
}

#[test]
fn an_image_of_the_way_back_that_is_gone_is_told_before_and_the_deploy_goes_on() {
    let ecs = with_both_images();
    ecs.remove_image(OWN, US, "team/api", OLD);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    let old = ecr_image(OWN, US, "team/api", OLD);
    run.exits(0);
    warns(
        &run,
        "api",
        &format!("image {old} is gone from ECR: if this run fails, no task of the version to return to can start"),
    );
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_way_back_whose_image_is_gone_is_not_claimed_to_have_worked() {
    let ecs = ecs([service("api").running(OLD).in_ecr(US, "team/api").minimum_healthy_percent(0).maximum_percent(100)]);
    ecs.repository(OWN, US, "team/api", &[NEW]);
    ecs.remove_image(OWN, US, "team/api", OLD);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    let run = gehen_yml(&ecs, SHORT, &["api"]).deploy(NEW);
    run.exits(1).says("is gone from ECR").never_says("proven live again").ends("api", "FAILED");
    let end = run.end_of("api");
    assert!(end.contains(&format!("AND THE ROLLBACK to api:1 ({OLD}) FAILED TOO: ")), "{end}");
    assert!(
        end.contains("the image of a new task can't be found") && end.contains("\nto go back by hand: aws "),
        "{end}"
    );
}

#[test]
fn a_url_that_cannot_be_reached_is_told_with_its_cause_and_the_deploy_goes_on() {
    let refused = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let plain = ecs([]);
    let runs = [
        (format!("http://127.0.0.1:{}/ping", refused.port()), "connection refused"),
        ("http://gehen.invalid/ping".to_owned(), "its host name can't be resolved (DNS): "),
        (
            format!("{}/ping", plain.endpoint().replace("http:", "https:")),
            "what listens on that port doesn't speak TLS",
        ),
    ]
    .map(|(url, cause)| {
        let ecs = ecs([service("api").running(OLD)]);
        let file = format!(
            "timeoutMinutes: 0.3\nservices:\n  api:\n    cluster: {}\n    url: {url}\n",
            ecs.cluster_arn("api")
        );
        let gehen = gehen_file(&ecs, &file);
        let running = gehen.start(&["-gitsha", NEW]);
        (url, cause, ecs, gehen, running)
    });
    for (url, cause, ecs, _gehen, running) in runs {
        let run = running.wait();
        let today = run.stderr.lines().find(|line| line.contains("api: warning: today "));
        let today = today.unwrap_or_else(|| panic!("no warning in:\n{}", run.stderr));
        assert!(today.contains(&format!("today {url} gives no answer: ")) && today.contains(cause), "{today}");
        assert!(today.ends_with("; the deploy check needs it to show the version"), "{today}");
        run.exits(1).says("updated to api:2").ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
        assert_eq!(ecs.runs("api"), OLD);
    }
}

#[test]
fn a_url_that_shows_no_version_today_may_show_one_tomorrow() {
    for (status, server, said) in [
        (200, "nginx", "shows no version (Server: nginx)"),
        (404, "nginx", "answers 404 Not Found"),
        (200, "", "shows no version (Server: )"),
    ] {
        let ecs = ecs([service("api").running(OLD)]);
        let headers = vec![("Server".to_owned(), server.to_owned())];
        ecs.version(OLD, Behaviour::Answers { status, headers, body: "hello".into() });
        let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
        run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
        let url = ecs.url("api");
        warns(&run, "api", &format!("today {url} {said}; the deploy check needs it to show the version"));
    }
}

#[test]
fn a_password_in_a_url_is_not_printed() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(OLD, Behaviour::Answers { status: 401, headers: Vec::new(), body: String::new() });
    let url = ecs.url("api").replace("http://", "http://user:correct-horse@");
    let file = format!("services: {{api: {{cluster: '{}', url: '{url}'}}}}\n", ecs.cluster_arn("api"));
    let run = gehen_file(&ecs, &file).deploy(NEW);
    run.exits(0).says("warning: today http://user:***@127.0.0.1:").never_says("correct-horse");
}

/// The worst case of one service with five minutes for each check: twice a minute for the writes, twice five for the
/// checks, and four times five to go back.
const WORST: &str = "and this run may take 32 min: unless they are renewed, what it begins may not be undone";

#[test]
fn credentials_that_end_before_the_worst_case_are_told_wherever_they_come_from() {
    for (seconds, said) in [(31 * 60, "30 min 5"), (45 * 60, ""), (600, "9 min 5")] {
        let ecs = ecs([service("api").running(OLD)]);
        let by_environment =
            gehen_yml(&ecs, "", &["api"]).with("AWS_CREDENTIAL_EXPIRATION", &in_seconds(seconds)).deploy(NEW);
        let script = json!({
            "Version": 1, "AccessKeyId": "process", "SecretAccessKey": "local", "Expiration": in_seconds(seconds),
        });
        let gehen = gehen_yml(&ecs, "", &["api"])
            .with_file("credentials.json", script.to_string())
            .with_file("aws", "[default]\ncredential_process = /bin/cat credentials.json\n");
        let place = gehen.place_of("aws");
        let by_process =
            gehen.with("AWS_CONFIG_FILE", &place).with("AWS_ACCESS_KEY_ID", "").with("AWS_SECRET_ACCESS_KEY", "");
        for run in [by_environment, by_process.deploy(THEIRS)] {
            run.exits(0);
            if said.is_empty() {
                run.never_says("credentials");
            } else {
                run.says(&format!("Z warning: the AWS credentials end in {said}")).says(WORST);
            }
        }
        assert!(ecs.requests().iter().any(|request| request.caller == "process"));
    }
}

#[test]
fn credentials_that_have_expired_by_the_environment_are_told_and_tried() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]).with("AWS_CREDENTIAL_EXPIRATION", "2026-01-01T00:00:00+00:00");
    gehen.deploy(NEW).exits(0).says(
        "Z warning: the AWS credentials have expired, by what their source says: what this run begins may not be undone\n",
    );
}

#[test]
fn each_service_and_each_check_counts_in_the_worst_case() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD).blue_green(7)]);
    let gehen = gehen_yml(&ecs, "timeoutMinutes: 1", &["api", "web"]);
    let run = gehen.with("AWS_CREDENTIAL_EXPIRATION", &in_seconds(60)).run(&["-gitsha", NEW]);
    // api: 2 + 2 min; web: 2 + 2 * (1 + 7) min; back: 2 + 2 * (1 + 7) min.
    run.says("and this run may take 40 min: unless ");
}

#[test]
fn an_expiration_that_is_not_of_these_credentials_or_cannot_be_read_says_nothing() {
    let ecs = ecs([service("api").running(OLD)]);
    gehen_yml(&ecs, "", &["api"]).with("AWS_CREDENTIAL_EXPIRATION", "soon").deploy(NEW).exits(0).never_says("warning");
    let gehen = gehen_yml(&ecs, "", &["api"])
        .with_file("aws", "[profile ci]\naws_access_key_id = file\naws_secret_access_key = local\n");
    let place = gehen.place_of("aws");
    let gehen = gehen.with("AWS_CONFIG_FILE", &place).with("AWS_PROFILE", "ci").with("AWS_ACCESS_KEY_ID", "");
    let gehen = gehen.with("AWS_SECRET_ACCESS_KEY", "").with("AWS_CREDENTIAL_EXPIRATION", &in_seconds(60));
    gehen.deploy(OLD).exits(0).never_says("the AWS credentials end");
}

#[test]
fn a_deployment_that_is_under_way_is_told_and_replaced() {
    is_told_and_replaced(service("api").running(OLD));
}

#[test]
fn behind_a_classic_load_balancer_a_deployment_that_is_under_way_is_told_too() {
    is_told_and_replaced(service("api").running(OLD).classic_load_balancer());
}

/// A colleague's deployment, in progress, of the service that is made so.
#[track_caller]
fn is_told_and_replaced(builder: ServiceBuilder) {
    let ecs = ecs([builder]);
    ecs.version(THEIRS, Behaviour::NeverStarts);
    colleague_deploys(&ecs, "api");
    let theirs = ecs.view(|view| view.deployment_of("api"));
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).ends("api", &format!("DEPLOYED {NEW} as api:3"));
    warns(&run, "api", &format!("deployment {theirs} of api:2 is still in progress; this run replaces it"));
    warns(
        &run,
        "api",
        &format!(
            "what runs now has not completed a deployment; if this run fails, the service returns to api:1 ({OLD}), which has"
        ),
    );
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_service_that_changed_since_preflight_is_left_alone() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    let running = gehen_yml(&ecs, "", &["api", "web"]).start(&["-gitsha", NEW]).until_it_says("api: deploy check: ");
    colleague_deploys(&ecs, "web");
    let run = running.wait();
    run.exits(1)
        .ends("api", &format!("DEPLOYED {NEW}"))
        .ends("web", "LEFT ALONE")
        .says("somebody else deployed web:2 meanwhile");
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
    assert!(ecs.wait_until(LONG, |view| view.runs("web") == THEIRS));
}

#[test]
fn a_service_that_was_deleted_since_preflight_is_not_touched() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    let running = gehen_yml(&ecs, "", &["api", "web"]).start(&["-gitsha", NEW]).until_it_says("api: deploy check: ");
    ecs.call(US, "DeleteService", json!({"cluster": "staging", "service": "web", "force": true})).expect("it exists");
    let run = running.wait();
    run.exits(1)
        .ends("api", &format!("DEPLOYED {NEW}"))
        .ends("web", "NOT UPDATED")
        .says("not ACTIVE; it has been deleted");
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
}

#[test]
fn a_deployment_that_completes_since_preflight_is_what_the_service_returns_to() {
    let ecs = ecs_with(
        // Long enough for preflight to begin meanwhile, on any machine.
        Settings { pulling: Duration::from_secs(10), ..Settings::fast() },
        [service("api").running(OLD).without_load_balancer(), service("web").running(OLD)],
    );
    ecs.version(NEW, Behaviour::FailsLoadBalancerHealthCheck);
    ecs.fault(Fault::on("RegisterTaskDefinition").throttled().always());
    colleague_deploys(&ecs, "web");
    let running = gehen_yml_without_urls(&ecs, AMPLE, &["api", "web"])
        .start(&["-gitsha", NEW])
        .until_it_says("web: warning: deployment ");
    let completed = ecs.wait_until(LONG, |view| view.rollout_of("web") == "COMPLETED");
    assert!(completed && ecs.task_definition_of("web") == "web:2");
    ecs.settings_mut(|settings| settings.pulling = Settings::fast().pulling);
    ecs.clear_fault("RegisterTaskDefinition");
    let run = running.wait();
    run.says("Z web: web:2 has completed its deployment by now; if this run fails, the service returns to it\n");
    run.exits(1).ends("web", &format!("ROLLED BACK to web:2 ({THEIRS})"));
    assert_eq!(ecs.runs("web"), THEIRS, "{}", run.stderr);
}

//! The role that gehen.yml names.

use std::{collections::BTreeSet, time::Duration};

use local_ecs::{Behaviour, Fault, LocalEcs, Request, Settings, service};

use crate::support::{Gehen, NEW, OLD, ecs, ecs_with, gehen_file, gehen_yml, in_seconds, kill, updates};

const ROLE: &str = "arn:aws:iam::123456789012:role/ci/deploy";
/// What stands at the head of a gehen.yml that names it.
const HEAD: &str = "role: {arn: arn:aws:iam::123456789012:role/ci/deploy}";
const SESSION: &str = "arn:aws:sts::123456789012:assumed-role/deploy/gehen-ae30000";

/// A deploy of `api` as the role.
fn as_role(ecs: &LocalEcs) -> Gehen {
    gehen_yml(ecs, HEAD, &["api"])
}

/// Sessions so short that the SDK asks for a new one before each request.
fn a_session_each() -> Settings {
    Settings { longest_session: Some(Duration::from_secs(5)), ..Settings::fast() }
}

/// The requests to STS, and all others.
fn by_service(ecs: &LocalEcs) -> (Vec<Request>, Vec<Request>) {
    ecs.requests().into_iter().partition(|request| request.service_name == "sts")
}

#[test]
fn everything_but_assuming_it_is_asked_as_the_role() {
    let ecs = ecs([
        service("api").running(OLD).region("eu-west-1").in_ecr("eu-central-1", "api"),
        service("web").running(OLD),
    ]);
    let version = format!("{NEW}deadbeefdeadbeefdeadbeefdeadbeef1");
    ecs.repository("123456789012", "eu-central-1", "api", &[&version]);
    gehen_yml(&ecs, HEAD, &["api", "web"]).deploy(&version).exits(0).never_says("role").ends("web", "DEPLOYED");
    let (sts, others) = by_service(&ecs);
    let [assumed] = &sts[..] else { panic!("one session is enough for one run: {sts:?}") };
    assert_eq!((assumed.operation.as_str(), assumed.caller.as_str()), ("AssumeRole", "local"));
    assert_eq!(assumed.region, "eu-west-1");
    assert_eq!((&assumed.body["RoleArn"], &assumed.body["RoleSessionName"]), (&ROLE.into(), &"gehen-ae30000".into()));
    let who: BTreeSet<_> = others.iter().map(|request| request.identity.as_str()).collect();
    assert_eq!(who, BTreeSet::from([SESSION]));
    assert!(others.iter().all(|request| request.caller.starts_with("ASIA")));
    let of: BTreeSet<_> = others.iter().map(|request| (request.service_name, request.region.as_str())).collect();
    assert_eq!(of, BTreeSet::from([("ecr", "eu-central-1"), ("ecs", "eu-west-1"), ("ecs", "us-east-1")]));
}

#[test]
fn a_refusal_names_the_role_the_caller_and_the_way_out_and_changes_nothing() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    ecs.refuse_role(ROLE);
    let run = gehen_yml(&ecs, HEAD, &["api", "web"]).deploy(NEW);
    run.exits(1).says_only(&format!(
        "error: cannot assume role `{ROLE}`: sts:AssumeRole: AccessDenied: User: arn:aws:iam::123456789012:user/local is \
         not authorized to perform: sts:AssumeRole on resource: {ROLE} (the trust policy of that role must let the caller \
         in, and the caller needs sts:AssumeRole); nothing has been changed"
    ));
    let operations: Vec<_> = ecs.requests().into_iter().map(|request| request.operation).collect();
    assert_eq!(operations, ["AssumeRole"]);
}

#[test]
fn where_the_refusal_does_not_name_the_caller_sts_is_asked_who_that_is() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("AssumeRole").refused("AccessDenied", "Access denied").always());
    as_role(&ecs).deploy(NEW).exits(1).says(&format!(
        "cannot assume role `{ROLE}`: sts:AssumeRole: AccessDenied: Access denied; the caller is \
         arn:aws:iam::123456789012:user/local (the role needs sts:AssumeRole); nothing has been changed"
    ));
}

#[test]
fn without_credentials_of_the_caller_that_is_said_instead() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = as_role(&ecs).with("AWS_ACCESS_KEY_ID", "").with("AWS_SECRET_ACCESS_KEY", "");
    let run = gehen.deploy(NEW);
    run.exits(1).says(&format!("error: cannot assume role `{ROLE}`: ")).says("redentials");
    run.says("check with `aws sts get-caller-identity`").says("nothing has been changed");
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn a_session_that_ends_in_a_long_run_is_followed_by_another() {
    let ecs = ecs_with(
        Settings { longest_session: Some(Duration::from_secs(20)), ..Settings::fast() },
        [service("api").running(OLD)],
    );
    ecs.version(NEW, Behaviour::NeverStarts);
    // Longer than a session, together with the way back.
    let run = gehen_yml(&ecs, &format!("{HEAD}\ntimeoutMinutes: 0.4"), &["api"]).deploy(NEW);
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})")).never_says("xpired").never_says("credentials");
    let (sts, others) = by_service(&ecs);
    assert!((2..10).contains(&sts.len()), "{}", sts.len());
    let keys: BTreeSet<_> = others.iter().map(|request| request.caller.as_str()).collect();
    assert!(keys.len() >= 2 && keys.iter().all(|key| key.starts_with("ASIA")), "{keys:?}");
    assert!(others.iter().all(|request| request.identity == SESSION));
}

#[test]
fn an_sts_that_stumbles_is_asked_again() {
    for fault in [
        Fault::on("AssumeRole").throttled().times(2),
        Fault::on("AssumeRole").server_error().times(2),
        Fault::on("AssumeRole").reset_before().times(2),
        Fault::on("AssumeRole").reset_after().times(2),
        Fault::on("AssumeRole").slow(Duration::from_secs(11)),
    ] {
        let ecs = ecs([service("api").running(OLD)]);
        ecs.fault(fault);
        let run = as_role(&ecs).deploy(NEW);
        run.exits(0).says(&format!("role `{ROLE}`: sts:AssumeRole: ")).says("; trying again for up to 1 min");
        assert_eq!(run.stderr.matches("trying again").count(), 1, "{}", run.stderr);
    }
}

#[test]
fn an_sts_that_stumbles_later_makes_the_request_be_tried_again() {
    // The registration, the update, and the looks after it.
    for requests_before in [3, 5, 6] {
        let ecs = ecs_with(a_session_each(), [service("api").running(OLD)]);
        ecs.fault(Fault::on("AssumeRole").server_error().after(requests_before).times(2));
        as_role(&ecs).deploy(NEW).exits(0).says("sts:AssumeRole: ").ends("api", "DEPLOYED");
        assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"], "{requests_before}");
    }
}

#[test]
fn a_role_that_is_closed_during_the_run_is_told_with_the_way_out() {
    let ecs = ecs_with(a_session_each(), [service("api").running(OLD)]);
    ecs.fault(Fault::on("AssumeRole").denied().after(4).always());
    let run = as_role(&ecs).deploy(NEW);
    run.exits(1).ends("api", "NOT UPDATED").says("the trust policy of that role must let the caller in");
    assert_eq!((updates(&ecs).len(), ecs.runs("api").as_str()), (0, OLD));
}

#[test]
fn a_role_that_may_not_ask_ecr_deploys_without() {
    let ecs = ecs([service("api").running(OLD).in_ecr("us-east-1", "api")]);
    ecs.repository("123456789012", "us-east-1", "api", &[NEW]);
    ecs.fault(Fault::on("BatchGetImage").denied().always());
    as_role(&ecs).deploy(NEW).exits(0).says("can't be told (the role needs ecr:BatchGetImage); going on");
}

#[test]
fn credentials_of_the_caller_that_end_matter_only_where_a_session_does_not_outlast_them() {
    let deployed = |longest: Option<Duration>, ends: Option<u64>| {
        let ecs = ecs_with(Settings { longest_session: longest, ..Settings::fast() }, [service("api").running(OLD)]);
        let gehen = as_role(&ecs);
        match ends {
            Some(seconds) => gehen.with("AWS_CREDENTIAL_EXPIRATION", &in_seconds(seconds)).deploy(NEW),
            None => gehen.deploy(NEW),
        }
    };
    let short = Some(Duration::from_mins(1));
    deployed(None, Some(300)).exits(0).never_says("credentials");
    deployed(short, None).exits(0).never_says("credentials");
    deployed(short, Some(45 * 60)).exits(0).never_says("credentials");
    deployed(short, Some(600)).exits(0).says("warning: the AWS credentials end in 9 min 5");
}

#[test]
fn a_run_is_cancelled_while_it_waits_for_the_role() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("AssumeRole").throttled().always());
    let gehen = as_role(&ecs);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("trying again");
    kill("TERM", run.child.id());
    run.wait().exits(1).says("error: cancelled by SIGTERM; nothing has been changed");
    let (_, others) = by_service(&ecs);
    assert_eq!(others.len(), 0);
}

#[test]
fn sts_may_have_an_endpoint_of_its_own() {
    let (ecs, sts) = (ecs([service("api").running(OLD)]), ecs([]));
    let run = as_role(&ecs).with("AWS_ENDPOINT_URL_STS", &sts.endpoint()).deploy(NEW);
    // The local ECS knows no session of another.
    run.exits(1).says("AWS doesn't know these credentials");
    assert_eq!(sts.requests().iter().map(|request| request.operation.as_str()).collect::<Vec<_>>(), ["AssumeRole"]);
    let (of_ecs, others) = by_service(&ecs);
    assert!(of_ecs.is_empty() && others.iter().all(|request| request.caller.starts_with("ASIA")));
}

#[test]
fn without_a_region_to_ask_sts_in_that_is_said_at_once() {
    let ecs = ecs([]);
    let run = gehen_file(&ecs, &format!("{HEAD}\nscheduledTasks:\n  nightly:\n")).deploy(NEW);
    run.exits(1).says_only(&format!(
        "error: cannot assume role `{ROLE}`: no region is known to ask STS in: set AWS_REGION, or write a cluster's ARN; \
         nothing has been changed"
    ));
    assert!(run.took < Duration::from_secs(30), "{:?}", run.took);
}

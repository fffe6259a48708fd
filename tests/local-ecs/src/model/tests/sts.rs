//! AWS STS: what it gives, for how long, and what it refuses.

use std::time::Duration;

use serde_json::{Value, json};

use super::text;
use crate::{
    model::{account::Account, failure::Failure},
    operations::sts,
    settings::Settings,
};

const ROLE: &str = "arn:aws:iam::123456789012:role/ci/deployer";
const USER: &str = "arn:aws:iam::123456789012:user/local";

fn account(longest_session: Option<Duration>) -> Account {
    Account::new(Settings { longest_session, ..Settings::fast() }, 1_767_225_600.0)
}

fn assume(account: &mut Account, more: &[(&str, &str)]) -> Result<Value, Failure> {
    let mut body = json!({"RoleArn": ROLE, "RoleSessionName": "gehen"});
    for (key, value) in more {
        body[*key] = json!(value);
    }
    sts::dispatch(account, USER, "local", "AssumeRole", &body)
}

#[test]
fn a_session_lasts_as_long_as_asked_unless_told_otherwise() {
    for (longest, asked, expiration) in [
        (None, None, "2026-01-01T01:00:00Z"),
        (None, Some("900"), "2026-01-01T00:15:00Z"),
        (Some(Duration::from_secs(20)), Some("900"), "2026-01-01T00:00:20Z"),
    ] {
        let asked: Vec<_> = asked.map(|seconds| ("DurationSeconds", seconds)).into_iter().collect();
        let answer = assume(&mut account(longest), &asked).expect("the role can be assumed");
        assert_eq!(answer["Credentials"]["Expiration"], expiration);
    }
}

#[test]
fn a_session_is_known_by_its_token_until_it_ends() {
    let mut account = account(None);
    let answer = assume(&mut account, &[]).expect("the role can be assumed");
    let (key, token) = (text(&answer["Credentials"]["AccessKeyId"]), text(&answer["Credentials"]["SessionToken"]));
    assert!(key.starts_with("ASIA") && key.len() == 20, "{key}");
    let arn = "arn:aws:sts::123456789012:assumed-role/deployer/gehen";
    assert_eq!(answer["AssumedRoleUser"]["Arn"], arn);
    let hour = Duration::from_hours(1);
    let who = |key: &str, token: &str, now| {
        account.sessions.identify(key, token, "us-east-1", now).unwrap_or_else(|failure| failure.to_string())
    };
    assert_eq!(who(&key, &token, Duration::from_millis(3_599_999)), arn);
    assert_eq!(who(&key, &token, hour), "ExpiredTokenException: The security token included in the request is expired");
    let invalid = "UnrecognizedClientException: The security token included in the request is invalid.";
    assert_eq!(who(&key, "", Duration::ZERO), invalid);
    assert_eq!(who("ASIANOBODY", &token, Duration::ZERO), invalid);
    assert_eq!(who("local", "", hour), USER);
    let caller = sts::dispatch(&mut account, arn, &key, "GetCallerIdentity", &json!({})).expect("it needs nothing");
    assert_eq!((&caller["Arn"], &caller["Account"]), (&json!(arn), &json!("123456789012")));
    assert_eq!(caller["UserId"], answer["AssumedRoleUser"]["AssumedRoleId"]);
}

#[test]
fn refuses_what_sts_refuses() {
    let mut account = account(None);
    account.sessions.unassumable.insert(ROLE.to_owned());
    let long = "x".repeat(65);
    let detected = |value: &str, parameter: &str, constraint: &str| {
        format!(
            "ValidationError: 1 validation error detected: Value '{value}' at '{parameter}' failed to satisfy constraint: Member must {constraint}"
        )
    };
    for (key, value, refusal) in [
        ("RoleArn", "deployer", detected("deployer", "roleArn", "have length greater than or equal to 20")),
        ("RoleArn", "arn:aws:iam::123456789012:user/me", "ValidationError: Request ARN is invalid".to_owned()),
        ("RoleSessionName", "x", detected("x", "roleSessionName", "have length greater than or equal to 2")),
        ("RoleSessionName", &long, detected(&long, "roleSessionName", "have length less than or equal to 64")),
        (
            "RoleSessionName",
            "a b",
            detected("a b", "roleSessionName", "satisfy regular expression pattern: [\\w+=,.@-]*"),
        ),
        ("DurationSeconds", "60", detected("60", "durationSeconds", "have value greater than or equal to 900")),
        (
            "DurationSeconds",
            "7200",
            "ValidationError: The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
                .to_owned(),
        ),
        (
            "RoleArn",
            ROLE,
            format!("AccessDenied: User: {USER} is not authorized to perform: sts:AssumeRole on resource: {ROLE}"),
        ),
    ] {
        let failure = assume(&mut account, &[(key, value)]).expect_err("it should be refused");
        assert_eq!(failure.to_string(), refusal);
    }
}

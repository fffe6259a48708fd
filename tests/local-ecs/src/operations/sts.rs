//! AWS STS: `API_AssumeRole` and `API_GetCallerIdentity` of its API reference.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Answered, parameters};
use crate::model::{
    account::Account,
    failure::Failure,
    sessions::{AN_HOUR, Role},
};

/// Answers one of the two operations for the caller with this identity; `access_key` is what it signed with.
pub(crate) fn dispatch(
    account: &mut Account,
    identity: &str,
    access_key: &str,
    operation: &str,
    body: &Value,
) -> Answered {
    match operation {
        "AssumeRole" => assume_role(account, identity, body),
        _ => Ok(caller_identity(account, identity, access_key)),
    }
}

fn assume_role(account: &mut Account, identity: &str, body: &Value) -> Answered {
    let role_arn = parameters::text(body, "RoleArn")?.unwrap_or_default();
    let name = parameters::text(body, "RoleSessionName")?.unwrap_or_default();
    check("roleArn", role_arn, (20..=2048).contains(&role_arn.len()), "have length greater than or equal to 20")?;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    check("roleSessionName", name, name.len() >= 2, "have length greater than or equal to 2")?;
    check("roleSessionName", name, name.len() <= 64, "have length less than or equal to 64")?;
    let pattern = "satisfy regular expression pattern: [\\w+=,.@-]*";
    check("roleSessionName", name, name.chars().all(is_allowed), pattern)?;
    let seconds = parameters::text(body, "DurationSeconds")?.map(str::parse::<u64>).transpose();
    let seconds = seconds.map_err(|_| invalid("DurationSeconds must be an integer"))?.unwrap_or(AN_HOUR.as_secs());
    let least = "have value greater than or equal to 900";
    check("durationSeconds", &seconds.to_string(), seconds >= 900, least)?;
    if seconds > AN_HOUR.as_secs() {
        return Err(invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role."));
    }
    let role = Role::of(role_arn).ok_or_else(|| invalid("Request ARN is invalid"))?;
    if account.sessions.unassumable.contains(role_arn) {
        let message = format!("User: {identity} is not authorized to perform: sts:AssumeRole on resource: {role_arn}");
        return Err(Failure::new("AccessDenied", message));
    }
    let asked = Duration::from_secs(seconds);
    let lifetime = account.settings.longest_session.map_or(asked, |longest| longest.min(asked));
    let expiration = account.lens().timestamp(account.now + lifetime);
    let session = account.sessions.open(&role, name, account.now + lifetime, &mut account.ids);
    Ok(json!({
        "AssumedRoleUser": {"AssumedRoleId": session.user_id, "Arn": session.arn},
        "Credentials": {
            "AccessKeyId": session.access_key,
            "SecretAccessKey": session.secret,
            "SessionToken": session.token,
            "Expiration": expiration,
        },
    }))
}

/// Says who the caller is, which needs no permission.
fn caller_identity(account: &Account, identity: &str, access_key: &str) -> Value {
    let user_id = account.sessions.get(access_key).map_or("AIDAJQABLZS4A3QDU576Q", |session| &session.user_id);
    let number = identity.split(':').nth(4).unwrap_or_default();
    json!({"Arn": identity, "UserId": user_id, "Account": number})
}

/// Refuses a value in the words that all of AWS's older services use.
fn check(parameter: &str, value: &str, holds: bool, constraint: &str) -> Result<(), Failure> {
    if holds {
        return Ok(());
    }
    Err(invalid(&format!(
        "1 validation error detected: Value '{value}' at '{parameter}' failed to satisfy constraint: Member must {constraint}"
    )))
}

fn invalid(message: &str) -> Failure {
    Failure::new("ValidationError", message)
}

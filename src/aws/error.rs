//! What became of a request that AWS didn't answer as asked, as far as gehen acts differently on it.

use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ecs::config::http::HttpResponse;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;

use crate::text::excerpt;

/// What assuming a role goes by.
const ASSUME_ROLE: &str = "sts:AssumeRole";

/// Why a request to AWS gave no result. An operation of ECS goes by its name, that of another service by its action,
/// such as `ecr:BatchGetImage`.
#[derive(Clone, Debug)]
pub struct Error {
    /// What may be assumed of the request.
    pub fate: Fate,
    operation: &'static str,
    message: String,
}

/// What may be assumed of a request that gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// ECS said no, or the request could not even be made: repeating it is no use.
    Refused,
    /// ECS had no time for it (ThrottlingException), or credentials could not be had at the moment: nothing happened,
    /// and it may be repeated.
    Deferred,
    /// No answer, or a server's error: it may have happened, and may be repeated once that is clear.
    Unknown,
}

impl Error {
    /// An answer of ECS that rules out what was asked, such as a service that doesn't exist.
    pub fn refused(operation: &'static str, message: impl Into<String>) -> Self {
        Self { fate: Fate::Refused, operation, message: message.into() }
    }

    /// An answer that leaves open whether what was asked has happened.
    pub fn unknown(operation: &'static str, message: impl Into<String>) -> Self {
        Self { fate: Fate::Unknown, operation, message: message.into() }
    }

    /// An answer that what was asked has not happened for want of time, and may be asked for again.
    pub fn deferred(operation: &'static str, message: impl Into<String>) -> Self {
        Self { fate: Fate::Deferred, operation, message: message.into() }
    }

    /// The same without the values that AWS repeats from the request ("Value '…' at 'targets' failed to satisfy
    /// constraint"), which may hold what is passed to tasks.
    pub fn without_values(self) -> Self {
        let message = match (self.message.find("Value '"), self.message.rfind("' at '")) {
            (None, _) => return self,
            (Some(from), Some(to)) if from < to => {
                format!("{}a value{}", &self.message[..from], &self.message[to + 1..])
            }
            (Some(from), _) => format!("{}a value will not do", &self.message[..from]),
        };
        Self { message, ..self }
    }

    /// A request that ECS had no time for.
    #[cfg(test)]
    pub fn throttled(operation: &'static str) -> Self {
        Self::deferred(operation, "ThrottlingException: Rate exceeded")
    }

    /// Whether ECS refused a task definition because it has been deregistered ("TaskDefinition is inactive",
    /// API_UpdateService).
    pub fn is_inactive(&self) -> bool {
        self.fate == Fate::Refused && self.message.contains("TaskDefinition is inactive")
    }

    /// Whether the credentials may not do what was asked.
    pub fn is_denied(&self) -> bool {
        self.message.contains("AccessDenied") || self.message.contains("not authorized")
    }

    /// The way out, or else the error itself, in one line that can be shown.
    pub fn in_short(&self) -> String {
        self.hint().unwrap_or_else(|| excerpt(&self.to_string()))
    }

    /// The way out, where one is known.
    pub fn hint(&self) -> Option<String> {
        let says = |text: &str| self.message.contains(text);
        if self.is_denied() {
            // "User: … is not authorized to perform: iam:PassRole on resource: …"
            let denied = self.message.split("perform: ").nth(1).and_then(|rest| rest.split_whitespace().next());
            Some(match denied {
                Some(ASSUME_ROLE) => {
                    format!("the trust policy of that role must let the caller in, and the caller needs {ASSUME_ROLE}")
                }
                Some(action) => format!("the role needs {action}"),
                None if self.operation.contains(':') => format!("the role needs {}", self.operation),
                None => format!("the role needs ecs:{}", self.operation),
            })
        } else if says("ExpiredToken") {
            Some("the AWS credentials have expired: get new ones and run again".into())
        } else if says("UnrecognizedClient") || says("InvalidSignature") || says("InvalidClientTokenId") {
            Some("AWS doesn't know these credentials: check them with `aws sts get-caller-identity`".into())
        } else if says("redentials") {
            Some("gehen finds credentials where the aws CLI does: check with `aws sts get-caller-identity`".into())
        } else if says("ResourceNotFound") && self.operation.starts_with("events:") {
            Some("check the rule's name, its `eventBus` and its `region` in the file".into())
        } else if says("ManagedRule") {
            Some("a service of AWS keeps this rule: take it out of the file".into())
        } else if says("ClusterNotFound") {
            Some("check `cluster` and its region in the file, and that the credentials are those of its account".into())
        } else {
            None
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.operation, self.message)
    }
}

impl std::error::Error for Error {}

/// Converts the SDK's error for `operation`.
pub fn convert<E>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    if let Some(not_assumed) = std::error::Error::source(error).and_then(cause::<NotAssumed>) {
        return without_role(not_assumed);
    }
    let code = error.code().unwrap_or_default().to_owned();
    let fate = match error {
        _ if code.contains("Throttl") || code.contains("TooManyRequests") || code == "RequestLimitExceeded" => {
            Fate::Deferred
        }
        // "Too many requests were made at the same time", says EventBridge (API_PutTargets).
        SdkError::ServiceError(_) if code == "ConcurrentModificationException" => Fate::Deferred,
        // How ECS throttles registrations of one family that come at the same time (API_RegisterTaskDefinition's
        // errors).
        SdkError::ServiceError(_) if error.message().unwrap_or_default().contains("Too many concurrent attempts") => {
            Fate::Deferred
        }
        SdkError::ConstructionFailure(_) => Fate::Refused,
        SdkError::DispatchFailure(_) if cause::<CredentialsError>(error).is_some() => {
            cause(error).map_or(Fate::Unknown, fate_of)
        }
        SdkError::ServiceError(answer) => match answer.raw().status().as_u16() {
            429 => Fate::Deferred,
            408 | 500.. => Fate::Unknown,
            _ if code.starts_with("RequestTimeout") => Fate::Unknown,
            _ => Fate::Refused,
        },
        _ => Fate::Unknown,
    };
    let message = if code.is_empty() {
        causes(error)
    } else {
        format!("{code}: {}", error.message().unwrap_or("without a message"))
    };
    Error { fate, operation, message }
}

/// What becomes of a request to assume a role, inside of what kept credentials from being found.
type NotAssumed = SdkError<AssumeRoleError, HttpResponse>;

/// Converts the error of a source of credentials that assumes a role.
pub fn of_credentials(error: &CredentialsError) -> Error {
    match cause::<NotAssumed>(error) {
        Some(not_assumed) => without_role(not_assumed),
        None => Error { fate: fate_of(error), operation: ASSUME_ROLE, message: causes(error) },
    }
}

/// Converts the error of a request that was not sent, because the role that was to send it could not be assumed.
fn without_role(not_assumed: &NotAssumed) -> Error {
    let error = convert(ASSUME_ROLE, not_assumed);
    Error { fate: if error.fate == Fate::Unknown { Fate::Deferred } else { error.fate }, ..error }
}

/// What may be assumed of a request for which no credentials could be had.
fn fate_of(error: &CredentialsError) -> Fate {
    match error {
        CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => Fate::Deferred,
        _ => Fate::Refused,
    }
}

/// The error itself or the first of its causes that is a `T`.
fn cause<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |cause| cause.source()).find_map(|cause| cause.downcast_ref())
}

/// The error and its causes, outermost first, each said once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !said.iter().any(|earlier| earlier.contains(&text)) {
            said.push(text);
        }
        next = cause.source();
    }
    said.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_request_are_not_repeated() {
        for (message, told) in [
            ("ValidationException: No.", "ValidationException: No."),
            (
                "ValidationException: 2 validation errors detected: Value '[{Input=secret' at 'home}]' at 'targets' failed \
                 to satisfy constraint: no; Value 'secret' at 'rule' failed to satisfy constraint: no",
                "ValidationException: 2 validation errors detected: a value at 'rule' failed to satisfy constraint: no",
            ),
            ("ValidationException: Value 'secret", "ValidationException: a value will not do"),
        ] {
            assert_eq!(Error::refused("events:PutTargets", message).without_values().message, told);
        }
    }

    #[test]
    fn the_hint_names_the_permission_that_is_missing() {
        let denied = |message: &str| Error::refused("RegisterTaskDefinition", message).hint();
        let message =
            "AccessDeniedException: User: arn:x is not authorized to perform: iam:PassRole on resource: arn:y";
        assert_eq!(denied(message).as_deref(), Some("the role needs iam:PassRole"));
        let needs = Some("the role needs ecs:RegisterTaskDefinition");
        assert_eq!(denied("AccessDeniedException: no").as_deref(), needs);
        assert_eq!(denied("ClientException: no"), None);
    }
}

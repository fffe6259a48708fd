//! Errors as ECS answers them.

use std::fmt;

/// An error as ECS answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exception's name, such as `ClusterNotFoundException`.
    pub kind: String,
    /// What the answer says about it.
    pub message: String,
}

impl Failure {
    /// An exception of this name.
    pub(crate) fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), message: message.into() }
    }

    /// `InvalidParameterException`: the request can't be right.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterException", message)
    }

    /// `ClientException`: the request asks for what the client may not have.
    pub(crate) fn client(message: impl Into<String>) -> Self {
        Self::new("ClientException", message)
    }

    /// `ClusterNotFoundException`.
    pub(crate) fn no_cluster() -> Self {
        Self::new("ClusterNotFoundException", "Cluster not found.")
    }

    /// `ServiceNotFoundException`.
    pub(crate) fn no_service() -> Self {
        Self::new("ServiceNotFoundException", "Service not found.")
    }

    /// The HTTP status that goes with it: 500 for what is no fault of the client, 400 otherwise (`CommonErrors`).
    pub(crate) fn status(&self) -> u16 {
        match self.kind.as_str() {
            "ServerException" | "InternalException" | "InternalFailure" => 500,
            "ServiceUnavailable" => 503,
            _ => 400,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Failure {}

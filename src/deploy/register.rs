//! register-task-definition: a new revision of the task definition that runs, or of its family's newest, with its
//! images at the new version.

use super::{Clients, answered, preflight::Snapshot};
use crate::{
    aws::Error,
    ecs::{TaskDefinitionArn, WriteTurn},
};

/// The task definition that is to be deployed.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Its ARN.
    pub arn: TaskDefinitionArn,
    /// Whether it is a new one, registered in this run.
    pub is_new: bool,
}

/// Waits for the service's turn to register, if it needs one. While it is held, no other of its region registers, however
/// often the request has to be repeated: RegisterTaskDefinition has the smallest bucket of all (request throttling page of
/// the ECS API reference), and each service has the whole of its patience once its turn has come.
pub async fn turn_to_register<'a>(clients: &'a Clients<'_>, snapshot: &Snapshot<'_>) -> Option<WriteTurn<'a>> {
    if snapshot.registers() { Some(clients.ecs.may_register(snapshot.service).await) } else { None }
}

/// Registers the new revision, in its `turn`, unless what it would be made from will do as it is. A repeated request may
/// leave a second, equal revision behind, which nothing refers to.
pub async fn register(
    clients: &Clients<'_>,
    snapshot: &Snapshot<'_>,
    mut turn: Option<WriteTurn<'_>>,
) -> Result<Revision, Error> {
    if let Some(ready) = snapshot.ready() {
        return Ok(Revision { arn: ready.arn.clone(), is_new: false });
    }
    if let Some(turn) = &mut turn {
        turn.take();
    }
    let registration = snapshot.base().registration(snapshot.version);
    let arn = answered(snapshot.service, async || clients.ecs.register(snapshot.service, &registration).await).await?;
    Ok(Revision { arn, is_new: true })
}

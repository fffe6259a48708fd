//! register-task-definition: a new revision of the task definition that runs, or of its family's newest, with its
//! images at the new version.

use super::{Clients, answered, preflight::Snapshot};
use crate::{aws::Error, ecs::TaskDefinitionArn};

/// The task definition that is to be deployed.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Its ARN.
    pub arn: TaskDefinitionArn,
    /// Whether it is a new one, registered in this run.
    pub is_new: bool,
}

/// Registers the new revision, unless what it would be made from will do as it is. A repeated request
/// may leave a second, equal revision behind, which nothing refers to.
pub async fn register(clients: &Clients<'_>, snapshot: &Snapshot<'_>) -> Result<Revision, Error> {
    if let Some(ready) = snapshot.ready() {
        return Ok(Revision { arn: ready.arn.clone(), is_new: false });
    }
    // RegisterTaskDefinition has the smallest bucket of all, which refills once a second (request throttling page of
    // the ECS API reference): each service has the whole of its patience once its turn has come.
    let _turn = clients.registers.lock().await;
    let registration = snapshot.base().registration(snapshot.version);
    let arn = answered(snapshot.service, async || clients.ecs.register(snapshot.service, &registration).await).await?;
    Ok(Revision { arn, is_new: true })
}

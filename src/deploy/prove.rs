//! The proof that a deployment of ours is live and alone: deploy check, then drain check. A rollback is proven like a
//! deploy.

use super::{
    Clients,
    check::{Checked, Proof, check},
    drain::{Drained, Old, drain},
    replaced::{Replacement, recognise},
    standing::Deployment,
    watch::Watch,
};
use crate::{
    config::Service,
    ecs::{Haste, Strategy},
    outcome::Reason,
    report::{self, Event},
};

/// How the two checks ended.
pub enum Proven {
    /// Both passed.
    Complete,
    /// The version is live, but the time for the old one to go ran out; what remains of it.
    NotDrained(Reason),
    /// The version is not live, or did not stay so, and why.
    Failed(Reason),
    /// Another deployment took the place of ours.
    Replaced(Replacement),
}

/// Takes `ours`, a deployment of `service`, through both checks, and says what is awaited and what was seen. Each may
/// take the service's timeout, and as much longer as its configuration has ECS take.
pub async fn prove(clients: &Clients<'_>, service: &Service, ours: &Deployment, proof: &Proof, old: Old) -> Proven {
    let say = |event: &Event<'_>| report::say(&service.name, event);
    let watch = Watch::new(clients, service, ours);
    let patience = service.timeout + ours.strategy.takes();
    if let Strategy::Shifting { name, takes } = ours.strategy {
        say(&Event::ShiftsTraffic { name, takes });
    }
    say(&Event::Checking { proof, timeout: patience });
    match watch.with_heartbeat(patience, Box::pin(check(&watch, ours, proof, patience))).await {
        Checked::Live(how) => say(&Event::Live { how: &how }),
        Checked::Failed(why) => return Proven::Failed(why),
        Checked::Replaced(replacement) => {
            return Proven::Replaced(recognised(&watch, ours, replacement).await);
        }
    }
    say(&Event::Draining { proof, timeout: patience });
    match watch.with_heartbeat(patience, Box::pin(drain(&watch, ours, proof, old, patience))).await {
        Drained::Complete(how) => {
            say(&Event::Drained { how: &how });
            Proven::Complete
        }
        Drained::TimedOut(remaining) => Proven::NotDrained(remaining),
        Drained::Failed(why) => Proven::Failed(why),
        Drained::Replaced(replacement) => Proven::Replaced(recognised(&watch, ours, replacement).await),
    }
}

/// What replaced `ours`, as far as ECS can be asked.
async fn recognised(watch: &Watch<'_>, ours: &Deployment, replacement: Replacement) -> Replacement {
    let part_of = watch.service_deployment();
    recognise(watch.clients, watch.service, &ours.task_definition, part_of.as_ref(), replacement, Haste::Next).await
}

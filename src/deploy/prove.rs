//! The proof that a deployment of ours is live and alone: deploy check, then drain check. A rollback is proven like a
//! deploy.

use super::{
    Clients,
    check::{Checked, Proof, check},
    drain::{Drained, Old, drain},
    standing::{Deployment, Replacement},
    watch::Watch,
};
use crate::{
    config::Service,
    report::{self, Event},
};

/// How the two checks ended.
pub enum Proven {
    /// Both passed; so many old tasks get no new requests and are still about to end.
    Complete {
        /// How many.
        leaving: usize,
    },
    /// The version is live, but the time for the old one to go ran out; what remains of it.
    NotDrained(String),
    /// The version is not live, or did not stay so, and why.
    Failed(String),
    /// Another deployment took the place of ours.
    Replaced(Replacement),
}

/// Takes `ours`, a deployment of `service`, through both checks, and says what is awaited and what was seen.
pub async fn prove(clients: &Clients, service: &Service, ours: &Deployment, proof: &Proof, old: Old) -> Proven {
    let say = |event: &Event<'_>| report::say(&service.name, event);
    let watch = Watch::new(clients, service, ours);
    say(&Event::Checking { proof, timeout: service.timeout });
    match check(&watch, ours, proof).await {
        Checked::Live(how) => say(&Event::Live { how: &how }),
        Checked::Failed(why) => return Proven::Failed(why),
        Checked::Replaced(replacement) => return Proven::Replaced(replacement),
    }
    say(&Event::Draining { proof, timeout: service.timeout });
    match drain(&watch, ours, proof, old).await {
        Drained::Complete { how, leaving } => {
            say(&Event::Drained { how: &how });
            Proven::Complete { leaving }
        }
        Drained::TimedOut(remaining) => Proven::NotDrained(remaining),
        Drained::Failed(why) => Proven::Failed(why),
        Drained::Replaced(replacement) => Proven::Replaced(replacement),
    }
}

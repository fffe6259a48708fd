//! Amazon EventBridge: the event buses of a region, their rules, and what these have as targets.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{At, failure::Failure};

/// The bus that a request means which names none.
pub(crate) const DEFAULT_BUS: &str = "default";

/// The event buses of one region; the default one is always there.
#[derive(Debug)]
pub(crate) struct Buses(BTreeMap<String, BTreeMap<String, Rule>>);

/// A rule and its targets.
#[derive(Debug, Default)]
pub(crate) struct Rule {
    /// What `PutRule` said, but for the names of rule and bus.
    pub(crate) said: Map<String, Value>,
    /// Its targets as they came, with fields that nobody has heard of, too; oldest first.
    pub(crate) targets: Vec<Value>,
    /// The service of AWS that made it and alone may change it.
    pub(crate) managed_by: Option<String>,
    /// The targets that reads show instead, and until when.
    pub(crate) stale: Option<(At, Vec<Value>)>,
}

impl Default for Buses {
    fn default() -> Self {
        Self(BTreeMap::from([(DEFAULT_BUS.to_owned(), BTreeMap::new())]))
    }
}

impl Buses {
    /// Makes a bus; false if there is one of this name.
    pub(crate) fn create(&mut self, bus: &str) -> bool {
        let is_new = !self.0.contains_key(bus);
        self.0.entry(bus.to_owned()).or_default();
        is_new
    }

    /// Every rule, with the name of its bus and its own.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (&str, &str, &Rule)> {
        let buses = self.0.iter();
        buses.flat_map(|(bus, rules)| rules.iter().map(|(name, rule)| (bus.as_str(), name.as_str(), rule)))
    }

    /// The rules of a bus.
    pub(crate) fn bus(&mut self, bus: &str) -> Result<&mut BTreeMap<String, Rule>, Failure> {
        self.0.get_mut(bus).ok_or_else(|| not_found(format!("Event bus {bus} does not exist.")))
    }

    /// A rule of a bus.
    pub(crate) fn rule(&mut self, bus: &str, name: &str) -> Result<&mut Rule, Failure> {
        let rule = self.bus(bus)?.get_mut(name);
        rule.ok_or_else(|| not_found(format!("Rule {name} does not exist on EventBus {bus}.")))
    }
}

impl Rule {
    /// The targets that reads show.
    pub(crate) fn shown(&self, now: At) -> &[Value] {
        match &self.stale {
            Some((until, before)) if *until > now => before,
            _ => &self.targets,
        }
    }

    /// Adds a target, or puts it whole into the place of the one with its id.
    pub(crate) fn put(&mut self, target: Value) {
        match self.targets.iter_mut().find(|held| held["Id"] == target["Id"]) {
            Some(held) => *held = target,
            None => self.targets.push(target),
        }
    }
}

fn not_found(message: String) -> Failure {
    Failure::new("ResourceNotFoundException", message)
}

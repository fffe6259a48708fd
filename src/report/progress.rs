//! How far each service is, by what was told of it.

use super::{Event, Phase};
use crate::git_sha::GitSha;

/// All services of the run, in the order of the file.
#[derive(Default)]
pub struct Board {
    version: String,
    services: Vec<(String, Progress)>,
}

/// How far one service is.
#[derive(Default)]
struct Progress {
    phase: Phase,
    /// Whether its turn has come.
    has_begun: bool,
    /// Whether it goes back, or went.
    goes_back: bool,
}

impl Board {
    /// Takes note of what is to be deployed.
    pub fn begins<'a>(&mut self, services: impl Iterator<Item = &'a str>, version: &GitSha) {
        self.version = version.to_string();
        self.services = services.map(|name| (name.to_owned(), Progress::default())).collect();
    }

    /// The version that is deployed; empty before that is known.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The services, and whether the turn of each has come.
    pub fn services(&self) -> impl Iterator<Item = (&str, bool)> {
        self.services.iter().map(|(name, progress)| (name.as_str(), progress.has_begun))
    }

    /// Takes note of `event`, and gives the phase that it belongs to.
    pub fn hear(&mut self, service: &str, event: &Event<'_>) -> Phase {
        let known = self.services.iter().position(|(name, _)| name == service);
        let index = known.unwrap_or_else(|| {
            self.services.push((service.to_owned(), Progress::default()));
            self.services.len() - 1
        });
        self.services[index].1.hear(event)
    }
}

impl Progress {
    fn hear(&mut self, event: &Event<'_>) -> Phase {
        match event {
            Event::Begins => self.has_begun = true,
            Event::RollingBack { .. } | Event::GoesBackByItself { .. } => self.goes_back = true,
            _ => {}
        }
        // A rollback goes through updates and checks of its own.
        self.phase = if self.goes_back { Phase::Rollback } else { event.phase().unwrap_or(self.phase) };
        self.phase
    }
}

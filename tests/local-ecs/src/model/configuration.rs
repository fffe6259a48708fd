//! A service's deployment configuration (`API_DeploymentConfiguration`).

use serde_json::{Map, Value, json};

use super::failure::Failure;

/// How traffic and tasks move from one version to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    Rolling,
    BlueGreen,
    /// Each step is so many tenths of a percent.
    Linear {
        step: u32,
        minutes: u32,
    },
    /// The canary gets so many tenths of a percent.
    Canary {
        percent: u32,
        minutes: u32,
    },
}

/// A service's deployment configuration.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    raw: Map<String, Value>,
}

impl Configuration {
    /// What ECS assumes when nothing is said: a DAEMON service stops old tasks first.
    pub(crate) fn new(daemon: bool) -> Self {
        let (maximum, minimum) = if daemon { (100, 0) } else { (200, 100) };
        let mut raw = Map::new();
        raw.insert("deploymentCircuitBreaker".to_owned(), json!({"enable": false, "rollback": false}));
        raw.insert("maximumPercent".to_owned(), json!(maximum));
        raw.insert("minimumHealthyPercent".to_owned(), json!(minimum));
        raw.insert("strategy".to_owned(), json!("ROLLING"));
        Self { raw }
    }

    /// Takes over what a request says and keeps the rest.
    pub(crate) fn merge(&mut self, given: &Value) -> Result<(), Failure> {
        if given.get("maximumPercent").and_then(Value::as_u64) == Some(0) {
            return Err(Failure::invalid("maximumPercent must be positive."));
        }
        check(given)?;
        for (key, value) in given.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            self.raw.insert(key.clone(), value.clone());
        }
        Ok(())
    }

    /// As it is described.
    pub(crate) fn describe(&self) -> Value {
        Value::Object(self.raw.clone())
    }

    /// The least healthy tasks, rounded up.
    pub(crate) fn minimum(&self, desired: u32) -> u32 {
        (desired * self.minimum_percent()).div_ceil(100)
    }

    /// The most tasks, rounded down.
    pub(crate) fn maximum(&self, desired: u32) -> u32 {
        desired * self.number("maximumPercent").unwrap_or(200) / 100
    }

    /// Whether the circuit breaker is on, and then whether it rolls back; it is for rolling updates only
    /// (`API_DeploymentCircuitBreaker`).
    pub(crate) fn breaker(&self) -> Option<bool> {
        self.guard("deploymentCircuitBreaker").filter(|_| self.strategy() == Strategy::Rolling)
    }

    /// Whether deployment alarms are on, and then whether they roll back.
    pub(crate) fn alarms(&self) -> Option<bool> {
        self.guard("alarms")
    }

    /// The names of the deployment alarms.
    pub(crate) fn alarm_names(&self) -> Value {
        self.raw.get("alarms").and_then(|alarms| alarms.get("alarmNames")).cloned().unwrap_or(json!([]))
    }

    /// How versions are exchanged.
    pub(crate) fn strategy(&self) -> Strategy {
        let inner = |group: &str, key: &str| self.raw.get(group).and_then(|group| group.get(key));
        let tenths = |group: &str, key: &str, default: f64| {
            let percent = inner(group, key).and_then(Value::as_f64).unwrap_or(default);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "percentages lie between 0 and 100"
            )]
            let tenths = (percent * 10.0).round() as u32;
            tenths
        };
        let minutes = |group: &str, key: &str, default: u32| {
            let minutes = inner(group, key).and_then(Value::as_u64);
            minutes.and_then(|minutes| u32::try_from(minutes).ok()).unwrap_or(default)
        };
        match self.raw.get("strategy").and_then(Value::as_str) {
            Some("BLUE_GREEN") => Strategy::BlueGreen,
            Some("LINEAR") => Strategy::Linear {
                step: tenths("linearConfiguration", "stepPercent", 10.0),
                minutes: minutes("linearConfiguration", "stepBakeTimeInMinutes", 6),
            },
            Some("CANARY") => Strategy::Canary {
                percent: tenths("canaryConfiguration", "canaryPercent", 5.0),
                minutes: minutes("canaryConfiguration", "canaryBakeTimeInMinutes", 10),
            },
            _ => Strategy::Rolling,
        }
    }

    /// How many minutes both versions live on after all traffic moved.
    pub(crate) fn bake_minutes(&self) -> u32 {
        self.number("bakeTimeInMinutes").unwrap_or(0)
    }

    fn minimum_percent(&self) -> u32 {
        self.number("minimumHealthyPercent").unwrap_or(100)
    }

    fn number(&self, key: &str) -> Option<u32> {
        self.raw.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
    }

    fn guard(&self, key: &str) -> Option<bool> {
        let guard = self.raw.get(key)?;
        let is_on = |key: &str| guard.get(key).and_then(Value::as_bool).unwrap_or(false);
        is_on("enable").then(|| is_on("rollback"))
    }
}

/// Refuses shares of traffic and waits that no deployment may have (`API_LinearConfiguration`,
/// `API_CanaryConfiguration`).
fn check(given: &Value) -> Result<(), Failure> {
    let ranges = [
        ("/linearConfiguration/stepPercent", 3.0, 100.0),
        ("/linearConfiguration/stepBakeTimeInMinutes", 0.0, 1440.0),
        ("/canaryConfiguration/canaryPercent", 0.1, 100.0),
        ("/canaryConfiguration/canaryBakeTimeInMinutes", 0.0, 1440.0),
        ("/bakeTimeInMinutes", 0.0, 1440.0),
    ];
    for (path, least, most) in ranges {
        let number = given.pointer(path).and_then(Value::as_f64);
        if number.is_some_and(|number| !(least..=most).contains(&number)) {
            let name = path.rsplit('/').next().unwrap_or_default();
            return Err(Failure::invalid(format!("{name} must be between {least} and {most}.")));
        }
    }
    Ok(())
}

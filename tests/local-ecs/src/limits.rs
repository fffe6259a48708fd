//! The published limits of the API as token buckets (request throttling page of the ECS API reference).

use std::collections::HashMap;

use crate::{model::At, operations, settings::Limits};

/// What is left in each bucket, per region and group of operations.
#[derive(Debug, Default)]
pub(crate) struct Buckets(HashMap<(String, &'static str), (f64, At)>);

impl Buckets {
    /// Takes a token; false when there is none.
    pub(crate) fn take(&mut self, limits: Limits, region: &str, operation: &str, now: At) -> bool {
        let Some((group, burst, rate)) = bucket(operation) else {
            return true;
        };
        let share = 1.0 - limits.used_by_others.clamp(0.0, 1.0);
        let (burst, rate) = ((burst * share).max(1.0), rate * share);
        let (left, filled) = self.0.entry((region.to_owned(), group)).or_insert((burst, now));
        *left = (*left + now.saturating_sub(*filled).as_secs_f64() * rate).min(burst);
        *filled = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

/// The bucket that an operation draws from: its burst and its refill a second.
fn bucket(operation: &str) -> Option<(&'static str, f64, f64)> {
    Some(match operation {
        "RegisterTaskDefinition" | "DeregisterTaskDefinition" => ("register", 20.0, 1.0),
        "DescribeTaskDefinition" => ("definitions", 50.0, 20.0),
        "CreateService" | "UpdateService" | "DeleteService" => ("services", 50.0, 5.0),
        "DescribeServices" => ("describe services", 100.0, 20.0),
        "ListTasks" | "DescribeTasks" => ("tasks", 100.0, 20.0),
        "ListServiceDeployments" | "DescribeServiceDeployments" | "DescribeServiceRevisions" => {
            ("service deployments", 50.0, 20.0)
        }
        // "Up to 50 requests per second for all CloudWatch Events API operations except PutEvents" (CloudWatch Events
        // limits, which EventBridge's quotas don't contradict).
        operation if operations::service_name(operation) == "events" => ("events", 50.0, 50.0),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn registering_is_limited_to_a_burst_of_twenty_and_then_one_a_second() {
        let mut buckets = Buckets::default();
        let mut take = |at: u64| {
            let limits = Limits { used_by_others: 0.0 };
            buckets.take(limits, "us-east-1", "RegisterTaskDefinition", Duration::from_secs(at))
        };
        assert!((0..20).all(|_| take(0)));
        assert!(!take(0));
        assert!(take(1));
        assert!(!take(1));
    }

    #[test]
    fn others_draw_from_the_same_bucket_and_regions_have_their_own() {
        let mut buckets = Buckets::default();
        let limits = Limits { used_by_others: 0.5 };
        let mut take = |region| buckets.take(limits, region, "UpdateService", At::ZERO);
        assert_eq!((0..50).filter(|_| take("us-east-1")).count(), 25);
        assert!(take("eu-west-1"));
    }
}

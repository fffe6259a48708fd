//! Pace, deadline and back-off of everything that waits.

use std::{ops::ControlFlow, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use crate::aws::{Error, Fate};

/// How long to wait between two looks while something may happen at any moment.
pub const PACE: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const SLOWEST: Duration = Duration::from_secs(5);

/// Takes one step after another until one breaks with a result, pausing as long as each asks for. `None` when
/// `deadline` passes first, even in the middle of a step.
pub async fn until<T>(deadline: Instant, mut step: impl AsyncFnMut() -> ControlFlow<T, Duration>) -> Option<T> {
    let steps = async {
        loop {
            match step().await {
                ControlFlow::Break(result) => return result,
                ControlFlow::Continue(pause) => sleep(pause).await,
            }
        }
    };
    timeout_at(deadline, steps).await.ok()
}

/// Tries a request that may safely be repeated until it is answered, is refused, or `limit` has passed.
pub async fn answered<T>(limit: Duration, request: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    answered_within(|| limit, request).await
}

/// As [`answered`], with a limit that may grow while it goes on.
pub async fn answered_within<T>(
    limit: impl Fn() -> Duration,
    mut request: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let since = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        match request().await {
            Err(error) if error.fate != Fate::Refused && since.elapsed() < limit() => sleep(backoff.pause()).await,
            answer => return answer,
        }
    }
}

/// Growing pauses between tries that fail, each with jitter, so that many clients don't try in step.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure: between half of and the whole of 0.5 s, 1 s, 2 s and so on up to 5 s.
    pub fn pause(&mut self) -> Duration {
        let longest = (PACE / 2 * 2_u32.saturating_pow(self.failures.min(8))).min(SLOWEST);
        self.failures += 1;
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Forgets the failures, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn looks_at_once_and_then_at_the_pace_asked_for() {
        let start = Instant::now();
        let mut looks = Vec::new();
        let result = until(start + Duration::from_secs(10), async || {
            looks.push(start.elapsed().as_secs());
            if looks.len() == 4 { ControlFlow::Break("seen") } else { ControlFlow::Continue(PACE) }
        });
        assert_eq!(result.await, Some("seen"));
        assert_eq!(looks, [0, 1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_ends_with_the_deadline() {
        let start = Instant::now();
        let result = until::<()>(start + Duration::from_secs(10), async || std::future::pending().await).await;
        assert_eq!(result, None);
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_may_grow_by_what_a_request_waits_for() {
        let (limit, mut tries) = (Cell::new(Duration::from_mins(1)), 0);
        let failed = answered_within::<()>(
            || limit.get(),
            async || {
                tries += 1;
                limit.set(limit.get() + 2 * Duration::from_mins(1));
                sleep(2 * Duration::from_mins(1) + Duration::from_secs(15)).await;
                Err(Error::unknown("DescribeServices", "no answer"))
            },
        );
        assert!(failed.await.is_err());
        assert_eq!(tries, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_tried_again_and_a_stumble_is() {
        let mut tries = 0;
        let refused = answered::<()>(Duration::from_mins(1), async || {
            tries += 1;
            Err(Error::refused("DescribeServices", "no"))
        });
        assert!(refused.await.is_err());
        assert_eq!(tries, 1);
        let answer = answered(Duration::from_mins(1), async || {
            tries += 1;
            if tries < 5 { Err(Error::throttled("DescribeServices")) } else { Ok(tries) }
        });
        assert_eq!(answer.await.ok(), Some(5));
    }

    #[test]
    fn pauses_grow_up_to_five_seconds_and_start_anew_after_a_success() {
        let mut backoff = Backoff::default();
        for longest in [500, 1000, 2000, 4000, 5000, 5000] {
            let pause = backoff.pause().as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{pause} of {longest}");
        }
        backoff.reset();
        assert!(backoff.pause() <= PACE / 2);
    }
}

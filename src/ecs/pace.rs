//! How often ECS is asked: an account's limits are shared with everybody else who works in it, so gehen keeps to half of
//! what is published (request throttling page of the Amazon ECS API reference), per account and region.

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep_until},
};

/// The most reads in any second, in all regions together: half of the 20 that each bucket of reads gets a second.
const READS_A_SECOND: usize = 10;

/// A limit on reads: so many in any second. Those that wait go in their order.
#[derive(Debug, Default)]
pub struct Reads {
    queue: Mutex<()>,
    recent: RefCell<VecDeque<Instant>>,
}

/// The right to make one read, which has not been used yet.
pub struct ReadTurn<'a> {
    reads: &'a Reads,
    _first: MutexGuard<'a, ()>,
}

impl Reads {
    /// Waits until one more read may be made.
    pub async fn turn(&self) -> ReadTurn<'_> {
        let first = self.queue.lock().await;
        loop {
            let free = self.recent.borrow().front().map(|oldest| *oldest + Duration::from_secs(1));
            match free.filter(|free| *free > Instant::now() && self.recent.borrow().len() >= READS_A_SECOND) {
                Some(free) => sleep_until(free).await,
                None => return ReadTurn { reads: self, _first: first },
            }
        }
    }

    /// Counts a read that is made now, whether it had a turn or could not wait for one.
    pub fn count(&self) {
        let mut recent = self.recent.borrow_mut();
        recent.push_back(Instant::now());
        while recent.len() > READS_A_SECOND {
            recent.pop_front();
        }
    }
}

impl ReadTurn<'_> {
    /// Uses it.
    pub fn take(self) {
        self.reads.count();
    }
}

/// A limit on writes of one kind, as ECS counts them: a burst, and what is refilled of it each second. Those that wait go
/// in their order.
#[derive(Debug)]
pub struct Bucket {
    burst: f64,
    a_second: f64,
    /// What was left, and when; none before the first.
    left: Mutex<Option<(f64, Instant)>>,
}

impl Bucket {
    /// Half of the bucket that RegisterTaskDefinition draws from: 20, and 1 a second.
    pub fn of_registrations() -> Self {
        Self::half_of(20.0, 1.0)
    }

    /// Half of the bucket that UpdateService draws from: 50, and 5 a second.
    pub fn of_updates() -> Self {
        Self::half_of(50.0, 5.0)
    }

    fn half_of(burst: f64, a_second: f64) -> Self {
        Self { burst: burst / 2.0, a_second: a_second / 2.0, left: Mutex::default() }
    }

    /// Waits until one more may be made, and counts it.
    pub async fn turn(&self) {
        let mut left = self.left.lock().await;
        let (before, at) = left.unwrap_or((self.burst, Instant::now()));
        let now = (before + at.elapsed().as_secs_f64() * self.a_second).min(self.burst);
        let lacks = Duration::from_secs_f64((1.0 - now).max(0.0) / self.a_second);
        let from = Instant::now() + lacks;
        sleep_until(from).await;
        *left = Some(((now - 1.0).max(0.0), from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_than_ten_reads() {
        let (reads, since) = (Reads::default(), Instant::now());
        let mut at = Vec::new();
        for _ in 0..25 {
            reads.turn().await.take();
            at.push(since.elapsed().as_secs());
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert_eq!(at, [[0; 10].as_slice(), &[1; 10], &[2; 5]].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_not_used_is_the_next_ones() {
        let (reads, since) = (Reads::default(), Instant::now());
        for _ in 0..20 {
            drop(reads.turn().await);
        }
        reads.turn().await.take();
        assert_eq!(since.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn writes_have_half_of_the_published_bucket() {
        let (bucket, since) = (Bucket::of_registrations(), Instant::now());
        let mut at = Vec::new();
        for _ in 0..13 {
            bucket.turn().await;
            at.push(since.elapsed().as_secs());
        }
        assert_eq!(at, [[0; 10].as_slice(), &[2, 4, 6]].concat());
        tokio::time::advance(Duration::from_mins(1)).await;
        let again = Instant::now();
        for _ in 0..10 {
            bucket.turn().await;
        }
        assert_eq!(again.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_takes_nothing() {
        let bucket = Bucket::of_registrations();
        for _ in 0..10 {
            bucket.turn().await;
        }
        let since = Instant::now();
        assert!(tokio::time::timeout(Duration::from_secs(1), bucket.turn()).await.is_err());
        bucket.turn().await;
        assert_eq!(since.elapsed().as_secs(), 2);
    }
}

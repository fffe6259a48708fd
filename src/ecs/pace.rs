//! How often ECS is asked: an account's limits are shared with everybody else who works in it, so gehen keeps to half of
//! what is published per account and region (request throttling page of the Amazon ECS API reference).

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep, sleep_until},
};

/// The most reads in a second, of all operations and in all regions together: half of the 20 a second that ECS gives to
/// each kind of them.
const READS: usize = 10;
/// In which they are made, with a tenth for those that took longer on their way than later ones.
const SECOND: Duration = Duration::from_millis(1100);
/// So many may be made at once; those after them are this far apart.
const READS_AT_ONCE: usize = 5;
/// See [`READS_AT_ONCE`].
const APART: Duration = Duration::from_millis(110);
/// How much longer than another a request may take to reach ECS without being refused for that.
const ON_THEIR_WAY: Duration = Duration::from_millis(250);

/// A limit on reads: [`READS`] in each [`SECOND`]. Those that wait go in their order.
#[derive(Debug, Default)]
pub struct Reads {
    queue: Mutex<()>,
    recent: RefCell<VecDeque<Instant>>,
}

/// How much hurry there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// None: it is made when those that wait already have been.
    None,
    /// A write waits for it, or a deployment that fails: it goes before those that wait.
    Next,
    /// A service waits to be put back: it is made at once.
    Rollback,
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
        self.free().await;
        ReadTurn { reads: self, _first: first }
    }

    /// Waits until one more read may be made, before those that wait for their turn. To be counted at once.
    pub async fn free(&self) {
        // While it waits, others may be counted.
        while let Some(free) = self.free_from().filter(|free| *free > Instant::now()) {
            sleep_until(free).await;
        }
    }

    /// Waits as long as this haste allows, and counts the read that follows.
    pub async fn may_read(&self, haste: Haste) {
        match haste {
            Haste::None => return self.turn().await.take(),
            Haste::Next => self.free().await,
            Haste::Rollback => {}
        }
        self.count();
    }

    /// From when on one more read may be made; none if that was never limited.
    fn free_from(&self) -> Option<Instant> {
        let recent = self.recent.borrow();
        let before = |count: usize| recent.len().checked_sub(count).map(|place| recent[place] + SECOND);
        let has_burst = before(READS_AT_ONCE)? > Instant::now();
        let apart = recent.back().filter(|_| has_burst).map(|last| *last + APART);
        before(READS).max(apart)
    }

    /// Counts a read that is made now, whether it had a turn or could not wait for one.
    pub fn count(&self) {
        let mut recent = self.recent.borrow_mut();
        recent.push_back(Instant::now());
        while recent.len() > READS {
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

/// The right to make one write, which has not been used yet. Nobody else has one of its kind meanwhile.
pub struct WriteTurn<'a> {
    bucket: &'a Bucket,
    left: MutexGuard<'a, Option<(f64, Instant)>>,
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
        Self {
            // Requests that took longer on their way than the next are counted later, when less has been refilled.
            burst: burst / 2.0 - ON_THEIR_WAY.as_secs_f64() * a_second / 2.0,
            a_second: a_second / 2.0,
            left: Mutex::default(),
        }
    }

    /// How long so many take, one after another.
    pub fn takes(&self, count: usize) -> Duration {
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        Duration::from_secs_f64((count - self.burst).max(0.0) / self.a_second)
    }

    /// Waits until one more may be made.
    pub async fn turn(&self) -> WriteTurn<'_> {
        let left = self.left.lock().await;
        let lacks = (1.0 - self.left_now(*left)).max(0.0);
        sleep(Duration::from_secs_f64(lacks / self.a_second)).await;
        WriteTurn { bucket: self, left }
    }

    fn left_now(&self, left: Option<(f64, Instant)>) -> f64 {
        left.map_or(self.burst, |(left, at)| (left + at.elapsed().as_secs_f64() * self.a_second).min(self.burst))
    }
}

impl WriteTurn<'_> {
    /// Uses it, at the moment that the write is sent.
    pub fn take(&mut self) {
        *self.left = Some(((self.bucket.left_now(*self.left) - 1.0).max(0.0), Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_than_ten_reads_and_the_first_are_made_at_once() {
        let (reads, since) = (Reads::default(), Instant::now());
        let mut at = Vec::new();
        for _ in 0..40 {
            reads.turn().await.take();
            at.push(since.elapsed().as_millis());
        }
        assert_eq!(at[..11], [0, 0, 0, 0, 0, 110, 220, 330, 440, 550, 1100]);
        assert!(at.windows(11).all(|reads| reads[10] - reads[0] >= 1100), "{at:?}");
        assert_eq!(at[39], 1100 + 29 * 110);
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
    async fn a_read_in_haste_goes_before_those_that_wait() {
        let (reads, since, made) = (Reads::default(), Instant::now(), RefCell::new(Vec::new()));
        for _ in 0..READS {
            reads.turn().await.take();
        }
        let read = async |name, haste| {
            reads.may_read(haste).await;
            made.borrow_mut().push((name, since.elapsed().as_millis()));
        };
        tokio::join!(
            read("first", Haste::None),
            read("second", Haste::None),
            read("next", Haste::Next),
            read("rollback", Haste::Rollback),
        );
        assert_eq!(made.into_inner(), [("rollback", 550), ("next", 1100), ("first", 1210), ("second", 1320)]);
    }

    #[tokio::test(start_paused = true)]
    async fn writes_have_half_of_the_published_bucket() {
        let (bucket, since) = (Bucket::of_registrations(), Instant::now());
        let mut at = Vec::new();
        for _ in 0..13 {
            bucket.turn().await.take();
            at.push(since.elapsed().as_secs_f64().round());
        }
        assert_eq!(at, [[0.0; 10].as_slice(), &[2.0, 4.0, 6.0]].concat());
        assert_eq!((bucket.takes(9), bucket.takes(13).as_secs()), (Duration::ZERO, 6));
        tokio::time::advance(Duration::from_mins(1)).await;
        let again = Instant::now();
        for _ in 0..9 {
            bucket.turn().await.take();
        }
        assert_eq!(again.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_or_writes_nothing_takes_nothing() {
        let bucket = Bucket::of_registrations();
        for _ in 0..10 {
            bucket.turn().await.take();
        }
        let since = Instant::now();
        assert!(tokio::time::timeout(Duration::from_secs(1), bucket.turn()).await.is_err());
        drop(bucket.turn().await);
        bucket.turn().await.take();
        assert_eq!(since.elapsed().as_secs(), 2);
    }
}

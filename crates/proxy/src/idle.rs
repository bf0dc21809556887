//! Connections that wait for a request: one sweep over them instead of a timer for each. Those that
//! have had their answers and wait for more can be done without when places are scarce.

use std::future::pending;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use slotmap::{SlotMap, new_key_type};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

new_key_type! {
    struct PlaceKey;
}

/// All connections that wait, and until when.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    waiting: Mutex<Waiting>,
    /// Tells the sweep that somebody's time is up sooner than it thinks.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    places: SlotMap<PlaceKey, Place>,
    /// When to look at them next.
    next: Option<Instant>,
    /// When to look at them next at the soonest.
    not_before: Option<Instant>,
    /// Who of them could be done without when that was last asked, the longest idle last. Some may
    /// have left.
    spare: Vec<PlaceKey>,
    /// When that was.
    asked: Option<Instant>,
    is_closed: bool,
}

#[derive(Debug)]
struct Place {
    until: Instant,
    is_spare: bool,
    waker: Waker,
}

impl Idle {
    /// Waits with a connection for its request, till about `until`. `None` when the time is up, or
    /// no more requests are taken.
    pub(crate) fn wait<F>(&self, until: Instant, request: F) -> Wait<'_, F>
    where
        F: Future + Unpin,
    {
        self.begin(until, false, request)
    }

    /// Waits for a request for about [`IDLE_TIMEOUT`], with a connection that may be done without.
    pub(crate) fn stay<F>(&self, request: F) -> Wait<'_, F>
    where
        F: Future + Unpin,
    {
        self.begin(Instant::now() + IDLE_TIMEOUT, true, request)
    }

    fn begin<F>(&self, until: Instant, is_spare: bool, request: F) -> Wait<'_, F> {
        Wait {
            idle: self,
            until,
            is_spare,
            place: None,
            request,
        }
    }

    /// Ends the wait that has lasted longest of those that can be done without. Whether there is one.
    pub(crate) fn end_longest(&self) -> bool {
        let longest = self.waiting.lock().take_longest(Instant::now());
        longest.map(Waker::wake).is_some()
    }

    /// Ends waits when their time is up. Runs until it is dropped.
    pub(crate) async fn sweep(&self) {
        loop {
            let next = self.waiting.lock().next;
            let due = async {
                match next {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.sooner.notified() => continue,
            }
            let over = self.waiting.lock().take_over(Instant::now());
            over.into_iter().for_each(Waker::wake);
        }
    }

    /// Ends all waits, and those that would begin later.
    pub(crate) fn close(&self) {
        let over = self.waiting.lock().close();
        over.into_iter().for_each(Waker::wake);
    }
}

impl Waiting {
    fn take_over(&mut self, now: Instant) -> Vec<Waker> {
        let (mut over, mut next) = (Vec::new(), None);
        self.places.retain(|_, place| {
            let stays = place.until > now;
            if stays {
                next = Some(next.map_or(place.until, |next| place.until.min(next)));
            } else {
                over.push(place.waker.clone());
            }
            stays
        });
        self.not_before = Some(now + PAUSE);
        self.next = next.map(|next| self.sweep_for(next));
        over
    }

    /// The sweep that ends a wait until then.
    fn sweep_for(&self, until: Instant) -> Instant {
        self.not_before.map_or(until, |pause| until.max(pause))
    }

    fn take_longest(&mut self, now: Instant) -> Option<Waker> {
        loop {
            while let Some(key) = self.spare.pop() {
                if let Some(place) = self.places.remove(key) {
                    return Some(place.waker);
                }
            }
            // To look at all of them for each that comes would be slow where there are many.
            if self.asked.is_some_and(|asked| now < asked + PAUSE) {
                return None;
            }
            self.asked = Some(now);
            // They all wait for the same time: who is over first has been idle for the longest.
            let until = now + (IDLE_TIMEOUT - NEEDLESS_AFTER);
            let is_idle = |place: &Place| place.is_spare && place.until <= until;
            let idle = self.places.iter().filter(|(_, place)| is_idle(place));
            let mut idle: Vec<_> = idle.map(|(key, place)| (place.until, key)).collect();
            idle.sort_unstable_by(|a, b| b.cmp(a));
            self.spare = idle.into_iter().map(|(_, key)| key).collect();
        }
    }

    fn close(&mut self) -> Vec<Waker> {
        self.is_closed = true;
        self.places.drain().map(|(_, place)| place.waker).collect()
    }
}

/// A connection that waits, and its place where it could not go on at once.
#[derive(Debug)]
pub(crate) struct Wait<'a, F> {
    idle: &'a Idle,
    until: Instant,
    is_spare: bool,
    place: Option<PlaceKey>,
    request: F,
}

impl<F> Wait<'_, F> {
    fn is_over(&mut self, cx: &Context<'_>) -> bool {
        let mut waiting = self.idle.waiting.lock();
        let Some(key) = self.place else {
            if waiting.is_closed {
                return true;
            }
            let until = self.until;
            self.place = Some(waiting.places.insert(Place {
                until,
                is_spare: self.is_spare,
                waker: cx.waker().clone(),
            }));
            let sweep = waiting.sweep_for(until);
            if waiting.next.is_none_or(|next| sweep < next) {
                waiting.next = Some(sweep);
                drop(waiting);
                self.idle.sooner.notify_one();
            }
            return false;
        };
        match waiting.places.get_mut(key) {
            Some(place) => {
                place.waker.clone_from(cx.waker());
                false
            }
            None => true,
        }
    }
}

impl<F: Future + Unpin> Future for Wait<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.request).poll(cx) {
            Poll::Ready(request) => Poll::Ready(Some(request)),
            Poll::Pending if self.is_over(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F> Drop for Wait<'_, F> {
    fn drop(&mut self) {
        if let Some(key) = self.place.take() {
            self.idle.waiting.lock().places.remove(key);
        }
    }
}

/// Longer than Prometheus (5 min) and Go clients (90 s) keep an idle connection: were it shorter,
/// they might send their next request into a connection that has just been closed.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(360);

/// Between two sweeps, whatever comes: a sweep looks at all who wait, and nobody minds to be closed a
/// second late.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection that has been idle for so long is not in the middle of anything.
const NEEDLESS_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_its_request_with_its_time_or_with_all() {
        let idle = Arc::new(Idle::default());
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn({
            let idle = idle.clone();
            async move { tokio::time::timeout(Duration::from_secs(60), idle.sweep()).await }
        });
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let wait = |until| {
            let idle = idle.clone();
            tasks.spawn(async move {
                assert_eq!(idle.wait(until, pending::<()>()).await, None);
                start.elapsed().as_secs()
            })
        };
        assert_eq!(idle.wait(after(0), ready(1)).await, Some(1));
        let (late, early) = (wait(after(20)), wait(after(10)));
        assert_eq!(early.await.unwrap(), 10);
        let request = Box::pin(tokio::time::sleep_until(after(15)));
        assert_eq!(idle.wait(after(40), request).await, Some(()));
        let (one, behind) = (
            wait(after(18)),
            wait(Instant::now() + PAUSE * 3 + PAUSE / 2),
        );
        assert_eq!((one.await.unwrap(), behind.await.unwrap()), (18, 19));
        assert_eq!(late.await.unwrap(), 20);
        assert!(idle.waiting.lock().places.is_empty());
        let last = wait(after(50));
        tokio::time::sleep_until(after(30)).await;
        idle.close();
        assert_eq!(last.await.unwrap(), 30);
        assert_eq!(idle.wait(after(50), pending::<()>()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_is_done_without_first_and_who_is_busy_never() {
        let idle = Arc::new(Idle::default());
        let tasks = tokio_util::task::TaskTracker::new();
        let wait = |is_spare| {
            let idle = idle.clone();
            tasks.spawn(async move {
                match is_spare {
                    true => idle.stay(pending::<()>()).await,
                    false => {
                        idle.wait(Instant::now() + IDLE_TIMEOUT, pending::<()>())
                            .await
                    }
                }
            })
        };
        let second = async || tokio::time::sleep(Duration::from_secs(1)).await;
        let busy = wait(false);
        second().await;
        let longest = wait(true);
        second().await;
        let (left, next) = (wait(true), wait(true));
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert!(!idle.end_longest(), "nobody has been idle for long");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let newest = wait(true);
        assert!(idle.end_longest());
        second().await;
        assert!(longest.is_finished());
        left.abort();
        assert!(left.await.is_err());
        assert!(idle.end_longest());
        second().await;
        assert!(next.is_finished());
        for _ in 0..3 {
            assert!(!idle.end_longest());
            second().await;
        }
        assert!(!busy.is_finished() && !newest.is_finished());
        idle.close();
        assert_eq!((busy.await.unwrap(), newest.await.unwrap()), (None, None));
    }
}

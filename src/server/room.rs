//! How many connections a listener holds, and which one ends where there is no room for another.
//!
//! Promises that there are never more than there may be, and that whoever only holds connections shuts
//! nobody out: where one of them has no request under way, a newcomer is let in and the one that has been
//! without for the longest makes room. What is under way ends for nobody. A connection pays for a lock when
//! it comes and when it goes; which are idle is looked at only where there is no room.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::wire::Requests;

/// The room of a listener.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    held: Mutex<Held>,
    /// A connection has gone, or has not given its place up.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    connections: HashMap<u64, Requests>,
    entered: u64,
    /// Who has been idle for the longest when it was last looked at, and since when; the longest last.
    idle: Vec<(Instant, u64)>,
    /// Who was asked for its place and has not said.
    leaving: Option<u64>,
    /// Whether there was no room since this was last asked.
    is_full: bool,
    /// When it was last told that there is no room.
    told: Option<Instant>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    room: Arc<Room>,
    id: u64,
    requests: Requests,
}

/// What came of looking for a place.
enum Found {
    Free(u64),
    /// One that is about to be.
    Soon,
    None,
}

impl Room {
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: Mutex::default(), changed: Notify::new() }
    }

    /// A place for a connection of these requests, which another one may have to make; nothing where each
    /// has a request under way.
    pub(super) async fn enter(self: &Arc<Self>, requests: Requests) -> Option<Seat> {
        loop {
            let found = self.held().find(self.most, &requests);
            match found {
                Found::Free(id) => return Some(Seat { room: Arc::clone(self), id, requests }),
                // Soon is at once: all it has to do is to be dropped.
                Found::Soon => self.changed.notified().await,
                Found::None => return None,
            }
        }
    }

    /// Whether there was no room for the last one, and nobody was told of late.
    pub(super) fn is_full_anew(&self) -> bool {
        let mut held = self.held();
        let is_told = held.told.is_some_and(|told| told.elapsed() < TELL_AGAIN);
        let is_anew = std::mem::take(&mut held.is_full) && !is_told;
        if is_anew {
            held.told = Some(Instant::now());
        }
        is_anew
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn find(&mut self, most: usize, newcomer: &Requests) -> Found {
        let has_room = self.connections.len() < most;
        if has_room {
            self.entered += 1;
            self.connections.insert(self.entered, newcomer.clone());
            return Found::Free(self.entered);
        }
        self.is_full = true;
        if self.leaving.is_none() {
            self.leaving = self.longest_idle();
            let Some(requests) = self.leaving.and_then(|id| self.connections.get(&id)) else { return Found::None };
            requests.call();
        }
        Found::Soon
    }

    /// Who has been idle for the longest. Whoever became idle since it was last looked at has been for less.
    fn longest_idle(&mut self) -> Option<u64> {
        self.next_idle().or_else(|| {
            let idle = |(id, requests): (&u64, &Requests)| Some((requests.idle_since()?, *id));
            let mut all: Vec<_> = self.connections.iter().filter_map(idle).collect();
            all.sort_unstable();
            all.truncate(LOOKED_UP);
            self.idle = all.into_iter().rev().collect();
            self.next_idle()
        })
    }

    /// The next of those that were looked up and are idle still.
    fn next_idle(&mut self) -> Option<u64> {
        while let Some((since, id)) = self.idle.pop() {
            if self.connections.get(&id).and_then(Requests::idle_since) == Some(since) {
                return Some(id);
            }
        }
        None
    }

    /// A connection that was asked for its place has said.
    fn settle(&mut self, id: u64) {
        self.leaving = self.leaving.filter(|leaving| *leaving != id);
    }
}

impl Seat {
    /// The requests of the connection that has it.
    pub(super) const fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Waits until another connection needs the place while this one is idle.
    pub(super) async fn wanted(&self) {
        poll_fn(|context| {
            if !self.requests.was_called(context) {
                return Poll::Pending;
            }
            if self.requests.idle_since().is_some() {
                return Poll::Ready(());
            }
            // A request came first: somebody else has to make room.
            self.room.held().settle(self.id);
            self.room.changed.notify_one();
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.room.held();
        held.connections.remove(&self.id);
        held.settle(self.id);
        drop(held);
        self.room.changed.notify_one();
    }
}

/// How many are looked up at a time: looking is at all of them, a flood has many newcomers.
const LOOKED_UP: usize = 64;
/// How often it is told that there is no room; strangers must not fill the log either.
const TELL_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::sleep;

    use super::*;
    use crate::wire::Kept;

    const AN_AGE: Duration = Duration::from_millis(20);

    fn room(most: usize) -> Arc<Room> {
        Arc::new(Room::new(most))
    }

    async fn newcomer(room: &Arc<Room>) -> Option<Seat> {
        room.enter(Requests::new(Kept::default())).await
    }

    /// Full of connections, each of which came later than the one before.
    async fn filled(room: &Arc<Room>) -> Vec<Seat> {
        let mut seats = Vec::new();
        for _ in 0..room.most {
            seats.push(newcomer(room).await.unwrap());
            sleep(AN_AGE).await;
        }
        seats
    }

    /// Whether it is asked for its place.
    fn is_wanted(seat: &Seat) -> bool {
        seat.wanted().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_for_longest_makes_room_and_not_before_it_has_gone() {
        let room = room(3);
        let mut seats = filled(&room).await;
        assert!(!room.is_full_anew());
        // The first one asks and is answered, so the second has been idle for longest.
        drop(seats[0].requests().begin());
        sleep(AN_AGE).await;
        for place in [1, 1, 0] {
            let mut entering = Box::pin(newcomer(&room));
            assert!(entering.as_mut().now_or_never().is_none());
            let asked: Vec<bool> = seats.iter().map(is_wanted).collect();
            assert_eq!(asked.iter().position(|is_wanted| *is_wanted), Some(place), "{asked:?}");
            assert_eq!(asked.iter().filter(|is_wanted| **is_wanted).count(), 1, "{asked:?}");
            assert!(entering.as_mut().now_or_never().is_none(), "its place is not free yet");
            drop(seats.remove(place));
            seats.push(entering.now_or_never().unwrap().unwrap());
            assert_eq!(room.held().connections.len(), 3);
            sleep(AN_AGE).await;
        }
        assert!(room.is_full_anew() && !room.is_full_anew(), "told once");
        drop(seats);
        let held = room.held();
        assert!(held.connections.is_empty() && held.leaving.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_ends_for_nobody() {
        let room = room(2);
        let seats = filled(&room).await;
        let busy: Vec<_> = seats.iter().map(|seat| seat.requests().begin()).collect();
        assert!(newcomer(&room).await.is_none());
        assert!(seats.iter().all(|seat| !is_wanted(seat)));
        drop(busy);
        // An answer is on its way for a moment.
        assert!(newcomer(&room).await.is_none());
        sleep(AN_AGE).await;
        // One that is asked for its place gets a request in that moment, so it is the other one's turn.
        let mut entering = Box::pin(newcomer(&room));
        assert!(entering.as_mut().now_or_never().is_none());
        let _late = seats[0].requests().begin();
        assert!(!is_wanted(&seats[0]) && !is_wanted(&seats[1]));
        assert!(entering.as_mut().now_or_never().is_none());
        assert!(!is_wanted(&seats[0]) && is_wanted(&seats[1]));
        // It ends by itself at the very same time.
        drop(seats.into_iter().nth(1));
        assert!(entering.await.is_some());
    }

    /// More of them than are looked up at a time, each in its turn.
    #[tokio::test(start_paused = true)]
    async fn a_flood_is_served_in_turn() {
        let room = room(3 * LOOKED_UP);
        let mut seats = std::collections::VecDeque::from(filled(&room).await);
        for _ in 0..10 * LOOKED_UP {
            let mut entering = Box::pin(newcomer(&room));
            assert!(entering.as_mut().now_or_never().is_none());
            let first = seats.pop_front().unwrap();
            assert!(is_wanted(&first));
            drop(first);
            seats.push_back(entering.now_or_never().unwrap().unwrap());
            sleep(AN_AGE).await;
        }
        assert_eq!(room.held().entered, 13 * u64::try_from(LOOKED_UP).unwrap());
    }
}

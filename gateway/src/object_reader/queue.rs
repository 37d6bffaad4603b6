//! The pieces between a reading and the one who takes them.
//!
//! Not a channel, because what was put in can be taken back: a client that stands still holds no memory but what it was given
//! already. The reading side waits for room ([`Giver::room_for`]) and learns instead that the client has taken nothing for
//! [`READ_PATIENCE`]; then it takes everything back with the [`Queued::origin`]s that tell where to read it again, and waits
//! until the client wants something ([`Giver::wanted`]).
//!
//! # Invariants
//! - What is taken is what was added, in order, without what was taken back; a piece is taken in as many parts as the taker
//!   likes, and taken back with the count of bytes that are gone.
//! - A taker that waits is woken by a piece, by the end, or by the giver's death; a giver by room, by the want, or by time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use placement_types::Env;
use tokio::sync::Notify;

use super::ReadObjectError;
use super::pace::{Gait, Pace};
use crate::limits::{READ_AHEAD_BYTES, READ_PATIENCE, READ_STRIPE_BYTES};

/// A queue between two tasks.
pub fn queue<O>(env: Env) -> (Giver<O>, Taker<O>) {
    let state = State {
        pieces: VecDeque::new(),
        bytes: 0,
        pace: Pace::unknown(),
        offered_at: Duration::ZERO,
        taker_waits: false,
        giver_waits: GiverWaits::No,
        end: None,
    };
    let shared = Arc::new(Shared { env, state: Mutex::new(state), giver: Notify::new(), taker: Notify::new() });
    (Giver { shared: Arc::clone(&shared) }, Taker { shared })
}

/// A piece in the queue.
pub struct Queued<O> {
    pub piece: Bytes,
    /// So much of it is gone.
    pub taken: usize,
    /// Where it came from.
    pub origin: O,
}

/// The client takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalled;

/// The reading side.
pub struct Giver<O> {
    shared: Arc<Shared<O>>,
}

/// The client's side.
pub struct Taker<O> {
    shared: Arc<Shared<O>>,
}

struct Shared<O> {
    env: Env,
    state: Mutex<State<O>>,
    giver: Notify,
    taker: Notify,
}

struct State<O> {
    pieces: VecDeque<Queued<O>>,
    /// Of all pieces, those not taken yet.
    bytes: usize,
    pace: Pace,
    /// Since when the first byte is there to be taken, if one is.
    offered_at: Duration,
    taker_waits: bool,
    giver_waits: GiverWaits,
    end: Option<End>,
}

/// What the giver is to be woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GiverWaits {
    No,
    /// No more than so many bytes are left.
    Below(usize),
    /// The taker found nothing.
    Wanted,
}

enum End {
    Whole,
    Failed(ReadObjectError),
    /// The giver ceased to be.
    Abandoned,
}

impl<O> Giver<O> {
    /// Waits until a piece of `bytes` may be added: one always may when nothing is left.
    pub async fn room_for(&self, bytes: usize) -> Result<(), Stalled> {
        let limit = match self.gait() {
            Gait::Slow | Gait::Steady => READ_STRIPE_BYTES,
            Gait::Brisk => READ_AHEAD_BYTES,
        };
        self.left(limit.saturating_sub(bytes)).await
    }

    /// Waits until no more than `bytes_max` are left to be taken.
    pub async fn left(&self, bytes_max: usize) -> Result<(), Stalled> {
        let env = &self.shared.env;
        loop {
            let wait = {
                let mut state = self.shared.state.lock();
                state.giver_waits = GiverWaits::No;
                if state.bytes <= bytes_max {
                    return Ok(());
                }
                let idle = env.monotonic().saturating_sub(state.offered_at);
                let wait = READ_PATIENCE.checked_sub(idle).filter(|wait| !wait.is_zero()).ok_or(Stalled)?;
                state.giver_waits = GiverWaits::Below(bytes_max);
                wait
            };
            // Whether it was time or room is seen above.
            let _ = env.timeout(wait, self.shared.giver.notified()).await;
        }
    }

    /// Adds a piece there is room for.
    pub fn add(&self, piece: Bytes, origin: O) {
        if piece.is_empty() {
            return;
        }
        let mut state = self.shared.state.lock();
        if state.pieces.is_empty() {
            state.offered_at = self.shared.env.monotonic();
        }
        state.bytes += piece.len();
        state.pieces.push_back(Queued { piece, taken: 0, origin });
        self.shared.wake_taker(&mut state);
    }

    /// How the client takes what it gets.
    pub fn gait(&self) -> Gait {
        self.shared.state.lock().pace.gait()
    }

    /// Takes back what was not taken, and counts the client as one that stands still.
    pub fn take_back(&self) -> VecDeque<Queued<O>> {
        let mut state = self.shared.state.lock();
        state.pace.stalled();
        state.bytes = 0;
        std::mem::take(&mut state.pieces)
    }

    /// What is left may stay for as long as the client likes; the stripe that it is a slice of need not.
    pub fn copy_what_is_left(&self) {
        for queued in &mut self.shared.state.lock().pieces {
            queued.piece = Bytes::copy_from_slice(&queued.piece[queued.taken..]);
            queued.taken = 0;
        }
    }

    /// Waits until the taker waits for a piece.
    pub async fn wanted(&self) {
        loop {
            {
                let mut state = self.shared.state.lock();
                if state.taker_waits {
                    state.giver_waits = GiverWaits::No;
                    return;
                }
                state.giver_waits = GiverWaits::Wanted;
            }
            self.shared.giver.notified().await;
        }
    }

    /// Nothing comes after what was added but, if it failed, the error.
    pub fn end(self, result: Result<(), ReadObjectError>) {
        self.shared.end(match result {
            Ok(()) => End::Whole,
            Err(error) => End::Failed(error),
        });
    }
}

impl<O> Drop for Giver<O> {
    fn drop(&mut self) {
        self.shared.end(End::Abandoned);
    }
}

impl<O> Taker<O> {
    /// Waits for the first piece without taking it: an error when there is none.
    pub async fn first(&self) -> Result<(), ReadObjectError> {
        loop {
            {
                let mut state = self.shared.state.lock();
                if !state.pieces.is_empty() {
                    return Ok(());
                }
                match state.end.take() {
                    Some(End::Failed(error)) => return Err(error),
                    Some(End::Whole | End::Abandoned) => return Err(ReadObjectError::Gone),
                    None => self.shared.want(&mut state),
                }
            }
            self.shared.taker.notified().await;
        }
    }

    /// The next bytes, at most `bytes_max` and of one piece; `None` when the giver has ended, whether it was done or not.
    pub async fn take(&self, bytes_max: usize) -> Option<Result<Bytes, ReadObjectError>> {
        loop {
            {
                let mut state = self.shared.state.lock();
                if let Some(bytes) = self.shared.take(&mut state, bytes_max) {
                    return Some(Ok(bytes));
                }
                match state.end.take() {
                    Some(End::Failed(error)) => return Some(Err(error)),
                    Some(End::Whole | End::Abandoned) => return None,
                    None => self.shared.want(&mut state),
                }
            }
            self.shared.taker.notified().await;
        }
    }
}

impl<O> Shared<O> {
    fn take(&self, state: &mut State<O>, bytes_max: usize) -> Option<Bytes> {
        let front = state.pieces.front_mut()?;
        let end = front.piece.len().min(front.taken + bytes_max);
        let bytes = front.piece.slice(front.taken..end);
        front.taken = end;
        if end == front.piece.len() {
            state.pieces.pop_front();
        }
        state.bytes -= bytes.len();
        let now = self.env.monotonic();
        let idle = now.saturating_sub(state.offered_at);
        state.offered_at = now;
        state.pace.took(bytes.len() as u64, idle);
        if let GiverWaits::Below(bytes_max) = state.giver_waits
            && state.bytes <= bytes_max
        {
            self.wake_giver(state);
        }
        Some(bytes)
    }

    /// Notes that the taker waits.
    fn want(&self, state: &mut State<O>) {
        state.taker_waits = true;
        if state.giver_waits == GiverWaits::Wanted {
            self.wake_giver(state);
        }
    }

    fn wake_giver(&self, state: &mut State<O>) {
        state.giver_waits = GiverWaits::No;
        self.giver.notify_one();
    }

    fn wake_taker(&self, state: &mut State<O>) {
        if std::mem::take(&mut state.taker_waits) {
            self.taker.notify_one();
        }
    }

    /// The first end is the one that counts.
    fn end(&self, end: End) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.end = Some(end);
        }
        self.wake_taker(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    fn test_queue() -> (Env, Giver<u32>, Taker<u32>) {
        let (env, _) = placement_env::sim::env(1);
        let (giver, taker) = queue(env.clone());
        (env, giver, taker)
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_are_taken_in_parts_and_in_order() {
        let (_, giver, taker) = test_queue();
        giver.add(Bytes::from_static(b"abcde"), 0);
        giver.add(Bytes::new(), 1);
        giver.add(Bytes::from_static(b"fg"), 2);
        giver.end(Ok(()));
        taker.first().await.unwrap();
        for expected in ["abc", "de", "fg"] {
            assert_eq!(taker.take(3).await.unwrap().unwrap(), expected);
        }
        assert!(taker.take(3).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_comes_after_the_pieces_and_a_dead_giver_is_not_an_end_in_itself() {
        let (_, giver, taker) = test_queue();
        giver.add(piece(1), 0);
        giver.end(Err(ReadObjectError::NoMap));
        assert_eq!(taker.take(9).await.unwrap().unwrap(), piece(1));
        assert!(matches!(taker.take(9).await, Some(Err(ReadObjectError::NoMap))));
        let (_, giver, taker) = test_queue();
        let (first, ()) = tokio::join!(taker.first(), async { drop(giver) });
        assert!(matches!(first, Err(ReadObjectError::Gone)));
        let (_, giver, taker) = test_queue();
        giver.end(Err(ReadObjectError::NoMap));
        assert!(matches!(taker.first().await, Err(ReadObjectError::NoMap)));
    }

    #[tokio::test(start_paused = true)]
    async fn room_comes_by_taking_and_a_stall_by_not_taking() {
        let (env, giver, taker) = test_queue();
        assert_eq!(giver.room_for(2 * READ_STRIPE_BYTES).await, Ok(()), "anything fits when nothing is there");
        giver.add(piece(1000), 0);
        giver.add(piece(READ_STRIPE_BYTES), 1);
        let began = env.monotonic();
        let (room, ()) = tokio::join!(giver.room_for(1), async {
            env.sleep(READ_PATIENCE / 2).await;
            taker.take(999).await.unwrap().unwrap();
            env.sleep(READ_PATIENCE / 2).await;
            taker.take(999).await.unwrap().unwrap();
            taker.take(1).await.unwrap().unwrap();
        });
        assert_eq!((room, env.monotonic() - began), (Ok(()), READ_PATIENCE), "every take begins the patience anew");
        assert_eq!(giver.room_for(2).await, Err(Stalled));
        assert_eq!(env.monotonic() - began, 2 * READ_PATIENCE);
        let back = giver.take_back();
        let back: Vec<_> = back.iter().map(|queued| (queued.piece.len(), queued.taken, queued.origin)).collect();
        assert_eq!(back, [(READ_STRIPE_BYTES, 1, 1)]);
        assert_eq!((giver.left(0).await, giver.gait()), (Ok(()), Gait::Slow));
    }

    #[tokio::test(start_paused = true)]
    async fn the_giver_sleeps_until_something_is_wanted() {
        let (env, giver, taker) = test_queue();
        let began = env.monotonic();
        let (mut wanted_at, mut taken_at) = (began, began);
        tokio::join!(
            async {
                giver.wanted().await;
                wanted_at = env.monotonic();
                env.sleep(Duration::from_secs(3)).await;
                giver.add(piece(5), 0);
            },
            async {
                env.sleep(Duration::from_secs(100)).await;
                assert_eq!(taker.take(9).await.unwrap().unwrap(), piece(5));
                taken_at = env.monotonic();
            }
        );
        assert_eq!(((wanted_at - began).as_secs(), (taken_at - began).as_secs()), (100, 103));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_behind_is_a_copy() {
        let (_, giver, taker) = test_queue();
        let whole = piece(1000);
        giver.add(whole.clone(), 0);
        assert_eq!(taker.take(900).await.unwrap().unwrap().len(), 900);
        giver.copy_what_is_left();
        assert!(whole.is_unique());
        giver.end(Ok(()));
        assert_eq!(taker.take(900).await.unwrap().unwrap(), piece(100));
        assert!(taker.take(900).await.is_none());
    }
}

//! Carrying windows over a restart: out of the shards of one run, into the shards of the next.
//!
//! ```text
//! stop    all tasks that judge have ended
//!           ▶ daemon   report_all   again and again until it returns false; the windows stay open
//!           ▶ daemon   closes the queue; the forwarder empties it: to the upstreams, to the spool, or by dropping
//!             ledger   reopen       once for each survivor that is dropped: its window ends
//!           ▶ saved    export       once for each policy: its open windows, oldest first
//!           ▶ the shards end with the process
//! start   new shards, each of them empty
//!           ▶ saved    restore      once for each window in the file: policy by policy, oldest first
//!           ▶ tasks begin to judge
//! ```
//!
//! The daemon turns each [`Ended`] of [`Shards::report_all`] into a summary (`Pipeline::report`). If the grace period
//! ends meanwhile, the daemon begins again with the first mark; windows that were reported have a count of zero then.
//!
//! # One window
//!
//! A mark is a window's entry in the timeline of an engine. Its generation is its number there, which never changes.
//!
//! | state | left by |
//! |---|---|
//! | open, with a count of copies to report | `report_all` adds an [`Ended`]; the count is zero then |
//! | open, with count zero | `export` copies it as an [`OpenWindow`] with the identity; it stays in its shard |
//! | open, with any count | `reopen` ends it, and `advance` does so once it has expired; then it is not exported |
//! | an [`OpenWindow`] | `restore` opens it in the new shards, or leaves it out (see there) |
//! | open in the new shards, with count zero | judging: the first copy that it suppresses sets its count to one |
//!
//! # What each call may assume
//!
//! - `report_all`: no copy is judged from its first call on. A copy that a window suppressed after its turn would never
//!   be reported. Survivors may still be on their way: `reopen` may come at any time. So may `advance`, which the timer
//!   that ends windows calls until the windows are saved.
//! - `export`: `report_all` has returned false, and no survivor is on its way. So each open window stands for a message
//!   that was forwarded, or that the spool keeps. `export` does not look at counts: it would lose one that is not
//!   zero. `advance` may still come.
//! - `restore`: no copy was judged under this policy yet. Identities are hashed anew: the number of shards, and the
//!   hash, may differ from the last run. Nothing is assumed of the windows themselves, which come from a file.
//! - All three panic if an earlier panic poisoned a shard. At a stop the daemon and `saved` check that first.
//!
//! # Guarantees
//!
//! - A window that was exported and restored gives the verdicts that it would have given without a stop.
//! - No lock is held for longer than it takes to look at a [`CopyLimit`] of marks (`export`) or at `marks_max`
//!   marks (`report_all`). `export` copies no more than a [`CopyLimit`] of each shard at a time.
//! - `restore` stays within the budget. To make room, it evicts the oldest marks, as judging does. It leaves out a
//!   window that is older than all marks instead.
//! - Timelines stay sorted: `restore` leaves out a window that starts in the future, or before the one that it
//!   restored last under the same policy and in the same shard.
//! - After a kill, or a stop in which a task failed, nothing is exported. The next run begins without windows: it
//!   forwards the next copy of each message.
//!
//! # Left out
//!
//! Where windows are stored meanwhile, and how far the clock moved (`saved`). Claims: they end with the run that
//! made them, so the new run cannot reopen the window of a survivor that it finds in the spool. If it drops such a
//! survivor, it ends all windows (`ledger`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::engine::{Engine, REPEATS_OCTETS, Refusal};
use super::shard::Shard;
use super::table::Probe;
use super::{EndReason, Ended, Kept, KeptTimestamp, Repeats, Shards, lock};
use crate::core::identity::Identity;
use crate::core::rule::{PolicyId, WindowPolicy};
use crate::core::tick::Tick;

/// A copy of the open window of one message. It has no count: `report_all` reported the suppressed copies before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OpenWindow {
    /// When it started. With refresh: when its mark was made, at most a sixteenth of a window before `last`.
    pub start: Tick,
    /// Copies let through. At least one.
    pub passed: u32,
    /// With refresh, when the last copy was seen; otherwise the same as `start`.
    pub last: Tick,
    /// With refresh, when the last copy was let through; otherwise the same as `start`.
    pub forwarded: Tick,
}

impl OpenWindow {
    /// Whether the window has expired at `now`, so that a copy would start another one.
    #[must_use]
    pub fn is_over(&self, policy: &WindowPolicy, now: Tick) -> bool {
        match policy.refresh {
            None => now.since(self.start) >= policy.window,
            Some(max_quiet) => {
                now.since(self.last) >= policy.window || now.since(self.forwarded) >= max_quiet
            }
        }
    }

    /// Whether the window is in the state in which its first copy left it. Then its mark needs no [`Repeats`].
    fn is_plain(&self) -> bool {
        *self == Self::started(self.start)
    }

    const fn started(start: Tick) -> Self {
        Self {
            start,
            passed: 1,
            last: start,
            forwarded: start,
        }
    }
}

/// How far [`Shards::report_all`] has come.
#[derive(Debug, Default)]
pub struct Progress {
    shard: usize,
    engine: usize,
    /// Generation of the next mark.
    generation: u64,
}

impl Shards {
    /// Reports the copies that windows have suppressed: adds an [`Ended`] to `ended` for each window with a count, sets
    /// the count to zero, and leaves the window open. Looks at most at `marks_max` marks, starting at `progress`, which
    /// is the default at the first call, and moves `progress` on. Returns whether more marks are left.
    pub fn report_all(
        &self,
        reason: EndReason,
        progress: &mut Progress,
        marks_max: usize,
        ended: &mut Vec<Ended>,
    ) -> bool {
        let mut left = marks_max;
        while let Some(shard) = self.shards.get(progress.shard) {
            if lock(shard).report_all(reason, progress, &mut left, ended) {
                return true;
            }
            *progress = Progress {
                shard: progress.shard + 1,
                ..Progress::default()
            };
        }
        false
    }

    /// Calls `each` with the windows of `policy` that are open at `now` and their identities' octets, in the
    /// order of their starts: merges the timelines of all shards, each of which is sorted. No lock is held while
    /// `each` runs. The windows stay as they are.
    ///
    /// # Errors
    ///
    /// The first error of `each`, which is not called again.
    pub fn export<E>(
        &self,
        policy: PolicyId,
        now: Tick,
        mut each: impl FnMut(&OpenWindow, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let limit = CopyLimit::for_each_of(self.shards.len());
        let mut streams: Vec<_> = self.shards.iter().map(|_| Stream::default()).collect();
        let refill = |shard: usize, stream: &mut Stream| {
            let mut more = true;
            stream.clear();
            while more && stream.windows.is_empty() {
                more = lock(&self.shards[shard]).copy_out(policy, now, limit, stream);
            }
            stream.windows.first().map(|(window, _)| window.start)
        };
        let mut next = BinaryHeap::new();
        for (shard, stream) in streams.iter_mut().enumerate() {
            next.extend(refill(shard, stream).map(|start| Reverse((start, shard))));
        }
        while let Some(Reverse((_, shard))) = next.pop() {
            let stream = &mut streams[shard];
            let (window, octets) = stream.current();
            each(&window, octets)?;
            let start = stream.step().or_else(|| refill(shard, stream));
            next.extend(start.map(|start| Reverse((start, shard))));
        }
        Ok(())
    }

    /// Opens the window of `identity` under `policy` again. Returns whether this call opened it. The caller restores
    /// the windows of a policy in the order of their starts, before any copy is judged under the policy.
    ///
    /// The call opens nothing, and returns false, if
    ///
    /// - the window has expired at `now`, or starts after it;
    /// - it starts before the window that was restored last under the policy in its shard;
    /// - a window of the identity is open already: the first one counts;
    /// - there is no room, and it is older than all marks, or making room did not help;
    /// - there is no such policy.
    ///
    /// If a mark that suppressed copies is evicted to make room, it is added to `ended`. Only judging under another
    /// policy makes such a mark: `ended` stays empty while no copy at all was judged.
    pub fn restore(
        &self,
        policy: PolicyId,
        identity: Identity<'_>,
        window: &OpenWindow,
        now: Tick,
        ended: &mut Vec<Ended>,
    ) -> bool {
        self.shard_of(identity.hash)
            .restore(policy, identity, window, now, ended)
    }
}

/// Windows that were copied from one shard and not passed on yet.
#[derive(Debug, Default)]
struct Stream {
    /// Generation of the next mark to copy.
    generation: u64,
    /// Each window, and the end of its identity in `octets`.
    windows: Vec<(OpenWindow, usize)>,
    octets: Vec<u8>,
    /// Index of the current window, and the start of its identity in `octets`.
    at: usize,
    octets_at: usize,
}

/// How much is copied of a shard under one hold of its lock. The mark that exceeds `octets` is the last one.
#[derive(Clone, Copy, Debug)]
struct CopyLimit {
    marks: usize,
    octets: usize,
}

impl CopyLimit {
    fn for_each_of(shards: usize) -> Self {
        Self {
            marks: (MARKS_COPIED / shards).clamp(MARKS_PER_COPY.0, MARKS_PER_COPY.1),
            octets: OCTETS_COPIED / shards,
        }
    }
}

impl Stream {
    fn clear(&mut self) {
        self.windows.clear();
        self.octets.clear();
        (self.at, self.octets_at) = (0, 0);
    }

    /// The window to pass on next. There is one.
    fn current(&self) -> (OpenWindow, &[u8]) {
        let (window, end) = self.windows[self.at];
        (window, &self.octets[self.octets_at..end])
    }

    /// Moves on to the next window. Returns its start, or `None` if no further window has been copied.
    fn step(&mut self) -> Option<Tick> {
        self.octets_at = self.windows[self.at].1;
        self.at += 1;
        self.windows.get(self.at).map(|(window, _)| window.start)
    }
}

impl Shard {
    /// As [`Shards::report_all`] for one shard. Subtracts the marks it looked at from `left`. Returns whether it
    /// stopped because `left` is used up.
    fn report_all(
        &mut self,
        reason: EndReason,
        progress: &mut Progress,
        left: &mut usize,
        ended: &mut Vec<Ended>,
    ) -> bool {
        self.room = 0;
        while let Some(engine) = self.engines.get_mut(progress.engine) {
            if engine.report_all(reason, &mut progress.generation, left, ended) {
                return true;
            }
            (progress.engine, progress.generation) = (progress.engine + 1, 0);
        }
        false
    }

    /// Copies marks of `policy` from where `stream` stands, up to `limit`. Returns whether more may be left.
    fn copy_out(&self, policy: PolicyId, now: Tick, limit: CopyLimit, stream: &mut Stream) -> bool {
        self.engines
            .get(policy.index())
            .is_some_and(|engine| engine.copy_out(now, limit, stream))
    }

    /// As [`Shards::restore`], in the identity's shard.
    fn restore(
        &mut self,
        policy: PolicyId,
        identity: Identity<'_>,
        window: &OpenWindow,
        now: Tick,
        ended: &mut Vec<Ended>,
    ) -> bool {
        let now = self.advance_clock(now);
        for _ in 0..ROUNDS_MAX {
            let Some(engine) = self.engines.get_mut(policy.index()) else {
                return false;
            };
            let mut restored = engine.restore(identity, window, now, &mut self.room);
            if let Err(Refusal::Short(_)) = restored {
                self.room = self.reckon_room();
                let engine = &mut self.engines[policy.index()];
                restored = engine.restore(identity, window, now, &mut self.room);
            }
            let wanted = match restored {
                Ok(restored) => return restored,
                Err(Refusal::Full) => return false,
                Err(Refusal::Short(wanted)) => wanted,
            };
            let is_oldest = self
                .engines
                .iter()
                .filter_map(Engine::oldest)
                .all(|oldest| window.start < oldest);
            if is_oldest || !self.make_room_for(wanted, policy.index(), now, ended) {
                return false;
            }
        }
        false
    }
}

impl Engine {
    /// As [`Shard::report_all`], from the mark of `generation` on.
    fn report_all(
        &mut self,
        reason: EndReason,
        generation: &mut u64,
        left: &mut usize,
        ended: &mut Vec<Ended>,
    ) -> bool {
        let mut offset = self.offset_of(*generation);
        while offset < self.timeline.len() && *left > 0 {
            *left -= 1;
            if let Some(repeats) = &mut self.timeline.mark_mut(offset).repeats
                && repeats.count > 0
            {
                let open = Repeats {
                    count: 0,
                    kept: Kept::nothing(),
                    last_timestamp: KeptTimestamp::NONE,
                    ..**repeats
                };
                let reported = std::mem::replace(&mut **repeats, open);
                self.report(reported, reason, ended);
                // `report` subtracted them because it usually ends the window.
                self.repeats_octets += REPEATS_OCTETS;
            }
            offset += 1;
        }
        *generation = self.timeline.base() + offset as u64;
        offset < self.timeline.len()
    }

    fn copy_out(&self, now: Tick, limit: CopyLimit, stream: &mut Stream) -> bool {
        let mut offset = self.offset_of(stream.generation);
        let end = self.timeline.len().min(offset + limit.marks);
        while offset < end && stream.octets.len() <= limit.octets {
            let mark = self.timeline.mark(offset);
            let window = match &mark.repeats {
                Some(repeats) if self.policy().refresh.is_some() => OpenWindow {
                    start: mark.start,
                    passed: repeats.passed,
                    last: repeats.last,
                    forwarded: repeats.forwarded,
                },
                repeats => OpenWindow {
                    passed: repeats.as_ref().map_or(1, |repeats| repeats.passed),
                    ..OpenWindow::started(mark.start)
                },
            };
            if !mark.is_dead() && !window.is_over(&self.policy(), now) {
                self.timeline.copy_octets(offset, &mut stream.octets);
                stream.windows.push((window, stream.octets.len()));
            }
            offset += 1;
        }
        stream.generation = self.timeline.base() + offset as u64;
        offset < self.timeline.len()
    }

    /// Opens a window again. The engine grows by at most `room` octets, and subtracts from `room` its growth, or a
    /// few octets more. Returns false if the window may not be opened, whatever the room is.
    ///
    /// # Errors
    ///
    /// If `room` is too little, or the table is full of equal hashes. Then the engine remembers nothing of the window.
    fn restore(
        &mut self,
        identity: Identity<'_>,
        window: &OpenWindow,
        now: Tick,
        room: &mut usize,
    ) -> Result<bool, Refusal> {
        let is_sorted = self
            .timeline
            .last()
            .is_none_or(|youngest| youngest.start <= window.start);
        if !is_sorted || window.start > now || window.is_over(&self.policy(), now) {
            return Ok(false);
        }
        // No export contains an identity twice. A file that does would make the search for each further
        // copy longer.
        let Probe::Absent(vacant) = self.table.probe(identity.hash, self.live(), |offset| {
            let offset = offset as usize;
            !self.timeline.mark(offset).is_dead()
                && self.timeline.remembers(offset, identity.octets)
        }) else {
            return Ok(false);
        };
        let repeats_octets = if window.is_plain() { 0 } else { REPEATS_OCTETS };
        let mut left = room
            .checked_sub(repeats_octets)
            .ok_or(Refusal::Short(repeats_octets))?;
        let delivery = self
            .remember(identity, window.start, &mut left, vacant)
            .map_err(|refusal| match refusal {
                Refusal::Short(wanted) => Refusal::Short(wanted + repeats_octets),
                Refusal::Full => Refusal::Full,
            })?;
        *room = left;
        if !window.is_plain() {
            let repeats = Repeats {
                passed: window.passed,
                last: window.last,
                forwarded: window.forwarded,
                ..Repeats::new(window.start, delivery)
            };
            let youngest = self.timeline.len() - 1;
            self.timeline.mark_mut(youngest).repeats = Some(Box::new(repeats));
            self.repeats_octets += repeats_octets;
        }
        Ok(true)
    }

    /// Offset of the mark of `generation`, or of the oldest mark if that one is gone.
    fn offset_of(&self, generation: u64) -> usize {
        let offset = generation.saturating_sub(self.timeline.base());
        usize::try_from(offset).expect("marks are in memory")
    }
}

/// How often `restore` tries to open one window. Before each further try it makes room.
const ROUNDS_MAX: usize = 3;

/// Marks copied at a time of all shards together ...
const MARKS_COPIED: usize = 16 * 1024;

/// ... and of each, at least and at most: a lock is held for microseconds.
const MARKS_PER_COPY: (usize, usize) = (16, 256);

/// Octets of identities copied at a time of all shards together.
const OCTETS_COPIED: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::core::dedup::tests::salted_hash;
    use crate::core::dedup::{Claim, Sighting, Verdict};

    /// Policies of every kind.
    fn policies() -> Vec<WindowPolicy> {
        let policy = |window, allow, max_quiet: Option<u64>| WindowPolicy {
            window: Duration::from_nanos(window),
            allow,
            refresh: max_quiet.map(Duration::from_nanos),
        };
        vec![
            policy(4000, 1, None),
            policy(20_000, 3, None),
            policy(6000, 1, Some(9000)),
            policy(9000, 2, Some(30_000)),
        ]
    }

    /// Shards, and what differs from run to run: the hash of an identity and the time on the clock.
    struct Run {
        shards: Shards,
        salt: u64,
        clock: u64,
    }

    impl Run {
        fn new(shard_count: usize, salt: u64, clock: u64, budget_octets: usize) -> Self {
            Self {
                shards: Shards::new(shard_count, &policies(), budget_octets),
                salt,
                clock,
            }
        }

        fn identity<'a>(&self, octets: &'a [u8]) -> Identity<'a> {
            Identity {
                hash: salted_hash(self.salt, octets),
                octets,
            }
        }

        fn tick(&self, now: u64) -> Tick {
            Tick::from_nanos(now + self.clock)
        }

        fn offer(
            &self,
            policy: u16,
            octets: &[u8],
            now: u64,
            ended: &mut Vec<Ended>,
        ) -> Option<Claim> {
            let sighting = Sighting {
                frame: octets,
                timestamp: None,
                variant: None,
            };
            let (policy, identity) = (PolicyId(policy), self.identity(octets));
            match self
                .shards
                .offer(policy, identity, sighting, self.tick(now), ended)
            {
                Verdict::Fresh(claim) => Some(claim),
                Verdict::Duplicate => None,
            }
        }

        /// Stops, and goes on as `next`. Adds to `ended` what was suppressed. Returns how many windows were open.
        fn restart(&mut self, next: Self, now: u64, ended: &mut Vec<Ended>) -> usize {
            let mut progress = Progress::default();
            while self
                .shards
                .report_all(EndReason::Stop, &mut progress, 7, ended)
            {}
            let mut none = Vec::new();
            let mut open = 0;
            for policy in (0..4).map(PolicyId) {
                let mut before = Tick::ZERO;
                let (from, to) = (self.clock, next.clock);
                let moved = |tick: Tick| Tick::from_nanos(tick.nanos() - from + to);
                let result: Result<(), ()> =
                    self.shards
                        .export(policy, self.tick(now), |window, octets| {
                            assert!(before <= window.start, "{before:?} {window:?}");
                            before = window.start;
                            let window = OpenWindow {
                                start: moved(window.start),
                                passed: window.passed,
                                last: moved(window.last),
                                forwarded: moved(window.forwarded),
                            };
                            let identity = next.identity(octets);
                            let tick = next.tick(now);
                            assert!(
                                next.shards
                                    .restore(policy, identity, &window, tick, &mut none)
                            );
                            open += 1;
                            Ok(())
                        });
                result.unwrap();
            }
            assert_eq!(none, [], "restoring reports nothing");
            while self.shards.end_all(EndReason::Evicted, 1000, &mut none) {}
            assert_eq!(none, [], "all of it was reported at the stop");
            *self = next;
            open
        }
    }

    #[test]
    fn a_window_that_was_carried_over_suppresses_and_counts_from_zero() {
        let mut run = Run::new(1, 1, 100, 1 << 20);
        let mut ended = Vec::new();
        for now in 0..3 {
            run.offer(0, b"foo", now, &mut ended);
        }
        assert_eq!(run.restart(Run::new(4, 2, 7, 1 << 20), 3, &mut ended), 1);
        let counts = |ended: &mut Vec<Ended>| -> Vec<_> {
            let counts = ended.drain(..).map(|ended| (ended.reason, ended.count));
            counts.collect()
        };
        assert_eq!(counts(&mut ended), [(EndReason::Stop, 2)]);
        assert_eq!(run.offer(0, b"foo", 3999, &mut ended), None);
        assert!(run.offer(0, b"foo", 4000, &mut ended).is_some());
        assert_eq!(counts(&mut ended), [(EndReason::Window, 1)]);
    }

    #[test]
    fn a_window_that_was_reopened_is_not_carried_over() {
        let mut run = Run::new(1, 1, 0, 1 << 20);
        let mut ended = Vec::new();
        let claim = run.offer(0, b"foo", 0, &mut ended).unwrap();
        run.offer(0, b"bar", 0, &mut ended);
        run.shards.reopen(claim, &mut ended);
        assert_eq!(run.restart(Run::new(1, 1, 0, 1 << 20), 1, &mut ended), 1);
        assert!(run.offer(0, b"foo", 1, &mut ended).is_some());
        assert_eq!(run.offer(0, b"bar", 1, &mut ended), None);
    }

    #[test]
    fn where_room_is_short_the_oldest_are_left_out() {
        let run = Run::new(4, 1, 0, 64 << 20);
        let mut ended = Vec::new();
        let messages = 3000_u64;
        for now in 0..messages {
            // Two policies by turns. The second one's windows are restored last, and some of them are among the oldest.
            let policy = u16::from(now % 2 == 1);
            run.offer(
                policy,
                &[&now.to_le_bytes()[..], &[0; 60]].concat(),
                now,
                &mut ended,
            );
        }
        let shards = Shards::new(1, &policies(), 100_000);
        let mut starts = Vec::new();
        for policy in [PolicyId(0), PolicyId(1)] {
            let result: Result<(), ()> =
                run.shards
                    .export(policy, run.tick(messages), |window, octets| {
                        let identity = run.identity(octets);
                        let now = run.tick(messages);
                        shards.restore(policy, identity, window, now, &mut ended);
                        Ok(())
                    });
            result.unwrap();
        }
        for policy in [PolicyId(0), PolicyId(1)] {
            let result: Result<(), ()> = shards.export(policy, run.tick(messages), |window, _| {
                starts.push(window.start.nanos());
                Ok(())
            });
            result.unwrap();
        }
        assert!(shards.stats().octets <= 100_000, "{:?}", shards.stats());
        assert!((100..2000).contains(&starts.len()), "{}", starts.len());
        starts.sort_unstable();
        // Making room goes in steps: now and then a younger window is missing, but never the youngest.
        let span = messages - starts[0];
        assert!(
            starts.len() as u64 * 10 >= span * 9,
            "{} of the last {span}",
            starts.len()
        );
        assert_eq!(starts.last(), Some(&(messages - 1)));
    }

    #[test]
    fn what_cannot_have_been_exported_is_left_out() {
        let run = Run::new(1, 1, 0, 1 << 20);
        let now = Tick::from_nanos(5000);
        let restore = |policy, octets: &[u8], start| {
            let window = OpenWindow::started(Tick::from_nanos(start));
            let identity = run.identity(octets);
            run.shards
                .restore(PolicyId(policy), identity, &window, now, &mut Vec::new())
        };
        assert!(restore(0, b"a", 2000));
        assert!(!restore(0, b"b", 1999), "before the youngest");
        assert!(!restore(0, b"c", 5001), "in the future");
        assert!(!restore(0, b"d", 1000), "expired");
        assert!(!restore(7, b"e", 2000), "no policy");
        assert!(restore(0, b"f", 5000));
        assert!(!restore(0, &[0; 1 << 20], 5000), "more than the budget");
        assert_eq!(run.shards.stats().live_messages, 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// One run never stops; the other stops again and again, and continues with another number of shards.
        #[test]
        fn restarts_change_no_verdict(
            calls in vec((0..900_u64, 0..4_u16, 0..30_u8, 0..40_u8), 1..600),
            clocks in vec((0..5_u32, any::<u64>(), 0..1_u64 << 40), 1..8),
        ) {
            let whole = Run::new(2, 5, 0, 64 << 20);
            let mut broken = Run::new(1, 9, 1000, 64 << 20);
            let mut clocks = clocks.into_iter().cycle();
            let (mut of_whole, mut of_broken) = (Vec::new(), Vec::new());
            let (mut now, mut suppressed, mut restarts) = (0, 0_u64, 0);
            for (step, policy, message, what) in calls {
                now += step;
                if what == 0 {
                    let (shift, salt, clock) = clocks.next().unwrap();
                    let next = Run::new(1 << shift, salt, clock, 64 << 20);
                    broken.restart(next, now, &mut of_broken);
                    restarts += 1;
                }
                // Identities of different lengths, some longer than a page of the timeline.
                let octets = vec![message; usize::from(message).pow(2) * 4 + 1];
                let one = whole.offer(policy, &octets, now, &mut of_whole);
                let other = broken.offer(policy, &octets, now, &mut of_broken);
                prop_assert_eq!(one.is_some(), other.is_some(), "at {}, {} restarts", now, restarts);
                suppressed += u64::from(one.is_none());
                if what == 1 && let (Some(one), Some(other)) = (one, other) {
                    whole.shards.reopen(one, &mut of_whole);
                    broken.shards.reopen(other, &mut of_broken);
                }
            }
            while whole.shards.end_all(EndReason::Stop, 100, &mut of_whole) {}
            while broken.shards.end_all(EndReason::Stop, 100, &mut of_broken) {}
            let counts = |ended: &[Ended]| {
                let mut counts: HashMap<(PolicyId, Box<[u8]>), u64> = HashMap::new();
                for ended in ended {
                    *counts.entry((ended.policy, ended.frame.clone())).or_default() += ended.count;
                }
                counts
            };
            prop_assert_eq!(counts(&of_whole), counts(&of_broken));
            prop_assert_eq!(of_broken.iter().map(|ended| ended.count).sum::<u64>(), suppressed);
        }
    }
}

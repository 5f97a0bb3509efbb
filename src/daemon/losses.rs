//! Losses: what is being lost, or soon may be, told once when it begins and counted for as long as it goes on.
//!
//! ```text
//! lost         x xx xxx x x x x x x   x                    x
//! log          !         n         n         n            !      ! it begins    n so many in the last 10 minutes
//! on /readyz   ├──────────────────────────────┤            ├──
//! ```
//!
//! # Guarantees
//!
//! - Each kind of loss, and of each listener, is told at once when it begins, then as one count for ten minutes, and
//!   again as news after ten minutes without any.
//! - What is counted and not told yet is told at the stop.
//! - It costs the messages nothing: a timer of its own, which waits for nothing but itself, reads what is counted
//!   anyway.
//!
//! # Left out
//!
//! Which peer it was (`listen` tells of an example). What a spool or an upstream loses: they tell of it themselves.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    select,
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    clock::Clock,
    config::{ForwardConfig, UDP_PAYLOAD_MAX, size_text, time_text},
    dedup::{Shards, Stats},
    listen,
    logging::{PeerLog, printable},
    metrics::{DropReason, Metrics, PauseCounters, RejectReason, SummaryReason},
    tick::Tick,
};

/// What goes on, shared between the timer and `/readyz`.
#[derive(Debug)]
pub(super) struct Losses {
    metrics: Arc<Metrics>,
    /// What the advice names: the queue's size.
    forward: watch::Receiver<Arc<ForwardConfig>>,
    /// Held by the timer for as long as a look takes, and never while it waits.
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    episodes: BTreeMap<Kind, Episode>,
    pause: Pause,
    copies_pause: Pause,
    accept_pause: Pause,
}

/// What can be lost. In the order in which they are shown: causes first.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    /// Milliseconds for which reading was paused because the queue of survivors was full.
    Paused,
    /// The same, because the queue of copies was.
    PausedByCopies,
    /// Milliseconds for which no connection was accepted, for want of descriptors.
    Unaccepted,
    /// Frames dropped because the queue was full.
    QueueFull,
    /// Copies that were to be set aside and were dropped, for any reason.
    Copies,
    /// Datagrams that the kernel dropped, by the name of their listener.
    Kernel(String),
    /// Windows ended early for want of memory.
    Evicted,
    /// Messages that were not remembered for want of memory.
    Unremembered,
    /// Frames longer than the listener takes.
    Oversize,
    /// Frames longer than the upstream's datagrams.
    TooLarge,
    /// Frames that left without their end.
    Cut,
    /// Compressed messages that LF framing cannot carry.
    Compressed,
    /// Datagrams from addresses that are not allowed.
    RefusedDatagrams,
    /// Connections from addresses that are not allowed.
    RefusedConnections,
    /// Connections beyond those of one listener.
    Connections,
    /// Connections beyond those of one address.
    SourceConnections,
}

impl Losses {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        forward: watch::Receiver<Arc<ForwardConfig>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            forward,
            seen: Mutex::default(),
        })
    }

    /// Looks, and has the peers' lines told, until `stop` is cancelled. Then it looks for a last time.
    pub(super) async fn watch(
        self: Arc<Self>,
        shards: Arc<Shards>,
        peer_log: Arc<PeerLog>,
        stop: CancellationToken,
    ) {
        let mut due = interval(LOOK_PERIOD);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                biased;
                () = stop.cancelled() => break,
                _ = due.tick() => {}
            }
            let now = Clock::now();
            peer_log.flush(now, super::log_suppressed_warnings);
            self.tell(&shards.stats(), |episode, total| episode.look(total, now));
        }
        self.tell(&shards.stats(), |episode, total| episode.finish(total));
    }

    /// A line for each loss that goes on.
    pub(super) fn lines(&self, now: Tick) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = seen
            .episodes
            .iter()
            .filter(|(_, episode)| episode.goes_on());
        let line = |(kind, episode): (&Kind, &Episode)| line(kind, episode, now);
        goes_on.map(line).collect()
    }

    /// What to do, with the values in force.
    fn advice(&self, kind: &Kind, stats: &Stats) -> String {
        let forward = self.forward.borrow();
        let queue = size_text(forward.queue);
        match kind {
            Kind::PausedByCopies => format!(
                "suppressed.queue = {} was full: see suppressed.to, raise it, or set suppressed.when_full = \"drop-oldest\"",
                self.copies_queue()
            ),
            Kind::Paused if self.has_spool() => format!(
                "forward.queue = {queue} was full, and more came than the upstreams and the spool took: see both"
            ),
            Kind::Paused => format!(
                "forward.queue = {queue} was full: see the upstreams, raise it, or use [spool]"
            ),
            Kind::Unaccepted => format!(
                "{} files may be open: raise LimitNOFILE= (ulimit -n), or lower connections_max",
                listen::open_files_max()
            ),
            Kind::QueueFull if self.has_spool() => format!(
                "forward.queue = {queue} was full, and more came than the upstreams and the spool took: see both"
            ),
            Kind::QueueFull => format!(
                "forward.queue = {queue} was full: see the upstreams, raise it, use [spool], or when_full = \"wait\""
            ),
            Kind::Copies => "see suppressed.to, or raise suppressed.queue".to_owned(),
            Kind::Kernel(_) if self.is_paused() => "reading was paused meanwhile".to_owned(),
            Kind::Kernel(_) => "raise net.core.rmem_max and receive_buffer".to_owned(),
            Kind::Evicted | Kind::Unremembered => {
                let memory = size_text(stats.budget_octets);
                let messages = Grouped(stats.live_messages as u64);
                let repeated = Grouped(self.metrics.summaries.made[SummaryReason::Evicted].get());
                format!(
                    "dedup.memory = {memory} was full with {messages} messages, and {repeated} of all forgotten had repeats: \
                     raise it, or see why so many differ"
                )
            }
            Kind::Oversize => "raise max_message_size, or set oversize = \"truncate\"".to_owned(),
            Kind::TooLarge => "use a tcp:// or relp:// upstream".to_owned(),
            Kind::Cut => format!(
                "forward.udp_max = {}: raise it ({} at most), or use a tcp:// or relp:// upstream",
                size_text(forward.udp_max),
                size_text(UDP_PAYLOAD_MAX)
            ),
            Kind::Compressed => {
                "turn ZipLevel off at the senders, or use framing = \"octet-counting\"".to_owned()
            }
            Kind::RefusedDatagrams | Kind::RefusedConnections => {
                "add the senders to allow, or stop them".to_owned()
            }
            Kind::Connections => "raise connections_max".to_owned(),
            Kind::SourceConnections => "raise connections_per_source_max".to_owned(),
        }
    }

    /// Lets `look` see every episode and how much was lost by now, and logs what is new.
    fn tell(&self, stats: &Stats, look: impl Fn(&mut Episode, u64) -> Option<News>) {
        let mut news = Vec::new();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let totals = self.totals(stats, &mut seen);
            for (kind, total) in totals {
                if total == 0 {
                    continue;
                }
                let episode = seen.episodes.entry(kind.clone()).or_default();
                let before = episode.total;
                let told = look(episode, total);
                if episode.total > before {
                    // What was full, or paused, when this was lost may be well again when it is asked about.
                    episode.advice = self.advice(&kind, stats);
                }
                if let Some(told) = told {
                    news.push((kind, told, episode.advice.clone()));
                }
            }
        }
        for (kind, told, advice) in news {
            match told {
                News::Began(count) => self.tell_beginning(&kind, count, stats),
                News::More(count) => {
                    let what = Amount(&kind, count);
                    warn!(%what, advice, "more was lost in the last 10 minutes");
                }
            }
        }
    }

    /// How much of each kind was lost so far.
    fn totals(&self, stats: &Stats, seen: &mut Seen) -> Vec<(Kind, u64)> {
        let metrics = &self.metrics;
        let dropped = |reason| metrics.frames.dropped[reason].get();
        let rejected = |reason| metrics.connections_rejected[reason].get();
        let now = Clock::now();
        let paused = |pause: &mut Pause, counters: &PauseCounters| {
            pause.look(counters.now.get() > 0, counters.total.get(), now)
        };
        let mut totals = vec![
            (Kind::Paused, paused(&mut seen.pause, &metrics.pauses)),
            (
                Kind::PausedByCopies,
                paused(&mut seen.copies_pause, &metrics.copies.pauses),
            ),
            (
                Kind::Unaccepted,
                paused(&mut seen.accept_pause, &metrics.accept_pauses),
            ),
            (Kind::QueueFull, dropped(DropReason::QueueFull)),
            (Kind::Copies, metrics.copies.dropped.total()),
            (Kind::Evicted, stats.evicted_total),
            (Kind::Unremembered, stats.unremembered_total),
            (Kind::Oversize, dropped(DropReason::Oversize)),
            (Kind::TooLarge, dropped(DropReason::TooLarge)),
            (Kind::Cut, metrics.frames.cut.get()),
            (Kind::Compressed, dropped(DropReason::Compressed)),
            (Kind::RefusedDatagrams, dropped(DropReason::Acl)),
            (Kind::RefusedConnections, rejected(RejectReason::Acl)),
            (Kind::Connections, rejected(RejectReason::Limit)),
            (Kind::SourceConnections, rejected(RejectReason::SourceLimit)),
        ];
        let listeners = metrics.listeners();
        totals.extend(listeners.iter().map(|listener| {
            let kind = Kind::Kernel(listener.name().to_owned());
            (kind, listener.kernel_dropped.get())
        }));
        totals
    }

    fn tell_beginning(&self, kind: &Kind, count: u64, stats: &Stats) {
        let memory = size_text(stats.budget_octets);
        let queue = size_text(self.forward.borrow().queue);
        match kind {
            Kind::PausedByCopies => warn!(
                queue = self.copies_queue(),
                "reading is paused: suppressed.queue is full; see suppressed.to, raise it, or set suppressed.when_full"
            ),
            Kind::Paused if self.has_spool() => warn!(
                queue,
                "reading is paused: more comes than the upstreams and the spool take; see both, or raise forward.queue"
            ),
            Kind::Paused => warn!(
                queue,
                "reading is paused: the queue to the upstreams is full; see the upstreams, raise forward.queue, or use a spool"
            ),
            Kind::Unaccepted => warn!(
                open_files_max = listen::open_files_max(),
                "no connection is accepted: the limit of open files is reached; raise LimitNOFILE= (ulimit -n), or lower connections_max"
            ),
            Kind::QueueFull if self.has_spool() => warn!(
                frames = count,
                queue,
                "messages are dropped: more comes than the upstreams and the spool take; see both, or raise forward.queue"
            ),
            Kind::QueueFull => warn!(
                frames = count,
                queue,
                "messages are dropped: the queue to the upstreams is full; see the upstreams, raise forward.queue, or use a spool"
            ),
            Kind::Copies => warn!(
                frames = count,
                "copies that were to be set aside are dropped; see suppressed.to, or raise suppressed.queue"
            ),
            Kind::Kernel(listener) if self.is_paused() => warn!(
                listener,
                datagrams = count,
                "the kernel drops datagrams while reading is paused; see the upstreams"
            ),
            Kind::Kernel(listener) => warn!(
                listener,
                datagrams = count,
                receive_buffer = size_text(self.receive_buffer(listener)),
                "the kernel drops datagrams; raise net.core.rmem_max and receive_buffer"
            ),
            Kind::Evicted => warn!(
                windows = count,
                memory,
                "messages are forgotten before their window is over, and their repeats are forwarded; raise dedup.memory"
            ),
            Kind::Unremembered => warn!(
                frames = count,
                memory,
                "no room to remember messages; their repeats are forwarded; raise dedup.memory"
            ),
            Kind::Oversize => warn!(
                frames = count,
                "messages are dropped: they are longer than max_message_size; raise it, or let oversize truncate them"
            ),
            Kind::TooLarge => warn!(
                frames = count,
                "messages are dropped: the upstream takes no datagram of their size; use a tcp or relp upstream"
            ),
            Kind::Cut => warn!(
                frames = count,
                udp_max = size_text(self.forward.borrow().udp_max),
                "messages are cut: they are longer than forward.udp_max; raise it, or use a tcp or relp upstream"
            ),
            Kind::Compressed => warn!(
                frames = count,
                "messages are dropped: they are compressed, and the upstream's framing is lf; turn ZipLevel off at the senders, or use framing = \"octet-counting\""
            ),
            Kind::RefusedDatagrams => warn!(
                datagrams = count,
                "datagrams are refused: their senders are not in allow; add them, or stop them"
            ),
            Kind::RefusedConnections => warn!(
                connections = count,
                "connections are refused: their senders are not in allow; add them, or stop them"
            ),
            Kind::Connections => warn!(
                connections = count,
                "connections are refused: the listener has as many as it may; raise connections_max"
            ),
            Kind::SourceConnections => warn!(
                connections = count,
                "connections are refused: their address has as many as it may; raise connections_per_source_max"
            ),
        }
    }

    /// Whether there is a disk behind the queue.
    fn has_spool(&self) -> bool {
        self.metrics.spool.limit.get() > 0
    }

    /// Whether a reader waits for room.
    fn is_paused(&self) -> bool {
        let mut pauses = self.metrics.all_pauses().into_iter();
        pauses.any(|pauses| pauses.now.get() > 0)
    }

    /// `suppressed.queue`, as it was written.
    fn copies_queue(&self) -> String {
        let octets = self.metrics.copies.queue_limit.get();
        size_text(usize::try_from(octets).unwrap_or(0))
    }

    fn receive_buffer(&self, listener: &str) -> usize {
        let listeners = self.metrics.listeners();
        let found = listeners.iter().find(|found| found.name() == listener);
        // The kernel counts its own bookkeeping in, and reports twice what was asked for.
        found.map_or(0, |found| {
            usize::try_from(found.receive_buffer.get() / 2).unwrap_or(0)
        })
    }
}

/// The line for `/readyz`.
fn line(kind: &Kind, episode: &Episode, now: Tick) -> String {
    let (count, advice) = (Amount(kind, episode.count), &episode.advice);
    match now.since(episode.last).as_secs() {
        0 => format!("{count}, now; {advice}"),
        seconds => {
            let ago = time_text(Duration::from_secs(seconds));
            format!("{count}, the last {ago} ago; {advice}")
        }
    }
}

/// How much of a kind, in words.
struct Amount<'a>(&'a Kind, u64);

impl fmt::Display for Amount<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = Grouped(self.1);
        match self.0 {
            Kind::Paused | Kind::PausedByCopies => {
                write!(f, "reading was paused: for {}", seconds(self.1))
            }
            Kind::Unaccepted => {
                write!(f, "no connection was accepted: for {}", seconds(self.1))
            }
            Kind::QueueFull => write!(f, "dropped: {count} frames, the queue was full"),
            Kind::Copies => write!(f, "dropped: {count} copies that were to be set aside"),
            Kind::Kernel(listener) => {
                write!(
                    f,
                    "kernel drops: {count} datagrams on {}",
                    printable(listener)
                )
            }
            Kind::Evicted => write!(f, "forgotten too early: {count} messages"),
            Kind::Unremembered => write!(f, "not remembered: {count} messages"),
            Kind::Oversize => write!(f, "dropped: {count} frames longer than max_message_size"),
            Kind::TooLarge => write!(f, "dropped: {count} frames too long for the upstream"),
            Kind::Cut => write!(f, "cut: {count} frames longer than forward.udp_max"),
            Kind::Compressed => write!(f, "dropped: {count} compressed messages"),
            Kind::RefusedDatagrams => write!(f, "refused: {count} datagrams not in allow"),
            Kind::RefusedConnections => write!(f, "refused: {count} connections not in allow"),
            Kind::Connections => write!(f, "refused: {count} connections over connections_max"),
            Kind::SourceConnections => {
                write!(
                    f,
                    "refused: {count} connections over connections_per_source_max"
                )
            }
        }
    }
}

/// So many milliseconds, in whole seconds.
fn seconds(millis: u64) -> String {
    time_text(Duration::from_secs(millis.div_ceil(1000)))
}

/// `19,803`
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// One kind's losses, from the first one to the quiet behind the last one.
#[derive(Debug, Default)]
struct Episode {
    /// How much was lost when it was looked last, in the life of the process.
    total: u64,
    /// How much since the episode began.
    count: u64,
    /// How much of that was not told yet.
    untold: u64,
    /// When the log last told of it; `None` while nothing goes on.
    told: Option<Tick>,
    /// When the last of it was seen.
    last: Tick,
    /// What to do about the last of it.
    advice: String,
}

/// What the log must tell of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum News {
    /// It begins, with so much.
    Began(u64),
    /// It goes on: so much since it was told last.
    More(u64),
}

impl Episode {
    const fn goes_on(&self) -> bool {
        self.told.is_some()
    }

    /// Learns that `total` was lost by `now`.
    fn look(&mut self, total: u64, now: Tick) -> Option<News> {
        let more = total.saturating_sub(self.total);
        self.total = self.total.max(total);
        if more > 0 {
            self.last = now;
            let Some(_) = self.told else {
                (self.count, self.told) = (more, Some(now));
                return Some(News::Began(more));
            };
            self.count = self.count.saturating_add(more);
            self.untold = self.untold.saturating_add(more);
        }
        let told = self.told?;
        if self.untold > 0 && now.since(told) >= PERIOD {
            self.told = Some(now);
            return Some(News::More(std::mem::take(&mut self.untold)));
        }
        if now.since(self.last) >= PERIOD {
            self.told = None;
        }
        None
    }

    /// Learns that `total` was lost in all.
    fn finish(&mut self, total: u64) -> Option<News> {
        let more = total.saturating_sub(self.total);
        self.total = self.total.max(total);
        if self.told.is_none() {
            return (more > 0).then_some(News::Began(more));
        }
        let untold = std::mem::take(&mut self.untold).saturating_add(more);
        (untold > 0).then_some(News::More(untold))
    }
}

/// For how long reading was paused, as seen from time to time.
///
/// A pause that is over before the next look does not count: the upstream took a batch a little later than it came.
/// Pauses that follow each other count.
#[derive(Debug, Default)]
struct Pause {
    /// When it was looked last, and whether reading was, or had been, paused then.
    before: Option<(Tick, bool)>,
    pauses: u64,
    millis: u64,
}

impl Pause {
    /// Learns that reading is `paused` at `now` or not, and was paused so many times; returns for how many milliseconds
    /// it was paused so far.
    fn look(&mut self, paused: bool, pauses: u64, now: Tick) -> u64 {
        let paused = paused || pauses > self.pauses;
        if let Some((before, true)) = self.before
            && paused
        {
            let millis = now.since(before).as_millis();
            let millis = u64::try_from(millis).unwrap_or(u64::MAX);
            self.millis = self.millis.saturating_add(millis);
        }
        (self.before, self.pauses) = (Some((now, paused)), pauses);
        self.millis
    }
}

/// How often losses are looked for.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// What goes on is told once in so long; after so long without a loss the next one is news.
const PERIOD: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since the origin.
    fn at(secs: u64) -> Tick {
        Tick::ZERO.after(Duration::from_secs(secs))
    }

    #[test]
    fn a_loss_is_told_when_it_begins_and_then_counted_for_ten_minutes() {
        let mut episode = Episode::default();
        assert_eq!(episode.look(5, at(1)), Some(News::Began(5)));
        assert_eq!(episode.look(5, at(2)), None);
        assert_eq!(episode.look(7, at(3)), None);
        assert_eq!(episode.look(9, at(600)), None);
        assert_eq!(episode.look(9, at(601)), Some(News::More(4)));
        assert_eq!(episode.look(10, at(602)), None);
        assert_eq!((episode.count, episode.last), (10, at(602)));
        assert_eq!(episode.look(10, at(1201)), Some(News::More(1)));
        assert!(episode.goes_on());
    }

    #[test]
    fn after_ten_quiet_minutes_it_is_over_and_the_next_loss_is_news() {
        let mut episode = Episode::default();
        assert_eq!(episode.look(5, at(1)), Some(News::Began(5)));
        assert_eq!(episode.look(5, at(600)), None);
        assert!(episode.goes_on());
        assert_eq!(episode.look(5, at(601)), None);
        assert!(!episode.goes_on());
        assert_eq!(episode.look(8, at(602)), Some(News::Began(3)));
        assert_eq!(episode.count, 3);
    }

    #[test]
    fn a_flood_of_an_hour_is_a_line_for_each_ten_minutes() {
        let mut episode = Episode::default();
        let (mut lines, mut told) = (0, 0);
        for quarter in 1..=4 * 3600 {
            let now = Tick::ZERO.after(Duration::from_millis(250 * quarter));
            if let Some(News::Began(count) | News::More(count)) = episode.look(100 * quarter, now) {
                (lines, told) = (lines + 1, told + count);
            }
        }
        if let Some(News::More(count)) = episode.finish(100 * 4 * 3600 + 7) {
            (lines, told) = (lines + 1, told + count);
        }
        assert_eq!((lines, told), (7, 100 * 4 * 3600 + 7));
    }

    #[test]
    fn what_begins_at_the_stop_is_told_and_what_was_told_is_not_told_again() {
        assert_eq!(Episode::default().finish(3), Some(News::Began(3)));
        let mut episode = Episode::default();
        episode.look(5, at(1));
        assert_eq!(episode.finish(5), None);
    }

    #[test]
    fn a_count_that_falls_is_no_loss() {
        let mut episode = Episode::default();
        episode.look(5, at(1));
        assert_eq!(episode.look(4, at(2)), None);
        assert_eq!(episode.look(5, at(3)), None);
        assert_eq!(episode.look(6, at(601)), Some(News::More(1)));
    }

    #[test]
    fn a_pause_counts_from_look_to_look_and_a_short_one_is_none() {
        let mut pause = Pause::default();
        assert_eq!(pause.look(false, 0, at(0)), 0);
        assert_eq!(pause.look(true, 1, at(1)), 0);
        assert_eq!(pause.look(false, 1, at(2)), 0, "over at once");
        assert_eq!(pause.look(true, 2, at(3)), 0);
        assert_eq!(pause.look(true, 2, at(5)), 2_000);
        assert_eq!(pause.look(false, 3, at(6)), 3_000, "again and again");
        assert_eq!(pause.look(false, 3, at(7)), 3_000);
    }

    #[test]
    fn lines_say_how_much_where_when_and_what_to_do() {
        let metrics = Metrics::new();
        let (_keep, forward) = watch::channel(Arc::new(ForwardConfig::default()));
        let losses = Losses::new(Arc::clone(&metrics), forward);
        let (lan, evil) = (
            metrics.listener("udp://0.0.0.0:514", "udp://0.0.0.0:514"),
            metrics.listener("\u{202e}lan", "udp://0.0.0.0:515"),
        );
        lan.kernel_dropped.add(19_803);
        evil.kernel_dropped.add(1);
        metrics.frames.dropped[DropReason::Acl].add(2);
        let stats = Shards::new(1, &[], 1 << 20).stats();
        losses.tell(&stats, |episode, total| episode.look(total, at(1)));
        assert_eq!(
            losses.lines(at(4)),
            [
                "kernel drops: 19,803 datagrams on udp://0.0.0.0:514, the last 3s ago; raise net.core.rmem_max and receive_buffer",
                "kernel drops: 1 datagrams on \\u{202e}lan, the last 3s ago; raise net.core.rmem_max and receive_buffer",
                "refused: 2 datagrams not in allow, the last 3s ago; add the senders to allow, or stop them",
            ]
        );
        // The advice is that of the time when it was lost.
        metrics.pauses.now.set(1);
        evil.kernel_dropped.add(1);
        losses.tell(&stats, |episode, total| episode.look(total, at(4)));
        metrics.pauses.now.set(0);
        losses.tell(&stats, |episode, total| episode.look(total, at(5)));
        let lines = losses.lines(at(7));
        assert!(
            lines[0].ends_with("; raise net.core.rmem_max and receive_buffer"),
            "{lines:?}"
        );
        assert!(
            lines[1].ends_with("the last 3s ago; reading was paused meanwhile"),
            "{lines:?}"
        );
        // The last of it is told of, and then it is over.
        losses.tell(&stats, |episode, total| episode.look(total, at(604)));
        losses.tell(&stats, |episode, total| episode.look(total, at(605)));
        assert_eq!(losses.lines(at(605)), [""; 0]);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (19_803, "19,803"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(Grouped(number).to_string(), text);
        }
    }
}

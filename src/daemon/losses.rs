//! Losses: logs what is being lost, or soon may be, once when it begins, and counts it for as long as it lasts.
//!
//! ```text
//! lost         x xx xxx x x x x x x   x                    x
//! log          !         n         n         n            !      ! the first loss    n the count of 10 minutes
//! on /readyz   ├──────────────────────────────┤            ├──
//! ```
//!
//! # Guarantees
//!
//! - Each kind of loss, and of each listener, is logged at once when it begins, and then as one count every ten minutes.
//!   After ten minutes without a loss, the next one is logged at once again.
//! - Losses that are counted and not logged yet are logged at the stop.
//! - Messages pay nothing for it: a timer reads counters that exist anyway. The timer waits for nothing else, so a full
//!   queue does not delay it.
//!
//! # Left out
//!
//! Which peer it was (`listen` logs an example). What a spool or an upstream loses: they log it themselves.

mod wording;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    select,
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::wording::Wording;
use super::stats_of;
use crate::{
    clock::Clock,
    config::{ForwardConfig, size_text, time_text},
    core::{
        dedup::{EngineStats, Shards},
        tick::Tick,
    },
    lock::lock,
    logging::PeerLog,
    metrics::{DropReason, Metrics, PauseCounters, RejectReason},
};

/// The current losses, shared between the timer and `/readyz`.
#[derive(Debug)]
pub(super) struct Losses {
    metrics: Arc<Metrics>,
    /// For the sizes that advice names.
    forward: watch::Receiver<Arc<ForwardConfig>>,
    /// The timer holds it while it looks, and never while it waits.
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    episodes: BTreeMap<Kind, Episode>,
    pause: Pause,
    copies_pause: Pause,
    accept_pause: Pause,
}

/// What can be lost, in the order in which `/readyz` shows it: causes first.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    /// Milliseconds for which reading was paused because the queue of survivors was full.
    Paused,
    /// Milliseconds for which reading was paused because the queue of suppressed copies was full.
    PausedByCopies,
    /// Milliseconds for which no connection was accepted because no descriptor was left.
    Unaccepted,
    /// Frames dropped because the queue was full.
    QueueFull,
    /// Frames lost in a panic.
    Panic,
    /// Suppressed copies that were to be kept and were dropped, for any reason but a panic.
    Copies,
    /// Datagrams that the kernel dropped, by the name of their listener.
    Kernel(String),
    /// Windows that ended early because the memory limit was reached.
    Evicted,
    /// Messages that a shard had no memory to remember.
    Unremembered,
    /// Frames longer than `max_message_size`.
    Oversize,
    /// Frames larger than the upstream's datagrams.
    TooLarge,
    /// Frames cut at `forward.udp_max`.
    Cut,
    /// Compressed messages that LF framing cannot carry.
    Compressed,
    /// Datagrams from addresses that are not in `allow`.
    RefusedDatagrams,
    /// Connections from addresses that are not in `allow`.
    RefusedConnections,
    Connections,
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

    /// Looks at the counters, and flushes the warnings about peers, until `stop` is cancelled; then looks a last time.
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
            self.tell(&stats_of(&shards), |episode, total| {
                episode.look(total, now)
            });
        }
        self.tell(&stats_of(&shards), |episode, total| episode.finish(total));
    }

    /// A line for each current loss.
    pub(super) fn lines(&self, now: Tick) -> Vec<String> {
        let seen = lock(&self.seen);
        let episodes = seen.episodes.values();
        let goes_on = episodes.filter(|episode| episode.goes_on());
        goes_on.map(|episode| line(episode, now)).collect()
    }

    /// Applies `look` to every episode and the total lost by now, and logs what is new.
    fn tell(&self, stats: &EngineStats, look: impl Fn(&mut Episode, u64) -> Option<News>) {
        let mut news = Vec::new();
        {
            let mut seen = lock(&self.seen);
            let totals = self.totals(stats, &mut seen);
            for (kind, total) in totals {
                if total == 0 {
                    continue;
                }
                let episode = seen.episodes.entry(kind.clone()).or_default();
                let before = episode.total;
                let told = look(episode, total);
                if episode.total > before {
                    // Kept from the time of the loss: by the next request, nothing may be full or paused any more.
                    episode.wording = Some(self.wording(&kind, stats));
                }
                if let (Some(told), Some(wording)) = (told, &episode.wording) {
                    news.push((told, wording.clone()));
                }
            }
        }
        for (told, wording) in news {
            match told {
                News::Began(count) => (wording.log)(&wording, count),
                News::More(count) => {
                    let (what, advice) = (wording.amount(count), wording.advice);
                    warn!(what, advice, "further losses in the last 10 minutes");
                }
            }
        }
    }

    /// How much of each kind was lost so far.
    fn totals(&self, stats: &EngineStats, seen: &mut Seen) -> Vec<(Kind, u64)> {
        let metrics = &self.metrics;
        let dropped = |reason| metrics.frames.dropped[reason].get();
        let rejected = |reason| metrics.connections_rejected[reason].get();
        let copies = &metrics.copies.dropped;
        // In this order, because both may grow meanwhile.
        let by_panic = copies[DropReason::Panic].get();
        let copies = copies.total() - by_panic;
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
            (Kind::Panic, dropped(DropReason::Panic)),
            (Kind::Copies, copies),
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

    /// Whether a spool stands behind the queue.
    fn has_spool(&self) -> bool {
        self.metrics.spool.limit.get() > 0
    }

    /// Whether a reader waits for room in a queue.
    fn is_paused(&self) -> bool {
        let mut pauses = self.metrics.all_pauses().into_iter();
        pauses.any(|pauses| pauses.now.get() > 0)
    }

    /// `suppressed.queue` in the units of the configuration.
    fn copies_queue(&self) -> String {
        let octets = self.metrics.copies.queue_limit.get();
        size_text(usize::try_from(octets).unwrap_or(0))
    }

    fn receive_buffer(&self, listener: &str) -> usize {
        let listeners = self.metrics.listeners();
        let found = listeners.iter().find(|found| found.name() == listener);
        // The kernel includes its own bookkeeping: it reports twice the size that was asked for.
        found.map_or(0, |found| {
            usize::try_from(found.receive_buffer.get() / 2).unwrap_or(0)
        })
    }
}

/// The line for `/readyz`.
fn line(episode: &Episode, now: Tick) -> String {
    let wording = episode.wording.as_ref();
    let wording = wording.expect("an episode that goes on began with a loss");
    let (count, advice) = (wording.amount(episode.count), &wording.advice);
    match now.since(episode.last).as_secs() {
        0 => format!("{count}, now; {advice}"),
        seconds => {
            let ago = time_text(Duration::from_secs(seconds));
            format!("{count}, the last {ago} ago; {advice}")
        }
    }
}

/// The losses of one kind, from the first one until ten minutes after the last one.
#[derive(Debug, Default)]
struct Episode {
    /// The counter at the last look: everything since the process started.
    total: u64,
    /// How much was lost since the episode began.
    count: u64,
    /// How much of `count` is not logged yet.
    untold: u64,
    /// When it was logged last; `None` while there is no episode.
    told: Option<Tick>,
    /// When the last loss was seen.
    last: Tick,
    /// What to write about the last loss; `None` before the first.
    wording: Option<Wording>,
}

/// What is to be logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum News {
    /// An episode began with that amount.
    Began(u64),
    /// An episode continues: the amount since it was logged last.
    More(u64),
}

impl Episode {
    const fn goes_on(&self) -> bool {
        self.told.is_some()
    }

    /// Takes in that `total` was lost by `now`.
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

    /// Takes in that `total` was lost when the process ends.
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

/// For how long reading was paused, as seen at each look.
///
/// A pause that has ended before the next look does not count: the upstream only took a batch a little later than it
/// came. Pauses that follow each other count.
#[derive(Debug, Default)]
struct Pause {
    /// The last look, and whether reading was paused then or had been since the look before.
    before: Option<(Tick, bool)>,
    pauses: u64,
    millis: u64,
}

impl Pause {
    /// Takes in whether reading is `paused` at `now`, and how often it was so far. Returns for how many milliseconds it
    /// was paused so far.
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

/// The time between two looks at the counters.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// A loss that continues is logged once per period; after a period without one, the next loss begins a new episode.
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
        // The last losses are logged, and then the episode has ended.
        losses.tell(&stats, |episode, total| episode.look(total, at(604)));
        losses.tell(&stats, |episode, total| episode.look(total, at(605)));
        assert_eq!(losses.lines(at(605)), [""; 0]);
    }
}

//! Metrics: every counter and gauge of the relay, and the page that shows them (OpenMetrics 1.0).
//!
//! [`Metrics`] holds plain numbers that the shell adds to, once per batch. `table` lists every name with its help and
//! type, and reads the numbers at each scrape.
//!
//! # Guarantees
//!
//! - Counting never waits: no lock, no allocation, and no cache line that two counters share.
//! - A counter never falls. A removed listener or rule keeps its counts. A removed upstream loses its own: the law does not
//!   need them, and a state that no lane can change any more would raise an alarm for ever.
//! - The law `received + recovered = forwarded + suppressed + dropped{reason} + queued` can be checked on one
//!   scrape. While nothing arrives it holds exactly. Under load the right side is never more than the left: the
//!   difference is being judged, see [`Metrics::balance`].
//!
//! # Left out
//!
//! How the page is served (`admin`). Rates, histograms and history: the collector computes them.

mod config;
mod counter;
mod pause;
mod process;
mod reason;
mod samples;
mod table;
mod upstream;

use std::sync::{Arc, Mutex, RwLock, Weak};

use crate::clock::Clock;
use crate::core::dedup::EngineStats;
use crate::core::tick::{Tick, WallTime};
use crate::lock::{lock, read, write};

pub(crate) use config::ConfigMetrics;
pub(crate) use counter::{ByReason, Counter, Gauge, Returnable, StripedCounter};
pub(crate) use pause::PauseCounters;
pub(crate) use reason::{
    AnswerResult, DropReason, FrameErrorReason, MemoryPart, PanicTask, Reason, RejectReason,
    ReloadResult, SpoolErrno, SummaryReason,
};
pub(crate) use upstream::{UpstreamMetrics, UpstreamState};

/// Every counter and gauge of one relay.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// What became of the frames.
    pub frames: FrameCounters,
    /// Kept copies of suppressed frames. They are not part of the law: it counts them as suppressed.
    pub copies: CopyCounters,
    /// Octets that wait for an upstream in memory, framing and summaries included.
    pub queue_octets: Gauge,
    /// When the oldest chunk of the queue was put there, as a tick; zero without a chunk.
    queue_oldest: Gauge,
    /// Readers that wait for room in the survivors' queue.
    pub pauses: PauseCounters,
    /// Listeners that accept nothing because the limit of open files is reached.
    pub accept_pauses: PauseCounters,
    /// What waits on disk.
    pub spool: SpoolCounters,
    /// Framing errors, by reason. They are not part of the law: an error may or may not cost a frame.
    pub frame_errors: ByReason<FrameErrorReason>,
    /// Connections closed before a frame was read from them.
    pub connections_rejected: ByReason<RejectReason>,
    /// Summaries. They are messages of the relay's own and not part of the law.
    pub summaries: SummaryCounters,
    /// The most memory that each part may take, in octets, in the order of [`MemoryPart::ALL`].
    pub memory_limit: [Gauge; MemoryPart::ALL.len()],
    /// Requests to reload the configuration.
    pub config_reloads: ByReason<ReloadResult>,
    /// Panics, which are faults of tersed.
    pub panics: ByReason<PanicTask>,
    /// The configuration in force.
    pub config: ConfigMetrics,
    /// One for each name ever registered. Bounded by the names that were configured in this run.
    listeners: RwLock<Vec<Arc<ListenerMetrics>>>,
    /// One for each URL that is forwarded to now. The lanes own them.
    upstreams: RwLock<Vec<Weak<UpstreamMetrics>>>,
    /// One for each name ever registered, bounded in the same way.
    rules: RwLock<Vec<Arc<RuleMetrics>>>,
    started: WallTime,
}

impl Metrics {
    /// All at zero. Call it once, when the process starts: it notes the start time.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Clock::wall(),
            ..Self::default()
        })
    }

    /// The pauses for survivors, and those for copies.
    #[must_use]
    pub(crate) const fn all_pauses(&self) -> [&PauseCounters; 2] {
        [&self.pauses, &self.copies.pauses]
    }

    /// Returns the counters of the listener named `name`: the same ones each time, also after it was closed and opened
    /// again. `url` replaces its earlier URL.
    #[must_use]
    pub(crate) fn listener(&self, name: &str, url: &str) -> Arc<ListenerMetrics> {
        let mut listeners = write(&self.listeners);
        let known = listeners.iter().find(|listener| listener.name == name);
        let listener = known.cloned().unwrap_or_else(|| {
            let listener = Arc::new(ListenerMetrics::new(name));
            listeners.push(Arc::clone(&listener));
            listener
        });
        write(&listener.place).url = url.to_owned();
        listener
    }

    /// Returns the counters of the upstream at `url`: the same ones as long as a caller keeps them. When the last caller
    /// has dropped them, the upstream disappears from the page.
    #[must_use]
    pub(crate) fn upstream(&self, url: &str) -> Arc<UpstreamMetrics> {
        let mut upstreams = write(&self.upstreams);
        upstreams.retain(|upstream| upstream.strong_count() > 0);
        let mut known = upstreams.iter().filter_map(Weak::upgrade);
        known
            .find(|upstream| upstream.url() == url)
            .unwrap_or_else(|| {
                let upstream = Arc::new(UpstreamMetrics::new(url));
                upstreams.push(Arc::downgrade(&upstream));
                upstream
            })
    }

    /// Returns the counters of the rule named `name`: the same ones each time.
    #[must_use]
    pub(crate) fn rule(&self, name: &str) -> Arc<RuleMetrics> {
        let mut rules = write(&self.rules);
        let known = rules.iter().find(|rule| rule.name == name);
        known.cloned().unwrap_or_else(|| {
            let rule = Arc::new(RuleMetrics::new(name));
            rules.push(Arc::clone(&rule));
            rule
        })
    }

    /// Every rule registered so far, in order of registration.
    #[must_use]
    pub(crate) fn rules(&self) -> Vec<Arc<RuleMetrics>> {
        read(&self.rules).clone()
    }

    /// Every listener registered so far, in order of registration.
    #[must_use]
    pub(crate) fn listeners(&self) -> Vec<Arc<ListenerMetrics>> {
        read(&self.listeners).clone()
    }

    /// Every upstream that is forwarded to, in order of registration.
    #[must_use]
    pub(crate) fn upstreams(&self) -> Vec<Arc<UpstreamMetrics>> {
        let upstreams = read(&self.upstreams);
        upstreams.iter().filter_map(Weak::upgrade).collect()
    }

    /// Notes how much is in the survivors' queue, and since when its oldest message waits.
    pub(crate) fn tell_queue(&self, octets: u64, oldest: Option<Tick>) {
        self.queue_octets.set(octets);
        self.queue_oldest.set(oldest.map_or(0, Tick::nanos));
    }

    /// Since when the oldest message of the queue waits; `None` if the queue is empty.
    #[must_use]
    pub(crate) fn queue_oldest(&self) -> Option<Tick> {
        let nanos = self.queue_oldest.get().cast_unsigned();
        (nanos > 0).then(|| Tick::from_nanos(nanos))
    }

    /// The two sides of the counting law.
    ///
    /// It reads against the flow: first where frames end, then the queue, then where they come in. A frame that moves
    /// meanwhile is missed and not counted twice, so the sum of the right side is never more than the left. This requires that
    /// frames are counted with the flow: received first, then queued, and taken out of the queue before they are
    /// counted as forwarded or dropped ([`FrameCounters::deliver`], [`FrameCounters::lose`]). Frames that are taken back
    /// move against the flow: if that happens during a reading, the reading is repeated.
    #[must_use]
    pub(crate) fn balance(&self) -> Balance {
        self.undisturbed(|| self.balance_now())
    }

    /// Returns what `read` reads while no frame is taken back. Such a frame would be counted twice: as forwarded at the
    /// beginning, and as queued later.
    fn undisturbed<T>(&self, read: impl Fn() -> T) -> T {
        let returned = || {
            (
                self.frames.forwarded.returned(),
                self.copies.written.returned(),
            )
        };
        loop {
            let before = returned();
            let result = read();
            if returned() == before {
                return result;
            }
        }
    }

    fn balance_now(&self) -> Balance {
        // The fields are evaluated in the order in which they are written here; the guarantee rests on it.
        Balance {
            forwarded: self.frames.forwarded.get(),
            suppressed: self.frames.suppressed.get(),
            dropped: self.frames.dropped.total(),
            queued: self.frames.queued.get(),
            recovered: self.frames.recovered.get(),
            received: self
                .listeners()
                .iter()
                .map(|listener| listener.received.get())
                .sum(),
        }
    }

    /// The page: all metrics as OpenMetrics 1.0 text, in the order of [`Metrics::balance`].
    ///
    /// It reads `/proc/self`, which takes time in proportion to the open descriptors: do not call it from a task that
    /// relays.
    #[must_use]
    pub(crate) fn encode(self: &Arc<Self>, engine: EngineStats) -> String {
        self.undisturbed(|| table::encode(self, engine))
    }
}

/// What became of the frames.
#[derive(Debug, Default)]
pub(crate) struct FrameCounters {
    /// Handed to an upstream, as far as its protocol tells, and not taken back since.
    pub forwarded: Returnable,
    /// Not forwarded because they are repeats: on purpose.
    pub suppressed: StripedCounter,
    pub dropped: ByReason<DropReason>,
    /// Survivors that are neither forwarded nor dropped yet.
    pub queued: Gauge,
    /// Survivors found in the spool at the start.
    pub recovered: Counter,
    /// Frames that fit no format. They were judged and forwarded like any other.
    pub unparsed: StripedCounter,
    /// Frames that fit no format or have no PRI, and hold control octets: they are not text.
    pub binary: Counter,
    /// Frames that left with an octet changed because the upstream's framing cannot carry it.
    pub rewritten: Counter,
    /// Frames that left as datagrams cut at `udp_max`. They count as frame errors as well.
    pub cut: Counter,
    /// Frames sent again on a new connection because they may have been lost with the old one.
    pub resent: Counter,
}

/// What waits on disk.
#[derive(Debug, Default)]
pub(crate) struct SpoolCounters {
    pub octets: Gauge,
    /// Frames that are not delivered yet, including summaries.
    pub frames: Gauge,
    /// The most octets on disk; zero without a spool.
    pub limit: Gauge,
    /// When the oldest frame was written, or earlier: microseconds since the Unix epoch, zero without a frame.
    pub oldest: Gauge,
    /// 1 while the disk fails; else 0.
    pub failing: Gauge,
    /// Why the disk fails, since when, and when it is tried again.
    trouble: Mutex<Option<SpoolTrouble>>,
    /// What is wrong with the first file that is not safe to open, whether its turn to be read has come or not.
    not_safe: Mutex<Option<String>>,
    pub errors: ByReason<SpoolErrno>,
}

impl SpoolCounters {
    /// Why the disk fails now; `None` if it does not.
    #[must_use]
    pub(crate) fn trouble(&self) -> Option<SpoolTrouble> {
        lock(&self.trouble).clone()
    }

    /// Notes why the disk fails; `None` if it does not.
    pub(crate) fn set_trouble(&self, trouble: Option<SpoolTrouble>) {
        self.failing.set(u64::from(trouble.is_some()));
        *lock(&self.trouble) = trouble;
    }

    /// What is wrong with the first file that is not safe to open; `None` if all are safe.
    #[must_use]
    pub(crate) fn not_safe(&self) -> Option<String> {
        lock(&self.not_safe).clone()
    }

    /// Notes what is wrong with the first file that is not safe to open; `None` if all are safe.
    pub(crate) fn set_not_safe(&self, error: Option<String>) {
        *lock(&self.not_safe) = error;
    }
}

/// A failure of the spool's disk.
#[derive(Clone, Debug)]
pub(crate) struct SpoolTrouble {
    /// Since when it fails.
    pub since: Tick,
    pub error: String,
    /// When it is tried again.
    pub retry_at: Tick,
}

impl FrameCounters {
    /// Counts `n` survivors of an earlier run that wait in the spool.
    pub(crate) fn recover(&self, n: u64) {
        self.recovered.add(n);
        self.queued.add(n);
    }

    /// Moves `n` survivors from the queue to the forwarded.
    pub(crate) fn deliver(&self, n: u64) {
        // Out of the queue first, or a reader in between would count them twice.
        self.queued.sub(n);
        self.forwarded.add(n);
    }

    /// Moves `n` survivors from the forwarded back to the queue.
    pub(crate) fn take_back(&self, n: u64) {
        // Out first; see `Metrics::undisturbed`.
        self.forwarded.take_back(n);
        self.queued.add(n);
    }

    /// Moves `n` survivors from the queue to the dropped.
    pub(crate) fn lose(&self, reason: DropReason, n: u64) {
        self.queued.sub(n);
        self.dropped[reason].add(n);
    }
}

/// What became of the copies: `taken = written + dropped{reason} + queued`.
#[derive(Debug, Default)]
pub(crate) struct CopyCounters {
    /// Suppressed while copies were kept.
    pub taken: StripedCounter,
    /// Written to their destination, and not taken back since.
    pub written: Returnable,
    /// Lost on the way there.
    pub dropped: ByReason<DropReason>,
    /// Neither written nor dropped yet.
    pub queued: Gauge,
    /// Readers that wait for room in the copies' queue.
    pub pauses: PauseCounters,
    /// The most octets in this queue.
    pub queue_limit: Gauge,
}

impl CopyCounters {
    /// Counts `n` copies that enter the queue.
    pub(crate) fn take(&self, n: u64) {
        // With the flow, as for frames.
        self.taken.add(n);
        self.queued.add(n);
    }

    /// Moves `n` copies from the queue to the written.
    pub(crate) fn deliver(&self, n: u64) {
        self.queued.sub(n);
        self.written.add(n);
    }

    /// Moves `n` copies from the written back to the queue.
    pub(crate) fn take_back(&self, n: u64) {
        self.written.take_back(n);
        self.queued.add(n);
    }

    /// Moves `n` copies from the queue to the dropped.
    pub(crate) fn lose(&self, reason: DropReason, n: u64) {
        self.queued.sub(n);
        self.dropped[reason].add(n);
    }
}

/// What became of summaries, which report suppressed copies.
#[derive(Debug, Default)]
pub(crate) struct SummaryCounters {
    /// Summaries made, by what caused them.
    pub made: ByReason<SummaryReason>,
    /// Summaries lost, by reason.
    pub dropped: ByReason<DropReason>,
    /// Suppressed frames that the summaries made so far count.
    pub frames: Counter,
}

/// What one listener counts. A gauge is the sum over all its sockets.
#[derive(Debug, Default)]
pub(crate) struct ListenerMetrics {
    name: String,
    place: RwLock<ListenerPlace>,
    /// Frames received, without empty ones.
    pub received: StripedCounter,
    /// Octets of those frames, without framing.
    pub octets: StripedCounter,
    /// Empty frames and datagrams, which are ignored.
    pub empty: Counter,
    /// Datagrams that the kernel dropped because the receive buffer was full. The relay never had them, so they are not
    /// part of the law.
    pub kernel_dropped: Counter,
    pub connections: Gauge,
    /// Connections accepted so far, including rejected ones.
    pub accepted: Counter,
    /// Calls of accept that failed.
    pub accept_errors: Counter,
    /// RELP transactions answered, by answer.
    pub answers: ByReason<AnswerResult>,
    /// RELP transactions that wait for their answer.
    pub unanswered: Gauge,
    /// Octets of receive buffer that the kernel granted each socket, as the kernel counts them; zero for streams.
    pub receive_buffer: Gauge,
}

impl ListenerMetrics {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Its name: the label of all its metrics.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Notes that it is open, and where it listens: with port 0 in the URL the port is known only now.
    pub(crate) fn set_address(&self, address: &str) {
        let mut place = write(&self.place);
        place.address = Some(address.to_owned());
    }

    /// Notes that it is closed. Its counts stay; only `tersed_listener_info` disappears.
    pub(crate) fn clear_address(&self) {
        write(&self.place).address = None;
    }

    fn is_open(&self) -> bool {
        self.place().address.is_some()
    }

    fn place(&self) -> ListenerPlace {
        read(&self.place).clone()
    }
}

#[derive(Clone, Debug, Default)]
struct ListenerPlace {
    url: String,
    /// `None` while it is not bound.
    address: Option<String>,
}

/// What one rule counts. The rule named `default` counts what matches no rule.
#[derive(Debug, Default)]
pub(crate) struct RuleMetrics {
    name: String,
    /// Frames that matched it.
    pub matched: StripedCounter,
    /// Of those, suppressed as repeats.
    pub suppressed: StripedCounter,
    /// Dropped by the rule.
    pub dropped: StripedCounter,
    /// Forwarded with an annotation; without mode `tag` they would have been suppressed or dropped.
    pub tagged: StripedCounter,
    /// Forwarded unchanged; without mode `shadow` they would have been suppressed or dropped.
    pub shadowed: StripedCounter,
}

impl RuleMetrics {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Its name: the label of all its metrics.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// The two sides of the counting law: `received + recovered = forwarded + suppressed + dropped + queued`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Balance {
    /// Frames received by all listeners.
    pub received: u64,
    /// Frames found in the spool at the start.
    pub recovered: u64,
    pub forwarded: u64,
    pub suppressed: u64,
    /// Frames lost, for all reasons.
    pub dropped: u64,
    /// Survivors that wait. Below zero only if the relay counted wrong.
    pub queued: i64,
}

#[cfg(test)]
impl Balance {
    /// Frames received that are still being judged: zero while nothing arrives, never below zero.
    #[must_use]
    fn in_hand(&self) -> i128 {
        i128::from(self.received) + i128::from(self.recovered)
            - i128::from(self.forwarded)
            - i128::from(self.suppressed)
            - i128::from(self.dropped)
            - i128::from(self.queued)
    }

    /// Whether the law holds exactly.
    #[must_use]
    pub(crate) fn holds(&self) -> bool {
        self.in_hand() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_listener_opened_again_goes_on_counting_where_it_was() {
        let metrics = Metrics::new();
        let first = metrics.listener("lan", "udp://0.0.0.0:514");
        first.received.add(3);
        first.set_address("0.0.0.0:514");
        first.clear_address();
        drop(first);

        let second = metrics.listener("lan", "udp://0.0.0.0:1514");
        second.received.add(4);
        assert_eq!(metrics.listeners().len(), 1);
        assert_eq!(metrics.balance().received, 7);
        let page = metrics.encode(EngineStats::default());
        assert!(!page.contains("tersed_listener_info{"), "{page}");

        second.set_address("0.0.0.0:1514");
        let page = metrics.encode(EngineStats::default());
        let info = "tersed_listener_info{listener=\"lan\",url=\"udp://0.0.0.0:1514\",\
                    address=\"0.0.0.0:1514\"} 1\n";
        assert!(page.contains(info), "{page}");
    }

    #[test]
    fn an_upstream_keeps_its_counts_by_its_url_while_it_is_forwarded_to() {
        let metrics = Metrics::new();
        let frames = || -> Vec<_> {
            let upstreams = metrics.upstreams();
            let counts = upstreams.iter();
            counts
                .map(|up| (up.url().to_owned(), up.frames.get()))
                .collect()
        };
        let [a, b] = ["tcp://a:514", "tcp://b:514"].map(|url| metrics.upstream(url));
        a.frames.add(1);
        b.frames.add(2);
        metrics.upstream("tcp://a:514").frames.add(4);
        assert_eq!(
            frames(),
            [("tcp://a:514".to_owned(), 5), ("tcp://b:514".to_owned(), 2)]
        );
        drop(a);
        assert_eq!(frames(), [("tcp://b:514".to_owned(), 2)]);
        let _again = metrics.upstream("tcp://a:514");
        assert_eq!(frames()[1], ("tcp://a:514".to_owned(), 0));
    }

    #[test]
    fn the_balance_adds_up_listeners_and_reasons() {
        let metrics = Metrics::new();
        metrics.listener("a", "udp:").received.add(10);
        metrics.listener("b", "tcp:").received.add(10);
        metrics.frames.suppressed.add(9);
        metrics.frames.dropped[DropReason::Acl].add(1);
        metrics.frames.queued.add(10);
        metrics.frames.deliver(5);
        metrics.frames.lose(DropReason::Shutdown, 2);
        metrics.frames.recover(3);
        let expected = Balance {
            received: 20,
            recovered: 3,
            forwarded: 5,
            suppressed: 9,
            dropped: 3,
            queued: 6,
        };
        assert_eq!(metrics.balance(), expected);
        assert!(expected.holds());
        assert!(
            !Balance {
                queued: 2,
                ..expected
            }
            .holds()
        );
    }

    /// Reads the balance until it was caught in motion a thousand times while two threads `work`.
    fn check_never_counted_twice(metrics: &Metrics, work: impl Fn() + Sync) {
        let stop = AtomicBool::new(false);
        let (mut caught, mut twice) = (0, None);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        work();
                    }
                });
            }
            for _ in 0..10_000_000 {
                let balance = metrics.balance();
                caught += u32::from(!balance.holds());
                twice = (balance.in_hand() < 0).then_some(balance);
                if caught == 1_000 || twice.is_some() {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(twice, None);
        assert_eq!(
            caught, 1_000,
            "the counts hardly moved while they were read"
        );
        assert!(metrics.balance().holds(), "{:?}", metrics.balance());
    }

    #[test]
    fn a_frame_on_its_way_in_is_never_counted_twice() {
        let metrics = Metrics::new();
        let listener = metrics.listener("lan", "tcp:");
        check_never_counted_twice(&metrics, || {
            listener.received.add(10);
            metrics.frames.suppressed.add(4);
            metrics.frames.queued.add(6);
            metrics.frames.deliver(6);
        });
    }

    #[test]
    fn a_frame_on_its_way_back_is_never_counted_twice() {
        let metrics = Metrics::new();
        let listener = metrics.listener("lan", "tcp:");
        check_never_counted_twice(&metrics, || {
            listener.received.add(10);
            metrics.frames.queued.add(10);
            metrics.frames.deliver(10);
            // Connections do not break all the time.
            (0..100).for_each(|_| std::hint::spin_loop());
            metrics.frames.take_back(10);
            metrics.frames.lose(DropReason::Shutdown, 10);
        });
    }

    /// Reads `end` and then the queue, closely, while a thread moves frames from one to the other.
    fn check_out_before_in(metrics: &Metrics, move_one: impl Fn() + Sync, end: impl Fn() -> u64) {
        let plenty = 1_000_000_000;
        metrics.frames.queued.set(plenty);
        let stop = AtomicBool::new(false);
        let (mut seen, mut most) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    move_one();
                }
            });
            for _ in 0..10_000_000 {
                let ended = end();
                let both = ended.saturating_add_signed(metrics.frames.queued.get());
                seen += u32::from(both < plenty);
                most = most.max(both);
                if seen == 100_000 {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(
            seen > 1_000,
            "hardly anything moved between the reads: {seen}"
        );
        assert!(most <= plenty, "a frame was in both places: {most}");
    }

    #[test]
    fn a_frame_leaves_the_queue_before_it_is_counted_where_it_ends() {
        let metrics = Metrics::new();
        let frames = &metrics.frames;
        check_out_before_in(&metrics, || frames.deliver(1), || frames.forwarded.get());
        let dropped = &frames.dropped[DropReason::QueueFull];
        check_out_before_in(
            &metrics,
            || frames.lose(DropReason::QueueFull, 1),
            || dropped.get(),
        );
    }
}

//! Tests of the overflow with a real spool, call by call.

use tempfile::TempDir;

use super::*;
use crate::{
    config::Config,
    core::dedup::{Claim, Shards},
    delivery::chunk::Entry,
};

/// An overflow over a spool in a directory of its own.
struct Fixture {
    overflow: Overflow,
    spool: Arc<Spool>,
    _directory: TempDir,
}

impl Fixture {
    /// The spool takes up to a mebioctet, and holds `records` survivors.
    fn new(records: usize) -> Self {
        let directory = TempDir::new().unwrap();
        let spool = Spool::open(&directory.path().join("spool"), 1 << 20).unwrap();
        let spool = Arc::new(spool);
        for _ in 0..records {
            spool.append(&[survivors(1)]).unwrap();
        }
        let config = Config::default();
        let metrics = Metrics::new();
        let rules = Arc::clone(&config.rules);
        let policies: Vec<_> = rules.policies().map(|policy| policy.window).collect();
        let shards = Arc::new(Shards::new(1, &policies, 1 << 20));
        let forward = Arc::new(config.forward.clone());
        let overflow = Overflow::new(
            Arc::clone(&spool),
            Arc::new(Queue::new(1 << 20, Arc::clone(&metrics))),
            Arc::clone(&metrics),
            Arc::new(Ledger::new(metrics, shards, rules)),
            Custody::new(),
            watch::Sender::new(forward).subscribe(),
        );
        Self {
            overflow,
            spool,
            _directory: directory,
        }
    }

    /// What a lane gets that asks for the next record on the disk.
    fn next(&self) -> Vec<Chunk> {
        let batch = self.spool.read(1).unwrap().expect("the disk has a record");
        self.overflow.keep_ready(batch);
        match self.overflow.turn(usize::MAX) {
            Turn::Take(batch) => batch,
            other => panic!("what was read is next, not {other:?}"),
        }
    }
}

fn survivors(count: usize) -> Chunk {
    let mut chunk = Chunk::default();
    for _ in 0..count {
        chunk.push(&[b'x'; 1000], Entry::Survivor(Claim::VOID));
    }
    chunk
}

/// What `future` returns if it is asked once.
async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

/// The append waited until no call read, which was when lanes had drained the disk, and then dropped frames without need.
#[tokio::test]
async fn an_append_that_waits_for_room_drops_nothing_once_there_is_some() {
    let fixture = Fixture::new(0);
    let refused = loop {
        if let Err(refused) = fixture.spool.append(&[survivors(50)]) {
            break refused;
        }
    };
    assert!(refused.is_full());
    let (full, full_octets) = (fixture.spool.records(), fixture.spool.octets());
    let running = Reading::Running { more: false };
    fixture.overflow.lock().enter_spool().reading = running;
    let mut summaries = Vec::new();
    {
        let room = fixture.overflow.make_room(&refused, &mut summaries);
        tokio::pin!(room);
        assert_eq!(once(&mut room).await, None, "a call reads");
        while fixture.spool.octets() == full_octets {
            let delivered = fixture.spool.read(READ_OCTETS).unwrap().unwrap();
            fixture.spool.acknowledge(delivered.upto).unwrap();
        }
        fixture.overflow.changed.notify_waiters();
        assert_eq!(once(&mut room).await, Some(true), "there is room");
    }
    let left = fixture.spool.records();
    assert!(0 < left && left < full, "{left} of {full}");
    fixture.spool.append(&[survivors(50)]).unwrap();
    assert_eq!(fixture.spool.records(), left + 50, "none was dropped");
    assert!(summaries.is_empty());
    let reading = fixture.overflow.lock().way.passage().reading;
    assert_eq!(reading, running, "nothing else was read");
}

/// Two batches had the same number. The stop asked about the older one, which the disk has no more, and wrote the newer
/// one a second time.
#[test]
fn a_stop_leaves_what_the_disk_has_although_its_number_was_used_before() {
    let fixture = Fixture::new(3);
    let mut in_hand = fixture.next();
    drop(fixture.next());
    // As when room is made: the disk lets go of all that was read.
    let read = fixture.overflow.read_position().unwrap();
    fixture.spool.acknowledge(read).unwrap();
    assert_eq!(fixture.spool.records(), 1);
    in_hand.extend(fixture.next());
    let numbers: Vec<_> = fixture
        .overflow
        .lock()
        .positions
        .iter()
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(numbers, [0, 1, 1]);

    let left = fixture.overflow.finish(in_hand, Vec::new());
    assert!(left.is_empty());
    assert_eq!(
        fixture.spool.records(),
        2,
        "the first is written again, and the last is still there"
    );
}

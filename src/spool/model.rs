//! The spool against its slow, obvious twin: a queue in memory.
//!
//! Random appends, reads, acknowledgements, restarts, crashes in the middle of a write, flipped bits, full limits,
//! failing disks, and files that are not safe for a while. The test asserts that it met each of them.

use std::{collections::BTreeMap, fs, ops::Range, os::unix::fs::PermissionsExt as _};

use super::{
    faulty::Faults,
    segment::DATA_AT,
    tests::{Bed, MIB, removed_and_open},
    *,
};
use crate::{core::dedup::Claim, delivery::chunk::Entry};

/// The frames that must come next, in order, and what happened so far.
struct Twin {
    /// Frames that were written and not acknowledged: the number, and whether it is a survivor.
    waiting: VecDeque<(u64, bool)>,
    /// How many of those were read.
    read: usize,
    next: u64,
    reached: BTreeMap<&'static str, u32>,
}

impl Twin {
    fn reach(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    fn survivors(&self) -> u64 {
        self.waiting
            .iter()
            .filter(|(_, survivor)| *survivor)
            .count() as u64
    }
}

/// Frame `number`. Its length and octets are functions of the number.
fn frame(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let octets = (state >> 32)
        % if number.is_multiple_of(50) {
            30_000
        } else {
            300
        };
    let mut frame = number.to_le_bytes().to_vec();
    for _ in 0..octets {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Zeros and small numbers, as headers have them.
        frame.push(if state >> 63 == 0 {
            0
        } else {
            state.to_le_bytes()[5]
        });
    }
    frame
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

fn batch(random: &mut Random, twin: &Twin) -> (Vec<Chunk>, Vec<(u64, bool)>) {
    let (mut chunks, mut entries) = (vec![Chunk::default()], Vec::new());
    for number in twin.next..twin.next + random.below(120) {
        let survivor = random.below(5) > 0;
        if random.below(20) == 0 {
            chunks.push(Chunk::default());
        }
        let entry = if survivor {
            Entry::Survivor(Claim::VOID)
        } else {
            Entry::Summary(number)
        };
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(&frame(number), entry);
        }
        entries.push((number, survivor));
    }
    (chunks, entries)
}

/// Reads a batch. It must have the frames that wait, except for the survivors that it says are lost.
fn take(twin: &mut Twin, spool: &Spool, octets: usize, may_lose: bool) -> Option<Position> {
    check_batch(twin, spool, spool.read(octets).unwrap()?, may_lose)
}

fn check_batch(twin: &mut Twin, spool: &Spool, batch: Batch, may_lose: bool) -> Option<Position> {
    let mut lost = 0;
    for (octets, entry, _) in batch.chunk.entries() {
        let number = u64::from_le_bytes(*octets.first_chunk().unwrap());
        assert_eq!(octets, frame(number), "an altered frame");
        loop {
            let &(expected, survivor) = twin.waiting.get(twin.read).expect("nothing waits");
            twin.read += 1;
            if expected == number {
                assert_eq!(matches!(entry, Entry::Survivor(_)), survivor);
                break;
            }
            assert!(expected < number, "out of order or twice");
            lost += u64::from(survivor);
        }
    }
    let records =
        spool.records() - (lock(&spool.shared).progress.written.records - batch.upto.records);
    while (twin.read as u64) < records {
        lost += u64::from(twin.waiting[twin.read].1);
        twin.read += 1;
    }
    assert_eq!(batch.lost, lost);
    assert!(lost == 0 || may_lose);
    if lost > 0 {
        twin.reach("lost");
    }
    // If records are lost with their segment, the spool does not hold them.
    assert!(batch.lost > 0 || spool.holds(batch.upto));
    Some(batch.upto)
}

/// Makes one segment unsafe for a while. If this process wrote it, it is read; otherwise neither it nor anything behind it
/// is read. Nothing is lost.
fn endanger(
    bed: &Bed,
    random: &mut Random,
    twin: &mut Twin,
    spool: &Spool,
    may_lose: bool,
) -> Option<Position> {
    let paths = bed.segments();
    let path = paths.get(usize::try_from(random.below(paths.len() as u64)).unwrap())?;
    let other = bed.above.path().join("other");
    let is_linked = random.below(2) == 0;
    let chmod = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if is_linked {
        fs::hard_link(path, &other).unwrap();
    } else {
        chmod(0o620);
    }
    let mut upto = None;
    for _ in 0..2 * READ_TRIES {
        match spool.read(30_000) {
            Ok(None) => break,
            Ok(Some(batch)) => {
                upto = check_batch(twin, spool, batch, may_lose);
                twin.reach("read while one is not safe");
            }
            Err(SpoolError::Unsafe { .. }) => twin.reach("not safe"),
            Err(other) => panic!("{other}"),
        }
    }
    if is_linked {
        fs::remove_file(other).unwrap();
    } else {
        chmod(0o600);
    }
    upto
}

/// Flips bits behind the headers of one segment.
fn damage(bed: &Bed, random: &mut Random) -> bool {
    let paths = bed.segments();
    let Some(path) = paths.get(usize::try_from(random.below(paths.len() as u64)).unwrap()) else {
        return false;
    };
    let mut octets = fs::read(path).unwrap();
    let Some(left) = (octets.len() as u64).checked_sub(DATA_AT + 1) else {
        return false;
    };
    let start = DATA_AT + random.below(left);
    let length = [1, 1, 100, 9000][usize::try_from(random.below(4)).unwrap()];
    let range: Range<usize> =
        usize::try_from(start).unwrap()..octets.len().min(usize::try_from(start + length).unwrap());
    for octet in &mut octets[range] {
        *octet ^= 1 << random.below(8);
    }
    fs::write(path, octets).unwrap();
    true
}

fn run(seed: u64, steps: u32) -> BTreeMap<&'static str, u32> {
    let mut random = Random(seed);
    let bed = Bed::new();
    let max = MIB;
    let mut spool = bed.open(max);
    let mut twin = Twin {
        waiting: VecDeque::new(),
        read: 0,
        next: 0,
        reached: BTreeMap::new(),
    };
    let mut acknowledgeable = Vec::new();
    let mut damaged = false;
    for _ in 0..steps {
        match random.below(100) {
            0..40 => {
                let (chunks, entries) = batch(&mut random, &twin);
                let segments = spool.segments();
                match spool.append(&chunks) {
                    Ok(()) => {
                        twin.next += entries.len() as u64;
                        twin.waiting.extend(entries);
                        if spool.segments() > segments.max(1) {
                            twin.reach("rotated");
                        }
                    }
                    Err(SpoolError::Full { .. }) => twin.reach("full"),
                    Err(other) => panic!("{other}"),
                }
            }
            40..65 => {
                let octets = usize::try_from(random.below(60_000)).unwrap();
                let given = take(&mut twin, &spool, octets, damaged);
                acknowledgeable.extend(given.map(|upto| (upto, twin.read)));
            }
            65..85 => {
                if let Some((upto, given)) = acknowledgeable.pop() {
                    let segments = spool.segments();
                    spool.acknowledge(upto).unwrap();
                    twin.waiting.drain(..given);
                    twin.read -= given;
                    acknowledgeable.clear();
                    if spool.segments() < segments {
                        twin.reach("deleted");
                    }
                }
            }
            85 => {
                let given = endanger(&bed, &mut random, &mut twin, &spool, damaged);
                acknowledgeable.extend(given.map(|upto| (upto, twin.read)));
            }
            86 => {
                spool.tend().unwrap();
                match spool.probe(random.below(MIB / 2)) {
                    Ok(()) => twin.reach("room"),
                    Err(SpoolError::Full { .. }) => twin.reach("no room"),
                    Err(other) => panic!("{other}"),
                }
            }
            87..89 => {
                bed.fail(Faults {
                    write: Some((random.below(20_000), libc::ENOSPC)),
                    cut: (random.below(2) == 0).then_some(libc::EIO),
                    ..Faults::default()
                });
                let (chunks, entries) = batch(&mut random, &twin);
                let cut_fails = lock(&bed.faults).cut.is_some();
                match spool.append(&chunks) {
                    Ok(()) => {
                        twin.next += entries.len() as u64;
                        twin.waiting.extend(entries);
                    }
                    Err(SpoolError::NoSpace { .. }) => {
                        twin.reach("no space");
                        // The numbers are used up: the records may be found later.
                        twin.next += entries.len() as u64;
                        bed.fail(Faults::default());
                        if cut_fails {
                            // What is left of them is in a segment that is complete. The next segment's header
                            // says so on the disk.
                            let mut one = Chunk::default();
                            one.push(&frame(twin.next), Entry::Survivor(Claim::VOID));
                            if spool.append(&[one]).is_ok() {
                                twin.waiting.push_back((twin.next, true));
                                twin.next += 1;
                            } else {
                                break;
                            }
                        }
                    }
                    Err(SpoolError::Full { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
                bed.fail(Faults::default());
            }
            89..92 => {
                // Killed while it writes: a prefix of the records may come back.
                bed.fail(Faults::dead(random.below(40_000)));
                let (chunks, entries) = batch(&mut random, &twin);
                let _died = spool.append(&chunks);
                drop(spool);
                spool = bed.open(max);
                acknowledgeable.clear();
                twin.read = 0;
                let more = usize::try_from(spool.records()).unwrap() - twin.waiting.len();
                assert!(more <= entries.len());
                twin.waiting.extend(&entries[..more]);
                twin.next += entries.len() as u64;
                twin.reach(if more > 0 {
                    "half written"
                } else {
                    "not written"
                });
            }
            _ => {
                drop(spool);
                if random.below(3) == 0 {
                    damaged |= damage(&bed, &mut random);
                    twin.reach("damaged");
                }
                spool = bed.open(max);
                acknowledgeable.clear();
                twin.read = 0;
                twin.reach("reopened");
            }
        }
        assert_eq!(
            spool.records(),
            twin.waiting.len() as u64,
            "{:?}",
            twin.reached
        );
        assert_eq!(spool.survivors(), twin.survivors());
        assert!(spool.octets() <= max);
        assert_eq!(removed_and_open(&bed), Vec::<std::path::PathBuf>::new());
    }
    while take(&mut twin, &spool, 100_000, damaged).is_some() {}
    assert_eq!(twin.read, twin.waiting.len());
    twin.reached
}

#[test]
fn the_spool_agrees_with_its_twin() {
    let mut reached: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 1..=12 {
        for (what, times) in run(0x5eed_0000 + seed, 400) {
            *reached.entry(what).or_default() += times;
        }
    }
    for what in [
        "rotated",
        "deleted",
        "full",
        "no space",
        "half written",
        "not written",
        "damaged",
        "lost",
        "reopened",
        "not safe",
        "read while one is not safe",
        "room",
        "no room",
    ] {
        assert!(
            reached.get(what).is_some_and(|times| *times > 5),
            "{what}: {reached:?}"
        );
    }
}

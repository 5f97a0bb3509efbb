//! What the spool returns, and what it does when files or the disk are damaged.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;

use super::{
    faulty::{Faults, FaultyDisk},
    segment::DATA_AT,
    *,
};
use crate::{core::dedup::Claim, delivery::chunk::Entry};

pub(super) const MIB: u64 = 1 << 20;

/// A spool in a directory of its own, on a disk that fails on demand.
pub(super) struct Bed {
    pub(super) above: TempDir,
    pub(super) faults: Arc<Mutex<Faults>>,
}

impl Bed {
    pub(super) fn new() -> Self {
        Self {
            above: TempDir::new().unwrap(),
            faults: Arc::default(),
        }
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.above.path().join("spool")
    }

    pub(super) fn open(&self, max_octets: u64) -> Spool {
        *lock(&self.faults) = Faults::default();
        let disk = FaultyDisk {
            real: RealDisk::open(&self.directory()).unwrap(),
            faults: Arc::clone(&self.faults),
        };
        Spool::on(Box::new(disk), max_octets).unwrap()
    }

    pub(super) fn fail(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    /// Paths of the segments, oldest first.
    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(self.directory())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "segment"))
            .collect();
        paths.sort();
        paths
    }
}

/// A chunk of survivors.
pub(super) fn chunk<T: AsRef<[u8]>>(frames: &[T]) -> Chunk {
    let mut chunk = Chunk::default();
    for frame in frames {
        chunk.push(frame.as_ref(), Entry::Survivor(Claim::VOID));
    }
    chunk
}

pub(super) fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range
        .map(|number| format!("<13>host app: message {number}"))
        .collect()
}

/// Reads everything. Returns the frames, the number of survivors lost, and the position to acknowledge.
pub(super) fn drain(spool: &Spool) -> (Vec<String>, u64, Position) {
    let (mut frames, mut lost, mut upto) = (Vec::new(), 0, Position::default());
    while let Some(batch) = spool.read(1000).unwrap() {
        for (frame, ..) in batch.chunk.entries() {
            frames.push(String::from_utf8_lossy(frame).into_owned());
        }
        lost += batch.lost;
        upto = batch.upto;
    }
    (frames, lost, upto)
}

#[test]
fn what_was_appended_comes_back_in_order_and_once() {
    let bed = Bed::new();
    let spool = bed.open(64 * MIB);
    let all = numbered(0..100);
    spool
        .append(&[chunk(&all[..40]), Chunk::default(), chunk(&all[40..50])])
        .unwrap();
    assert_eq!(drain(&spool).0, all[..50]);
    assert!(spool.read(1000).unwrap().is_none());
    spool.append(&[chunk(&all[50..])]).unwrap();
    assert_eq!((spool.records(), spool.survivors()), (100, 100));
    let (frames, lost, upto) = drain(&spool);
    assert_eq!((frames, lost), (all[50..].to_vec(), 0));
    spool.acknowledge(upto).unwrap();
    assert_eq!((spool.records(), spool.survivors()), (0, 0));
}

#[test]
fn what_was_not_acknowledged_comes_back_after_a_restart() {
    let bed = Bed::new();
    let all = numbered(0..90);
    {
        let spool = bed.open(64 * MIB);
        spool.append(&[chunk(&all)]).unwrap();
        let batch = spool.read(2000).unwrap().unwrap();
        let taken = batch.chunk.len();
        assert!((1..90).contains(&taken));
        spool.acknowledge(batch.upto).unwrap();
        let left = 90 - taken as u64;
        drain(&spool);
        drop(spool);
        let spool = bed.open(64 * MIB);
        assert_eq!(
            *spool.found(),
            Found {
                recovered: left,
                ..Found::default()
            }
        );
        assert_eq!(drain(&spool).0, all[taken..]);
    }
    // New frames come behind the recovered ones.
    let spool = bed.open(64 * MIB);
    spool.append(&[chunk(&["new"])]).unwrap();
    let (frames, ..) = drain(&spool);
    assert_eq!(frames.last().unwrap(), "new");
    assert_eq!(spool.segments(), 2);
}

#[test]
fn claims_live_as_long_as_the_process() {
    let claim = Claim::from_octets([7; Claim::OCTETS]);
    assert_eq!(claim.to_octets(), [7; Claim::OCTETS]);
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let mut mixed = Chunk::default();
    mixed.push(b"survivor", Entry::Survivor(claim));
    mixed.push(b"summary", Entry::Summary(u64::MAX - 1));
    spool.append(&[mixed]).unwrap();
    let entries = |spool: &Spool| {
        let batch = spool.read(1000).unwrap().unwrap();
        batch
            .chunk
            .entries()
            .map(|(_, entry, _)| format!("{entry:?}"))
            .collect::<Vec<_>>()
    };
    let reported =
        |claim| [Entry::Survivor(claim), Entry::Summary(u64::MAX - 1)].map(|e| format!("{e:?}"));
    assert_eq!(entries(&spool), reported(claim));
    assert_eq!((spool.records(), spool.survivors()), (2, 1));
    drop(spool);
    let spool = bed.open(MIB);
    assert_eq!(spool.found().recovered, 1);
    assert_eq!(entries(&spool), reported(Claim::FORGOTTEN));
}

#[test]
fn space_comes_back_as_it_drains_and_the_limit_holds() {
    let bed = Bed::new();
    let max = 4 * MIB;
    let spool = bed.open(max);
    let frames = [[b'x'; 1000]; 100];
    let mut batches = 0;
    let full = loop {
        match spool.append(&[chunk(&frames)]) {
            Ok(()) => batches += 1,
            Err(error) => break error,
        }
        assert!(spool.octets() <= max);
    };
    assert!(
        matches!(full, SpoolError::Full { max: reported, .. } if reported == max),
        "{full}"
    );
    assert!(batches > 30 && spool.segments() >= 6);
    let disk = || {
        fs::read_dir(bed.directory())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
    };
    assert!(disk().sum::<u64>() <= max, "the files together");
    let mut at_most = spool.segments();
    while let Some(batch) = spool.read(200_000).unwrap() {
        spool.acknowledge(batch.upto).unwrap();
        assert!(spool.segments() <= at_most && bed.segments().len() == spool.segments());
        at_most = spool.segments();
        if at_most == 4 {
            spool.append(&[chunk(&frames)]).unwrap();
            at_most = 5;
        }
    }
    assert_eq!(spool.survivors(), 0);
    assert!(spool.segments() <= 1 && spool.octets() < max / 8 + 10_000);
    spool.append(&[chunk(&["small"])]).unwrap();
    let upto = drain(&spool).2;
    spool.acknowledge(upto).unwrap();
    assert_eq!(spool.segments(), 1, "a short segment is worth keeping");
    drop(spool);
    assert_eq!(
        bed.open(max).segments(),
        0,
        "until it is not written to any more"
    );
}

/// Three small frames in one segment, cleanly stopped.
fn three(bed: &Bed) -> (PathBuf, Vec<u8>, Vec<String>) {
    let frames = numbered(1..4);
    bed.open(MIB).append(&[chunk(&frames)]).unwrap();
    let path = bed.segments().remove(0);
    let octets = fs::read(&path).unwrap();
    (path, octets, frames)
}

#[test]
fn a_flipped_bit_anywhere_costs_one_record_at_most() {
    let bed = Bed::new();
    let (path, octets, frames) = three(&bed);
    let cursor = fs::read(bed.directory().join("cursor")).unwrap();
    let first = usize::try_from(DATA_AT).unwrap();
    let each = record::HEADER_OCTETS + frames[0].len();
    for at in 0..octets.len() {
        let mut damaged = octets.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, &damaged).unwrap();
        fs::write(bed.directory().join("cursor"), &cursor).unwrap();
        let spool = bed.open(MIB);
        assert_eq!(
            (spool.found().recovered, spool.found().unreadable_segments),
            (3, 0)
        );
        let mut left = frames.clone();
        let hit = at.checked_sub(first).map(|at| at / each);
        hit.map(|hit| left.remove(hit));
        let (read, lost, _) = drain(&spool);
        assert_eq!((read, lost), (left, u64::from(hit.is_some())), "octet {at}");
        assert_eq!(spool.survivors(), 3);
    }
}

#[test]
fn a_damaged_segment_costs_nothing_of_the_next() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let frames = [[b'x'; 1000]; 100];
    for batch in 0..6 {
        spool
            .append(&[chunk(&frames), chunk(&[format!("last of {batch}")])])
            .unwrap();
    }
    drop(spool);
    let paths = bed.segments();
    assert!(paths.len() >= 3);
    let mut damaged = fs::read(&paths[1]).unwrap();
    for copy in [0, 4096] {
        damaged[copy] ^= 1;
    }
    fs::write(&paths[1], damaged).unwrap();
    let spool = bed.open(MIB);
    assert_eq!(spool.found().unreadable_segments, 1);
    let (read, lost, _) = drain(&spool);
    assert_eq!(read.len() as u64 + lost, 606);
    assert!(
        lost >= 101
            && read.iter().any(|frame| frame == "last of 0")
            && read.last().unwrap() == "last of 5"
    );
    // A removed file counts as lost too.
    drop(spool);
    let spool = bed.open(MIB);
    fs::remove_file(&bed.segments()[0]).unwrap();
    let (again, lost_again, _) = drain(&spool);
    assert!(lost_again > lost);
    assert_eq!(again.len() as u64 + lost_again, 606);
}

#[test]
fn the_last_segment_cut_anywhere_gives_what_is_before_the_cut() {
    let bed = Bed::new();
    let (path, octets, frames) = three(&bed);
    let first = usize::try_from(DATA_AT).unwrap();
    let each = record::HEADER_OCTETS + frames[0].len();
    for cut in 0..=octets.len() {
        // As after a crash: the cursor does not count the records.
        let _absent = fs::remove_file(bed.directory().join("cursor"));
        fs::write(&path, &octets[..cut]).unwrap();
        let spool = bed.open(MIB);
        let whole = cut.saturating_sub(first) / each;
        assert_eq!(spool.found().recovered, whole as u64, "cut at {cut}");
        let torn = cut.saturating_sub(first) % each;
        assert_eq!(spool.found().torn_octets, torn as u64);
        // Waiting for the disk is slow: where nothing changes, only now and then.
        let mut expected = frames[..whole].to_vec();
        if cut >= first || cut % 100 == 0 {
            spool.append(&[chunk(&["new"])]).unwrap();
            expected.push("new".to_owned());
        }
        let (read, lost, _) = drain(&spool);
        assert_eq!((read, lost), (expected, 0));
        drop(spool);
        for path in bed.segments() {
            fs::remove_file(path).unwrap();
        }
    }
    // With a cursor that counts the records, what is cut off counts as lost.
    let bed = Bed::new();
    let (path, octets, _) = three(&bed);
    fs::write(path, &octets[..octets.len() - 1]).unwrap();
    let (read, lost, _) = drain(&bed.open(MIB));
    assert_eq!((read.len(), lost), (2, 1));
}

#[test]
fn a_message_cannot_pass_for_a_record() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    spool.append(&[chunk(&["first", "forged"])]).unwrap();
    drop(spool);
    let stored = fs::read(&bed.segments()[0]).unwrap();
    let record = &stored[usize::try_from(DATA_AT).unwrap()..];
    let spool = bed.open(MIB);
    spool.append(&[chunk(&[record, b"second"])]).unwrap();
    drop(spool);
    // The header of the record around it is damaged, so the octets inside are searched one by one.
    let path = bed.segments().remove(1);
    let mut octets = fs::read(&path).unwrap();
    octets[usize::try_from(DATA_AT).unwrap()] ^= 1;
    fs::write(&path, octets).unwrap();
    let (read, lost, _) = drain(&bed.open(MIB));
    assert_eq!(
        (read, lost),
        (["first", "forged", "second"].map(str::to_owned).to_vec(), 1)
    );
}

#[test]
fn a_damaged_cursor_brings_things_twice_and_loses_none() {
    let bed = Bed::new();
    let spool = bed.open(8 * MIB);
    let all = numbered(0..30);
    spool.append(&[chunk(&all)]).unwrap();
    let batch = spool.read(500).unwrap().unwrap();
    let taken = batch.chunk.len();
    spool.acknowledge(batch.upto).unwrap();
    drop(spool);
    let cursor = bed.directory().join("cursor");
    let good = fs::read(&cursor).unwrap();
    for at in (0..52).chain(4096..4148) {
        let mut damaged = good.clone();
        damaged[at] ^= 0x10;
        fs::write(&cursor, damaged).unwrap();
        let spool = bed.open(8 * MIB);
        assert!(spool.found().cursor_damaged);
        let (read, lost, _) = drain(&spool);
        assert!(
            lost == 0 && (read == all || read == all[taken..]),
            "octet {at}: {}",
            read.len()
        );
    }
    fs::write(&cursor, b"").unwrap();
    let (read, lost, _) = drain(&bed.open(8 * MIB));
    assert_eq!((read, lost), (all, 0));
}

#[test]
fn a_write_that_fails_does_not_count_whatever_fails_and_wherever() {
    let before = numbered(0..5);
    let after = numbered(5..9);
    let size = 4 * (record::HEADER_OCTETS + after[0].len()) as u64;
    for (errno, is_right) in [
        (
            libc::ENOSPC,
            (|e: &SpoolError| matches!(e, SpoolError::NoSpace { .. })) as fn(&_) -> bool,
        ),
        (libc::EDQUOT, |e| matches!(e, SpoolError::NoSpace { .. })),
        (libc::EROFS, |e| matches!(e, SpoolError::ReadOnly { .. })),
        (libc::EIO, |e| matches!(e, SpoolError::Io { .. })),
    ] {
        let mut cases: Vec<_> = (0..size)
            .step_by(if errno == libc::ENOSPC { 7 } else { 61 })
            .map(|room| Faults {
                write: Some((room, errno)),
                ..Faults::default()
            })
            .collect();
        cases.push(Faults {
            sync: Some(errno),
            ..Faults::default()
        });
        cases.push(Faults {
            sync: Some(errno),
            cut: Some(errno),
            ..Faults::default()
        });
        cases.push(Faults {
            write: Some((50, errno)),
            cut: Some(errno),
            ..Faults::default()
        });
        for faults in cases {
            for is_new in [false, true] {
                let bed = Bed::new();
                let spool = bed.open(MIB);
                if !is_new {
                    spool.append(&[chunk(&before)]).unwrap();
                }
                bed.fail(Faults {
                    open: is_new.then_some(errno).filter(|_| errno == libc::EROFS),
                    ..faults
                });
                let error = spool.append(&[chunk(&after)]).unwrap_err();
                assert!(is_right(&error), "{faults:?}: {error}");
                let first = if is_new { &before[..0] } else { &before };
                assert_eq!(spool.survivors(), first.len() as u64);
                assert_eq!(drain(&spool).0, first);
                bed.fail(Faults::default());
                spool.append(&[chunk(&after)]).unwrap();
                assert_eq!(drain(&spool).0, after, "{faults:?}");
                drop(spool);
                let (read, lost, _) = drain(&bed.open(MIB));
                assert_eq!((read, lost), ([first, &after].concat(), 0), "{faults:?}");
            }
        }
    }
}

#[test]
fn a_page_that_cannot_be_read_is_an_error_and_then_skipped() {
    let bed = Bed::new();
    let spool = bed.open(64 * MIB);
    let all = numbered(0..2000);
    spool.append(&[chunk(&all)]).unwrap();
    bed.fail(Faults {
        read: Some((20_000, 20_001, libc::EIO)),
        ..Faults::default()
    });
    let (mut read, mut lost, mut errors) = (Vec::new(), 0, 0);
    loop {
        match spool.read(5000) {
            Ok(Some(batch)) => {
                read.extend(batch.chunk.entries().map(|(frame, ..)| frame.to_vec()));
                lost += batch.lost;
            }
            Ok(None) => break,
            Err(SpoolError::Io { .. }) => errors += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!((1..READ_TRIES).contains(&errors), "{errors}");
    let page = 4096 / (record::HEADER_OCTETS + all[1999].len()) as u64;
    assert!(
        (page..page + 12).contains(&lost),
        "{lost} lost, a page holds {page}"
    );
    assert_eq!(read.len() as u64 + lost, 2000);
    assert_eq!(read.last().unwrap(), all[1999].as_bytes());
}

#[test]
fn a_removed_directory_is_an_error_once_and_made_anew() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    spool.append(&[chunk(&numbered(0..10))]).unwrap();
    let batch = spool.read(200).unwrap().unwrap();
    let taken = batch.chunk.len() as u64;
    fs::remove_dir_all(bed.directory()).unwrap();
    let gone = spool.append(&[chunk(&["lost by the caller"])]).unwrap_err();
    assert!(
        matches!(&gone, SpoolError::Gone { directory } if *directory == bed.directory()),
        "{gone}"
    );
    spool.acknowledge(batch.upto).unwrap();
    spool.append(&[chunk(&["new"])]).unwrap();
    let (read, lost, upto) = drain(&spool);
    assert_eq!((read, lost), (vec!["new".to_owned()], 10 - taken));
    spool.acknowledge(upto).unwrap();
    assert_eq!(spool.survivors(), 0);
    spool.append(&[chunk(&["kept"])]).unwrap();
    let again = Spool::open(&bed.directory(), MIB).unwrap_err();
    assert!(matches!(again, SpoolError::Busy { .. }), "{again}");
    drop(spool);
    assert_eq!(drain(&bed.open(MIB)).0, ["kept"]);
}

#[test]
fn while_the_parent_is_away_every_append_says_so() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    spool.append(&[chunk(&["a"])]).unwrap();
    let away = bed.above.path().with_extension("away");
    fs::remove_dir_all(bed.directory()).unwrap();
    fs::rename(bed.above.path(), &away).unwrap();
    for _ in 0..3 {
        let error = spool.append(&[chunk(&["b"])]).unwrap_err();
        assert!(matches!(error, SpoolError::Gone { .. }), "{error}");
    }
    fs::rename(&away, bed.above.path()).unwrap();
    spool.append(&[chunk(&["b"])]).unwrap();
    let (read, lost, _) = drain(&spool);
    assert_eq!((read, lost), (vec!["b".to_owned()], 1));
}

#[test]
fn a_removed_segment_is_not_written_to() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    spool.append(&[chunk(&["a"])]).unwrap();
    fs::remove_file(&bed.segments()[0]).unwrap();
    spool.append(&[chunk(&["b"])]).unwrap();
    let (read, lost, _) = drain(&spool);
    assert_eq!((read, lost), (vec!["b".to_owned()], 1));
    drop(spool);
    assert_eq!(drain(&bed.open(MIB)).0, ["b"]);
}

#[test]
fn a_second_instance_is_refused_with_the_process_id_of_the_first() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let error = Spool::open(&bed.directory(), MIB).unwrap_err();
    let reported = error.to_string();
    let pid = std::process::id();
    assert!(
        matches!(error, SpoolError::Busy { pid: Some(holder), .. } if holder == pid),
        "{reported}"
    );
    assert!(
        reported.contains(&bed.directory().display().to_string())
            && reported.contains(&pid.to_string())
    );
    spool.append(&[chunk(&["unharmed"])]).unwrap();
    assert_eq!(drain(&spool).0, ["unharmed"]);
}

#[test]
fn what_others_could_write_is_refused_with_path_and_mode() {
    let refused = |bed: &Bed, path: PathBuf, words: &str| {
        let reported = Spool::open(&bed.directory(), MIB).unwrap_err().to_string();
        assert!(
            reported.contains(&path.display().to_string()) && reported.contains(words),
            "{reported}"
        );
    };
    let chmod =
        |path: PathBuf, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let bed = Bed::new();
    bed.open(MIB).append(&[chunk(&["a"])]).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(bed.directory()), 0o700);
    for file in fs::read_dir(bed.directory()).unwrap() {
        assert_eq!(mode(file.unwrap().path()), 0o600);
    }
    for bad in [0o770, 0o702, 0o777] {
        chmod(bed.directory(), bad);
        refused(&bed, bed.directory(), &format!("{bad:04o}"));
    }
    chmod(bed.directory(), 0o700);
    chmod(bed.above.path().to_owned(), 0o777);
    refused(&bed, bed.above.path().to_owned(), "0777");
    chmod(bed.above.path().to_owned(), 0o1777);
    drop(bed.open(MIB));
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(bed.directory(), Some(65534), None).unwrap();
        refused(&bed, bed.directory(), "user 65534");
    }
}

#[test]
fn a_planted_symlink_is_refused_and_its_target_untouched() {
    for name in ["lock", "cursor", "00000000000000000000.segment"] {
        let bed = Bed::new();
        drop(bed.open(MIB));
        let target = bed.above.path().join("target");
        fs::write(&target, "untouched").unwrap();
        let link = bed.directory().join(name);
        let _absent = fs::remove_file(&link);
        symlink(&target, &link).unwrap();
        match Spool::open(&bed.directory(), MIB) {
            // Without a cursor the spool works. It returns an error whenever it would write there.
            Ok(spool) => {
                assert_eq!(name, "cursor");
                spool.append(&[chunk(&["a"])]).unwrap();
                let error = spool.acknowledge(drain(&spool).2).unwrap_err();
                assert!(matches!(error, SpoolError::Unsafe { .. }), "{error}");
            }
            Err(error) => assert!(
                error.to_string().contains(&link.display().to_string()),
                "{error}"
            ),
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    }
    let bed = Bed::new();
    fs::create_dir(bed.above.path().join("elsewhere")).unwrap();
    symlink(bed.above.path().join("elsewhere"), bed.directory()).unwrap();
    let error = Spool::open(&bed.directory(), MIB).unwrap_err();
    assert!(
        matches!(
            error,
            SpoolError::Unsafe {
                why: Unsafe::NoDirectory,
                ..
            }
        ),
        "{error}"
    );
    // A segment's name is new each time. A file planted under the next name is not written to either.
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let target = bed.above.path().join("target");
    fs::write(&target, "untouched").unwrap();
    symlink(&target, bed.directory().join(segment::name(0))).unwrap();
    spool.append(&[chunk(&["a"])]).unwrap_err();
    spool.append(&[chunk(&["a"])]).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
}

#[test]
fn segments_of_another_format_or_spool_are_refused_and_kept() {
    let bed = Bed::new();
    let (path, ..) = three(&bed);
    fs::copy(&path, bed.directory().join(segment::name(9))).unwrap();
    let error = Spool::open(&bed.directory(), MIB).unwrap_err();
    assert!(matches!(error, SpoolError::Foreign { .. }), "{error}");
    assert_eq!(bed.segments().len(), 2);
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Files of the bed that are open in this process although they were removed.
pub(super) fn removed_and_open(bed: &Bed) -> Vec<PathBuf> {
    let directory = bed.directory();
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let files = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    files
        .filter(|path| {
            path.starts_with(&directory) && path.to_string_lossy().ends_with(" (deleted)")
        })
        .collect()
}

/// Of three segments `change` changes the middle one while no process has the spool. The next process reads what is
/// before it, then gets an error with `words`, and reads the rest after `mend`.
#[track_caller]
fn check_waits(change: impl Fn(&Path), words: &str, mend: impl Fn(&Path)) {
    let bed = Bed::new();
    let frames = [[b'x'; 1000]; 130];
    {
        let spool = bed.open(MIB);
        for _ in 0..3 {
            spool.append(&[chunk(&frames)]).unwrap();
        }
        assert_eq!(spool.segments(), 3);
    }
    let middle = bed.segments().remove(1);
    change(&middle);
    let spool = bed.open(MIB);
    assert_eq!(spool.found().recovered, 390);
    let [
        NotSafe {
            error: reported, ..
        },
    ] = &*spool.found().not_safe
    else {
        panic!("{:?}", spool.found());
    };
    assert_eq!(spool.first_not_safe().as_ref(), Some(reported));
    assert!(
        reported.contains(words) && reported.contains(middle.to_str().unwrap()),
        "{reported}"
    );
    spool.append(&[chunk(&["new"])]).unwrap();
    let mut read = 0;
    let error = loop {
        match spool.read(100_000) {
            Ok(batch) => read += batch.expect("it waits").chunk.len(),
            Err(error) => break error,
        }
    };
    assert_eq!((read, error.to_string()), (130, reported.clone()));
    for _ in 0..2 * READ_TRIES {
        assert_eq!(spool.read(1000).unwrap_err().to_string(), *reported);
    }
    mend(&middle);
    assert_eq!(spool.first_not_safe(), None);
    let (rest, lost, upto) = drain(&spool);
    assert_eq!(
        (rest.len(), lost, rest.last().unwrap().as_str()),
        (261, 0, "new")
    );
    spool.acknowledge(upto).unwrap();
    assert_eq!((spool.survivors(), spool.segments()), (0, 1));
}

#[test]
fn a_file_that_is_not_safe_is_waited_for_with_all_that_is_behind_it() {
    let other = |path: &Path| path.with_extension("other");
    check_waits(
        |path| fs::hard_link(path, other(path)).unwrap(),
        "it has 2 hard links; delete the others, or make it a file of its own: cp -p ",
        |path| fs::remove_file(other(path)).unwrap(),
    );
    check_waits(
        |path| fs::hard_link(path, other(path)).unwrap(),
        "&& mv ",
        |path| {
            fs::copy(path, path.with_extension("new")).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        },
    );
    for mode in [0o620, 0o602, 0o666] {
        check_waits(
            |path| chmod(path, mode),
            "allows group or others to write; chmod go-w ",
            |path| chmod(path, 0o600),
        );
    }
}

/// Others may have read it already; waiting would not undo that.
#[test]
fn a_file_that_others_may_read_is_read() {
    let bed = Bed::new();
    let (path, _, frames) = three(&bed);
    chmod(&path, 0o644);
    let spool = bed.open(MIB);
    assert_eq!(
        *spool.found(),
        Found {
            recovered: 3,
            ..Found::default()
        }
    );
    assert_eq!(drain(&spool).0, frames);
}

#[test]
fn what_this_process_wrote_is_read_by_the_descriptor_that_wrote_it() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let frames = [[b'x'; 1000]; 130];
    for _ in 0..4 {
        spool.append(&[chunk(&frames)]).unwrap();
    }
    let [linked, opened, moved, ..] = &*bed.segments() else {
        panic!("too few segments");
    };
    fs::hard_link(linked, linked.with_extension("other")).unwrap();
    chmod(opened, 0o666);
    fs::rename(moved, bed.above.path().join("moved")).unwrap();
    let (read, lost, _) = drain(&spool);
    assert_eq!((read.len(), lost), (520, 0));
}

/// Segments beyond those that are kept open are read by name.
#[test]
fn no_more_segments_are_kept_open_than_the_limit() {
    let bed = Bed::new();
    let spool = bed.open(8 * MIB);
    let frames = [[b'x'; 1000]; 1050];
    let count = 7;
    for _ in 0..count {
        spool.append(&[chunk(&frames)]).unwrap();
    }
    let held = || {
        let shared = lock(&spool.shared);
        let files = shared
            .segments
            .iter()
            .filter(|segment| segment.file.is_some());
        files.count()
    };
    assert_eq!((spool.segments(), held()), (count, count));
    drop(spool);
    let spool = bed.open(64 * MIB);
    for _ in 0..4 * OPEN_SEGMENTS_MAX {
        lock(&spool.writer).complete();
        spool.append(&[chunk(&["x"])]).unwrap();
    }
    let shared = lock(&spool.shared);
    let files = shared
        .segments
        .iter()
        .filter(|segment| segment.file.is_some());
    assert_eq!(
        files.count(),
        OPEN_SEGMENTS_MAX + 1,
        "and the one that is being written"
    );
    drop(shared);
    let (read, lost, _) = drain(&spool);
    assert_eq!(
        (read.len(), lost),
        (count * 1050 + 4 * OPEN_SEGMENTS_MAX, 0)
    );
}

#[test]
fn no_removed_file_is_held_open() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let frames = [[b'x'; 1000]; 130];
    // The spool removes it, while the reader is in the middle of it, and at its end.
    for octets in [50_000, 10_000_000] {
        for _ in 0..2 {
            spool.append(&[chunk(&frames)]).unwrap();
        }
        while let Some(batch) = spool.read(octets).unwrap() {
            spool.acknowledge(batch.upto).unwrap();
            assert_eq!(removed_and_open(&bed), Vec::<PathBuf>::new());
        }
        assert_eq!(spool.segments(), 0);
    }
    // Another process removes a file, all files, and the directory.
    for step in 0..3 {
        for _ in 0..3 {
            spool.append(&[chunk(&frames)]).unwrap();
        }
        spool.read(1000).unwrap().unwrap();
        match step {
            0 => fs::remove_file(&bed.segments()[0]).unwrap(),
            1 => fs::read_dir(bed.directory())
                .unwrap()
                .for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap()),
            _ => fs::remove_dir_all(bed.directory()).unwrap(),
        }
        assert!(!removed_and_open(&bed).is_empty());
        let reported = spool.tend();
        assert_eq!(reported.is_err(), step == 2, "{reported:?}");
        spool.tend().unwrap();
        assert_eq!(removed_and_open(&bed), Vec::<PathBuf>::new());
        let again = Spool::open(&bed.directory(), MIB).unwrap_err();
        assert!(matches!(again, SpoolError::Busy { .. }), "{again}");
        spool.append(&[chunk(&["new"])]).unwrap();
        let (read, _, upto) = drain(&spool);
        assert_eq!(read.last().unwrap(), "new");
        spool.acknowledge(upto).unwrap();
        assert_eq!(spool.survivors(), 0);
    }
}

#[test]
fn a_directory_that_is_not_at_its_path_is_read_and_not_written_to() {
    let away = |bed: &Bed| bed.above.path().join("away");
    let nothing = |_: &Bed| {};
    let directory = |bed: &Bed| fs::create_dir(bed.directory()).unwrap();
    let file = |bed: &Bed| fs::write(bed.directory(), "").unwrap();
    let link = |bed: &Bed| symlink("away", bed.directory()).unwrap();
    for put in [nothing as fn(&Bed), directory, file, link] {
        let bed = Bed::new();
        // A slash at the end would follow the symlink.
        let spool = Spool::open(&bed.directory().join(""), MIB).unwrap();
        spool.append(&[chunk(&["a", "b"])]).unwrap();
        spool.tend().unwrap();
        fs::rename(bed.directory(), away(&bed)).unwrap();
        put(&bed);
        for _ in 0..2 {
            for reported in [spool.tend(), spool.append(&[chunk(&["c"])]), spool.probe(1)] {
                let error = reported.unwrap_err();
                assert!(matches!(error, SpoolError::Moved { .. }), "{error}");
            }
        }
        let (read, lost, upto) = drain(&spool);
        assert_eq!((read.len(), lost), (2, 0));
        spool.acknowledge(upto).unwrap();
        assert_eq!(spool.survivors(), 0);
        let _absent = fs::remove_file(bed.directory());
        // Fails if the spool made a file in it.
        let _absent = fs::remove_dir(bed.directory());
        fs::rename(away(&bed), bed.directory()).unwrap();
        spool.tend().unwrap();
        spool.append(&[chunk(&["c"])]).unwrap();
        assert_eq!(drain(&spool).0, ["c"]);
    }
}

/// A copy of a file in use takes its place: nothing that was in it by then is lost.
#[test]
fn a_copy_that_takes_a_files_place_is_read_instead() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let frames = [[b'x'; 1000]; 130];
    for _ in 0..2 {
        spool.append(&[chunk(&frames)]).unwrap();
    }
    spool.append(&[chunk(&["active"])]).unwrap();
    let first = spool.read(50_000).unwrap().unwrap().chunk.len();
    for entry in fs::read_dir(bed.directory()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, path.with_extension("copy")).unwrap();
        fs::rename(path.with_extension("copy"), path).unwrap();
    }
    spool.tend().unwrap();
    assert_eq!(removed_and_open(&bed), Vec::<PathBuf>::new());
    spool.append(&[chunk(&["new"])]).unwrap();
    let (read, lost, _) = drain(&spool);
    assert_eq!((first + read.len(), lost), (262, 0));
    assert_eq!(read[read.len() - 2..], ["active", "new"]);
}

#[test]
fn a_lock_or_a_cursor_with_a_second_name_is_used_and_not_written_to() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let all = numbered(0..30);
    spool.append(&[chunk(&all)]).unwrap();
    let batch = spool.read(500).unwrap().unwrap();
    let taken = batch.chunk.len();
    spool.acknowledge(batch.upto).unwrap();
    drop(spool);
    let copies = ["lock", "cursor"].map(|name| bed.above.path().join(name));
    for copy in &copies {
        fs::hard_link(bed.directory().join(copy.file_name().unwrap()), copy).unwrap();
    }
    fs::write(&copies[0], "of another program").unwrap();
    let kept = copies.clone().map(|copy| fs::read(copy).unwrap());
    let spool = bed.open(MIB);
    assert!(!spool.found().cursor_damaged);
    let again = Spool::open(&bed.directory(), MIB).unwrap_err();
    assert!(matches!(again, SpoolError::Busy { .. }), "{again}");
    let (read, lost, upto) = drain(&spool);
    assert_eq!((read, lost), (all[taken..].to_vec(), 0));
    spool.acknowledge(upto).unwrap();
    drop(spool);
    assert_eq!(copies.map(|copy| fs::read(copy).unwrap()), kept);
    assert_eq!(bed.open(MIB).found().recovered, 0);
}

/// A cursor that others could write to might say that everything was delivered.
#[test]
fn a_cursor_that_others_could_write_is_reported_and_not_believed() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let all = numbered(0..30);
    spool.append(&[chunk(&all)]).unwrap();
    let upto = spool.read(500).unwrap().unwrap().upto;
    spool.acknowledge(upto).unwrap();
    drop(spool);
    let cursor = bed.directory().join("cursor");
    chmod(&cursor, 0o660);
    let spool = bed.open(MIB);
    assert!(spool.found().cursor_damaged);
    let not_safe = &spool.found().not_safe[0];
    assert!(not_safe.error.starts_with(cursor.to_str().unwrap()));
    assert_eq!(drain(&spool).0, all);
    drop(spool);
    assert_eq!(
        bed.open(MIB).found().not_safe.len(),
        0,
        "a new one took its place"
    );
}

/// Makes two spools in the same place, `one` and then `other`, and puts the cursor of the first beside the segments of the
/// second.
#[track_caller]
fn check_foreign(one: impl Fn(&Spool), other: impl Fn(&Spool)) {
    let bed = Bed::new();
    let cursor = bed.directory().join("cursor");
    one(&bed.open(MIB));
    let stale = fs::read(&cursor).unwrap();
    fs::remove_dir_all(bed.directory()).unwrap();
    let (left, survivors) = {
        let spool = bed.open(MIB);
        other(&spool);
        (spool.records(), spool.survivors())
    };
    fs::write(&cursor, stale).unwrap();
    let spool = bed.open(MIB);
    assert!(spool.found().cursor_foreign, "{:?}", spool.found());
    assert_eq!(spool.found().recovered, survivors);
    let mut read = 0;
    while let Some(batch) = spool.read(1000).unwrap() {
        assert_eq!(batch.lost, 0);
        read += batch.chunk.len() as u64;
        spool.acknowledge(batch.upto).unwrap();
        assert!(spool.survivors() <= survivors && spool.records() <= left);
    }
    assert_eq!((read, spool.survivors()), (left, 0));
    drop(spool);
    // From then on the cursor is this spool's.
    assert_eq!(*bed.open(MIB).found(), Found::default());
}

#[test]
fn a_cursor_of_another_history_costs_nothing_and_wraps_nothing() {
    let append = |spool: &Spool, survivors: u32, summaries: u64| {
        let mut mixed = chunk(&numbered(0..survivors));
        for count in 0..summaries {
            mixed.push(b"summary", Entry::Summary(count));
        }
        spool.append(&[mixed]).unwrap();
    };
    let deliver = |spool: &Spool, survivors: u32, summaries: u64| {
        append(spool, survivors, summaries);
        let upto = drain(spool).2;
        spool.acknowledge(upto).unwrap();
    };
    // Numbers that no history has: more records, but fewer survivors.
    check_foreign(|old| deliver(old, 40, 0), |new| append(new, 30, 25));
    // Numbers that fit, by which all or some records would count as delivered.
    check_foreign(|old| deliver(old, 40, 0), |new| append(new, 30, 0));
    check_foreign(|old| deliver(old, 10, 0), |new| append(new, 30, 0));
    // And by which some would count as lost.
    check_foreign(|old| append(old, 100, 0), |new| append(new, 30, 0));
    // A cursor written when there was no segment.
    let frames = [[b'x'; 1000]; 130];
    check_foreign(
        |old| {
            old.append(&[chunk(&frames)]).unwrap();
            let upto = drain(old).2;
            old.acknowledge(upto).unwrap();
            assert_eq!(old.segments(), 0);
            old.acknowledge(upto).unwrap();
        },
        |new| append(new, 30, 0),
    );
}

#[test]
fn the_disk_can_be_probed_with_nothing_to_write() {
    let bed = Bed::new();
    let spool = bed.open(4 * MIB);
    let frames = [[b'x'; 1000]; 100];
    spool.probe(MIB).unwrap();
    while spool.append(&[chunk(&frames)]).is_ok() {}
    let full = spool.probe(100_000).unwrap_err();
    assert!(matches!(full, SpoolError::Full { .. }), "{full}");
    let upto = drain(&spool).2;
    spool.acknowledge(upto).unwrap();
    spool.probe(MIB).unwrap();
    for (faults, name) in [
        (
            Faults {
                write: Some((100_000, libc::ENOSPC)),
                ..Faults::default()
            },
            "NoSpace",
        ),
        (
            Faults {
                open: Some(libc::EROFS),
                ..Faults::default()
            },
            "ReadOnly",
        ),
        (
            Faults {
                sync: Some(libc::EIO),
                ..Faults::default()
            },
            "Io",
        ),
    ] {
        bed.fail(faults);
        let error = spool.probe(200_000).unwrap_err();
        assert!(format!("{error:?}").starts_with(name), "{error:?}");
    }
    bed.fail(Faults::default());
    spool.probe(200_000).unwrap();
    assert_eq!(removed_and_open(&bed), Vec::<PathBuf>::new());
    let left = fs::read_dir(bed.directory()).unwrap().count();
    assert_eq!(left, 2 + bed.segments().len(), "nothing is left of it");
}

/// A short segment is kept when it is drained, but new records get its room.
#[test]
fn a_drained_segment_takes_no_room_from_new_records() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let deliver = |frames: &[[u8; 1000]]| {
        spool.append(&[chunk(frames)])?;
        let upto = drain(&spool).2;
        spool.acknowledge(upto)
    };
    deliver(&[[b'x'; 1000]; 100]).unwrap();
    assert_eq!(spool.segments(), 1);
    // By the spool's limit.
    deliver(&[[b'x'; 1000]; 990]).unwrap();
    assert_eq!(spool.segments(), 0);
    // By the disk's room: the next try succeeds.
    deliver(&[[b'x'; 1000]; 100]).unwrap();
    bed.fail(Faults {
        write: Some((50_000, libc::ENOSPC)),
        ..Faults::default()
    });
    deliver(&[[b'x'; 1000]; 100]).unwrap_err();
    assert_eq!(bed.segments().len(), 0);
    bed.fail(Faults::default());
    deliver(&[[b'x'; 1000]; 100]).unwrap();
}

#[test]
fn what_was_read_is_held_until_it_is_acknowledged_or_its_file_is_gone() {
    let bed = Bed::new();
    let spool = bed.open(MIB);
    let frames = [[b'x'; 1000]; 130];
    for _ in 0..3 {
        spool.append(&[chunk(&frames)]).unwrap();
    }
    let mut batches = Vec::new();
    while let Some(batch) = spool.read(100_000).unwrap() {
        batches.push(batch.upto);
    }
    assert!(batches.len() > 3 && batches.iter().all(|upto| spool.holds(*upto)));
    spool.acknowledge(batches[0]).unwrap();
    assert!(!spool.holds(batches[0]) && spool.holds(batches[1]));
    fs::remove_file(&bed.segments()[1]).unwrap();
    spool.tend().unwrap();
    let held: Vec<_> = batches.iter().map(|upto| spool.holds(*upto)).collect();
    assert_eq!(held, [false, true, false, false, true, true]);
    fs::remove_dir_all(bed.directory()).unwrap();
    spool.tend().unwrap_err();
    assert!(!batches.iter().any(|upto| spool.holds(*upto)));
}

#[test]
fn reading_and_appending_go_on_side_by_side() {
    let bed = Bed::new();
    let spool = bed.open(4 * MIB);
    let all = numbered(0..20_000);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for frames in all.chunks(100) {
                while let Err(error) = spool.append(&[chunk(frames)]) {
                    assert!(matches!(error, SpoolError::Full { .. }), "{error}");
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::Release);
        });
        let (mut read, mut lost) = (Vec::new(), 0);
        loop {
            let ended = done.load(Ordering::Acquire);
            match spool.read(10_000).unwrap() {
                Some(batch) => {
                    let frames = batch.chunk.entries();
                    read.extend(
                        frames.map(|(frame, ..)| String::from_utf8_lossy(frame).into_owned()),
                    );
                    lost += batch.lost;
                    spool.acknowledge(batch.upto).unwrap();
                }
                None if ended => break,
                None => std::thread::yield_now(),
            }
        }
        assert!(read == all && lost == 0);
    });
    assert_eq!(spool.survivors(), 0);
}

/// Appends numbered frames, and records each number that is safe, until it is killed.
#[test]
#[ignore = "the child of the test below"]
fn child_appends_until_killed() {
    let Some(directory) = std::env::var_os("TERSED_TEST_SPOOL") else {
        return;
    };
    let spool = Spool::open(directory.as_ref(), 64 * MIB).unwrap();
    let from: u32 = std::env::var("TERSED_TEST_FROM").unwrap().parse().unwrap();
    let reported = fs::File::options()
        .append(true)
        .open(std::env::var_os("TERSED_TEST_TOLD").unwrap())
        .unwrap();
    for batch in (from..from + 1_000_000).step_by(50) {
        spool
            .append(&[chunk(&numbered(batch..batch + 50))])
            .unwrap();
        std::io::Write::write_all(&mut &reported, format!("{}\n", batch + 50).as_bytes()).unwrap();
        // Some frames are acknowledged, so that kills also hit acknowledging and deleting.
        if let Some(taken) = spool.read(1000).unwrap() {
            assert_eq!(taken.lost, 0);
            let last = taken
                .chunk
                .entries()
                .last()
                .map(|(frame, ..)| frame.to_vec());
            if let Some(last) = last {
                let text = String::from_utf8(last).unwrap();
                let number = text.rsplit(' ').next().unwrap();
                std::io::Write::write_all(&mut &reported, format!("taken {number}\n").as_bytes())
                    .unwrap();
            }
            spool.acknowledge(taken.upto).unwrap();
        }
    }
}

#[test]
fn a_killed_process_leaves_a_spool_that_opens_with_all_that_was_safe() {
    let bed = Bed::new();
    let reported = bed.above.path().join("reported");
    fs::write(&reported, "").unwrap();
    let mut from = 0;
    for round in 0..8_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "spool::tests::child_appends_until_killed",
                "--exact",
                "--ignored",
            ])
            .env("TERSED_TEST_SPOOL", bed.directory())
            .env("TERSED_TEST_FROM", from.to_string())
            .env("TERSED_TEST_TOLD", &reported)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = || fs::read_to_string(&reported).unwrap().lines().count();
        let enough = lines() + 20 + usize::try_from(round * 7).unwrap();
        let mut waited = 0;
        while lines() < enough {
            assert!(
                child.try_wait().unwrap().is_none(),
                "the child ended by itself"
            );
            waited += 1;
            assert!(waited < 60_000, "the child hangs");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let text = fs::read_to_string(&reported).unwrap();
        let safe: u32 = text
            .lines()
            .filter_map(|line| line.parse().ok())
            .next_back()
            .unwrap();
        let taken = text
            .lines()
            .filter_map(|line| line.strip_prefix("taken ")?.parse::<u32>().ok());
        let taken = taken.max().map_or(0, |last| last + 1);
        let spool = bed.open(64 * MIB);
        let (read, lost, _) = drain(&spool);
        assert_eq!(lost, 0);
        let first: u32 = read[0].rsplit(' ').next().unwrap().parse().unwrap();
        assert!(
            first <= taken,
            "{first} is the first, and only what is before {taken} was taken"
        );
        from = first + u32::try_from(read.len()).unwrap();
        assert!(from >= safe, "{from} frames, {safe} were safe");
        assert_eq!(read, numbered(first..from), "round {round}");
    }
}

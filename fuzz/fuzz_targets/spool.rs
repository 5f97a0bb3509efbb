//! The fuzzer changes a segment and the cursor. Then the spool opens and is read to its end. Nothing panics, it takes no
//! more memory than the files have octets, and every survivor that was written is read or counted as lost. With the cursor
//! of another history, every survivor that it reports is there, and no count falls below zero.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;

use tersed::delivery::chunk::{Chunk, Entry};
use tersed::core::dedup::{Shards, Sighting, Verdict};
use tersed::core::identity::Identity;
use tersed::core::rule::{PolicyId, WindowPolicy};
use tersed::spool::Spool;
use tersed::core::tick::Tick;

fuzz_target!(|input: &[u8]| {
    let [frames, changes, input @ ..] = input else {
        return;
    };
    // In memory if possible: this does not test the disk.
    let place = std::path::Path::new("/dev/shm");
    let above = if place.is_dir() {
        tempfile::TempDir::new_in(place).unwrap()
    } else {
        tempfile::TempDir::new().unwrap()
    };
    let directory = above.path().join("spool");

    // The input describes the frames. Some of them are summaries.
    let mut chunk = Chunk::default();
    let mut rest = input;
    for number in 0..u64::from(frames % 16) {
        let Some((&length, more)) = rest.split_first() else {
            break;
        };
        let (frame, more) = more.split_at(usize::from(length).min(more.len()));
        chunk.push(frame, entry(number));
        rest = more;
    }
    let spool = Spool::open(&directory, 1 << 20).unwrap();
    spool.append(std::slice::from_ref(&chunk)).unwrap();
    let written = spool.survivors();
    drop(spool);

    // The input also says how the segment is overwritten, cut or replaced.
    let path = directory.join("00000000000000000000.segment");
    if let Ok(mut octets) = fs::read(&path) {
        for change in rest.chunks(4).take(usize::from(*changes)) {
            let &[low, high, octet, how] = change else {
                break;
            };
            let at = usize::from(u16::from_le_bytes([low, high]));
            match how % 8 {
                0 => octets.truncate(at),
                1 => octets.extend_from_slice(rest),
                2 => drop(octets.splice(
                    at.min(octets.len())..at.min(octets.len()),
                    rest.iter().copied(),
                )),
                _ => {
                    let length = octets.len().max(1);
                    if let Some(place) = octets.get_mut(at % length) {
                        *place = octet;
                    }
                }
            }
        }
        if changes % 32 == 31 {
            octets = rest.to_vec();
        }
        fs::write(&path, octets).unwrap();
    }

    // The cursor may become that of another spool, which delivered as much as the input says, or any octets.
    let cursor = directory.join("cursor");
    let is_changed = input.first().is_some_and(|octet| octet % 4 == 0);
    if is_changed && input.len() % 2 == 0 {
        fs::write(&cursor, rest).unwrap();
    } else if is_changed {
        let other = above.path().join("other");
        let spool = Spool::open(&other, 1 << 20).unwrap();
        let mut chunk = Chunk::default();
        for number in 0..input.len() as u64 {
            chunk.push(b"other", entry(number));
        }
        spool.append(&[chunk]).unwrap();
        while let Some(batch) = spool.read(100).unwrap() {
            spool.acknowledge(batch.upto).unwrap();
        }
        fs::copy(other.join("cursor"), &cursor).unwrap();
    }

    let Ok(spool) = Spool::open(&directory, 1 << 20) else {
        return;
    };
    let written = if is_changed {
        spool.found().recovered
    } else {
        assert_eq!(spool.found().recovered, written);
        written
    };
    assert!(written < 1 << 40);
    let mut accounted = 0;
    while let Some(batch) = spool.read(100).unwrap() {
        let survivors = batch.chunk.entries();
        let survivors = survivors.filter(|(_, entry, _)| matches!(entry, Entry::Survivor(_)));
        accounted += survivors.count() as u64 + batch.lost;
        spool.acknowledge(batch.upto).unwrap();
    }
    assert_eq!((accounted, spool.survivors()), (written, 0));
});

/// Two of three are survivors.
fn entry(number: u64) -> Entry {
    if number % 3 == 2 {
        return Entry::Summary(number);
    }
    let policy = WindowPolicy {
        window: std::time::Duration::from_secs(1),
        allow: 1,
        refresh: None,
    };
    let identity = Identity {
        hash: number,
        octets: b"",
    };
    let sighting = Sighting {
        frame: b"",
        timestamp: None,
        variant: None,
    };
    let shards = Shards::new(1, &[policy], 1 << 16);
    match shards.offer(
        PolicyId(0),
        identity,
        sighting,
        Tick::from_nanos(0),
        &mut Vec::new(),
    ) {
        Verdict::Fresh(claim) => Entry::Survivor(claim),
        Verdict::Duplicate => Entry::Summary(0),
    }
}

//! The spool on a real disk: how fast it appends and drains, and how long a full one takes to open.
//!
//!     cargo bench --bench core -- spool                 512 MiB in a temporary directory
//!     cargo bench --bench core -- spool DIRECTORY MIB   this many MiB, in a directory on the disk to be measured
//!
//! Frames of 200 octets. *MB/s* count frames, not what they take on the disk. The floor writes the same number of octets to
//! a file with `write` and `fdatasync`, in the same portions. Of three runs the best and the worst are printed.

#![expect(clippy::unwrap_used, reason = "in a benchmark, a panic is the report")]

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tersed::delivery::chunk::{Chunk, Entry};
use tersed::spool::{Spool, SpoolError};

use crate::figures::now;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A directory on the disk to be measured [default: the system's directory for temporary files].
    directory: Option<PathBuf>,
    /// How much to write for each figure, and how full the spool is that is opened.
    #[arg(default_value_t = 512, value_parser = clap::value_parser!(u64).range(8..))]
    mib: u64,
}

pub(crate) fn run(arguments: &Arguments, smoke: bool) -> io::Result<()> {
    let parent = arguments.directory.clone();
    let parent = parent.unwrap_or_else(std::env::temp_dir);
    let (mib, runs) = if smoke { (8, 1) } else { (arguments.mib, 3) };
    let above = tempfile::TempDir::new_in(parent)?;
    let octets = mib * MIB;

    println!(
        "{:28} {:>8} {:>8}",
        format!(
            "MB/s of frames, {runs} run{}",
            if runs == 1 { "" } else { "s" }
        ),
        "best",
        "worst"
    );
    for batch in [1, 2, 8] {
        let chunk = chunk(batch * MIB);
        let rounds = octets.min(GIB) / (batch * MIB);
        let mut rows = [const { Vec::new() }; 4];
        for _ in 0..runs {
            rows[0].push(speed(&chunk, rounds, floor(above.path(), &chunk, rounds)));
            let directory = above.path().join("spool");
            let (append, drain, both) = spool(&directory, &chunk, rounds);
            for (row, took) in rows[1..].iter_mut().zip([append, drain, both]) {
                row.push(speed(&chunk, rounds, took));
            }
        }
        let names = [
            "floor: write, fdatasync",
            "append",
            "drain",
            "append while draining",
        ];
        for (name, row) in names.into_iter().zip(rows) {
            let best = row.iter().copied().fold(0.0, f64::max);
            let worst = row.iter().copied().fold(f64::MAX, f64::min);
            println!(
                "{:28} {best:8.0} {worst:8.0}",
                format!("{name}, {batch} MiB")
            );
        }
    }

    let directory = above.path().join("full");
    let chunk = chunk(8 * MIB);
    let spool = Spool::open(&directory, u64::MAX).unwrap();
    while spool.octets() < octets {
        spool.append(std::slice::from_ref(&chunk)).unwrap();
    }
    let segments = spool.segments();
    drop(spool);
    drop_cache(&directory);
    for state in ["cold", "warm"] {
        let start = now();
        let spool = Spool::open(&directory, u64::MAX).unwrap();
        println!(
            "open {mib} MiB, {segments} segments, {state}: {:.0} ms, {} records",
            start.elapsed().as_secs_f64() * 1e3,
            spool.records()
        );
    }
    Ok(())
}

/// Distinct messages of 200 octets, as they wait while a collector is away.
fn chunk(octets: u64) -> Chunk {
    let mut chunk = Chunk::default();
    for number in 0..octets / FRAME_OCTETS {
        let frame = format!(
            "<13>Oct 11 22:14:15 host app[99]: message {number:08} {:0>149}",
            "x"
        );
        assert_eq!(frame.len() as u64, FRAME_OCTETS);
        // A summary takes as much as a survivor, and a bench can make one.
        chunk.push(frame.as_bytes(), Entry::Summary(1));
    }
    chunk
}

fn speed(chunk: &Chunk, rounds: u64, took: Duration) -> f64 {
    let octets = chunk.len() as u64 * FRAME_OCTETS * rounds;
    octets as f64 / 1e6 / took.as_secs_f64()
}

/// Writes as many octets as the records would take, to files as long as segments.
fn floor(above: &Path, chunk: &Chunk, rounds: u64) -> Duration {
    let octets =
        vec![b'x'; chunk.len() * (usize::try_from(FRAME_OCTETS).unwrap() + RECORD_HEADER_OCTETS)];
    let per_file = (64 * MIB).div_ceil(octets.len() as u64);
    let start = now();
    let path = |file: u64| above.join(format!("floor-{file}"));
    let mut file = File::create(path(0)).unwrap();
    for round in 0..rounds {
        if round % per_file == 0 && round > 0 {
            file = File::create(path(round / per_file)).unwrap();
        }
        file.write_all(&octets).unwrap();
        file.sync_data().unwrap();
    }
    let took = start.elapsed();
    for file in 0..=(rounds - 1) / per_file {
        std::fs::remove_file(path(file)).unwrap();
    }
    took
}

/// Appends, then drains, then both at the same time from two threads.
fn spool(directory: &Path, chunk: &Chunk, rounds: u64) -> (Duration, Duration, Duration) {
    let spool = Spool::open(directory, 64 * GIB).unwrap();
    let append = || {
        for _ in 0..rounds {
            spool.append(std::slice::from_ref(chunk)).unwrap();
        }
    };
    let take = || -> Result<u64, SpoolError> {
        let Some(batch) = spool.read(1024 * 1024)? else {
            return Ok(0);
        };
        spool.acknowledge(batch.upto)?;
        assert_eq!(batch.lost, 0);
        Ok(batch.chunk.len() as u64)
    };
    let start = now();
    append();
    let appended = start.elapsed();

    let start = now();
    let mut taken = 0;
    while spool.records() > 0 {
        taken += take().unwrap();
    }
    let drained = start.elapsed();
    assert_eq!(taken, chunk.len() as u64 * rounds);

    let start = now();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            append();
            ended.store(true, Ordering::Release);
        });
        let mut taken = 0;
        loop {
            let last = ended.load(Ordering::Acquire);
            match take().unwrap() {
                0 if last => break,
                0 => std::thread::park_timeout(Duration::from_micros(500)),
                records => taken += records,
            }
        }
        assert_eq!(taken, chunk.len() as u64 * rounds);
    });
    (appended, drained, start.elapsed())
}

/// Asks the kernel to drop the files from its cache. It drops what is on the disk.
fn drop_cache(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        nix::fcntl::posix_fadvise(
            &file,
            0,
            0,
            nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )
        .unwrap();
    }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const FRAME_OCTETS: u64 = 200;

/// Octets that the spool adds to each frame.
const RECORD_HEADER_OCTETS: usize = 40;

//! tersed side by side with other relays: the same load through tersed, rsyslogd, syslog-ng and the floor (receive,
//! split, drop or forward), one at a time, in turns.
//!
//! ```text
//! cargo bench --bench relay                    the common cases, 3 rounds
//! cargo bench --bench relay -- --all           every load, number of connections, size, format and rate
//! cargo bench --bench relay -- tcp-flood udp   only cases whose name contains one of the words
//! cargo bench --bench relay -- --rounds 5 --messages 4000000 --json FILE
//! cargo bench --bench relay -- --list          the names of all cases
//! cargo bench --bench relay -- storm           memory before, in and after a storm of new messages
//! ```
//!
//! The output is the median of the rounds: messages sent per second, and messages per second until all had come out;
//! processor time of the relay's process per message, and how much of it was user and system time (`bed/process.rs`
//! says how exact that is); its peak memory, messages that came out, datagrams that the kernel dropped; the least and
//! the most processor time of any round; and how many times as much rsyslogd took. tersed's output is checked against
//! the load, unless the kernel dropped some of it or a window ended.
//!
//! rsyslogd is looked up on the path, and syslog-ng below `/` or in `TERSED_TEST_SYSLOG_NG`. Those that are not found
//! are named.

#![expect(clippy::print_stdout, reason = "the table is the output")]
#![expect(clippy::print_stderr, reason = "progress is for people")]

#[path = "../bed/mod.rs"]
mod bed;
mod storm;
mod table;

use std::{fs, io, path::PathBuf, process::ExitCode};

use clap::Parser as _;

use bed::{
    case::{Case, Format, Mix},
    floor,
    load::Load,
    peer::{self, Settings},
    run::run,
};

/// tersed side by side with other relays.
#[derive(Debug, clap::Parser)]
#[command(bin_name = "cargo bench --bench relay --")]
struct Arguments {
    /// Every load, number of connections, size, format and rate.
    #[arg(long)]
    all: bool,
    /// Print the names of all cases without measuring.
    #[arg(long)]
    list: bool,
    /// How often each case is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Messages in a run over TCP, or over UDP at full speed.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    messages: u32,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only cases whose names contain one of these words; or `storm`.
    words: Vec<String>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == floor::WORD) {
        return floor::run(&words);
    }
    let arguments = Arguments::parse();
    let done = if arguments.words == ["storm"] {
        storm::measure(usize::from(arguments.rounds))
    } else {
        measure(&arguments)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    let cases = cases(arguments);
    if arguments.list {
        for case in cases {
            println!("{case}");
        }
        return Ok(());
    }
    if cases.is_empty() {
        let words = arguments.words.join(" ");
        return Err(io::Error::other(format!(
            "{words}: no case has this in its name; --list shows all cases"
        )));
    }
    let (peers, missing) = peer::installed();
    for name in missing {
        println!("not installed here, so not measured: {name}");
    }
    let mut all = Vec::new();
    for case in cases {
        let load = Load::build(&case, arguments.messages as usize);
        let mut results = table::Results::new(case);
        for round in 1..=arguments.rounds {
            for &peer in peers.iter().filter(|peer| peer.fits(&case)) {
                let name = peer.name();
                eprint!("\r\x1b[K{case} round {round}/{}: {name}", arguments.rounds);
                match run(peer, &case, &load, &Settings::default()) {
                    Ok(measured) => results.add(peer, measured),
                    Err(error) => peer::failed(peer, &case, error)?,
                }
            }
        }
        eprint!("\r\x1b[K");
        println!("{results}");
        all.push(results.json());
    }
    match &arguments.json {
        Some(file) => fs::write(file, format!("{:#}\n", serde_json::Value::from(all))),
        None => Ok(()),
    }
}

/// The common cases, or all of them. If there are words, only the cases whose names contain one of them.
fn cases(arguments: &Arguments) -> Vec<Case> {
    let mut cases = Mix::ALL.map(|mix| Case::tcp(mix, 1)).to_vec();
    cases.push(Case::udp(Mix::Flood, Some(200_000)));
    if arguments.all || arguments.list || !arguments.words.is_empty() {
        for connections in [1, 50] {
            for octets in [200, 1000] {
                for format in [Format::Rfc3164, Format::Rfc5424] {
                    cases.extend(Mix::ALL.map(|mix| Case {
                        octets,
                        format,
                        ..Case::tcp(mix, connections)
                    }));
                }
            }
        }
        for rate in [Some(50_000), Some(100_000), Some(200_000), None] {
            cases.extend(Mix::ALL.map(|mix| Case::udp(mix, rate)));
        }
    }
    let mut kept: Vec<Case> = Vec::new();
    for case in cases {
        let name = case.to_string();
        let words = &arguments.words;
        if !kept.contains(&case)
            && (words.is_empty() || words.iter().any(|word| name.contains(word.as_str())))
        {
            kept.push(case);
        }
    }
    kept
}

//! The relay side by side with its peers: the same load through tersed, rsyslogd, syslog-ng and the floor
//! (receive, split, drop or forward), one at a time and in turns.
//!
//!     cargo bench --bench relay                    the common cases, 3 rounds
//!     cargo bench --bench relay -- --all           every load, size, format and rate
//!     cargo bench --bench relay -- tcp-flood udp   only cases whose name contains one of the words
//!     cargo bench --bench relay -- --rounds 5 --messages 4000000
//!
//! What is printed is the median of the rounds: messages per second, processor time of the relay's process per
//! message (user and system), its peak memory, messages that came out, datagrams that the kernel dropped,
//! and the ratio of processor time to rsyslogd's. The timestamps advance in the load, so that whoever
//! keys on them is found out. What tersed lets out is checked against the load.

#![expect(clippy::print_stdout, reason = "the table is the output")]
#![expect(clippy::print_stderr, reason = "progress is for people")]

mod case;
mod floor;
mod load;
mod peer;
mod run;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if arguments.first().is_some_and(|word| word == floor::WORD) {
        return floor::run(&arguments);
    }
    let mut rounds = 3;
    let mut messages = 2_000_000;
    let mut all = false;
    let mut words = Vec::new();
    arguments.reverse();
    while let Some(argument) = arguments.pop() {
        let mut number = |name: &str| {
            arguments
                .pop()
                .and_then(|text| text.parse().ok())
                .ok_or(format!("{name} takes a number"))
        };
        let taken = match argument.as_str() {
            "--all" => {
                all = true;
                Ok(())
            }
            "--rounds" => number("--rounds").map(|value: usize| rounds = value.max(1)),
            "--messages" => number("--messages").map(|value: usize| messages = value.max(1000)),
            word if word.starts_with("--") => {
                Err(format!("{word}: not an option; see benches/relay"))
            }
            word => {
                words.push(word.to_owned());
                Ok(())
            }
        };
        if let Err(error) = taken {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    }
    let cases = case::cases(all, &words);
    let (peers, missing) = peer::installed();
    for name in missing {
        println!("not installed here, so not measured: {name}");
    }
    for case in &cases {
        let load = load::Load::build(case, messages);
        let mut results = table::Results::new(case);
        for round in 0..rounds {
            for peer in &peers {
                eprint!(
                    "\r\x1b[K{} round {}/{rounds}: {}",
                    case.name(),
                    round + 1,
                    peer.name()
                );
                match run::run(*peer, case, &load) {
                    Ok(measured) => results.add(*peer, measured),
                    Err(error) => {
                        eprintln!("\n{} in {}: {error}", peer.name(), case.name());
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
        eprint!("\r\x1b[K");
        println!("{results}");
    }
    ExitCode::SUCCESS
}

//! Profiles: ready-made identities for common senders.
//!
//! A profile is for the messages of one kind of sender. It says which fields count, what is folded in MSG, how long the
//! window is, and why. A rule uses it by its name; `tersed profiles` prints it as TOML to paste and change.
//!
//! # Guarantees
//!
//! - What tells two events apart stays: another user, address, interface, served port, state, status or action makes
//!   another message. What names a single connection, packet, process or moment is folded. `profile/tests.rs` has lines
//!   for both.
//!
//! # Left out
//!
//! Which messages are of that kind: the matcher of a rule says so. [`Profile::matches`] only suggests one.

use std::sync::Arc;
use std::time::Duration;

use crate::core::identity::mask::{Builtin, Masks, Pattern};
use crate::core::identity::{Fields, Spec};

/// A ready-made identity.
#[derive(Debug)]
pub struct Profile {
    /// Its name in a configuration.
    pub name: &'static str,
    /// Its purpose, and the reasons for its choices.
    pub why: &'static str,
    /// Lines of TOML that may match such messages.
    pub matches: &'static str,
    /// The window of such messages.
    pub window: Duration,
    /// The fields that count.
    pub fields: Fields,
    /// The built-in masks that it uses.
    pub builtins: &'static [Builtin],
    /// Its own masks: name, expression, what it folds.
    pub patterns: &'static [(&'static str, &'static str, &'static str)],
}

impl Profile {
    /// All profiles, in the order in which they are documented.
    pub const ALL: &'static [Self] = PROFILES;

    /// The profile of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// The names of all profiles.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|profile| profile.name).collect()
    }

    /// The identity that it stands for.
    #[must_use]
    pub fn spec(&self) -> Spec {
        let builtins = self.builtins.iter().copied().collect();
        let patterns = self.patterns.iter().map(|(name, regex, _)| Pattern {
            name: (*name).to_owned(),
            regex: (*regex).to_owned(),
        });
        let masks = Masks::new(builtins, patterns.collect());
        let masks = masks.expect("a test compiles all profiles");
        Spec::new(self.fields, Arc::new(masks))
    }
}

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Profile {}

const PROFILES: &[Profile] = &[
    Profile {
        name: "cisco-ios",
        why: "Routers and switches repeat an event for as long as it lasts: a flapping link, a denied flow. The interface, \
              the neighbour, the list and both addresses stay; the client's port, packet counts, process numbers and \
              memory addresses are folded.",
        matches: "facility = [\"local7\"]",
        window: Duration::from_secs(60),
        fields: Fields::DEFAULT,
        builtins: &[Builtin::Hex, Builtin::Timestamp],
        patterns: &[
            (
                "ios_client_port",
                r"\([0-9]{1,5}\) ->",
                "the port of the client, in lines of access lists",
            ),
            (
                "ios_packets",
                r"\b[0-9]+ packets?\b",
                "the packets that an access list has counted",
            ),
            (
                "ios_process",
                r"\b(?:pid|ipl)= ?[0-9]+",
                "the number of a process",
            ),
        ],
    },
    Profile {
        name: "cisco-asa",
        why: "A firewall writes two lines for each connection. Interfaces, addresses, the served port and the verdict \
              stay; the connection's number, the client's port (five digits, from 10000 on), duration and octets are \
              folded.",
        matches: "msg = '^%(?:ASA|FTD|PIX)-'",
        window: Duration::from_secs(60),
        fields: Fields::DEFAULT,
        builtins: &[],
        patterns: &[
            (
                "asa_connection",
                r"\bconnection [0-9]+\b",
                "the number of a connection",
            ),
            (
                "asa_client_port",
                r"/[1-6][0-9]{4}\b",
                "the port of a client",
            ),
            (
                "asa_client_port_in_parentheses",
                r"\([1-6][0-9]{4}\)",
                "the same in parentheses",
            ),
            (
                "asa_duration",
                r"\bduration [0-9]+:[0-9:]+",
                "the duration of a connection",
            ),
            (
                "asa_octets",
                r"\bbytes [0-9]+\b",
                "the octets of a connection",
            ),
            (
                "asa_hits",
                r"\bhit-cnt [0-9]+ (?:first hit|[0-9]+-second interval)",
                "the hits of an access list",
            ),
        ],
    },
    Profile {
        name: "linux-auth",
        why: "sshd, sudo, su, PAM and logind. The user, the address, the target user, the command and the outcome stay; \
              the client's port, numbers of sessions and processes, and the terminal are folded. The addresses stay \
              because two attackers are two events.",
        matches: "facility = [\"auth\", \"authpriv\"]",
        window: Duration::from_secs(60),
        fields: Fields::DEFAULT,
        builtins: &[],
        patterns: &[
            ("auth_port", r"\bport [0-9]+\b", "the port of a client"),
            (
                "auth_session",
                r"\b[Ss]ession c?[0-9]+\b",
                "the number of a session",
            ),
            (
                "auth_more",
                r"\bPAM [0-9]+ more\b",
                "the number of further failures",
            ),
            (
                "auth_repeats",
                r"\b[0-9]+ incorrect password attempts?\b",
                "the number of attempts",
            ),
            ("auth_terminal", r"\b(?:pts/|tty)[0-9]+\b", "a terminal"),
            (
                "auth_process",
                r"\[[0-9]+\]",
                "the number of a process inside the text",
            ),
        ],
    },
    Profile {
        name: "iptables-ufw",
        why: "A line for each packet. Interfaces, hardware and IP addresses, protocol, the served port, TCP's flags and the \
              prefix (which is the verdict) stay; the kernel's clock, the client's port and the fields that differ from \
              packet to packet are folded.",
        matches: "facility = [\"kern\"]\nmsg = '\\bIN=\\S* OUT='",
        window: Duration::from_secs(60),
        fields: Fields::DEFAULT,
        builtins: &[],
        patterns: &[
            (
                "netfilter_clock",
                r"\[ *[0-9]+\.[0-9]{6}\]",
                "seconds since the kernel started",
            ),
            (
                "netfilter_packet",
                r"\b(?:LEN|TTL|HOPLIMIT|ID|SPT|WINDOW|SEQ|ACK|FLOWLBL|TC|TOS|PREC)=(?:0x)?[0-9A-Fa-f]+",
                "fields that differ from packet to packet",
            ),
        ],
    },
    Profile {
        name: "haproxy-nginx",
        why: "A line for each request. The client's address, the frontend and server, the request, the status and how the session ended \
              stay; the client's port, the time, timers, octets, and the numbers of workers and connections are folded.",
        matches: "app_name = [\"haproxy\", \"nginx\", \"nginx*\"]",
        window: Duration::from_secs(30),
        fields: Fields::DEFAULT,
        builtins: &[Builtin::Timestamp],
        patterns: &[
            (
                "http_client_port",
                r":[0-9]{1,5} \[",
                "the port of a client of HAProxy",
            ),
            (
                "http_counts",
                r" \+?-?[0-9]+(?:/\+?-?[0-9]+)+\b",
                "HAProxy's timers, numbers of connections and queues",
            ),
            (
                "http_octets",
                r" \+?[0-9]+ (?:- - |-- )",
                "octets of a response of HAProxy",
            ),
            (
                "http_worker",
                r"\b[0-9]+#[0-9]+: (?:\*[0-9]+ )?",
                "nginx's worker and connection",
            ),
            ("http_size", r#" [0-9]+ ""#, "octets of a response of nginx"),
        ],
    },
    Profile {
        name: "kubernetes",
        why: "New pods send the messages of old ones under new names. Cluster, namespace, container, workload, level and reason stay; \
              the random end of a pod's name, the thread, times, waits, and identifiers of containers and objects are \
              folded.",
        matches: "app_name = [\"kubelet\", \"kube-*\", \"containerd\"]",
        window: Duration::from_secs(60),
        fields: Fields::DEFAULT,
        builtins: &[Builtin::Uuid, Builtin::Hex, Builtin::Timestamp],
        patterns: &[
            (
                "kube_header",
                r"[0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6} +[0-9]+ ",
                "the time and the thread in klog's header; its level stays",
            ),
            (
                "kube_pod",
                r"-[0-9bcdf][0-9bcdf-hj-np-tv-z]{7,9}-[0-9bcdf-hj-np-tv-z]{5}",
                "the random end of the name of a pod of a deployment",
            ),
            (
                "kube_wait",
                r"\bback-off [0-9hms.]+",
                "the delay before the next attempt",
            ),
        ],
    },
    Profile {
        name: "windows-snare-nxlog",
        why: "Event logs as Snare and NXLog send them. The event, the account, the workstation, the address and the outcome stay; counters, \
              record numbers, times, and the numbers of processes, threads, logons and client ports are folded.",
        matches: "msg = 'MSWinEventLog|\"RecordNumber\":'",
        window: Duration::from_secs(60),
        fields: Fields::DEFAULT,
        builtins: &[Builtin::Timestamp],
        patterns: &[
            (
                "windows_header",
                r"\t[0-9]+\t(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} +[0-9]+ [0-9:]{8} [0-9]{4}\t",
                "Snare's counter and time",
            ),
            (
                "windows_counter",
                r"\t[0-9]+\s*$",
                "Snare's counter at the end",
            ),
            (
                "windows_member",
                r#""(?:EventTime|EventReceivedTime|RecordNumber|ExecutionProcessID|ExecutionThreadID|ProcessID|ThreadID|ActivityID|IpPort|SubjectLogonId|TargetLogonId|ProcessId)":(?:"[^"]*"|[0-9]+)"#,
                "times, counters and numbers in JSON",
            ),
            (
                "windows_number",
                r"\b(?:Logon ID|Process ID|Source Port|Handle ID|Caller Process ID|New Process ID|Creator Process ID):\s*(?:0x)?[0-9A-Fa-f]+",
                "the number of a logon or a process, or a client's port",
            ),
            (
                "windows_guid",
                r"\{[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}",
                "an identifier of a logon",
            ),
        ],
    },
];

#[cfg(test)]
mod tests;

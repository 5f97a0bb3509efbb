//! Profiles: ready-made identities for what people really have.
//!
//! A profile says which fields count, what is folded in MSG, and how long the window is, for the messages of one kind of
//! sender, and why. A rule uses it by its name; `tersed profiles` prints it as TOML to paste and change.
//!
//! # Guarantees
//!
//! - What tells two events apart stays: another user, address, interface, port that is served, state, status or action is
//!   another message. What is folded names the single connection, packet, process or moment. `profile/tests.rs` holds
//!   lines for both.
//!
//! # Left out
//!
//! Which messages are of that kind: a rule matches. [`Profile::matches`] only suggests.

use std::sync::Arc;
use std::time::Duration;

use crate::identity::mask::{Builtin, MaskError, Masks, Pattern};
use crate::identity::{Fields, Spec};

/// A ready-made identity.
#[derive(Debug)]
pub struct Profile {
    /// What it is called in a configuration.
    pub name: &'static str,
    /// What it is for, and why it is as it is.
    pub why: &'static str,
    /// Lines of TOML that match such messages, as a suggestion.
    pub matches: &'static str,
    /// How long a message counts as said.
    pub window: Duration,
    /// The fields that count.
    pub fields: Fields,
    /// The masks that are built in.
    pub builtins: &'static [Builtin],
    /// Its own: name, expression, what it folds.
    pub patterns: &'static [(&'static str, &'static str, &'static str)],
}

impl Profile {
    /// All of them, in the order in which they are documented.
    pub const ALL: &'static [Self] = PROFILES;

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// The names of all of them.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|profile| profile.name).collect()
    }

    /// What it compares.
    ///
    /// # Errors
    ///
    /// None: a test compiles all profiles.
    pub fn spec(&self) -> Result<Spec, MaskError> {
        let builtins = self.builtins.iter().copied().collect();
        let patterns = self.patterns.iter().map(|(name, regex, _)| Pattern {
            name: (*name).to_owned(),
            regex: (*regex).to_owned(),
        });
        let masks = Masks::new(builtins, patterns.collect())?;
        Ok(Spec::new(self.fields, Arc::new(masks)))
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
              addresses in memory are folded.",
        matches: "facility = [\"local7\"]",
        window: Duration::from_secs(60),
        fields: Fields::DEFAULT,
        builtins: &[Builtin::Hex, Builtin::Timestamp],
        patterns: &[
            (
                "ios_client_port",
                r"\([0-9]{1,5}\) ->",
                "the port of the side that begins, in what access lists log",
            ),
            (
                "ios_packets",
                r"\b[0-9]+ packets?\b",
                "how many packets an access list has seen",
            ),
            (
                "ios_process",
                r"\b(?:pid|ipl)= ?[0-9]+",
                "numbers of a process",
            ),
        ],
    },
    Profile {
        name: "cisco-asa",
        why: "A firewall writes two lines for each connection. Interfaces, addresses, the port that is served and the verdict \
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
                "a port that a client was given",
            ),
            (
                "asa_client_port_in_parentheses",
                r"\([1-6][0-9]{4}\)",
                "the same in parentheses",
            ),
            (
                "asa_duration",
                r"\bduration [0-9]+:[0-9:]+",
                "how long it lasted",
            ),
            ("asa_octets", r"\bbytes [0-9]+\b", "how much went over it"),
            (
                "asa_hits",
                r"\bhit-cnt [0-9]+ (?:first hit|[0-9]+-second interval)",
                "how often",
            ),
        ],
    },
    Profile {
        name: "linux-auth",
        why: "sshd, sudo, su, PAM and logind. Who, from which address, as whom, what command and whether it was let in stay; \
              the client's port, numbers of sessions and processes and the terminal are folded. The addresses stay: \
              to who watches, two attackers are two events.",
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
                "how many failures more",
            ),
            (
                "auth_repeats",
                r"\b[0-9]+ incorrect password attempts?\b",
                "how many attempts",
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
        why: "A line for each packet. Interfaces, hardware and IP addresses, protocol, the port that is served, TCP's flags and the \
              prefix (which is the verdict) stay; the kernel's clock, the client's port and what numbers the single packet \
              are folded.",
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
                "what differs from packet to packet",
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
        why: "Pods come and go under new names and say the same. Cluster, namespace, container, workload, level and reason stay; \
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
                "how long it waits before it tries again",
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
                "the like in JSON",
            ),
            (
                "windows_number",
                r"\b(?:Logon ID|Process ID|Source Port|Handle ID|Caller Process ID|New Process ID|Creator Process ID):\s*(?:0x)?[0-9A-Fa-f]+",
                "numbers of a logon, a process, a client's port",
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

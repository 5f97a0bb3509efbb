//! Lines for each profile: what it folds, and what it must not fold.

use super::*;
use crate::core::identity::{Identifier, IdentityKind, Key, Origin, Sender};
use crate::core::parse::Message;

fn identity(spec: &Spec, frame: &str) -> Vec<u8> {
    let key = Key::from_seed(1);
    let mut octets = Vec::new();
    let origin = Origin {
        sender: Sender::Local,
        listener: "l",
    };
    let message = Message::parse(frame.as_bytes());
    Identifier::new(&key, IdentityKind::Exact).append_by(spec, &message, origin, &mut octets);
    octets
}

/// Under `profile`, all of `same` are one message, and none of `different` is that message.
#[track_caller]
fn check(profile: &str, header: &str, same: &[&str], different: &[&str]) {
    let spec = Profile::named(profile).unwrap().spec();
    let whole = |text: &str| identity(&spec, &format!("{header}{text}"));
    let shown = |text: &str| {
        let mut readable = Vec::new();
        spec.masks().write_readable(text.as_bytes(), &mut readable);
        String::from_utf8_lossy(&readable).into_owned()
    };
    let first = same[0];
    for text in same {
        assert_eq!(shown(first), shown(text));
        assert!(whole(first) == whole(text), "{text}");
    }
    for text in different {
        assert!(whole(first) != whole(text), "folded: {}", shown(text));
    }
}

#[test]
fn every_profile_compiles_and_is_named_once() {
    for (at, profile) in Profile::ALL.iter().enumerate() {
        assert!(!profile.spec().is_default(), "{}", profile.name);
        assert_eq!(
            Profile::ALL.iter().position(|other| other == profile),
            Some(at)
        );
    }
}

#[test]
fn cisco_ios() {
    let header = "<189>237: *Mar  1 18:46:11: ";
    check(
        "cisco-ios",
        header,
        &[
            "%SEC-6-IPACCESSLOGP: list 101 denied tcp 10.1.1.1(1234) -> 10.2.2.2(80), 1 packet",
            "%SEC-6-IPACCESSLOGP: list 101 denied tcp 10.1.1.1(61234) -> 10.2.2.2(80), 17 packets",
        ],
        &[
            "%SEC-6-IPACCESSLOGP: list 102 denied tcp 10.1.1.1(1234) -> 10.2.2.2(80), 1 packet",
            "%SEC-6-IPACCESSLOGP: list 101 permitted tcp 10.1.1.1(1234) -> 10.2.2.2(80), 1 packet",
            "%SEC-6-IPACCESSLOGP: list 101 denied udp 10.1.1.1(1234) -> 10.2.2.2(80), 1 packet",
            "%SEC-6-IPACCESSLOGP: list 101 denied tcp 10.1.1.2(1234) -> 10.2.2.2(80), 1 packet",
            "%SEC-6-IPACCESSLOGP: list 101 denied tcp 10.1.1.1(1234) -> 10.2.2.2(443), 1 packet",
        ],
    );
    check(
        "cisco-ios",
        header,
        &["%LINK-3-UPDOWN: Interface GigabitEthernet1/0/24, changed state to down"],
        &[
            "%LINK-3-UPDOWN: Interface GigabitEthernet1/0/23, changed state to down",
            "%LINK-3-UPDOWN: Interface GigabitEthernet1/0/24, changed state to up",
            "%LINK-3-UPDOWN: Interface GigabitEthernet1/1/24, changed state to down",
        ],
    );
    check(
        "cisco-ios",
        header,
        &[
            "%SYS-2-MALLOCFAIL: Memory allocation of 65536 bytes failed from 0x60A1B2C3, pid= 35",
            "%SYS-2-MALLOCFAIL: Memory allocation of 65536 bytes failed from 0x60A1B2FF, pid= 36",
        ],
        &["%SYS-2-MALLOCFAIL: Memory allocation of 1024 bytes failed from 0x60A1B2C3, pid= 35"],
    );
}

#[test]
fn cisco_asa() {
    check(
        "cisco-asa",
        "<166>Mar 01 2026 10:00:00 asa1 : ",
        &[
            "%ASA-6-302014: Teardown TCP connection 1234567 for outside:203.0.113.9/51234 to inside:10.0.0.5/443 duration 0:00:30 bytes 4096 TCP FINs",
            "%ASA-6-302014: Teardown TCP connection 7654321 for outside:203.0.113.9/40000 to inside:10.0.0.5/443 duration 1:10:31 bytes 12 TCP FINs",
        ],
        &[
            "%ASA-6-302014: Teardown TCP connection 1234567 for outside:203.0.113.8/51234 to inside:10.0.0.5/443 duration 0:00:30 bytes 4096 TCP FINs",
            "%ASA-6-302014: Teardown TCP connection 1234567 for dmz:203.0.113.9/51234 to inside:10.0.0.5/443 duration 0:00:30 bytes 4096 TCP FINs",
            "%ASA-6-302014: Teardown TCP connection 1234567 for outside:203.0.113.9/51234 to inside:10.0.0.5/22 duration 0:00:30 bytes 4096 TCP FINs",
            "%ASA-6-302014: Teardown TCP connection 1234567 for outside:203.0.113.9/51234 to inside:10.0.0.5/443 duration 0:00:30 bytes 4096 SYN Timeout",
        ],
    );
    check(
        "cisco-asa",
        "<164>Mar 01 2026 10:00:00 asa1 : ",
        &[
            "%ASA-4-106023: Deny tcp src outside:203.0.113.9/51234 dst inside:192.0.2.10/22 by access-group \"outside_in\" [0x0, 0x0]",
            "%ASA-4-106023: Deny tcp src outside:203.0.113.9/60001 dst inside:192.0.2.10/22 by access-group \"outside_in\" [0x0, 0x0]",
        ],
        &[
            "%ASA-4-106023: Deny tcp src outside:203.0.113.9/51234 dst inside:192.0.2.10/23 by access-group \"outside_in\" [0x0, 0x0]",
            "%ASA-4-106023: Deny udp src outside:203.0.113.9/51234 dst inside:192.0.2.10/22 by access-group \"outside_in\" [0x0, 0x0]",
            "%ASA-4-106023: Deny tcp src outside:203.0.113.9/51234 dst inside:192.0.2.10/22 by access-group \"dmz_in\" [0x0, 0x0]",
        ],
    );
}

#[test]
fn linux_auth() {
    check(
        "linux-auth",
        "<38>Mar  1 10:00:00 web-1 sshd[231]: ",
        &[
            "Failed password for root from 192.0.2.7 port 40022 ssh2",
            "Failed password for root from 192.0.2.7 port 51111 ssh2",
        ],
        &[
            "Failed password for admin from 192.0.2.7 port 40022 ssh2",
            "Failed password for invalid user root from 192.0.2.7 port 40022 ssh2",
            "Failed password for root from 192.0.2.8 port 40022 ssh2",
            "Accepted password for root from 192.0.2.7 port 40022 ssh2",
            "Failed publickey for root from 192.0.2.7 port 40022 ssh2",
        ],
    );
    check(
        "linux-auth",
        "<86>Mar  1 10:00:00 web-1 sudo: ",
        &[
            "   alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/ls",
            "   alice : TTY=pts/12 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/ls",
        ],
        &[
            "   bob : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/ls",
            "   alice : TTY=pts/0 ; PWD=/home/alice ; USER=git ; COMMAND=/bin/ls",
            "   alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/rm",
            "   alice : command not allowed ; TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/ls",
        ],
    );
    check(
        "linux-auth",
        "<38>Mar  1 10:00:00 web-1 systemd-logind[600]: ",
        &[
            "New session 1234 of user root.",
            "New session c7 of user root.",
        ],
        &["New session 1234 of user git.", "Removed session 1234."],
    );
    check(
        "linux-auth",
        "<38>Mar  1 10:00:00 web-1 sshd[231]: ",
        &[
            "PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
            "PAM 5 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
        ],
        &[
            "PAM 2 more authentication failures; logname= uid=1 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
            "PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=git",
        ],
    );
}

#[test]
fn iptables_ufw() {
    let line = |clock: &str, prefix: &str, to: &str, packet: &str, flags: &str| {
        format!(
            "[{clock}] [UFW {prefix}] IN=eth0 OUT= MAC=52:54:00:00:00:01:52:54:00:00:00:02:08:00 \
             SRC=203.0.113.5 DST=192.0.2.10 LEN=40 TOS=0x00 PREC=0x00 TTL=243 ID={packet} PROTO=TCP \
             SPT=4{packet} DPT={to} WINDOW=1024 RES=0x00 {flags} URGP=0"
        )
    };
    let base = line("12345.678901", "BLOCK", "22", "4321", "SYN");
    check(
        "iptables-ufw",
        "<4>Mar  1 10:00:00 gw kernel: ",
        &[&base, &line("   99.000001", "BLOCK", "22", "7", "SYN")],
        &[
            &line("12345.678901", "BLOCK", "23", "4321", "SYN"),
            &line("12345.678901", "ALLOW", "22", "4321", "SYN"),
            &line("12345.678901", "BLOCK", "22", "4321", "ACK FIN"),
            &base.replace("IN=eth0", "IN=eth1"),
            &base.replace("203.0.113.5", "203.0.113.6"),
            &base.replace("PROTO=TCP", "PROTO=UDP"),
        ],
    );
}

#[test]
fn haproxy_nginx() {
    let haproxy = "10.0.1.2:33317 [06/Feb/2026:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ---- \
                   1/1/1/1/0 0/0 {1wt.eu} {} \"GET /2024/01/02/03/04 HTTP/1.1\"";
    check(
        "haproxy-nginx",
        "<134>Feb  6 12:14:14 lb haproxy[14389]: ",
        &[
            haproxy,
            "10.0.1.2:40000 [06/Feb/2026:12:14:15.001] http-in static/srv1 0/0/1/9/+10 200 +99 - - ---- \
             7/7/7/7/0 3/1 {1wt.eu} {} \"GET /2024/01/02/03/04 HTTP/1.1\"",
        ],
        &[
            &haproxy.replace("10.0.1.2", "10.0.1.3"),
            &haproxy.replace("srv1", "srv2"),
            &haproxy.replace(" 200 ", " 503 "),
            &haproxy.replace("----", "SC--"),
            &haproxy.replace("/2024/01/02/03/04", "/2024/01/02/03/05"),
            &haproxy.replace("GET", "POST"),
        ],
    );
    let access = "10.0.0.5 - - [01/Mar/2026:10:00:00 +0000] \"GET /a/1 HTTP/1.1\" 200 612 \"-\" \"curl/7.88\"";
    check(
        "haproxy-nginx",
        "<190>Mar  1 10:00:00 web nginx: ",
        &[
            access,
            &access
                .replace("10:00:00", "10:00:07")
                .replace(" 612 ", " 7 "),
        ],
        &[
            &access.replace(" 200 ", " 404 "),
            &access.replace("10.0.0.5", "10.0.0.6"),
            &access.replace("/a/1", "/a/2"),
        ],
    );
    let error = "2026/03/01 10:00:00 [error] 1234#1234: *5678 connect() failed (111: Connection refused) while \
                 connecting to upstream, client: 10.0.0.5, server: a.example, upstream: \"http://127.0.0.1:8080/\"";
    check(
        "haproxy-nginx",
        "<187>Mar  1 10:00:00 web nginx: ",
        &[
            error,
            &error
                .replace("1234#1234: *5678", "99#99: *1")
                .replace("10:00:00", "10:00:09"),
        ],
        &[
            &error.replace("8080", "8081"),
            &error.replace("111: Connection refused", "110: Connection timed out"),
            &error.replace("[error]", "[warn]"),
        ],
    );
}

#[test]
fn kubernetes() {
    let line = "E0301 10:00:00.123456    1234 pod_workers.go:1300] \"Error syncing pod, skipping\" err=\"back-off 5m0s \
                restarting failed container=web pod=web-7c5ddbdf54-xk2lp_prod(6ba7b810-9dad-11d1-80b4-00c04fd430c8)\"";
    check(
        "kubernetes",
        "<27>Mar  1 10:00:00 node-1 kubelet[900]: ",
        &[
            line,
            &line
                .replace(
                    "0301 10:00:00.123456    1234",
                    "0302 11:00:00.000001      99",
                )
                .replace("5m0s", "2m40s")
                .replace("7c5ddbdf54-xk2lp", "6d4b75cb6d-8vwxz")
                .replace("6ba7b810", "00000000"),
        ],
        &[
            &line.replace("E0301", "W0301"),
            &line.replace("container=web", "container=db"),
            &line.replace("_prod", "_test"),
            &line.replace("pod=web-", "pod=api-"),
        ],
    );
}

#[test]
fn windows_snare_nxlog() {
    let snare = "MSWinEventLog\t1\tSecurity\t12345\tSun Mar 01 10:00:00 2026\t4625\tMicrosoft-Windows-Security-Auditing\tbob\tN/A\t\
                 Failure Audit\tdc1.example\tLogon\t\tAn account failed to log on. Logon ID: 0x3E7 Account Name: bob Source \
                 Network Address: 192.0.2.7 Source Port: 50123\t987";
    check(
        "windows-snare-nxlog",
        "<13>Mar  1 10:00:00 dc1 ",
        &[
            snare,
            &snare
                .replace("12345\tSun Mar 01 10:00:00", "12399\tMon Mar 02 11:00:01")
                .replace("0x3E7", "0xABC1")
                .replace("50123", "1")
                .replace("\t987", "\t1003"),
        ],
        &[
            &snare.replace("4625", "4624"),
            &snare.replace("Account Name: bob", "Account Name: eve"),
            &snare.replace("192.0.2.7", "192.0.2.8"),
            &snare.replace("Failure", "Success"),
        ],
    );
    let nxlog = "{\"EventTime\":\"2026-03-01 10:00:00\",\"Hostname\":\"dc1\",\"EventID\":4625,\"RecordNumber\":12345,\
                 \"ProcessID\":600,\"ThreadID\":7,\"TargetUserName\":\"bob\",\"IpAddress\":\"192.0.2.7\",\"IpPort\":\"50123\"}";
    check(
        "windows-snare-nxlog",
        "<13>",
        &[
            nxlog,
            &nxlog
                .replace("10:00:00", "11:11:11")
                .replace("12345", "12346")
                .replace("50123", "50124")
                .replace(":600", ":601"),
        ],
        &[
            &nxlog.replace("4625", "4624"),
            &nxlog.replace("bob", "eve"),
            &nxlog.replace("192.0.2.7", "192.0.2.8"),
        ],
    );
}

#[test]
fn the_documentation_lists_the_profiles_with_their_windows() {
    let docs = include_str!("../../../../docs/identity.md");
    for profile in Profile::ALL {
        let window = humantime::format_duration(profile.window);
        let row = format!("| `{}` | {window} | ", profile.name);
        assert!(docs.contains(&row), "{row}");
    }
}

#[test]
fn the_documentation_shows_what_each_mask_does() {
    let docs = include_str!("../../../../docs/identity.md");
    let row = |builtin: Builtin| {
        let masks = Masks::new([builtin].into_iter().collect(), Vec::new()).unwrap();
        let mut readable = Vec::new();
        masks.write_readable(builtin.example().as_bytes(), &mut readable);
        let readable = String::from_utf8(readable).unwrap();
        format!(
            "| `{}` | `{}` | `{readable}` |",
            builtin.name(),
            builtin.example()
        )
    };
    let rows: Vec<_> = Builtin::ALL.into_iter().map(row).collect();
    assert!(docs.contains(&rows.join("\n")), "{}", rows.join("\n"));
}

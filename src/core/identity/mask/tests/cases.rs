//! Cases of masks: the masks selected, a text, and its readable form. `=` means that the text stays as it
//! is.

use super::*;

#[track_caller]
fn check(cases: &[(&str, &str, &str)]) {
    let mut wrong = vec![];
    for (set, text, expected) in cases {
        let masks = Masks::new(builtins(set), vec![]).unwrap();
        let masked = readable(&masks, text.as_bytes());
        let expected = if *expected == "=" { text } else { expected };
        if masked != *expected {
            wrong.push(format!(
                "{set}: {text:?} became {masked:?}, not {expected:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const N: &str = "number";
const H: &str = "hex";
const V4: &str = "ipv4";
const V6: &str = "ipv6";
const T: &str = "timestamp";
const Q: &str = "quoted";
const P: &str = "path";
const ALL: &str = "all";

#[test]
fn numbers_are_folded() {
    check(&[
        (N, "0", "<number>"),
        (N, "port 22", "port <number>"),
        (N, "pid=123", "pid=<number>"),
        (N, "sshd[1234]: ok", "sshd[<number>]: ok"),
        (N, "line:123", "line:<number>"),
        (N, "(12,13)", "(<number>,<number>)"),
        (N, "100%", "<number>%"),
        (N, "#12", "#<number>"),
        (N, "CPU#3", "CPU#<number>"),
        (N, "$5.00", "$<number>"),
        (N, "1,234,567", "<number>"),
        (N, "1,2,3", "<number>,<number>,<number>"),
        (N, "1,2345", "<number>,<number>"),
        (N, "0.5", "<number>"),
        (N, "3.14.", "<number>."),
        (N, "1..5", "<number>..<number>"),
        (N, "+5 and -5", "<number> and <number>"),
        (N, "rate=-0.5", "rate=<number>"),
        (N, "1e9 1.5e-3 2E+10", "<number> <number> <number>"),
        (N, "10-20", "<number>-<number>"),
        (N, "12:34", "<number>:<number>"),
        (N, "1732269600", "<number>"),
        (N, "[12345.678901] up", "[<number>] up"),
        (N, "audit(1364481363.243:24287)", "audit(<number>:<number>)"),
        (N, "kworker/0:1", "kworker/<number>:<number>"),
        (N, "/proc/1234/stat", "/proc/<number>/stat"),
        (N, "pts/3", "pts/<number>"),
        (N, "123/4567", "<number>/<number>"),
        (N, "22/tcp", "<number>/tcp"),
        (N, "1 2\t3\n4", "<number> <number>\t<number>\n<number>"),
        (N, "rtt 0.1/0.2/0.3 ms", "rtt <number>/<number>/<number> ms"),
        (N, "host1:50322", "host1:<number>"),
        (N, "\"n\":5}", "\"n\":<number>}"),
        (N, "5!", "<number>!"),
        (N, "99999999999999999999999999", "<number>"),
    ]);
}

#[test]
fn units_stay() {
    check(&[
        (N, "10ms", "<number>ms"),
        (N, "5s", "<number>s"),
        (N, "64KB", "<number>KB"),
        (N, "1G/2G", "<number>G/<number>G"),
        (N, "1h30m", "<number>h<number>m"),
        (N, "3d02h", "<number>d<number>h"),
        (N, "1m2.5s", "<number>m<number>s"),
        (N, "350.5\u{b5}s", "<number>\u{b5}s"),
        (N, "25\u{b0}C", "<number>\u{b0}C"),
        (N, "1920x1080", "<number>x<number>"),
        (N, "3x", "<number>x"),
        (N, "7200rpm", "<number>rpm"),
        (N, "100Mbps", "<number>Mbps"),
        (N, "15minutes", "<number>minutes"),
        (N, "5A", "="),
        (N, "5parsecs", "="),
        (N, "2h4", "="),
    ]);
}

#[test]
fn names_keep_their_digits() {
    check(&[
        (ALL, "eth0", "="),
        (ALL, "eth0.100", "="),
        (ALL, "eth0:1", "="),
        (ALL, "Gi1/0/24", "="),
        (ALL, "GigabitEthernet0/1", "="),
        (ALL, "Te 1/0/3 Gi 0/24", "="),
        (ALL, "xe-0/0/1", "="),
        (ALL, "xe-0/0/1:2", "="),
        (ALL, "Serial0/0/0:15", "="),
        (ALL, "ge-0/0/0.100", "="),
        (ALL, "Vlan10", "="),
        (ALL, "sda1", "="),
        (ALL, "x86_64", "="),
        (ALL, "CPU0", "="),
        (ALL, "wlp3s0", "="),
        (ALL, "ssh2", "="),
        (ALL, "v1.2.3 v1.12", "="),
        (ALL, "1/0/24", "="),
        (ALL, "attempt 3/5", "="),
        (ALL, "12/22", "="),
        (ALL, "sd 2:0:0:0: ready", "="),
        (ALL, "0000:00:1f.2", "="),
        (ALL, "e1000 0000:02:00.0: link", "="),
        (ALL, "00:1f.2", "="),
        (ALL, "usb 1-1.2:1.0", "="),
        (ALL, "web-01.example.com", "="),
        (ALL, "01.example.com", "="),
        (ALL, "220-135-151-1.example.net", "="),
        (ALL, "c51471f2c.cable.example.nl", "="),
        (ALL, "ip-10.0.0.1.example.net", "="),
        (ALL, "1.2.3.4.example.net", "="),
        (ALL, "64-bit", "="),
        (ALL, "9a9 3com 2nd", "="),
        (ALL, "messages.1", "="),
        (ALL, "Thread-12", "="),
        (ALL, "user@1000.service", "="),
        (ALL, "HTTP/1.1", "="),
        (ALL, "Chrome/120.0.0.0 Safari/537.36", "="),
        (ALL, "a_1 _1 1_", "="),
        (ALL, "\u{e9}1", "="),
        (ALL, "1\u{e9}", "="),
    ]);
}

#[test]
fn versions_and_odd_dotted_digits_are_no_numbers() {
    for set in [N, V4, ALL] {
        check(&[
            (set, "1.2.3", "="),
            (set, "1.2.3.4.5", "="),
            (set, "256.1.1.1", "="),
            (set, "1.1.1.1000", "="),
            (set, ".1.3.6.1.4.1.9", "="),
            (set, ".1.2.3.4", "="),
            (set, "1.2.3.4-5", "="),
            (set, "2.6.9-1.667", "="),
            (set, "5.10.0-8-amd64", "="),
            (set, "1.2.3rc1", "="),
            (set, "1.2.3.4a", "="),
        ]);
    }
}

#[test]
fn ipv4_addresses_are_folded() {
    check(&[
        (V4, "1.2.3.4", "<ipv4>"),
        (V4, "from 192.0.2.7.", "from <ipv4>."),
        (V4, "[192.0.2.7]", "[<ipv4>]"),
        (V4, "rhost=192.0.2.7", "rhost=<ipv4>"),
        (V4, "root@192.0.2.7", "root@<ipv4>"),
        (V4, "1.2.3.4:80", "<ipv4>:80"),
        ("ipv4 number", "1.2.3.4:80", "<ipv4>:<number>"),
        (V4, "1.2.3.4/24", "<ipv4>/24"),
        (
            "ipv4 number",
            "outside:10.0.0.1/50322",
            "outside:<ipv4>/<number>",
        ),
        (V4, "http://10.0.0.1/x", "http://<ipv4>/x"),
        (V4, "10.0.0.1-10.0.0.9", "<ipv4>-<ipv4>"),
        (V4, "10.0.0.1,10.0.0.2", "<ipv4>,<ipv4>"),
        (V4, "client 10.0.0.1#53", "client <ipv4>#53"),
        (V4, "010.001.002.003", "<ipv4>"),
        (V4, "0.0.0.0", "<ipv4>"),
        (V4, "255.255.255.255", "<ipv4>"),
        (N, "1.2.3.4", "="),
        (N, "1.2.3.4:80", "1.2.3.4:<number>"),
        (N, "10.0.0.1/50322", "10.0.0.1/<number>"),
        (H, "1.2.3.4", "="),
    ]);
}

#[test]
fn ipv6_addresses_are_folded() {
    check(&[
        (V6, "::1", "<ipv6>"),
        (V6, "listening on ::", "listening on <ipv6>"),
        (V6, "[::]:80", "[<ipv6>]:80"),
        (V6, "fe80::1%eth0", "<ipv6>%eth0"),
        (ALL, "fe80::1%eth0", "<ipv6>%eth0"),
        (ALL, "[2001:db8::1]:443", "[<ipv6>]:<number>"),
        (ALL, "2001:db8::/32", "<ipv6>/<number>"),
        (V6, "2001:db8::192.0.2.1", "<ipv6>"),
        (ALL, "::ffff:192.0.2.1", "<ipv6>"),
        (V6, "2001:db8:0:0:0:0:0:1", "<ipv6>"),
        (V6, "2001:DB8::A", "<ipv6>"),
        (V6, "1:2:3:4:5:6:7:8", "<ipv6>"),
        (V6, "from 2001:db8::1: refused", "from <ipv6>: refused"),
        (V6, "from 2001:db8::1.", "from <ipv6>."),
        (V6, "inside:2001:db8::1/443", "inside:<ipv6>/443"),
        (V6, "std::vec a::b", "="),
        (ALL, "std::vec a::b dead::beef", "="),
        (ALL, "x ::= y", "="),
        (ALL, "Foo::bar1()", "="),
        (V6, "12:34:56", "="),
        (V6, "1:2:3:4:5:6:7", "="),
        (V6, "1:2:3:4:5:6:7:8:9", "="),
        (V6, "2001:db8::12345", "="),
        (V6, "::1x", "="),
        (V6, "foo-fe80::1", "="),
        (N, "2001:db8::1", "="),
        (N, "::1", "="),
        (H, "2001:db8::1", "="),
        (V4, "::ffff:192.0.2.1", "="),
    ]);
}

#[test]
fn hardware_addresses_are_folded() {
    let m = "mac";
    check(&[
        (m, "00:11:22:33:44:55", "<mac>"),
        (m, "lladdr 00:00:5E:00:53:0a, ok", "lladdr <mac>, ok"),
        (m, "00-11-22-33-44-55", "<mac>"),
        (m, "0011.2233.4455", "<mac>"),
        (m, "aabb.ccdd.eeff", "<mac>"),
        (m, "00:11:22:33:44:55:66:77", "<mac>"),
        (m, "00:11:22:33:44:55.", "<mac>."),
        (m, "00:11:22:33:44:55: no", "<mac>: no"),
        (
            m,
            "MAC=00:11:22:33:44:55:66:77:88:99:aa:bb:08:00 SRC",
            "MAC=<mac> SRC",
        ),
        (ALL, "(00:11:22:33:44:55)", "(<mac>)"),
        (ALL, "12:34:56:78:90:12", "<mac>"),
        (m, "00:11:22:33:44", "="),
        (m, "00:11:22:33:44:55:66", "="),
        (m, "00:11:22:33:44:5", "="),
        (m, "00:11:22:33:44:555", "="),
        (m, "00:11-22:33-44:55", "="),
        (m, "00:11:22:33:44:zz", "="),
        (m, "0011.2233.4455.6677", "="),
        (N, "00:11:22:33:44:55", "="),
        (H, "00-11-22-33-44-55", "="),
        (N, "0011.2233.4455", "="),
    ]);
}

#[test]
fn hexadecimal_is_folded() {
    check(&[
        (H, "0xdeadbeef", "<hex>"),
        (H, "0x1", "<hex>"),
        (H, "0XFF,", "<hex>,"),
        (H, "at [<0x7f00>]", "at [<<hex>>]"),
        (H, "deadbee1", "<hex>"),
        (
            H,
            "commit 5f3a9c0e1b2d4f6a8c0e1b2d4f6a8c0e1b2d4f6a",
            "commit <hex>",
        ),
        (
            H,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "<hex>",
        ),
        (H, "D41D8CD98F00B204E9800998ECF8427E", "<hex>"),
        (
            H,
            "docker-d41d8cd98f00b204e9800998ecf8427e.scope",
            "docker-<hex>.scope",
        ),
        (H, "nginx-7d9f8b6c5d-x2x4z", "nginx-<hex>-x2x4z"),
        (
            ALL,
            "0000000000000000 - 000000000009fc00",
            "<number> - <hex>",
        ),
        (H, "deadbeef facade", "="),
        (H, "e0dd1b3", "="),
        (H, "12345678", "="),
        (N, "12345678", "<number>"),
        (H, "0x", "="),
        (H, "0xzz 0x12zz", "="),
        (H, "deadbee1g", "="),
        (N, "0x1f", "="),
        (N, "deadbee1 1deadbee", "="),
    ]);
}

#[test]
fn uuids_are_folded() {
    let u = "uuid";
    check(&[
        (u, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "<uuid>"),
        (u, "{6BA7B810-9DAD-11D1-80B4-00C04FD430C8}", "{<uuid>}"),
        (
            u,
            "req-6ba7b810-9dad-11d1-80b4-00c04fd430c8:",
            "req-<uuid>:",
        ),
        (ALL, "12345678-1234-1234-1234-123456789012", "<uuid>"),
        (u, "6ba7b810-9dad-11d1-80b4-00c04fd430c", "="),
        (u, "6ba7b810-9dad-11d1-80b4-00c04fd430c8a", "="),
        (u, "6ba7b810-9dad-11d1-80b400c04fd430c8", "="),
        (H, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "="),
        (N, "12345678-1234-1234-1234-123456789012", "="),
    ]);
}

#[test]
fn timestamps_are_folded() {
    check(&[
        (T, "2026-11-22T10:00:00.123Z", "<timestamp>"),
        (T, "2026-11-22T10:00:00+01:00 x", "<timestamp> x"),
        (T, "2026-11-22 10:00:00", "<timestamp>"),
        (T, "2026-11-22 10:00:00,123", "<timestamp>"),
        (T, "2026-11-22 10:00:00 +0100", "<timestamp>"),
        (T, "2026-11-22 10:00:00 UTC", "<timestamp>"),
        (T, "2026-11-22 10:00", "<timestamp>"),
        (T, "2026/11/22 10:00:00", "<timestamp>"),
        (T, "2026-11-22", "<timestamp>"),
        (T, "on 2026-11-22.", "on <timestamp>."),
        (T, "20261122T100000Z", "<timestamp>"),
        (T, "Nov 22 10:00:00", "<timestamp>"),
        (T, "Nov  2 10:00:00 host", "<timestamp> host"),
        (T, "Nov 22 2026 10:00:00.5", "<timestamp>"),
        (T, "Nov 22 10:00:00 2026", "<timestamp>"),
        (T, "Nov 22, 2026", "<timestamp>"),
        (T, "Sun Nov 22 10:00:00 2026", "<timestamp>"),
        (T, "Sun Nov 22 10:00:00 CET 2026", "<timestamp>"),
        (T, "Sun, 22 Nov 2026 10:00:00 GMT", "<timestamp>"),
        (T, "Sun, 22 Nov 2026 10:00:00 +0000", "<timestamp>"),
        (T, "22 Nov 2026", "<timestamp>"),
        (T, "[22/Nov/2026:10:00:00 +0000]", "[<timestamp>]"),
        (T, "22/11/2026 10:00:00", "<timestamp>"),
        (T, "11/22/2026", "<timestamp>"),
        (T, "22-Nov-2026", "<timestamp>"),
        (T, "10:00:00.123456", "<timestamp>"),
        (T, "12:34:56", "<timestamp>"),
        (T, "10:00:00 PM", "<timestamp>"),
        (T, "at=10:00:00Z", "at=<timestamp>"),
        (T, "10:00:00-11:00:00", "<timestamp>-<timestamp>"),
        (T, "backup-2026-11-22.tar", "backup-<timestamp>.tar"),
        (T, "1732269600", "="),
        (T, "May 10 come in", "="),
        (T, "Nov 22", "="),
        (T, "Nov 32 10:00:00", "Nov 32 <timestamp>"),
        (T, "2026-13-01", "="),
        (T, "25:00:00", "="),
        (T, "12:34:56:78", "="),
        (T, "10:00", "="),
        (T, "Monday March Sunny", "="),
        (T, "1/0/24", "="),
        (
            N,
            "2026-11-22T10:00:00.123Z",
            "<number>-<number>-<number>T<number>:<number>:<number>Z",
        ),
        (
            N,
            "2026-11-22 10:00:00",
            "<number>-<number>-<number> <number>:<number>:<number>",
        ),
        (
            N,
            "Nov 22 10:00:00",
            "Nov <number> <number>:<number>:<number>",
        ),
        (N, "10:00:00", "<number>:<number>:<number>"),
        (N, "at 10:00:00.", "at <number>:<number>:<number>."),
        (H, "20261122T100000Z", "="),
        (N, "20261122T100000Z", "<number>T<number>Z"),
        (N, "Nov 22", "Nov <number>"),
        (ALL, "2026-11-22 10:00:00 12", "<timestamp> <number>"),
    ]);
}

#[test]
fn quoted_text_is_folded() {
    check(&[
        (Q, "user \"root\"", "user <quoted>"),
        (Q, "user 'root'", "user <quoted>"),
        (Q, "\"\"", "<quoted>"),
        (Q, r#"say "a \"b\" c" d"#, "say <quoted> d"),
        (Q, r#"{"a":"b","c":1}"#, "{<quoted>:<quoted>,<quoted>:1}"),
        (Q, "msg='a' b='c'", "msg=<quoted> b=<quoted>"),
        (Q, "don't and can't", "="),
        (Q, "'can't open'", "<quoted>"),
        (Q, "users' files", "="),
        (Q, "\"a 'b' c\"", "<quoted>"),
        (Q, "'a \"b\" c'", "<quoted>"),
        (Q, "\"open", "="),
        (Q, "a \" b", "="),
        (Q, r#"\"a\""#, "="),
        (Q, "'", "="),
        ("quoted number", "\"open 5", "\"open <number>"),
        ("quoted number", "\"a 5\" 5", "<quoted> <number>"),
        (N, "\"a 5\" '6'", "\"a <number>\" '<number>'"),
    ]);
}

#[test]
fn paths_are_folded() {
    check(&[
        (P, "/var/log/x.log", "<path>"),
        (P, "open /var/log/x.log: no", "open <path>: no"),
        (P, "in /etc.", "in <path>."),
        (P, "file=/etc/x-1_2", "file=<path>"),
        (P, "(/usr/bin:/bin)", "(<path>:<path>)"),
        (P, "/a/b.c:12", "<path>:12"),
        (P, "\"/a b\"", "\"<path> b\""),
        (P, "./a/b ../x ~/y", "<path> <path> <path>"),
        (P, r"C:\Windows\x", "<path>"),
        (P, r"at C:\Windows\x.", "at <path>."),
        (P, "C:/x", "<path>"),
        (P, r"\\server\share", "<path>"),
        (P, "GET /index.html HTTP/1.1", "GET <path> HTTP/1.1"),
        (
            P,
            "https://example.com/a/b?x=/y",
            "https://example.com<path>?x=<path>",
        ),
        (P, "https://example.com/", "https://example.com<path>"),
        (
            P,
            "https://example.com:80 /a",
            "https://example.com:80 <path>",
        ),
        (P, "file:///etc/x", "file://<path>"),
        (P, "host:/srv", "host:<path>"),
        (P, "/", "="),
        (P, "cd / && x", "="),
        (P, "//", "="),
        (P, "and/or", "="),
        (P, "N/A TCP/IP", "="),
        (P, "1/0/24", "="),
        (P, "12/22 /24", "="),
        (P, "</tag>", "="),
        (P, "a. b.. ~ . ..", "="),
        (P, r"a\b", "="),
        ("path number", "/proc/1/stat 1", "<path> <number>"),
        ("path quoted", "\"/a\" /b\"c\"", "<quoted> <path><quoted>"),
    ]);
}

#[test]
fn lines_of_common_daemons() {
    check(&[
        (
            ALL,
            "Failed password for root from 192.0.2.7 port 40022 ssh2",
            "Failed password for root from <ipv4> port <number> ssh2",
        ),
        (
            ALL,
            "192.0.2.7 - - [22/Nov/2026:10:00:00 +0000] \"GET / HTTP/1.1\" 200 5316",
            "<ipv4> - - [<timestamp>] <quoted> <number> <number>",
        ),
        (
            ALL,
            "IN=eth0 OUT= MAC=00:11:22:33:44:55:66:77:88:99:aa:bb:08:00 SRC=192.0.2.7 LEN=60 ID=4711 DF",
            "IN=eth0 OUT= MAC=<mac> SRC=<ipv4> LEN=<number> ID=<number> DF",
        ),
        (
            ALL,
            "%LINK-3-UPDOWN: Interface GigabitEthernet1/0/24, changed state to down",
            "=",
        ),
        (
            ALL,
            "Built inbound TCP connection 1234 for outside:192.0.2.7/40022 (192.0.2.7/40022)",
            "Built inbound TCP connection <number> for outside:<ipv4>/<number> (<ipv4>/<number>)",
        ),
        (
            ALL,
            "client @0x7f3a 2001:db8::7#40022 (example.net): query: example.net IN AAAA +E(0)K",
            "client @<hex> <ipv6>#<number> (example.net): query: example.net IN AAAA +E(<number>)K",
        ),
        (
            ALL,
            "DHCPACK on 192.0.2.7 to 00:00:5e:00:53:01 via eth0",
            "DHCPACK on <ipv4> to <mac> via eth0",
        ),
        (ALL, "<number> of <12>", "<number> of <<number>>"),
    ]);
}

//! Saved windows: written and read through real files, and through damaged ones.

use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::clock::ThreadTime;
use crate::core::dedup::{Claim, Sighting, Verdict};
use crate::core::identity::{Identifier, Secret, Sender, Spec};
use crate::core::parse::Message;
use crate::core::rule::{Matcher, Mode, Policy, Rule, SummaryStyle};

const KINDS: [IdentityKind; 2] = [IdentityKind::Exact, IdentityKind::Compact];

/// A relay's windows, and the key of its run.
struct Bed {
    windows: SavedWindows,
    key: Key,
}

impl Bed {
    /// The first run, in `dir`.
    fn new(dir: &TempDir, kind: IdentityKind) -> Self {
        Self::started(windows(dir, kind, rules(&["one", "two"])))
    }

    fn started(windows: SavedWindows) -> Self {
        let key = windows.restore();
        Self { windows, key }
    }

    fn offer(&self, policy: u16, text: &str) -> Option<Claim> {
        let frame = format!("<13>1 2026-03-01T12:00:00Z host app - - - {text}");
        let message = Message::parse(frame.as_bytes());
        let mut identifier = Identifier::new(&self.key, self.windows.kind);
        let identity = identifier.identify(&message, Sender::Local);
        let sighting = Sighting {
            frame: frame.as_bytes(),
            timestamp: None,
            variant: None,
        };
        let now = Clock::now();
        let mut ended = Vec::new();
        let verdict =
            self.windows
                .shards
                .offer(PolicyId(policy), identity, sighting, now, &mut ended);
        match verdict {
            Verdict::Fresh(claim) => Some(claim),
            Verdict::Duplicate => None,
        }
    }

    #[track_caller]
    fn save(&self) -> (u64, u64) {
        self.windows
            .try_save(&self.key, Clock::now(), HOUR)
            .unwrap()
    }

    fn open(&self) -> usize {
        self.windows.shards.stats().live_messages
    }
}

fn rules(names: &[&str]) -> Rules {
    let policy = |millis, allow, refresh: Option<u64>| Policy {
        window: WindowPolicy {
            window: Duration::from_millis(millis),
            allow,
            refresh: refresh.map(Duration::from_millis),
        },
        summary: SummaryStyle::Prefix,
        identity: Spec::default(),
        mode: Mode::Enforce,
    };
    let rule = |name: &&str| Rule {
        name: (*name).to_owned(),
        matcher: Matcher::default(),
        action: Action::Dedup,
        policy: policy(3_600_000, 2, Some(36_000_000)),
    };
    Rules::with(policy(3_600_000, 1, None), names.iter().map(rule).collect()).unwrap()
}

fn windows(dir: &TempDir, kind: IdentityKind, rules: Rules) -> SavedWindows {
    let policies: Vec<_> = rules.policies().map(|policy| policy.window).collect();
    SavedWindows {
        path: dir.path().join("windows"),
        shards: Arc::new(Shards::new(4, &policies, 4 << 20)),
        rules: Arc::new(rules),
        kind,
    }
}

/// A few windows of each kind, saved.
fn saved(dir: &TempDir, kind: IdentityKind) -> Vec<u8> {
    let bed = Bed::new(dir, kind);
    for (policy, text) in [(0, "a"), (0, "b"), (2, "a"), (2, "a"), (2, "a"), (3, "c")] {
        bed.offer(policy, text);
    }
    assert_eq!(bed.save().0, 4);
    fs::read(&bed.windows.path).unwrap()
}

#[test]
fn the_next_run_goes_on_where_the_last_one_stopped() {
    for kind in KINDS {
        let dir = TempDir::new().unwrap();
        let bed = Bed::new(&dir, kind);
        assert!(bed.offer(0, "a").is_some());
        assert!(bed.offer(0, "b").is_some());
        bed.windows
            .shards
            .reopen(bed.offer(0, "dropped").unwrap(), &mut Vec::new());
        assert!(bed.offer(2, "a").is_some());
        for passes in [true, true, false] {
            assert_eq!(bed.offer(3, "c").is_some(), passes);
        }
        let (count, octets) = bed.save();
        let metadata = fs::metadata(&bed.windows.path).unwrap();
        assert_eq!((count, octets), (4, metadata.len()));
        assert_eq!(metadata.mode() & 0o7777, 0o600);

        // Other shards, and the rules in another order.
        let mut next = windows(&dir, kind, rules(&["zero", "two", "one"]));
        let policies: Vec<_> = next.rules.policies().map(|policy| policy.window).collect();
        next.shards = Arc::new(Shards::new(16, &policies, 4 << 20));
        let bed = Bed::started(next);
        assert_eq!(bed.open(), 4);
        assert!(!bed.windows.path.exists(), "good for one start");
        for (policy, text, passes) in [
            (0, "a", false),
            (0, "b", false),
            (0, "dropped", true),
            (2, "a", true),
            (3, "c", false),
            (4, "a", true),
            (4, "a", false),
        ] {
            let claim = bed.offer(policy, text);
            assert_eq!(claim.is_some(), passes, "{kind:?} {policy} {text}");
        }
        // And again.
        bed.save();
        let bed = Bed::started(windows(&dir, kind, rules(&["zero", "two", "one"])));
        assert_eq!(bed.offer(0, "dropped"), None);
        assert_eq!(bed.offer(3, "c"), None);
    }
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_refused_whatever_differs() {
    for kind in KINDS {
        let dir = TempDir::new().unwrap();
        let octets = saved(&dir, kind);
        let check = |octets: &[u8], what: &dyn std::fmt::Display| {
            let windows = windows(&dir, kind, rules(&["one", "two"]));
            fs::write(&windows.path, octets).unwrap();
            fs::set_permissions(&windows.path, PermissionsExt::from_mode(0o600)).unwrap();
            let error = windows.try_restore().unwrap_err();
            assert!(matches!(error, RestoreError::Format(_)), "{what}: {error}");
            let bed = Bed::started(windows);
            assert_eq!(bed.open(), 0, "{what}");
        };
        for at in 0..octets.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut other = octets.clone();
                other[at] ^= flip;
                check(&other, &format_args!("octet {at} by {flip:#x}"));
            }
            check(&octets[..at], &format_args!("cut at {at}"));
        }
        check(&[&octets[..], b"x"].concat(), &"one more");
        check(&[&octets[..], &octets[..]].concat(), &"twice");
    }
}

/// A right checksum does not make the content right.
#[test]
fn no_content_is_believed_for_its_checksum() {
    let mut random = 1_u64;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % bound
    };
    let dir = TempDir::new().unwrap();
    let octets = saved(&dir, IdentityKind::Exact);
    let (mut refused, mut restored) = (0, 0);
    for _ in 0..20_000 {
        // Blocks with a few octets changed, and then a checksum that fits.
        let mut other = octets[..16].to_vec();
        let mut rest = &octets[16..];
        while let Some((head, after)) = rest.split_at_checked(8) {
            let length = u32::from_le_bytes(head[..4].try_into().unwrap());
            let (body, after) = after.split_at(length as usize);
            let mut body = body.to_vec();
            for _ in 0..below(3) {
                let at = below(body.len());
                let any = u8::try_from(below(256)).unwrap();
                body[at] = [0, 0xff, body[at] ^ 1, any][below(4)];
            }
            if below(16) == 0 {
                body.truncate(below(body.len()));
            }
            other.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
            other.extend(crc32fast::hash(&body).to_le_bytes());
            other.extend(body);
            rest = after;
        }
        let windows = windows(&dir, IdentityKind::Exact, rules(&["one", "two"]));
        match windows.read(&other[..]) {
            Ok((_, tally, _)) => {
                assert_eq!(tally.read, 4);
                restored += windows.shards.stats().live_messages;
            }
            Err(_) => refused += 1,
        }
    }
    assert!((5000..19_900).contains(&refused), "{refused}");
    assert!(restored > 100, "{restored}");
}

#[test]
fn a_length_is_not_believed() {
    // Up to 4 GiB are promised, and none follow.
    for length in [0, 1 << 20, 1 << 30, u32::MAX] {
        let octets = [format::MAGIC, &[1], &length.to_le_bytes(), &[0; 4]].concat();
        let error = Reader::new(&octets[..]).unwrap_err();
        assert!(
            matches!(error, FormatError::Damaged { at: 16, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_file_of_another_version_is_refused_with_its_number() {
    let dir = TempDir::new().unwrap();
    let octets = saved(&dir, IdentityKind::Exact);
    let mut other = octets.clone();
    other[15] = 9;
    let error = Reader::new(&other[..]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "format 9 is not supported, expected format 1"
    );
    let mut other = octets;
    let length = u32::from_le_bytes(other[16..20].try_into().unwrap()) as usize;
    other[25] = 7;
    let checksum = crc32fast::hash(&other[24..24 + length]);
    other[20..24].copy_from_slice(&checksum.to_le_bytes());
    let error = Reader::new(&other[..]).unwrap_err();
    let expected = "identity layout 7 is not supported, expected layout 1";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn what_is_not_ours_alone_is_neither_read_nor_removed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("windows");
    let other = dir.path().join("other");
    let octets = saved(&dir, IdentityKind::Exact);
    let check = |expected: &str| {
        let bed = Bed::new(&dir, IdentityKind::Exact);
        let error = bed.windows.try_restore().unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(bed.open(), 0);
        assert!(path.symlink_metadata().is_ok(), "{expected}: it stays");
        bed
    };
    for mode in [0o640, 0o602, 0o644] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let expected = format!("mode {mode:04o} allows access by others; expected 0600");
        check(&expected);
    }
    // The stop still replaces it, because it is a file of saved windows; then only we can access it.
    check("mode 0644 allows access by others; expected 0600").save();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);

    let taken = |bed: Bed| {
        let error = bed.windows.try_save(&bed.key, Clock::now(), HOUR);
        assert!(matches!(error, Err(SaveError::Taken)), "{error:?}");
    };
    fs::write(&other, &octets).unwrap();
    fs::set_permissions(&other, PermissionsExt::from_mode(0o600)).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&other, &path).unwrap();
    taken(check("a symbolic link, which is not followed"));
    assert_eq!(fs::read(&other).unwrap(), octets);

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    taken(check("not a regular file"));

    fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    taken(check("not a regular file"));

    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    taken(check("not a file of saved windows"));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn identities_of_another_kind_are_no_use() {
    let dir = TempDir::new().unwrap();
    saved(&dir, IdentityKind::Compact);
    let bed = Bed::new(&dir, IdentityKind::Exact);
    assert_eq!(bed.open(), 0);
    saved(&dir, IdentityKind::Compact);
    let error = bed.windows.try_restore().unwrap_err();
    let expected = "the identities in it are `compact`, those of this run are `exact`";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn windows_of_a_rule_that_changed_are_left_out_alone() {
    let dir = TempDir::new().unwrap();
    saved(&dir, IdentityKind::Exact);
    let windows = windows(&dir, IdentityKind::Exact, rules(&["one", "other"]));
    let (_, tally, _) = windows.try_restore().unwrap().unwrap();
    assert_eq!((tally.read, tally.over, tally.of_other_policies), (4, 0, 1));
    assert_eq!(windows.shards.stats().live_messages, 3);
}

#[test]
fn saving_ends_when_its_time_is_over_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let bed = Bed::new(&dir, IdentityKind::Exact);
    bed.offer(0, "a");
    let error = bed.windows.try_save(&bed.key, Tick::ZERO, HOUR);
    assert!(matches!(error, Err(SaveError::Late(HOUR))), "{error:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_an_interrupted_save_left_does_not_block_the_next() {
    let dir = TempDir::new().unwrap();
    let bed = Bed::new(&dir, IdentityKind::Exact);
    bed.offer(0, "a");
    let precious = dir.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, dir.path().join("windows.new")).unwrap();
    bed.save();
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    assert_eq!(Bed::new(&dir, IdentityKind::Exact).open(), 1);
}

const HOUR: Duration = Duration::from_secs(3600);

/// Reading a file with one identity a million times took minutes: each was looked up behind all before it.
#[test]
fn a_million_windows_of_one_identity_are_read_in_linear_time() {
    for kind in KINDS {
        let dir = TempDir::new().unwrap();
        let mut windows = windows(&dir, kind, rules(&["one", "two"]));
        let policies: Vec<_> = windows
            .rules
            .policies()
            .map(|policy| policy.window)
            .collect();
        windows.shards = Arc::new(Shards::new(8, &policies, 256 << 20));
        let header = Header {
            kind,
            secret: (kind == IdentityKind::Compact).then_some(Secret(1, 2)),
            saved: Moment::now(),
        };
        let mut writer = Writer::new(Vec::new(), &header).unwrap();
        let (_, policy) = windows.policies().next().unwrap();
        writer.policy(&policy).unwrap();
        let window = OpenWindow {
            start: header.saved.tick,
            passed: 1,
            last: header.saved.tick,
            forwarded: header.saved.tick,
        };
        for _ in 0..1_000_000 {
            writer.window(&window, &[7; 16]).unwrap();
        }
        let (octets, _, _) = writer.finish().unwrap();
        // Processor time, which other processes do not disturb.
        let started = ThreadTime::now();
        let (_, tally, _) = windows.read(&octets[..]).unwrap();
        let took = started.elapsed();
        assert_eq!((tally.read, tally.over), (1_000_000, 0));
        assert_eq!(windows.shards.stats().live_messages, 1);
        // In a debug build. It was more than a minute before.
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
}

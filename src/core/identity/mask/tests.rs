//! Properties of masks: they never fail, they add up, they keep the text that they do not fold, and they
//! are linear. Single cases stand in `cases`.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that indexes wrongly shall fail"
)]

mod cases;

use proptest::prelude::*;

use super::octet::work::LOOKED;
use super::*;

/// The user's masks: their names and expressions.
type Written = &'static [(&'static str, &'static str)];

fn all() -> BuiltinSet {
    Builtin::ALL.into_iter().collect()
}

fn builtins(names: &str) -> BuiltinSet {
    match names {
        "all" => all(),
        _ => names
            .split_whitespace()
            .map(|name| Builtin::named(name).unwrap())
            .collect(),
    }
}

fn pattern(name: &str, regex: &str) -> Pattern {
    Pattern {
        name: name.to_owned(),
        regex: regex.to_owned(),
    }
}

fn identity(masks: &Masks, msg: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    masks.write_identity(msg, &mut out);
    out
}

fn readable(masks: &Masks, msg: &[u8]) -> String {
    let mut out = Vec::new();
    masks.write_readable(msg, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn ranges(builtins: BuiltinSet, msg: &[u8]) -> Vec<(Range<usize>, Mask)> {
    let masks = Masks::new(builtins, vec![]).unwrap();
    let mut found = Vec::new();
    masks.each(msg, |range, mask| found.push((range, mask)));
    found
}

/// The parts of `msg` that stay, and the masks in place of the others.
fn skeleton(masks: &Masks, msg: &[u8]) -> Vec<Result<Vec<u8>, Mask>> {
    let mut parts = vec![];
    let mut from = 0;
    masks.each(msg, |range, mask| {
        parts.extend([Ok(msg[from..range.start].to_vec()), Err(mask)]);
        from = range.end;
    });
    parts.push(Ok(msg[from..].to_vec()));
    parts
}

/// Texts of pieces that the masks look for, more often than chance would have them.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "1",
        "22",
        "123",
        "2026",
        "0x1f",
        "fe80",
        "::",
        ":",
        ".",
        "-",
        "/",
        " ",
        "\"",
        "'",
        "\\",
        "a",
        "eth0",
        "Gi1/0/24",
        "10.0.0.1",
        "2001:db8::1",
        "00:11:22:33:44:55",
        "Nov 22 ",
        "10:00:00",
        "2026-11-22",
        "T",
        "Z",
        "ms",
        "e",
        "+",
        ",",
        "deadbee1",
        "./a",
        "C:\\x",
        "http://h/p",
        "é",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "\u{1a}",
        "\0",
        "<number>",
        "=",
        "[",
        "]",
        "_",
        "x",
    ])
    .prop_map(|piece| piece.as_bytes().to_vec());
    let piece = prop_oneof![8 => pieces, 1 => prop::collection::vec(any::<u8>(), 0..4)];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn sets() -> impl Strategy<Value = BuiltinSet> {
    prop::collection::vec(prop::sample::select(Builtin::ALL.to_vec()), 0..9)
        .prop_map(|chosen| chosen.into_iter().collect())
}

proptest! {
    #[test]
    fn parts_are_in_order_and_inside(msg in octets(), builtins in sets()) {
        let mut behind = 0;
        for (range, mask) in ranges(builtins, &msg) {
            prop_assert!(behind <= range.start && range.start < range.end && range.end <= msg.len());
            let Mask::Builtin(builtin) = mask else { panic!("no user's mask is configured") };
            prop_assert!(builtins.contains(builtin));
            behind = range.end;
        }
    }

    /// An identity consists of the text that stays and the masks in between, and nothing else.
    #[test]
    fn equal_identities_have_equal_skeletons(one in octets(), other in octets(), builtins in sets()) {
        let masks = Masks::new(builtins, vec![]).unwrap();
        let same = identity(&masks, &one) == identity(&masks, &other);
        prop_assert_eq!(same, skeleton(&masks, &one) == skeleton(&masks, &other));
    }

    #[test]
    fn an_identity_can_be_read_back(msg in octets(), builtins in sets()) {
        let masks = Masks::new(builtins, vec![pattern("word", "[a-c]+")]).unwrap();
        let mut read = vec![];
        let mut text = vec![];
        let form = identity(&masks, &msg);
        let mut form = form.iter();
        while let Some(octet) = form.next() {
            match (*octet == SUB).then(|| *form.next().unwrap()) {
                None => text.push(*octet),
                Some(CODE_ITSELF) => text.push(SUB),
                Some(CODE_USER) => read.extend([Ok(std::mem::take(&mut text)), Err(Mask::User(0))]),
                Some(code) => {
                    let builtin = Builtin::ALL.into_iter().find(|builtin| *builtin as u8 == code);
                    let mask = Mask::Builtin(builtin.unwrap());
                    read.extend([Ok(std::mem::take(&mut text)), Err(mask)]);
                }
            }
        }
        read.push(Ok(text));
        prop_assert_eq!(read, skeleton(&masks, &msg));
    }

    /// What a token is does not depend on the masks selected, except for masks that hide their inside.
    #[test]
    fn masks_add_up(msg in octets(), builtins in sets()) {
        let hiding = [Builtin::Quoted, Builtin::Path, Builtin::Timestamp];
        let builtins: BuiltinSet = builtins.iter().filter(|one| !hiding.contains(one)).collect();
        let mut apart: Vec<_> = builtins
            .iter()
            .flat_map(|one| ranges(BuiltinSet::EMPTY.with(one), &msg))
            .collect();
        apart.sort_by_key(|(range, _)| range.start);
        prop_assert_eq!(apart, ranges(builtins, &msg));
    }

    #[test]
    fn any_octets_can_be_masked(msg in prop::collection::vec(any::<u8>(), 0..200), builtins in sets()) {
        let masks = Masks::new(builtins, vec![pattern("odd", r"(?-u)[\x00-\x20\xf0-\xff]+")]).unwrap();
        prop_assert_eq!(identity(&masks, &msg), identity(&masks, &msg));
    }
}

/// On average each octet is looked at a few times at most.
#[test]
fn work_is_linear_whatever_the_text() {
    let pieces = [
        "1:",
        "1",
        "1.",
        "1-",
        "1/",
        "1,234",
        "1.1.1-",
        "1-1.1.1",
        "12:",
        "a:",
        ":",
        "::",
        "\"",
        "'",
        "'a",
        "\\\"",
        "\" \\",
        "/",
        "/.",
        "/!",
        "/a",
        "./",
        "../",
        "~",
        "\\\\",
        "a",
        "fe80:",
        "fe80::",
        "00:11:",
        "0011.",
        "00-",
        "deadbee1",
        "deadbee1-",
        "6ba7b810-9dad-",
        "0x",
        "0x1",
        "1e1",
        "1h",
        "1x",
        "Nov ",
        "Nov 22 ",
        "Nov 22 10:00:00 ",
        "Sun, ",
        "2026-11-22",
        "2026-11-22T",
        "10:00:00",
        "://",
        "a://",
        "a://a/",
        "C:\\",
        "C:/",
        "+",
        "-",
        "-1",
        " ",
        "1 ",
        "\u{1a}",
        "\u{e9}",
        "\u{e9}1",
        "10.0.0.1-",
        "0000:00:1f.2",
        "eth0:1",
        "a1:",
        "1/0/24",
    ];
    let masks = Masks::new(all(), vec![]).unwrap();
    let mut out = Vec::new();
    let mut looks = |text: &[u8]| {
        out.clear();
        LOOKED.set(0);
        masks.write_identity(text, &mut out);
        LOOKED.get() / text.len()
    };
    let mut most = 0;
    for piece in pieces {
        for before in ["", "\"", "'", "1:", "x"] {
            let text = format!("{before}{}", piece.repeat(LONG / piece.len()));
            let looks = looks(text.as_bytes());
            most = most.max(looks);
            assert!(
                looks <= LOOKS_MAX,
                "{before:?} {piece:?}: {looks} looks at each octet"
            );
        }
    }
    assert!(most > 2, "looks are not counted");
    for piece in ["1:", "\"", "/", "a"] {
        let looks = looks(piece.repeat(MEBIBYTE).as_bytes());
        assert!(looks <= LOOKS_MAX, "{piece:?}: {looks} looks at each octet");
    }
}

#[test]
fn a_mebibyte_of_matches_is_bounded() {
    // The pattern looks at all of the text behind before it settles for one octet.
    let masks = Masks::new(BuiltinSet::EMPTY, vec![pattern("late", "x.*y|x")]).unwrap();
    let mut found = 0;
    masks.each(&vec![b'x'; 1 << 16], |_, _| found += 1);
    assert_eq!(found, crate::core::limits::MASK_MATCHES_MAX);
}

#[test]
fn a_message_that_looks_like_a_masked_one_is_another_message() {
    let masks = Masks::new(all(), vec![]).unwrap();
    let forms = [
        &b"took 5 ms"[..],
        b"took <number> ms",
        b"took \x1a\x01 ms",
        b"took \x1a\0 ms",
        b"took \x1a ms",
    ]
    .map(|msg| identity(&masks, msg));
    for (at, form) in forms.iter().enumerate() {
        assert!(!forms[..at].contains(form), "{}", form.escape_ascii());
    }
    assert_eq!(forms[0], identity(&masks, b"took 7 ms"));
}

#[test]
fn the_buffer_is_appended_to() {
    let masks = Masks::new(all(), vec![]).unwrap();
    let mut out = b"before".to_vec();
    masks.write_identity(b"x 1", &mut out);
    assert_eq!(out, b"beforex \x1a\x01");
}

#[test]
fn user_masks_come_first_and_see_the_whole_text() {
    let cases: &[(&str, Written, &str, &str)] = &[
        (
            "all",
            &[("session", "s-[0-9]+")],
            "s-12 and 12",
            "<session> and <number>",
        ),
        (
            "all",
            &[("first", "^[0-9]+"), ("last", "[0-9]+$")],
            "1 2 3",
            "<first> <number> <last>",
        ),
        // The leftmost match wins, then the order of the configuration.
        ("", &[("b", "b+"), ("ab", "ab")], "abb b", "<ab><b> <b>"),
        ("", &[("one", "a"), ("two", "ab")], "ab", "<one>b"),
        ("", &[("two", "ab"), ("one", "a")], "ab a", "<two> <one>"),
        ("", &[("i", "(?i)error")], "ERROR error", "<i> <i>"),
        ("", &[("octet", r"(?-u)\xff+")], "none", "none"),
        (
            "number",
            &[("user", r"user=\w+")],
            "user=a1 uid=7",
            "<user> uid=<number>",
        ),
        // Each part between matches is a text of its own.
        ("number", &[("x", "x")], "x1 a1", "<x><number> a1"),
    ];
    for (set, patterns, msg, expected) in cases {
        let patterns = patterns.iter().map(|(name, regex)| pattern(name, regex));
        let masks = Masks::new(builtins(set), patterns.collect()).unwrap();
        assert_eq!(readable(&masks, msg.as_bytes()), *expected, "{msg:?}");
    }
}

#[test]
fn errors_name_the_mask_the_place_and_the_fault() {
    let cases: &[(Written, &str)] = &[
        (
            &[("a", "x(")],
            "mask `a`: at octet 1 of `x(`: unclosed group",
        ),
        (
            &[("a", "x"), ("b", "[z-a]")],
            "mask `b`: at octet 1 of `[z-a]`: invalid character class range",
        ),
        (&[("a", "x*")], "mask `a`: `x*` matches the empty text"),
        (&[("a", r"\b")], r"mask `a`: `\b` matches the empty text"),
        (
            &[("number", "x")],
            "mask `number`: a built-in mask has this name",
        ),
        (
            &[("a", "x"), ("a", "y")],
            "mask `a`: another mask has this name",
        ),
        (&[("A", "x")], "mask `A`: a name is lower-case letters"),
        (&[("", "x")], "mask ``: a name is lower-case letters"),
        (
            &[("a", "x"), ("b", "(?:x{1000}){1000}")],
            "mask `b`: compiled, its expression takes more than",
        ),
        (
            &[("a", r"\p{Greek}")],
            "mask `a`: at octet 0 of `\\p{Greek}`: Unicode",
        ),
    ];
    for (patterns, expected) in cases {
        let patterns = patterns.iter().map(|(name, regex)| pattern(name, regex));
        let error = Masks::new(all(), patterns.collect())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let long = pattern("a", &"x".repeat(5000));
    let error = Masks::new(all(), vec![long]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "mask `a`: an expression of 5000 octets, limit 4096"
    );
    let many = (0..65).map(|index| pattern(&format!("m{index}"), "x"));
    let error = Masks::new(all(), many.collect()).unwrap_err();
    assert_eq!(error.to_string(), "65 user-defined masks, limit 64");
}

#[test]
fn masks_are_chosen_by_name() {
    let patterns = [pattern("b", "b"), pattern("a", "a")];
    let masks = Masks::named(["a", "number", "b"], &patterns).unwrap();
    assert_eq!(readable(&masks, b"a b 1"), "<a> <b> <number>");
    // The patterns' order counts, so another order of names makes no difference.
    assert_eq!(
        masks,
        Masks::named(["b", "a", "number"], &patterns).unwrap()
    );
    assert_ne!(masks, Masks::named(["a", "number"], &patterns).unwrap());
    assert_ne!(masks, Masks::named(["a", "b", "hex"], &patterns).unwrap());
    assert!(Masks::named([], &patterns).unwrap().is_empty());
    let unknown = |name| Masks::named([name], &patterns).unwrap_err().to_string();
    let known = "the built-in ones are number, hex, ipv4, ipv6, mac, uuid, timestamp, quoted, path";
    assert_eq!(
        unknown("Numbers"),
        format!("no mask is called `Numbers`, perhaps `number` was meant; {known}")
    );
    assert_eq!(
        unknown("address"),
        format!("no mask is called `address`; {known}")
    );
}

#[test]
fn every_mask_folds_something_in_its_example() {
    for builtin in Builtin::ALL {
        let masks = Masks::new(BuiltinSet::EMPTY.with(builtin), vec![]).unwrap();
        let masked = readable(&masks, builtin.example().as_bytes());
        assert!(masked.contains(&format!("<{builtin}>")), "{masked}");
        assert!(
            builtin.description().len() < 160,
            "{builtin}: more than a line"
        );
        assert_eq!(Builtin::named(builtin.name()), Some(builtin));
        assert_eq!(
            builtin as usize,
            Builtin::ALL.iter().position(|one| *one == builtin).unwrap() + 1
        );
    }
}

/// Octets of a text. Quadratic work on it is far beyond [`LOOKS_MAX`].
const LONG: usize = 1 << 13;

const MEBIBYTE: usize = 1 << 20;

/// The most looks at an octet, on average.
const LOOKS_MAX: usize = 40;

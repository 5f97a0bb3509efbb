//! Identity: the octets of a message that decide whether it equals another, and their hash.
//!
//! The identity is hashed once, here, with a key drawn at start. It is written into a buffer that the
//! caller reuses:
//!
//! ```text
//! kind PRIVAL │ len HOSTNAME or sender │ len APP-NAME │ len MSGID │ len STRUCTURED-DATA │ MSG
//! ```
//!
//! # Guarantees
//!
//! - Fields are length-delimited, so (`ab`, `c`) and (`a`, `bc`) differ. Absent and empty are the same.
//! - TIMESTAMP, PROCID, Cisco sequence numbers and clock marks, a BOM before MSG and trailing line
//!   ends are not part of it. Every other octet of MSG is, however long MSG is.
//! - Where the frame names no host, the sender's address stands in.
//! - SD-ELEMENTs that describe the transmission (`meta`, `timeQuality`, `origin`: RFC 5424 7) are left
//!   out; STRUCTURED-DATA that held nothing else counts as absent.
//! - The identity of an unparsed frame is its sender, its PRI if valid, and all octets after it.
//! - The identity of a message that is never suppressed is all its octets, timestamp included.
//! - The hash is seeded, and the `compact` identity keyed, with numbers drawn from the operating system.
//!   So a sender cannot choose collisions.
//!
//! This is the default. A [`Spec`] chooses other fields, and masks that fold parts of MSG:
//!
//! ```text
//! kind PRIVAL spec │ then, if chosen: len HOSTNAME or sender │ len APP-NAME │ len PROCID │ len MSGID
//!                  │ len STRUCTURED-DATA │ source │ len listener │ MSG, folded
//! ```
//!
//! - If only a part of PRI is chosen, the other part is zero.
//! - The sender stands in for a missing HOSTNAME only if HOSTNAME is chosen.
//! - An unparsed frame has no fields to choose from: all its octets after PRI count, folded.
//! - Under any spec, the identity of a message that is never suppressed is all its octets.
//!
//! # Left out
//!
//! The choice of a spec for a message (see `rule`). The parts of MSG that masks fold (see [`mask`]).

pub mod mask;
mod spec;

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::OnceLock,
};

use foldhash::{SharedSeed, quality::SeedableRandomState};
use siphasher::sip128::SipHasher24;

use crate::core::parse::{Format, Message, Pri};

pub use self::spec::{Field, Fields, Spec, Variant};

/// One message's identity: the octets that are compared, and a seeded hash of them.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Hash of `octets` under this run's key.
    pub hash: u64,
    /// The identity itself (`exact`), or 16 octets of a keyed pseudo-random function of it
    /// (`compact`).
    pub octets: &'a [u8],
}

/// How identities are kept and compared.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IdentityKind {
    /// By all their octets.
    #[default]
    Exact,
    /// By 128 bits of a keyed pseudo-random function. Two different messages have the same identity with a
    /// probability of 2^-128 per pair, and such a pair cannot be found without the key.
    Compact,
}

/// The sender of a frame as identity sees it: an address without its port, or a process on this host.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Sender {
    /// A peer address; IPv4-mapped IPv6 is normalised.
    Address(IpAddr),
    /// A peer of a Unix socket.
    Local,
}

impl Sender {
    /// The sender at `address`.
    #[must_use]
    pub const fn at(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Local => f.write_str("local"),
        }
    }
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The peer.
    pub sender: Sender,
    /// The name of the listener that received it.
    pub listener: &'a str,
}

/// The key of this run, drawn at start.
#[derive(Clone, Debug)]
pub struct Key {
    hash: SeedableRandomState,
    prf: SipHasher24,
}

impl Key {
    /// A key from the operating system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        static SHARED: OnceLock<SharedSeed> = OnceLock::new();
        // A RandomState is keyed with random numbers from the operating system.
        let random = || RandomState::new().hash_one(0);
        let shared = SHARED.get_or_init(|| SharedSeed::from_u64(random()));
        Self {
            hash: SeedableRandomState::with_seed(random(), shared),
            prf: SipHasher24::new_with_keys(random(), random()),
        }
    }

    /// The key of a run that continues another one. `compact` identities stay the same. `exact` ones do, too, but their
    /// hashes change.
    #[must_use]
    pub fn continuing(secret: Secret) -> Self {
        Self {
            prf: SipHasher24::new_with_keys(secret.0, secret.1),
            ..Self::random()
        }
    }

    /// The part of the key that [`Key::continuing`] needs.
    #[must_use]
    pub fn secret(&self) -> Secret {
        let (one, other) = self.prf.keys();
        Secret(one, other)
    }

    /// The identity with these octets; `None` if no identity of that kind can have them.
    #[must_use]
    pub fn identity<'a>(&self, kind: IdentityKind, octets: &'a [u8]) -> Option<Identity<'a>> {
        let hash = match kind {
            IdentityKind::Exact => self.hash(octets),
            IdentityKind::Compact => {
                let digest: &[u8; 16] = octets.try_into().ok()?;
                u64::from_le_bytes(*digest.first_chunk()?)
            }
        };
        Some(Identity { hash, octets })
    }

    /// The key made of `seed`, the same in every run: for tests, benchmarks, and names that people compare.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self {
            hash: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            prf: SipHasher24::new_with_keys(seed, !seed),
        }
    }

    /// 16 octets of a keyed pseudo-random function of `octets`.
    pub(crate) fn digest(&self, octets: &[u8]) -> [u8; 16] {
        self.prf.hash(octets).as_bytes()
    }

    fn hash(&self, octets: &[u8]) -> u64 {
        self.hash.hash_one(octets)
    }
}

/// The key of `compact` identities. Runs that share it have the same ones.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Secret(pub u64, pub u64);

/// Keeps the secret out of logs.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Writes identities under one key.
#[derive(Clone, Debug)]
pub struct Identifier<'k> {
    key: &'k Key,
    kind: IdentityKind,
    octets: Vec<u8>,
}

impl<'k> Identifier<'k> {
    /// An identifier under `key`.
    #[must_use]
    pub const fn new(key: &'k Key, kind: IdentityKind) -> Self {
        Self {
            key,
            kind,
            octets: Vec::new(),
        }
    }

    /// The identity of `message` from `sender`, in a buffer of the identifier. Valid until the next call.
    pub fn identify(&mut self, message: &Message<'_>, sender: Sender) -> Identity<'_> {
        let mut octets = std::mem::take(&mut self.octets);
        octets.clear();
        let hash = self.append(message, sender, &mut octets);
        self.octets = octets;
        Identity {
            hash,
            octets: &self.octets,
        }
    }

    /// Appends the octets of the identity of `message` to `octets`. Returns its hash.
    pub fn append(&self, message: &Message<'_>, sender: Sender, octets: &mut Vec<u8>) -> u64 {
        self.append_with(message, octets, |octets| write(octets, message, sender))
    }

    /// Appends the octets of the identity of `message` by `spec` to `octets`. Returns its hash.
    #[inline]
    pub fn append_by(
        &self,
        spec: &Spec,
        message: &Message<'_>,
        origin: Origin<'_>,
        octets: &mut Vec<u8>,
    ) -> u64 {
        if spec.is_default() {
            return self.append(message, origin.sender, octets);
        }
        self.append_with(message, octets, |octets| {
            write_by(octets, spec, message, origin);
        })
    }

    /// The parts in which `message` may differ from others of its identity by `spec`; `None` if there are none that a
    /// summary counts.
    #[must_use]
    #[inline]
    pub fn variant(&self, spec: &Spec, message: &Message<'_>, sender: Sender) -> Option<Variant> {
        if spec.is_default() || message.never_suppress {
            return None;
        }
        let variant = Variant {
            text: spec.folds_texts().then(|| self.key.hash(message.msg())),
            host: spec.folds_hosts().then(|| match message.hostname() {
                Some(hostname) => self.key.hash(hostname),
                None => self.key.hash.hash_one(sender),
            }),
        };
        (variant != Variant::default()).then_some(variant)
    }

    #[inline]
    fn append_with(
        &self,
        message: &Message<'_>,
        octets: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> u64 {
        let start = octets.len();
        octets.reserve(message.frame().len() + HEADER_OCTETS_MAX);
        write(octets);
        let written = &octets[start..];
        match self.kind {
            IdentityKind::Exact => self.key.hash(written),
            IdentityKind::Compact => {
                let digest = self.key.prf.hash(written);
                octets.truncate(start);
                octets.extend_from_slice(&digest.as_bytes());
                digest.as_u64().0
            }
        }
    }
}

fn write(octets: &mut Vec<u8>, message: &Message<'_>, sender: Sender) {
    if message.never_suppress {
        octets.push(KIND_LITERAL);
        octets.extend_from_slice(message.frame());
        return;
    }
    if message.format == Format::Unparsed {
        octets.extend_from_slice(&[KIND_UNPARSED, message.pri.map_or(NO_PRI, Pri::prival)]);
        write_sender(octets, sender);
    } else {
        octets.extend_from_slice(&[KIND_PARSED, message.pri_or_default().prival()]);
        match message.hostname() {
            Some(hostname) => write_field(octets, hostname),
            None => write_sender(octets, sender),
        }
        write_field(octets, message.app_name().unwrap_or_default());
        write_field(octets, message.msgid().unwrap_or_default());
        write_structured_data(octets, message);
    }
    octets.extend_from_slice(message.msg());
}

/// As [`write()`], with the fields and masks of `spec`.
fn write_by(octets: &mut Vec<u8>, spec: &Spec, message: &Message<'_>, origin: Origin<'_>) {
    if message.never_suppress {
        octets.push(KIND_LITERAL);
        octets.extend_from_slice(message.frame());
        return;
    }
    let has = |field| spec.fields().has(field);
    let pri_mask =
        if has(Field::Facility) { 0xf8 } else { 0 } | if has(Field::Severity) { 0x07 } else { 0 };
    if message.format == Format::Unparsed {
        let pri = message.pri.map_or(NO_PRI, |pri| pri.prival() & pri_mask);
        octets.extend_from_slice(&[KIND_CHOSEN_UNPARSED, pri]);
        octets.extend_from_slice(&spec.id.to_le_bytes());
        if has(Field::Hostname) {
            write_sender(octets, origin.sender);
        }
    } else {
        let pri = message.pri_or_default().prival() & pri_mask;
        octets.extend_from_slice(&[KIND_CHOSEN, pri]);
        octets.extend_from_slice(&spec.id.to_le_bytes());
        if has(Field::Hostname) {
            match message.hostname() {
                Some(hostname) => write_field(octets, hostname),
                None => write_sender(octets, origin.sender),
            }
        }
        for (field, part) in [
            (Field::AppName, message.app_name()),
            (Field::Procid, message.procid()),
            (Field::Msgid, message.msgid()),
        ] {
            if has(field) {
                write_field(octets, part.unwrap_or_default());
            }
        }
        if has(Field::StructuredData) {
            write_structured_data(octets, message);
        }
    }
    if has(Field::Source) {
        write_sender(octets, origin.sender);
    }
    if has(Field::Listener) {
        write_field(octets, origin.listener.as_bytes());
    }
    if has(Field::Msg) || message.format == Format::Unparsed {
        if spec.masks().is_empty() {
            octets.extend_from_slice(message.msg());
        } else {
            spec.masks().write_identity(message.msg(), octets);
        }
    }
}

fn write_field(octets: &mut Vec<u8>, field: &[u8]) {
    let length = u32::try_from(field.len()).expect(FIELD_BELOW_4_GIB);
    octets.extend_from_slice(&length.to_le_bytes());
    octets.extend_from_slice(field);
}

/// Writes a length that no HOSTNAME has, and the sender's address. So a host whose name is the octets of
/// an address differs from the host at that address.
fn write_sender(octets: &mut Vec<u8>, sender: Sender) {
    match sender {
        Sender::Address(IpAddr::V4(v4)) => {
            octets.extend_from_slice(&SENDER_IPV4.to_le_bytes());
            octets.extend_from_slice(&v4.octets());
        }
        Sender::Address(IpAddr::V6(v6)) => {
            octets.extend_from_slice(&SENDER_IPV6.to_le_bytes());
            octets.extend_from_slice(&v6.octets());
        }
        Sender::Local => octets.extend_from_slice(&SENDER_LOCAL.to_le_bytes()),
    }
}

fn write_structured_data(octets: &mut Vec<u8>, message: &Message<'_>) {
    let length_at = octets.len();
    octets.extend_from_slice(&0_u32.to_le_bytes());
    if message.structured_data().is_none() {
        return;
    }
    for element in message.sd_elements() {
        if !TRANSMISSION_SD_IDS.contains(&element.sd_id) {
            octets.extend_from_slice(element.octets);
        }
    }
    let written = octets.len() - length_at - size_of::<u32>();
    let length = u32::try_from(written).expect(FIELD_BELOW_4_GIB);
    octets[length_at..][..size_of::<u32>()].copy_from_slice(&length.to_le_bytes());
}

/// SD-IDs that describe the transmission, not the event (RFC 5424 7.1 to 7.3).
const TRANSMISSION_SD_IDS: [&[u8]; 3] = [b"timeQuality", b"meta", b"origin"];

/// The most octets of an identity that are not the frame's own.
const HEADER_OCTETS_MAX: usize = 64;

/// The version of the identities' layout. Change it whenever the octets of any identity change, so that old ones are
/// never compared with new ones.
pub const LAYOUT: u32 = 1;

const KIND_PARSED: u8 = 0;
const KIND_UNPARSED: u8 = 1;
const KIND_LITERAL: u8 = 2;
const KIND_CHOSEN: u8 = 3;
const KIND_CHOSEN_UNPARSED: u8 = 4;

/// No PRIVAL: the frame is unparsed and has no valid PRI.
const NO_PRI: u8 = 255;

const FIELD_BELOW_4_GIB: &str = "parsing looks at 4 GiB of a frame at most";

/// Lengths that no field has, because no frame is as long.
const SENDER_IPV4: u32 = u32::MAX;
const SENDER_IPV6: u32 = u32::MAX - 1;
const SENDER_LOCAL: u32 = u32::MAX - 2;

#[cfg(test)]
pub(crate) mod tests {
    use super::mask::Masks;
    use super::*;

    const A: Sender = Sender::Address(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const B: Sender = Sender::Address(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    /// A message with all fields.
    pub(crate) const BASE: &[u8] = b"<34>1 - h a p m [x@1 a=\"1\"] text";

    /// For each field of a frame, a message that differs from [`BASE`] in this field alone.
    pub(crate) const ONE_FIELD_DIFFERS: [(Field, &[u8]); 8] = [
        (Field::Facility, b"<42>1 - h a p m [x@1 a=\"1\"] text"),
        (Field::Severity, b"<35>1 - h a p m [x@1 a=\"1\"] text"),
        (Field::Hostname, b"<34>1 - i a p m [x@1 a=\"1\"] text"),
        (Field::AppName, b"<34>1 - h b p m [x@1 a=\"1\"] text"),
        (Field::Procid, b"<34>1 - h a q m [x@1 a=\"1\"] text"),
        (Field::Msgid, b"<34>1 - h a p n [x@1 a=\"1\"] text"),
        (Field::StructuredData, b"<34>1 - h a p m [x@1 a=\"2\"] text"),
        (Field::Msg, b"<34>1 - h a p m [x@1 a=\"1\"] texT"),
    ];

    fn identity(kind: IdentityKind, frame: &[u8], sender: Sender) -> Vec<u8> {
        let key = Key::from_seed(1);
        let mut identifier = Identifier::new(&key, kind);
        identifier
            .identify(&Message::parse(frame), sender)
            .octets
            .to_vec()
    }

    #[track_caller]
    fn check(one: (&[u8], Sender), other: (&[u8], Sender), same: bool) {
        for kind in [IdentityKind::Exact, IdentityKind::Compact] {
            let equal = identity(kind, one.0, one.1) == identity(kind, other.0, other.1);
            assert_eq!(
                equal,
                same,
                "{kind:?}: {} | {}",
                one.0.escape_ascii(),
                other.0.escape_ascii()
            );
        }
    }

    #[test]
    fn parts_that_change_with_every_copy_do_not_count() {
        let cases: &[(&[u8], &[u8])] = &[
            (
                b"<13>Mar  1 10:00:00 h app[1]: text",
                b"<13>Mar  2 11:11:11 h app[2]: text\n",
            ),
            (
                b"<13>1 2026-03-01T10:00:00Z h a 1 - - text",
                b"<13>1 2026-03-02T10:00:00Z h a 2 - - text\r\n",
            ),
            (
                b"<13>1 - h a 1 - [timeQuality tzKnown=\"1\"] text",
                b"<13>1 - h a 1 - [meta sequenceId=\"7\"][origin ip=\"192.0.2.1\"] text",
            ),
            (
                b"<13>1 - h a 1 - [timeQuality tzKnown=\"1\"] text",
                b"<13>1 - h a 1 - - text",
            ),
            (
                b"<13>1 - h a 1 - - \xEF\xBB\xBFtext",
                b"<13>1 - h a 1 - - text",
            ),
            (
                b"<189>237: *Mar  1 18:46:11: %SYS-5-CONFIG_I: Configured",
                b"<189>238: .Mar  1 18:46:12: %SYS-5-CONFIG_I: Configured",
            ),
            (b"<999>text", b"<999>text\0"),
            (b"text", b"<13>text"),
        ];
        for (one, other) in cases {
            check((one, A), (other, A), true);
        }
    }

    #[test]
    fn parts_that_differ_between_events_count() {
        let cases: &[(&[u8], &[u8])] = &[
            (
                b"<13>Mar  1 10:00:00 h app: text",
                b"<12>Mar  1 10:00:00 h app: text",
            ),
            (
                b"<13>Mar  1 10:00:00 h app: text",
                b"<21>Mar  1 10:00:00 h app: text",
            ),
            (
                b"<13>Mar  1 10:00:00 h app: text",
                b"<13>Mar  1 10:00:00 i app: text",
            ),
            (
                b"<13>Mar  1 10:00:00 h app: text",
                b"<13>Mar  1 10:00:00 h apq: text",
            ),
            (
                b"<13>Mar  1 10:00:00 h app: text",
                b"<13>Mar  1 10:00:00 h app: texT",
            ),
            (
                b"<13>Mar  1 10:00:00 h app: text",
                b"<13>Mar  1 10:00:00 h app: tex\xFF",
            ),
            (
                b"<13>Mar  1 10:00:00 h app: te\0xt",
                b"<13>Mar  1 10:00:00 h app: te\0\0xt",
            ),
            (b"<13>1 - h a 1 - - text", b"<13>1 - h a 1 x - text"),
            (
                b"<13>1 - h a 1 - [x@1 a=\"1\"] text",
                b"<13>1 - h a 1 - [x@1 a=\"2\"] text",
            ),
            (
                b"<13>1 - h a 1 - [meta a=\"1\"] text",
                b"<13>1 - h a 1 - [metb a=\"1\"] text",
            ),
            (b"<13>1 - ab c - - - text", b"<13>1 - a bc - - - text"),
            (b"<999>text", b"<998>text"),
            (b"<13>1 broken", b"<14>1 broken"),
        ];
        for (one, other) in cases {
            check((one, A), (other, A), false);
        }
    }

    #[test]
    fn the_sender_stands_in_for_a_missing_hostname_only() {
        check((b"<13>app: text", A), (b"<13>app: text", B), false);
        check(
            (b"<13>app: text", A),
            (b"<13>app: text", Sender::Local),
            false,
        );
        check(
            (b"<13>1 - - a 1 - - text", A),
            (b"<13>1 - - a 1 - - text", B),
            false,
        );
        check((b"<999>text", A), (b"<999>text", B), false);
        check(
            (b"<13>1 - h a 1 - - text", A),
            (b"<13>1 - h a 1 - - text", B),
            true,
        );
    }

    #[test]
    fn a_mapped_ipv4_address_is_that_address() {
        let mapped = Sender::at("::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(mapped, A);
    }

    #[test]
    fn two_messages_that_differ_beyond_64_kib_are_two() {
        let mut long = b"<13>Mar  1 10:00:00 h app: ".to_vec();
        long.resize(long.len() + 70_000, b'x');
        let mut other = long.clone();
        *other.last_mut().unwrap() = b'y';
        check((&long, A), (&other, A), false);
    }

    fn by(spec: &Spec, frame: &[u8], sender: Sender, listener: &str) -> Vec<u8> {
        let key = Key::from_seed(1);
        let mut octets = Vec::new();
        let origin = Origin { sender, listener };
        Identifier::new(&key, IdentityKind::Exact).append_by(
            spec,
            &Message::parse(frame),
            origin,
            &mut octets,
        );
        octets
    }

    fn spec(fields: Fields, masks: &[&str]) -> Spec {
        let masks = Masks::named(masks.iter().copied(), &[]).unwrap();
        Spec::new(fields, masks.into())
    }

    #[test]
    fn the_default_spec_yields_the_default_identity() {
        for frame in [
            &b"<13>Mar  1 10:00:00 h app[1]: text"[..],
            b"<34>1 - h a p m [x@1 a=\"1\"] text",
            b"<999>text",
            b"<13>Mar  1 10:00:00 h app: last message repeated 3 times",
        ] {
            let octets = by(&Spec::default(), frame, A, "udp");
            assert_eq!(octets, identity(IdentityKind::Exact, frame, A));
        }
    }

    #[test]
    fn each_field_tells_messages_apart_if_and_only_if_it_is_chosen() {
        let all: Fields = Field::ALL.into_iter().collect();
        for (field, frame) in ONE_FIELD_DIFFERS {
            let (with, without) = (spec(all, &[]), spec(all.without(field), &[]));
            assert_ne!(
                by(&with, BASE, A, "l"),
                by(&with, frame, A, "l"),
                "{field:?}"
            );
            assert_eq!(
                by(&without, BASE, A, "l"),
                by(&without, frame, A, "l"),
                "{field:?}"
            );
        }
        for (field, sender, listener) in [(Field::Source, B, "l"), (Field::Listener, A, "m")] {
            let (with, without) = (spec(all, &[]), spec(all.without(field), &[]));
            assert_ne!(by(&with, BASE, A, "l"), by(&with, BASE, sender, listener));
            assert_eq!(
                by(&without, BASE, A, "l"),
                by(&without, BASE, sender, listener)
            );
        }
    }

    #[test]
    fn identities_of_different_specs_differ() {
        let one = spec(Fields::EMPTY.with(Field::AppName), &[]);
        let other = spec(Fields::EMPTY.with(Field::Procid), &[]);
        assert_ne!(
            by(&one, b"<13>1 - - x - - - a", A, "l"),
            by(&other, b"<13>1 - - - x - - a", A, "l")
        );
    }

    #[test]
    fn a_fleet_folds_senders() {
        let fleet = spec(Fields::DEFAULT.without(Field::Hostname), &[]);
        for frame in [
            &b"<13>app: text"[..],
            b"<999>text",
            b"<13>1 - - a 1 - - text",
        ] {
            assert_eq!(by(&fleet, frame, A, "l"), by(&fleet, frame, B, "l"));
        }
        assert_ne!(
            by(&fleet, b"<999>text", A, "l"),
            by(&fleet, b"<999>texT", A, "l")
        );
    }

    #[test]
    fn masks_fold_msg_alone() {
        let masked = spec(Fields::DEFAULT, &["number"]);
        let same =
            |one: &[u8], other: &[u8]| by(&masked, one, A, "l") == by(&masked, other, A, "l");
        assert!(same(b"<13>a: took 3 ms", b"<13>a: took 44 ms"));
        assert!(!same(b"<13>a: took 3 ms", b"<13>a: lost 3 ms"));
        assert!(!same(
            b"<13>1 - 10 a - - - took 3 ms",
            b"<13>1 - 11 a - - - took 3 ms"
        ));
        assert!(same(b"<999>took 3 ms", b"<999>took 4 ms"), "unparsed");
        assert!(!same(
            b"<13>a: last message repeated 3 times",
            b"<13>a: last message repeated 4 times"
        ));
    }

    #[test]
    fn a_variant_holds_the_parts_that_the_spec_folds() {
        let key = Key::from_seed(1);
        let identifier = Identifier::new(&key, IdentityKind::Exact);
        let of = |spec: &Spec, frame: &[u8], sender| {
            identifier.variant(spec, &Message::parse(frame), sender)
        };
        assert_eq!(of(&Spec::default(), b"<13>a: x", A), None);
        let masked = spec(Fields::DEFAULT, &["number"]);
        let one = of(&masked, b"<13>a: took 3 ms", A).unwrap();
        assert_eq!(one.host, None);
        assert_ne!(Some(one), of(&masked, b"<13>a: took 4 ms", A));
        assert_eq!(Some(one), of(&masked, b"<13>a: took 3 ms", B));
        let fleet = spec(Fields::DEFAULT.without(Field::Hostname), &[]);
        let one = of(&fleet, b"<13>a: x", A).unwrap();
        assert_eq!(one.text, None);
        assert_ne!(Some(one), of(&fleet, b"<13>a: x", B));
        let named = |frame, sender| of(&fleet, frame, sender);
        assert_eq!(
            named(b"<13>1 - h a - - - x", A),
            named(b"<13>1 - h a - - - x", B)
        );
    }

    #[test]
    fn a_run_that_continues_another_recognises_its_identities() {
        let message = Message::parse(b"<13>app: text");
        let first = Key::random();
        let next = Key::continuing(first.secret());
        for kind in [IdentityKind::Exact, IdentityKind::Compact] {
            let mut identifier = Identifier::new(&first, kind);
            let shown = identifier.identify(&message, A);
            let mut identifier = Identifier::new(&next, kind);
            let seen = identifier.identify(&message, A);
            let again = next.identity(kind, shown.octets).unwrap();
            assert_eq!((again.octets, again.hash), (seen.octets, seen.hash));
        }
        assert!(next.identity(IdentityKind::Compact, &[0; 15]).is_none());
    }

    /// If this fails because the octets of identities changed, [`LAYOUT`] needs another number.
    #[test]
    fn the_octets_of_this_layout_stay() {
        let all = mask::Builtin::ALL.map(mask::Builtin::name);
        let masked = spec(Fields::DEFAULT.with(Field::Listener), &all);
        let mut octets = Vec::new();
        for frame in [
            &b"<34>Nov 22 10:00:01 host su[231]: failed 3 times from 192.0.2.7"[..],
            b"<34>1 - - a p m [x@1 a=\"1\"][meta sequenceId=\"4\"] text 4",
            b"<13>app: last message repeated 3 times",
            b"<999>took 3 ms, 0x3f, fe80::1, 00:11:22:33:44:55, at 2026-03-01T12:00:00Z, \"so\", /var/log/x",
            b"<13>app: 123e4567-e89b-12d3-a456-426614174000 \x1a1 'it' deadbeef 1.5 12:00:00",
        ] {
            for spec in [&Spec::default(), &masked] {
                octets.extend(by(spec, frame, A, "in"));
                octets.extend(by(spec, frame, Sender::Local, "in"));
            }
        }
        let digest = u128::from_be_bytes(Key::from_seed(1).digest(&octets));
        assert_eq!(
            (LAYOUT, digest),
            (1, 0x7bd5_b40a_9d00_0ac0_83f2_0fff_fdb7_fd27),
            "{digest:#x}"
        );
    }

    #[test]
    fn another_run_hashes_differently() {
        let message = Message::parse(b"<13>app: text");
        let hash = |key: Key, kind| Identifier::new(&key, kind).identify(&message, A).hash;
        for kind in [IdentityKind::Exact, IdentityKind::Compact] {
            assert_ne!(hash(Key::random(), kind), hash(Key::random(), kind));
            assert_eq!(hash(Key::from_seed(1), kind), hash(Key::from_seed(1), kind));
        }
    }
}

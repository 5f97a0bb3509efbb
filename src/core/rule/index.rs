//! The index: all rules of a list as sets of bits, so that many rules cost little more than one.
//!
//! A set has a bit for each rule. Two tables, by PRIVAL and by listener, hold the rules that may match. From then on the
//! lowest bit is the candidate. If the candidate needs a part of the message that was not looked at yet, that part is
//! looked at for all rules at once, and the rules that do not match it lose their bit. The first candidate that needs
//! nothing more decides.
//!
//! # Guarantees
//!
//! - The outcome is that of trying the rules one after the other (a property test).

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;
use ipnet::IpNet;
use regex_automata::PatternSet;

use super::text::Texts;
use super::{Glob, RULES_MAX, Rule, TextError};
use crate::core::identity::Sender;
use crate::core::parse::Message;

/// The rules that messages of one listener can fall under.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reach(Set);

/// Memory that a decision needs; use it again for the next one.
#[derive(Debug, Default)]
pub struct Scratch(Option<PatternSet>);

/// A rule list, compiled.
#[derive(Clone, Debug)]
pub(super) struct Index {
    by_prival: Box<[Set]>,
    /// By name. A listener that is not listed reaches `any_listener` only.
    by_listener: Vec<(String, Set)>,
    any_listener: Set,
    app_name: Names,
    hostname: Names,
    sources: Vec<Source>,
    any_source: Set,
    texts: Texts,
    /// By expression, the index of its rule.
    text_rules: Vec<usize>,
    any_text: Set,
}

/// A network that a rule names.
#[derive(Clone, Copy, Debug)]
struct Source {
    is_v4: bool,
    value: u128,
    mask: u128,
    rules: Set,
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Result<Self, TextError> {
        let matching = |takes: &dyn Fn(&Rule) -> bool| -> Set {
            let places = rules.iter().enumerate();
            places
                .filter(|(_, rule)| takes(rule))
                .fold(Set::default(), |set, (place, _)| set.with(place))
        };
        let by_prival = (0..=PRIVAL_MAX)
            .map(|prival| {
                matching(&|rule| {
                    rule.matcher.facility.has(prival >> 3) && rule.matcher.severity.has(prival & 7)
                })
            })
            .collect();
        let any_listener = matching(&|rule| rule.matcher.listener.is_empty());
        let mut by_listener: Vec<(String, Set)> = Vec::new();
        for name in rules.iter().flat_map(|rule| &rule.matcher.listener) {
            if by_listener.iter().all(|(known, _)| known != name) {
                let named = matching(&|rule| rule.matcher.listener.contains(name));
                by_listener.push((name.clone(), any_listener.or(named)));
            }
        }
        let mut sources = Vec::new();
        for (place, rule) in rules.iter().enumerate() {
            let rules = Set::default().with(place);
            sources.extend(
                rule.matcher
                    .source
                    .iter()
                    .map(|net| Source::new(net, rules)),
            );
        }
        let texts: Vec<_> = rules
            .iter()
            .enumerate()
            .filter_map(|(place, rule)| Some((place, rule.matcher.msg.as_ref()?)))
            .collect();
        Ok(Self {
            by_prival,
            by_listener,
            any_listener,
            app_name: Names::new(rules.iter().map(|rule| rule.matcher.app_name.as_slice())),
            hostname: Names::new(rules.iter().map(|rule| rule.matcher.hostname.as_slice())),
            sources,
            any_source: matching(&|rule| rule.matcher.source.is_empty()),
            text_rules: texts.iter().map(|(place, _)| *place).collect(),
            texts: Texts::new(&texts.iter().map(|(_, text)| *text).collect::<Vec<_>>())?,
            any_text: matching(&|rule| rule.matcher.msg.is_none()),
        })
    }

    pub(super) fn reach(&self, listener: &str) -> Reach {
        let named = self.by_listener.iter().find(|(name, _)| name == listener);
        Reach(named.map_or(self.any_listener, |(_, set)| *set))
    }

    /// The index of the first rule that takes `message`.
    pub(super) fn first(
        &self,
        message: &Message<'_>,
        sender: Sender,
        Reach(reach): Reach,
        scratch: &mut Scratch,
    ) -> Option<u16> {
        let prival = usize::from(message.pri_or_default().prival());
        let mut left = self.by_prival[prival].and(reach);
        // For each part: the rules that do not need it. It becomes `ALL` when the part was looked at.
        let (mut app_name, mut hostname) = (self.app_name.any, self.hostname.any);
        let (mut source, mut text) = (self.any_source, self.any_text);
        loop {
            let first = left.first()?;
            if !app_name.has(first) {
                left = left.and(self.app_name.of(message.app_name()));
                app_name = Set::ALL;
            } else if !hostname.has(first) {
                left = left.and(self.hostname.of(message.hostname()));
                hostname = Set::ALL;
            } else if !source.has(first) {
                left = left.and(self.sources_of(sender));
                source = Set::ALL;
            } else if !text.has(first) {
                if self.texts.are_many() {
                    left = left.and(self.texts_of(message.msg(), scratch));
                    text = Set::ALL;
                } else if self.text_takes(first, message.msg()) {
                    text = text.with(first);
                } else {
                    left = left.without(first);
                }
            } else {
                return Some(u16::try_from(first).expect("a set has RULES_MAX bits"));
            }
        }
    }

    fn sources_of(&self, sender: Sender) -> Set {
        let Sender::Address(address) = sender else {
            return self.any_source;
        };
        let bits = bits(address);
        self.sources
            .iter()
            .filter(|source| {
                source.is_v4 == address.is_ipv4() && bits & source.mask == source.value
            })
            .fold(self.any_source, |set, source| set.or(source.rules))
    }

    fn texts_of(&self, msg: &[u8], Scratch(found): &mut Scratch) -> Set {
        if found
            .as_ref()
            .is_some_and(|set| set.capacity() != self.text_rules.len())
        {
            *found = None;
        }
        self.texts.all(msg, found);
        let places = found.iter().flat_map(PatternSet::iter);
        places
            .map(|pattern| self.text_rules[pattern.as_usize()])
            .fold(self.any_text, Set::with)
    }

    /// Searches `msg` for the expressions of all rules.
    pub(super) fn search_all(&self, msg: &[u8], scratch: &mut Scratch) {
        if self.texts.are_many() {
            self.texts_of(msg, scratch);
        } else {
            self.text_rules.iter().for_each(|rule| {
                self.text_takes(*rule, msg);
            });
        }
    }

    fn text_takes(&self, rule: usize, msg: &[u8]) -> bool {
        let index = self.text_rules.iter().position(|place| *place == rule);
        let index = index.expect("a rule that needs MSG has an expression");
        self.texts.one(index, msg)
    }
}

/// What all rules demand of HOSTNAME or of APP-NAME.
#[derive(Clone, Debug, Default)]
struct Names {
    /// Rules that do not need it.
    any: Set,
    literals: HashMap<Box<[u8]>, Set, RandomState>,
    /// Octets of the longest literal; a longer name is not hashed.
    literal_octets_max: usize,
    globs: Vec<(Glob, Set)>,
}

impl Names {
    /// `rules` are the globs of each rule, in order.
    fn new<'r>(rules: impl Iterator<Item = &'r [Glob]>) -> Self {
        let mut names = Self::default();
        for (place, globs) in rules.enumerate() {
            if globs.is_empty() {
                names.any = names.any.with(place);
            }
            for glob in globs {
                if let Some(name) = glob.literal() {
                    let set = names.literals.entry(name.into()).or_default();
                    *set = set.with(place);
                    names.literal_octets_max = names.literal_octets_max.max(name.len());
                } else if let Some((_, set)) =
                    names.globs.iter_mut().find(|(known, _)| known == glob)
                {
                    *set = set.with(place);
                } else {
                    names.globs.push((glob.clone(), Set::default().with(place)));
                }
            }
        }
        names
    }

    /// The rules that take `name`.
    fn of(&self, name: Option<&[u8]>) -> Set {
        let Some(name) = name else {
            return self.any;
        };
        let mut set = self.any;
        if name.len() <= self.literal_octets_max
            && let Some(named) = self.literals.get(name)
        {
            set = set.or(*named);
        }
        for (glob, rules) in &self.globs {
            if glob.matches(name) {
                set = set.or(*rules);
            }
        }
        set
    }
}

impl Source {
    fn new(net: &IpNet, rules: Set) -> Self {
        let host_bits = u32::from(net.max_prefix_len() - net.prefix_len());
        Self {
            is_v4: net.addr().is_ipv4(),
            value: bits(net.network()),
            mask: u128::MAX.checked_shl(host_bits).unwrap_or(0),
            rules,
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A set of rules: a bit for each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Set([u64; WORDS]);

impl Set {
    const ALL: Self = Self([u64::MAX; WORDS]);

    #[inline]
    const fn with(mut self, place: usize) -> Self {
        self.0[place / 64] |= 1 << (place % 64);
        self
    }

    #[inline]
    const fn without(mut self, place: usize) -> Self {
        self.0[place / 64] &= !(1 << (place % 64));
        self
    }

    #[inline]
    const fn has(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 != 0
    }

    #[inline]
    fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    #[inline]
    fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    #[inline]
    fn first(&self) -> Option<usize> {
        let word = self.0.iter().position(|word| *word != 0)?;
        Some(word * 64 + self.0[word].trailing_zeros() as usize)
    }
}

const WORDS: usize = RULES_MAX / 64;

const PRIVAL_MAX: u8 = 191;

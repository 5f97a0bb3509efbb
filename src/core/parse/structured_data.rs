//! STRUCTURED-DATA: where its elements begin and end (RFC 5424 6.3).
//!
//! ```text
//! [exampleSDID@32473 iut="3" eventSource="a \"b\" c\]"][examplePriority@32473 class=high]
//! ```
//!
//! # Guarantees
//!
//! - One scanner serves parsing and [`Elements`]: the elements that are walked are those that parsing
//!   accepted.
//! - Linear time. The octets are never unescaped.
//!
//! # Left out
//!
//! The names and values of parameters. Limits of length: RFC 5424 6.3.2 allows 32 octets for a name, but
//! longer names do no harm.

use memchr::memchr3;

/// One element of STRUCTURED-DATA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SdElement<'a> {
    /// The name of the element.
    pub sd_id: &'a [u8],
    /// The whole element, from `[` to `]`.
    pub octets: &'a [u8],
}

impl SdElement<'_> {
    /// Whether this is a signature block or a certificate block (RFC 5848 4.2.8, 5.3.2).
    pub(super) fn is_signature(&self) -> bool {
        matches!(self.sd_id, b"ssign" | b"ssign-cert")
    }
}

/// Walks the elements at the front of some octets, up to the first that is malformed.
#[derive(Clone, Debug)]
pub(super) struct Elements<'a> {
    octets: &'a [u8],
}

impl<'a> Elements<'a> {
    pub(super) const fn of(octets: &'a [u8]) -> Self {
        Self { octets }
    }

    /// The octets behind the elements that were walked.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.octets
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = SdElement<'a>;

    fn next(&mut self) -> Option<SdElement<'a>> {
        let (element, rest) = element(self.octets)?;
        self.octets = rest;
        Some(element)
    }
}

/// The element at the front of `octets`, and the octets behind it.
fn element(octets: &[u8]) -> Option<(SdElement<'_>, &[u8])> {
    let inner = octets.strip_prefix(b"[")?;
    let (sd_id, mut rest) = split_before(inner, |octet| matches!(octet, b' ' | b']'));
    if sd_id.is_empty() || sd_id.iter().any(|octet| matches!(octet, b'"' | b'=')) {
        return None;
    }
    loop {
        rest = match rest {
            [b']', rest @ ..] => {
                let (octets, _) = octets.split_at(octets.len() - rest.len());
                return Some((SdElement { sd_id, octets }, rest));
            }
            [b' ', param @ ..] => behind_param(param)?,
            _ => return None,
        };
    }
}

/// The octets behind `PARAM-NAME "=" PARAM-VALUE`. VMware leaves the quotes out.
fn behind_param(octets: &[u8]) -> Option<&[u8]> {
    let (name, rest) = split_before(octets, |octet| matches!(octet, b'=' | b' ' | b']' | b'"'));
    if name.is_empty() {
        return None;
    }
    match rest {
        [b'=', b'"', value @ ..] => behind_quoted(value),
        [b'=', value @ ..] => Some(split_before(value, |octet| matches!(octet, b' ' | b']')).1),
        _ => None,
    }
}

/// The octets behind the closing quote.
///
/// A backslash escapes `"`, `\` and `]`, and is literal before any other octet. A `]` that is not escaped
/// makes the element malformed (RFC 5424 6.3.3).
fn behind_quoted(mut value: &[u8]) -> Option<&[u8]> {
    loop {
        let at = memchr3(b'"', b'\\', b']', value)?;
        value = match value.split_at(at).1 {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'"' | b'\\' | b']', rest @ ..] | [b'\\', rest @ ..] => rest,
            _ => return None,
        };
    }
}

fn split_before(octets: &[u8], ends: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = octets
        .iter()
        .position(|&octet| ends(octet))
        .unwrap_or(octets.len());
    octets.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `input` is the elements of `expected` (SD-ID and octets) and `rest`.
    fn check(input: &str, expected: &[(&str, &str)], rest: &str) {
        let mut elements = Elements::of(input.as_bytes());
        let seen: Vec<_> = elements.by_ref().map(|sd| (sd.sd_id, sd.octets)).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(id, octets)| (id.as_bytes(), octets.as_bytes()))
            .collect();
        assert_eq!(seen, expected, "{input:?}");
        assert_eq!(elements.rest(), rest.as_bytes(), "{input:?}");
    }

    fn check_one(element: &str, sd_id: &str) {
        check(element, &[(sd_id, element)], "");
        check(
            &format!("{element} [not=\"sd\"]"),
            &[(sd_id, element)],
            " [not=\"sd\"]",
        );
        for end in 0..element.len() {
            let (cut, _) = element.split_at(end);
            check(cut, &[], cut);
        }
    }

    #[test]
    fn elements_end_where_they_end() {
        check_one(r#"[a]"#, "a");
        check_one(
            r#"[exampleSDID@32473 iut="3" eventSource="App" eventID="1011"]"#,
            "exampleSDID@32473",
        );
        check_one(r#"[a b=""]"#, "a");
        check_one(r#"[a b="[c"]"#, "a");
        check_one(r#"[a b="c d=e"]"#, "a");
        check(
            r#"[a x="1"][b y="2"] text"#,
            &[("a", r#"[a x="1"]"#), ("b", r#"[b y="2"]"#)],
            " text",
        );
    }

    #[test]
    fn three_octets_are_escaped_and_any_other_backslash_is_literal() {
        check_one(r#"[a b="\""]"#, "a");
        check_one(r#"[a b="\\"]"#, "a");
        check_one(r#"[a b="\]"]"#, "a");
        check_one(r#"[a b="c:\windows\new"]"#, "a");
        check_one(r#"[a b="\\\"\]\n"]"#, "a");
    }

    #[test]
    fn values_may_lack_quotes() {
        check_one(
            "[Originator@6876 sub=Vimsvc.ha-eventmgr opID=5f-a]",
            "Originator@6876",
        );
        check_one("[a b=]", "a");
        check_one(r#"[a b= c="d"]"#, "a");
    }

    #[test]
    fn malformed_elements_are_none() {
        for input in [
            "",
            "[",
            "[]",
            "[ a=\"b\"]",
            "[a",
            "[a ",
            "[a ]",
            "[a b]",
            "[a =\"b\"]",
            "[a b=\"c]",
            "[a b=\"c\\",
            "[a b=\"c\\\"]",
            "[a b=\"c]d\"]",
            "[a b=\"c\"d=\"e\"]",
            "[a=\"b\"]",
            "[\"a\"]",
            "[action:\"Accept\"; conn_direction:\"Internal\"]",
            "x[a]",
        ] {
            check(input, &[], input);
        }
        check(r#"[a b="c"][d"#, &[("a", r#"[a b="c"]"#)], "[d");
    }

    #[test]
    fn signatures_are_recognised_by_their_whole_sd_id() {
        for (sd_id, expected) in [
            ("ssign", true),
            ("ssign-cert", true),
            ("ssign2", false),
            ("Ssign", false),
            ("s", false),
        ] {
            let element = SdElement {
                sd_id: sd_id.as_bytes(),
                octets: b"",
            };
            assert_eq!(element.is_signature(), expected, "{sd_id}");
        }
    }
}

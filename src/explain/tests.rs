//! Claims about explanations: what they say of a frame is what its identity does.

use super::*;
use crate::config::Config;
use crate::core::identity::mask::Masks;
use crate::core::identity::tests::{BASE, ONE_FIELD_DIFFERS};
use crate::core::identity::{Fields, Sender};

fn rules() -> Rules {
    Rules::new(Config::default().dedup.policy)
}

fn from(sender: Sender) -> Origin<'static> {
    Origin {
        sender,
        listener: "",
    }
}

fn json(frame: &[u8], sender: Sender) -> serde_json::Value {
    let rules = rules();
    let mut explainer = Explainer::new(&rules, from(sender));
    serde_json::to_value(explainer.explain(frame, Depth::Reasons)).unwrap()
}

#[test]
fn a_sentence_says_counts_iff_the_field_is_in_the_identity() {
    let fields = [
        "pri",
        "facility",
        "severity",
        "timestamp",
        "hostname",
        "app_name",
        "procid",
        "msgid",
        "structured_data",
        "msg",
    ];
    let base = b"<13>1 2026-03-01T10:00:00Z h a 1 m [x@1 a=\"1\"] text";
    let others: [(&[&str], &[u8]); 8] = [
        (
            &["pri", "facility"],
            b"<21>1 2026-03-01T10:00:00Z h a 1 m [x@1 a=\"1\"] text",
        ),
        (
            &["pri", "severity"],
            b"<12>1 2026-03-01T10:00:00Z h a 1 m [x@1 a=\"1\"] text",
        ),
        (
            &["timestamp"],
            b"<13>1 2026-03-01T10:00:01Z h a 1 m [x@1 a=\"1\"] text",
        ),
        (
            &["hostname"],
            b"<13>1 2026-03-01T10:00:00Z i a 1 m [x@1 a=\"1\"] text",
        ),
        (
            &["app_name"],
            b"<13>1 2026-03-01T10:00:00Z h b 1 m [x@1 a=\"1\"] text",
        ),
        (
            &["procid"],
            b"<13>1 2026-03-01T10:00:00Z h a 2 m [x@1 a=\"1\"] text",
        ),
        (
            &["msgid", "structured_data"],
            b"<13>1 2026-03-01T10:00:00Z h a 1 n [x@1 a=\"2\"] text",
        ),
        (
            &["msg"],
            b"<13>1 2026-03-01T10:00:00Z h a 1 m [x@1 a=\"1\"] texT",
        ),
    ];
    let base = json(base, Sender::Local);
    for (changed, frame) in others {
        let other = json(frame, Sender::Local);
        for field in fields {
            assert_eq!(
                base[field] != other[field],
                changed.contains(&field),
                "{field}"
            );
        }
        let said = base["why"][changed[0]].as_str().unwrap();
        assert_eq!(
            base["identity"] != other["identity"],
            said.starts_with("counts"),
            "{changed:?}: {said}"
        );
    }
}

#[test]
fn the_keys_are_these_and_in_this_order() {
    let rules = rules();
    let mut explainer = Explainer::new(&rules, from(Sender::Local));
    let text = serde_json::to_string(&explainer.explain(b"<34>su: \xff", Depth::Facts)).unwrap();
    let identity = &json(b"<34>su: \xff", Sender::Local)["identity"];
    assert_eq!(
        text,
        format!(
            "{{\"format\":\"rfc3164\",\"pri\":34,\"facility\":4,\"severity\":2,\"timestamp\":null,\
             \"hostname\":null,\"app_name\":\"su\",\"procid\":null,\"msgid\":null,\
             \"structured_data\":null,\"msg\":\"\u{fffd}\",\"rule\":\"default\",\"action\":\"dedup\",\
             \"mode\":\"enforce\",\"window\":\"10s\",\"identity\":{identity},\"masked\":\"\u{fffd}\"}}"
        )
    );
}

#[test]
fn an_identity_is_the_same_in_every_run() {
    // Operators compare identities in scripts, so a change of them breaks these scripts.
    let name = |frame: &[u8]| json(frame, Sender::Local)["identity"].clone();
    assert_eq!(name(b"<13>app: text"), name(b"<13>app[7]: text\n"));
    assert_eq!(name(b"<13>app: text").as_str().unwrap().len(), 32);
    let at = |address: &str| {
        let sender = Sender::at(address.parse().unwrap());
        json(b"<13>app: text", sender)["identity"].clone()
    };
    assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    assert_ne!(at("192.0.2.1"), name(b"<13>app: text"));
}

#[test]
fn what_is_never_suppressed_passes_without_a_window() {
    let explained = json(b"<13>app: message repeated 3 times: [ text]", Sender::Local);
    assert_eq!(explained["action"], "pass");
    assert_eq!(explained["mode"], serde_json::Value::Null);
    assert_eq!(explained["window"], serde_json::Value::Null);
    assert!(
        explained["why"]["timestamp"]
            .as_str()
            .unwrap()
            .starts_with("counts")
    );
}

#[test]
fn a_frame_that_does_not_parse_is_explained_as_well() {
    let explained = json(b"<999>text", Sender::Local);
    assert_eq!(explained["format"], "unparsed");
    assert_eq!(explained["pri"], serde_json::Value::Null);
    assert_eq!(explained["msg"], "<999>text");
    assert!(
        explained["why"]["hostname"]
            .as_str()
            .unwrap()
            .contains("local")
    );
}

#[test]
fn nothing_drives_a_terminal() {
    let rules = rules();
    let mut out = Vec::new();
    Explainer::new(&rules, from(Sender::Local))
        .explain("<13>app: \u{1b}[2J\u{9b}é\rok".as_bytes(), Depth::Reasons)
        .write_text(&mut out)
        .unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
    assert!(text.contains(r"\u{1b}[2J\u{9b}é\rok"), "{text}");
    assert!(text.contains("facility         1 (user)"), "{text}");
}

/// Explains `frame` under `spec`.
fn by(spec: &Spec, frame: &[u8]) -> serde_json::Value {
    let mut policy = Config::default().dedup.policy;
    policy.identity = spec.clone();
    let rules = Rules::new(policy);
    let mut explainer = Explainer::new(&rules, from(Sender::Local));
    serde_json::to_value(explainer.explain(frame, Depth::Reasons)).unwrap()
}

#[test]
fn a_sentence_follows_the_fields_of_the_rule() {
    let all: Fields = Field::ALL.into_iter().collect();
    for fields in [all, Fields::DEFAULT, Fields::EMPTY.with(Field::AppName)] {
        for left_out in Field::ALL {
            let fields = fields.without(left_out);
            let spec = Spec::new(fields, Masks::default().into());
            let explained = by(&spec, BASE);
            for (field, frame) in ONE_FIELD_DIFFERS {
                let said = explained["why"][field.name()].as_str().unwrap();
                assert_eq!(said.starts_with("counts"), fields.has(field), "{said}");
                let differs = by(&spec, frame)["identity"] != explained["identity"];
                assert_eq!(differs, fields.has(field), "{fields:?}: {field:?}");
            }
            for field in [Field::Source, Field::Listener] {
                let said = &explained["why"][field.name()];
                assert_eq!(said.is_string(), fields.has(field), "{fields:?}: {said}");
            }
        }
    }
}

#[test]
fn an_unparsed_frame_has_no_fields_to_choose_from() {
    let spec = Spec::new(
        Fields::EMPTY.with(Field::AppName),
        Masks::named(["number"], &[]).unwrap().into(),
    );
    let explained = by(&spec, b"<13>1 broken 77");
    assert_eq!(explained["format"], "unparsed");
    assert_eq!(explained["masked"], "<number> broken <number>");
    for (field, sentence) in [
        ("facility", "does not count: it is not in fields"),
        ("hostname", "does not count: it is not in fields"),
        (
            "pri",
            "counts: it is valid, although the rest is in no known format",
        ),
    ] {
        assert_eq!(explained["why"][field], sentence);
    }
    let said = explained["why"]["msg"].as_str().unwrap();
    assert!(
        said.ends_with("count, except what is folded by number"),
        "{said}"
    );
    let same =
        |one: &[u8], other: &[u8]| by(&spec, one)["identity"] == by(&spec, other)["identity"];
    assert!(same(b"<13>1 broken 77", b"<12>1 broken 78"));
    assert!(
        !same(b"<13>1 broken 77", b"1 broken 77"),
        "a frame with a valid PRI and one without are two messages"
    );
}

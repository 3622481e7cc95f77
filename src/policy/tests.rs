//! What is accepted, what each pattern matches, who wins; against slow and plain definitions of the same.

use serde_json::json;

use super::*;
use crate::codec::{Decoder, Encoder};

mod random;

fn policy(value: serde_json::Value) -> Policy {
    serde_json::from_value(value).unwrap()
}

/// A policy of that pattern and nothing else.
fn of(name: &str, pattern: &str) -> Policy {
    Policy::new(name.parse().unwrap(), pattern.parse().unwrap())
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

#[test]
fn patterns_match_names_as_they_say() {
    let cases = [
        ("team/app", "team/app", true),
        ("team/app", "team/app2", false),
        ("team/*", "team/app", true),
        ("team/*", "team/app/x", false),
        ("team/**", "team/app/x", true),
        ("team/**", "team", false),
        ("team**", "team", true),
        ("*", "app", true),
        ("*", "team/app", false),
        ("**", "team/app", true),
        ("*/cache", "team/cache", true),
        ("*/cache", "a/b/cache", false),
        ("**/cache", "a/b/cache", true),
        ("**/cache", "cache", false),
        ("**cache", "a/b/cache", true),
        ("*-ci/**/x*", "a-b-ci/c/d/xyz", true),
        ("*-ci/**/x*", "a/b-ci/c/d/xyz", false),
        ("a*b*c", "abbbc", true),
        ("a*b*c", "ac", false),
    ];
    for (pattern, name, expected) in cases {
        let pattern: RepositoryPattern = pattern.parse().unwrap();
        assert_eq!(pattern.matches(&name.parse().unwrap()), expected, "{pattern} {name}");
    }
}

#[test]
fn patterns_that_no_name_can_match_are_refused() {
    for good in ["a", "a.*", "a_*_b", "*", "**", "**/x", "*a*/**b", "a--*", "team/*-cache", &"a".repeat(255)] {
        assert!(good.parse::<RepositoryPattern>().is_ok(), "{good}");
    }
    let long = "*".to_owned() + &"a".repeat(255);
    let cases = [
        ("", "use a repository's name"),
        ("/", "no repository can have such a name"),
        ("/a", "no repository"),
        ("a/", "no repository"),
        ("a//*", "no repository"),
        ("Team/*", "no repository"),
        ("a?", "only * and ** stand for others"),
        ("[ab]", "only * and **"),
        ("a..*", "no repository"),
        ("-*", "no repository"),
        ("*-", "no repository"),
        ("a b", "no repository"),
        ("é*", "no repository"),
        ("a***", "use * (any"),
        (&long, "at most 255"),
    ];
    for (bad, reason) in cases {
        let error = bad.parse::<RepositoryPattern>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("pattern = \"{}", &bad[..bad.len().min(9)])), "{error}");
        assert!(error.contains(reason), "{bad}: {error}");
    }
}

#[test]
fn tags_match_one_of_the_list_and_none_with_a_mark() {
    let cases: [(&[&str], &str, bool); 9] = [
        (&["*"], "x", true),
        (&["v*"], "v1", true),
        (&["v*"], "x", false),
        (&["v*", "x"], "x", true),
        (&["v*", "!v1.*"], "v1.2", false),
        (&["!v1.*", "v*"], "v1.2", false),
        (&["!pinned-*"], "x", true),
        (&["!pinned-*"], "pinned-x", false),
        (&["*-*-*"], "a-b-c", true),
    ];
    for (patterns, text, expected) in cases {
        let list = TagPatterns::new("tag_pattern", patterns.iter().map(|text| (*text).to_owned()).collect()).unwrap();
        assert_eq!(list.matches(&tag(text)), expected, "{patterns:?} {text}");
    }
}

#[test]
fn the_most_specific_pattern_wins_and_says_why() {
    // From the first that wins to the last.
    let ordered = [
        ("team/app", "names the repository itself"),
        ("team/ap*", "has more characters that stand for themselves (7 against 5)"),
        ("team/*", "has fewer ** (0 against 1)"),
        ("team/**", "has more characters that stand for themselves (5 against 4)"),
        ("*/app", "comes first in byte order, being no more specific"),
        ("team*", "has fewer ** (0 against 1)"),
        ("**/app", "has fewer * (0 against 1)"),
        ("**/*app", "has more characters that stand for themselves (4 against 0)"),
        ("**", ""),
    ];
    let policies: Vec<_> = ordered.iter().map(|(pattern, _)| of("p", pattern)).collect();
    for (at, pair) in policies.windows(2).enumerate() {
        let [first, second] = pair else { panic!() };
        assert_eq!(first.precedence(second), Ordering::Less, "{first:?} {second:?}");
        assert_eq!(second.precedence(first), Ordering::Greater, "{first:?} {second:?}");
        assert_eq!(first.pattern.why_before(&second.pattern), ordered[at].1);
    }
    let name = "team/app".parse().unwrap();
    let found: Vec<_> = matching(policies.iter().rev(), &name).iter().map(|policy| policy.pattern.as_str()).collect();
    let matched = ["team/app", "team/ap*", "team/*", "team/**", "*/app", "**/app", "**/*app", "**"];
    assert_eq!(found, matched);
    assert_eq!(governing(&policies, &name), policies.first());
    assert_eq!(governing(&policies[..3], &"other".parse().unwrap()), None);
    assert_eq!(governing(&[of("b", "**"), of("a", "**")], &name), Some(&of("a", "**")), "then by name");
}

#[test]
fn a_policy_is_read_and_shown_again() {
    let least = policy(json!({ "name": "a", "pattern": "**" }));
    assert_eq!(least, of("a", "**"));
    assert!(least.is_idle() && least.tag_pattern.is_all());
    assert_eq!(serde_json::to_value(&least).unwrap(), json!({ "name": "a", "pattern": "**", "tag_pattern": ["*"] }));
    let full = policy(json!({
        "name": "ci-cache", "pattern": "ci/**", "tag_pattern": ["*", "!pinned-*"], "keep_newest": 5, "older_than": "30d",
        "not_pulled_for": "336h", "size_max_bytes": "20GiB", "immutable": "v*", "held_for": 0, "never_tagged_for": "90s",
    }));
    assert_eq!(
        (full.keep_newest, full.older_than_ms, full.not_pulled_for_ms, full.size_max_bytes),
        (Some(5), Some(30 * 86_400_000), Some(14 * 86_400_000), Some(20 << 30))
    );
    assert_eq!((full.held_for_ms, full.never_tagged_for_ms), (Some(0), Some(90_000)));
    assert!(full.is_immutable(&tag("v1")) && !full.is_immutable(&tag("x")));
    let shown = json!({
        "name": "ci-cache", "pattern": "ci/**", "tag_pattern": ["*", "!pinned-*"], "keep_newest": 5, "older_than": "30d",
        "not_pulled_for": "14d", "size_max_bytes": 20_u64 << 30, "immutable": ["v*"], "held_for": "0s",
        "never_tagged_for": "90s",
    });
    assert_eq!(serde_json::to_value(&full).unwrap(), shown);
    let toml = "name = 'ci-cache'\npattern = 'ci/**'\ntag_pattern = ['*', '!pinned-*']\nkeep_newest = 5\nolder_than = '30d'\n\
                not_pulled_for = '14d'\nsize_max_bytes = '20GiB'\nimmutable = ['v*']\nheld_for = '0'\n\
                never_tagged_for = '90s'\n";
    assert_eq!(toml::from_str::<Policy>(toml).unwrap(), full);
    let immutable = policy(json!({ "name": "a", "pattern": "**", "tag_pattern": "v*", "immutable": true }));
    assert!(immutable.is_immutable(&tag("v1")) && !immutable.is_immutable(&tag("latest")));
    assert_eq!(serde_json::to_value(&immutable).unwrap()["immutable"], json!(true));
    assert_eq!(policy(json!({ "name": "a", "pattern": "**", "immutable": false })), least);
    assert_eq!(policy(json!({ "name": "a", "pattern": "**", "keep_newest": null })), least);
}

#[test]
fn a_name_beside_the_policy_has_to_be_its_name() {
    let form = |value| serde_json::from_value::<PolicyForm>(value).unwrap();
    let name = || "a".parse::<PolicyName>().unwrap();
    assert_eq!(form(json!({ "pattern": "**" })).named(name()), Ok(of("a", "**")));
    assert_eq!(form(json!({ "pattern": "**", "name": "a" })).named(name()), Ok(of("a", "**")));
    let error = form(json!({ "pattern": "**", "name": "b" })).named(name()).unwrap_err().to_string();
    assert_eq!(error, "name = \"b\" is not accepted: the policy is addressed as \"a\"");
}

#[test]
fn what_is_not_accepted_is_named_with_the_reason() {
    let long: Vec<_> = (0..101).map(|n| format!("v{n}")).collect();
    let cases = [
        (json!({ "keep_newest": 0 }), "keep_newest = 0 is not accepted: a whole number from 1 to 10000"),
        (json!({ "keep_newest": 10_001 }), "keep_newest = 10001 is not accepted"),
        (json!({ "keep_newest": -1 }), "keep_newest = -1 is not accepted"),
        (json!({ "keep_newest": "5" }), "keep_newest = \"5\" is not accepted"),
        (json!({ "keep_newest": 1.5 }), "keep_newest = 1.5 is not accepted"),
        (json!({ "keep_newest": 4_294_967_297_u64 }), "keep_newest = 4294967297 is not accepted"),
        (
            json!({ "older_than": "30" }),
            "older_than = \"30\" is not accepted: a duration from 1s to 3650d, such as 12h or 30d",
        ),
        (json!({ "older_than": 30 }), "older_than = 30 is not accepted: a duration"),
        (json!({ "older_than": "0" }), "older_than = \"0\" is not accepted: a duration"),
        (json!({ "older_than": "3651d" }), "older_than = \"3651d\" is not accepted"),
        (json!({ "older_than": ["30d"] }), "older_than = [\"30d\"] is not accepted"),
        (json!({ "not_pulled_for": "119m" }), "not_pulled_for = \"119m\" is not accepted: a duration from 2h to 3650d"),
        (json!({ "held_for": "-1d" }), "held_for = \"-1d\" is not accepted: a duration from 0s"),
        (json!({ "never_tagged_for": "1ms" }), "never_tagged_for = \"1ms\" is not accepted"),
        (
            json!({ "size_max_bytes": 0 }),
            "size_max_bytes = 0 is not accepted: a size from 1B to 1048576TiB, such as 20GiB",
        ),
        (json!({ "size_max_bytes": "20GB" }), "size_max_bytes = \"20GB\" is not accepted"),
        (json!({ "size_max_bytes": "2097152TiB" }), "size_max_bytes = \"2097152TiB\" is not accepted"),
        (json!({ "tag_pattern": "" }), "tag_pattern = \"\" is not accepted: use a tag"),
        (json!({ "tag_pattern": "!" }), "tag_pattern = \"!\" is not accepted: use a tag"),
        (json!({ "tag_pattern": [] }), "tag_pattern = [] is not accepted: an empty list matches no tag"),
        (json!({ "tag_pattern": ["v*", 1] }), "tag_pattern = [\"v*\",1] is not accepted: a pattern such as"),
        (json!({ "tag_pattern": "v?" }), "tag_pattern = \"v?\" is not accepted: no tag can match it"),
        (json!({ "tag_pattern": "-v*" }), "tag_pattern = \"-v*\" is not accepted: no tag can match it"),
        (json!({ "tag_pattern": "v**" }), "tag_pattern = \"v**\" is not accepted: use *"),
        (json!({ "tag_pattern": "!*" }), "tag_pattern = [\"!*\"] is not accepted: it matches no tag"),
        (json!({ "tag_pattern": ["v1.*", "v2", "!v*"] }), "is not accepted: it matches no tag: all that it includes"),
        (json!({ "tag_pattern": long }), "tag_pattern = [101 patterns] is not accepted: a list has at most 100"),
        (json!({ "tag_pattern": "v".repeat(129) }), "a pattern of tags has at most 128"),
        (json!({ "immutable": 1 }), "immutable = 1 is not accepted: true, false, a pattern"),
        (json!({ "immutable": "a b" }), "immutable = \"a b\" is not accepted: no tag can match it"),
        (json!({ "pattern": "a//b" }), "pattern = \"a//b\" is not accepted: no repository"),
        (json!({ "pattern": 1 }), "pattern = 1 is not accepted: say for which"),
        (json!({ "pattern": null }), "pattern is missing: say for which repositories"),
        (json!({ "name": "A" }), "name = \"A\" is not accepted: use at most 64"),
        (json!({ "name": "a/b" }), "name = \"a/b\" is not accepted"),
        (json!({ "name": "explain" }), "name = \"explain\" is not accepted: the admin API explains"),
        (json!({ "name": "" }), "name = \"\" is not accepted"),
        (json!({ "name": null }), "name is missing: every policy"),
        (json!({ "name": "n".repeat(65) }), "use at most 64"),
        (json!({ "keep_newst": 5 }), "unknown field `keep_newst`, expected one of `name`"),
        (
            json!({ "size_max_bytes": 5, "held_for": "1d" }),
            "size_max_bytes and held_for do not go together: what is held",
        ),
    ];
    for (fields, expected) in cases {
        let mut value = json!({ "name": "a", "pattern": "**" });
        for (field, given) in fields.as_object().unwrap() {
            value[field] = given.clone();
        }
        let error = serde_json::from_value::<Policy>(value).unwrap_err().to_string();
        assert!(error.contains(expected), "{fields}: {error}");
        assert!(error.len() < 700, "{error}");
    }
    let error = toml::from_str::<Policy>("name = 'a'\npattern = '**'\nkeep_newest = 0").unwrap_err().to_string();
    assert!(error.contains("keep_newest = 0 is not accepted"), "{error}");
    let twice = r#"{"name":"a","pattern":"**","pattern":"*"}"#;
    assert!(serde_json::from_str::<Policy>(twice).unwrap_err().to_string().contains("duplicate field `pattern`"));
}

#[test]
fn a_spare_tag_is_due_when_all_conditions_hold() {
    let due = |fields: serde_json::Value, set: u64, used: u64| {
        let mut value = json!({ "name": "a", "pattern": "**" });
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        policy(value).due_ms(set, used)
    };
    const HOUR: u64 = 3_600_000;
    assert_eq!(due(json!({}), 5, 9), None);
    assert_eq!(due(json!({ "size_max_bytes": 1 }), 5, 9), None, "a cap alone takes no tag for its age");
    assert_eq!(due(json!({ "keep_newest": 3 }), 5, 9), Some(5));
    assert_eq!(due(json!({ "older_than": "1h" }), 5, 9), Some(HOUR + 5));
    assert_eq!(due(json!({ "not_pulled_for": "2h" }), 5, 9), Some(2 * HOUR + 9));
    assert_eq!(due(json!({ "not_pulled_for": "2h" }), 5, 0), Some(2 * HOUR + 5));
    assert_eq!(due(json!({ "older_than": "3h", "not_pulled_for": "2h" }), 5, HOUR), Some(3 * HOUR + 5));
    assert_eq!(due(json!({ "older_than": "3h", "not_pulled_for": "2h" }), 5, 2 * HOUR), Some(4 * HOUR));
    assert_eq!(due(json!({ "older_than": "3h" }), u64::MAX, 0), Some(u64::MAX), "no clock overflows");
    assert_eq!(policy(json!({ "name": "a", "pattern": "**", "held_for": "1h" })).window_ms(), Some(HOUR));
    assert_eq!(policy(json!({ "name": "a", "pattern": "**", "size_max_bytes": 7 })).window_ms(), Some(0));
    assert_eq!(of("a", "**").window_ms(), None);
}

/// The bytes of a policy, as journals and indexes hold them. Whoever changes them changes FORMAT.md and the version there.
#[test]
fn golden_bytes() {
    let full = policy(json!({
        "name": "ci", "pattern": "ci/**", "tag_pattern": ["*", "!v*"], "keep_newest": 5, "older_than": "1s",
        "size_max_bytes": 258, "immutable": "w", "held_for": "0",
    }));
    let mut encoder = Encoder::new();
    full.encode(&mut encoder);
    let bytes = encoder.finish();
    let text = "02000000.6369/05000000.63692f2a2a/02000000.01000000.2a.03000000.21762a/01.05000000/01.e803000000000000/00/\
                01.0201000000000000/01.01000000.01000000.77/01.0000000000000000/00";
    let expected: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    assert_eq!(data_encoding::HEXLOWER.encode(&bytes), expected);
    let mut decoder = Decoder::new(&bytes);
    assert_eq!(Policy::decode(&mut decoder), Ok(full));
    assert_eq!(decoder.finish("policy"), Ok(()));
}

#[test]
fn bytes_of_a_policy_that_is_not_accepted_are_an_error() {
    let mut none_newest = of("a", "**");
    none_newest.keep_newest = Some(0);
    let mut held = of("a", "**");
    (held.size_max_bytes, held.held_for_ms) = (Some(1), Some(1));
    for bad in [none_newest, held] {
        let mut encoder = Encoder::new();
        bad.encode(&mut encoder);
        let error = Policy::decode(&mut Decoder::new(&encoder.finish())).unwrap_err();
        assert_eq!(error.to_string(), "cannot decode policy: out of its bounds");
    }
}

//! Layers, refusals, and the table held against itself.

use std::collections::BTreeSet;

use super::*;

fn read(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Loaded, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("orlop.toml");
    std::fs::write(&path, file).unwrap();
    Loaded::read(&Layers {
        file: Some(&path),
        environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(),
        memory_bytes: None,
    })
}

#[test]
fn nothing_is_needed() {
    let loaded = Loaded::read(&Layers::default()).unwrap();
    assert_eq!(loaded.config.listen, "127.0.0.1:5000");
    assert_eq!(loaded.config.data, Path::new("data"));
}

#[test]
fn little_memory_lowers_defaults_and_nothing_that_was_set() {
    let environment = vec![("ORLOP_HTTP_BODY_MEMORY".to_owned(), "100MiB".to_owned())];
    let layers = Layers { environment, memory_bytes: Some(256 << 20), ..Layers::default() };
    let config = Loaded::read(&layers).unwrap().config;
    assert_eq!(config.http.body_memory_bytes, 100 << 20);
    assert_eq!(config.store.index_cache_bytes, 16 << 20);
    assert_eq!(Loaded::read(&Layers::default()).unwrap().config.store.index_cache_bytes, 128 << 20);
}

#[test]
fn later_layers_win_setting_by_setting() {
    let file = "listen = '1.1.1.1:1'\ndata = 'a'\n[http]\nconnections_max = 7\nbody_memory = '64MiB'\n";
    let environment = [("ORLOP_LISTEN", "2.2.2.2:2"), ("ORLOP_HTTP_CONNECTIONS_MAX", "8"), ("HOME", "/root")];
    let loaded = read(file, &environment, &[("listen", "3.3.3.3:3")]).unwrap();
    let config = &loaded.config;
    assert_eq!(config.listen, "3.3.3.3:3");
    assert_eq!(config.server.connections_max, 8);
    assert_eq!(config.http.body_memory_bytes, 64 << 20);
    assert_eq!(config.data, Path::new("a"));
    let text = loaded.describe();
    for line in
        ["(flag)\nlisten = \"3.3.3.3:3\"", "(environment)\nconnections_max = 8", "(file)\nbody_memory = \"64MiB\""]
    {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.contains("(default)\nheader_timeout = \"30s\""), "{text}");
}

#[test]
fn dotted_keys_and_tables_are_the_same() {
    let loaded = read("http.header_timeout = '5s'\n[log]\nlevel = 'debug'\n", &[], &[]).unwrap();
    assert_eq!(loaded.config.server.header_timeout, Duration::from_secs(5));
    assert_eq!(loaded.config.log_level, "debug");
}

#[test]
fn what_is_not_accepted_is_named_with_what_is() {
    let cases = [
        ("lisen = 'a:1'", "there is no setting \"lisen\"; the nearest is \"listen\""),
        ("[http]\nconection_max = 1", "\"http.conection_max\"; the nearest is \"http.connections_max\""),
        ("[htp]\nconnections_max = 1", "\"htp.connections_max\"; the nearest is \"http.connections_max\""),
        ("http = 1", "there is no setting \"http\""),
        ("[listen]\na = 1", "there is no setting \"listen.a\"|listen = "),
        ("listen = 5000", "listen = \"5000\" (file) is not accepted: host and port"),
        ("listen = true", "listen = \"true\" (file)"),
        (
            "[http]\nconnections_max = 0",
            "http.connections_max = \"0\" (file) is not accepted: a whole number from 1 to",
        ),
        ("[http]\nconnections_max = -1", "http.connections_max = \"-1\""),
        ("[http]\nheader_timeout = 30", "a duration from 100ms to 1h, such as"),
        ("[http]\nheader_bytes_max = '1KiB'", "a size from 8KiB to 1MiB"),
        ("[log]\nlevel = 'loud'", "error, warn, info, debug or trace"),
        ("[log]\nlevel = ['info']", "log.level = "),
        (
            "[store]\nlarge_blob_bytes = '512MiB'",
            "store.large_blob_bytes = 536870912 is not accepted: it must be at most",
        ),
        ("data = 'a'\ndata = 'b'", "duplicate key"),
        ("data = ", "orlop.toml: "),
    ];
    for (file, expected) in cases {
        let error = read(file, &[], &[]).unwrap_err().to_string();
        assert!(expected.split('|').any(|expected| error.contains(expected)), "{file}: {error}");
    }
    let error = Loaded::read(&Layers { file: Some(Path::new("/nowhere/x.toml")), ..Layers::default() }).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/x.toml: "), "{error}");
    let error = read("", &[("ORLOP_LISTEN", "x")], &[]).unwrap_err().to_string();
    assert!(error.contains("listen = \"x\" (environment)"), "{error}");
}

#[test]
fn unknown_variables_of_our_prefix_are_reported_and_others_are_not() {
    let environment = [("ORLOP_PORT_5000_TCP", "x"), ("ORLOP_CONFIG", "x"), ("PATH", "x")];
    assert_eq!(read("", &environment, &[]).unwrap().unknown_variables, ["ORLOP_PORT_5000_TCP"]);
}

#[test]
fn the_description_is_a_file_that_gives_the_same_configuration() {
    let loaded = read("[http]\nshutdown_grace = 0\n[store]\nreserve_bytes = 12345", &[], &[]).unwrap();
    let again = read(&loaded.describe(), &[], &[]).unwrap();
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
}

const POLICIES: &str = "listen = '1.1.1.1:1'\n\n[[policies]]\nname = 'ci'\npattern = 'ci/**'\nsize_max_bytes = '20GiB'\n\
    tag_pattern = ['*', '!pinned-*']\n\n[[policies]]\nname = 'old'\npattern = '**'\nolder_than = '90d'\n";

#[test]
fn policies_of_the_file_are_read_in_their_order_and_described() {
    let loaded = read(POLICIES, &[], &[]).unwrap();
    let names: Vec<_> = loaded.config.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["ci", "old"]);
    assert_eq!(loaded.config.policies[0].size_max_bytes, Some(20 << 30));
    let again = read(&loaded.describe(), &[], &[]).unwrap();
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
    assert_eq!(read("", &[], &[]).unwrap().config.policies, []);
}

#[test]
fn a_malformed_policy_is_refused_with_its_place_and_the_reason() {
    let cases = [
        (
            "size_max_bytes = '20GiB'",
            "size_max_bytes = '20GB'",
            "policy 1 (line 3): size_max_bytes = \"20GB\" is not accepted",
        ),
        ("older_than = '90d'", "keep_newest = 0", "policy 2 (line 9): keep_newest = 0 is not accepted: a whole number"),
        ("name = 'old'", "", "policy 2 (line 9): name is missing"),
        ("name = 'old'", "name = 'ci'", "policy 2 (line 9): name = \"ci\" is that of policy 1, too"),
        ("'**'", "'ci/**'", "policy 2 (line 9): pattern = \"ci/**\" of \"old\" is that of policy 1, too"),
        ("older_than", "elder_than", "unknown field `elder_than`"),
        ("[[policies]]\nname = 'old'", "[policies.x]\nname = 'old'", "orlop.toml: "),
        ("size_max_bytes = '20GiB'", "size_max_bytes = '20GiB'\nheld_for = '1d'", "held_for do not go together"),
    ];
    for (part, bad, expected) in cases {
        let error = read(&POLICIES.replacen(part, bad, 1), &[], &[]).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("orlop.toml"), "{bad}: {error}");
    }
    let error = read("policies = 1", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("orlop.toml: ") && error.contains("line 1"), "{error}");
    let many: String = (0..1_001).map(|n| format!("[[policies]]\nname = 'p{n}'\npattern = 'r{n}'\n")).collect();
    let error = read(&many, &[], &[]).unwrap_err().to_string();
    assert!(error.contains("policy 1001 (line 3001): there are at most 1000"), "{error}");
}

#[test]
fn every_setting_accepts_its_default_and_has_names_of_its_own() {
    let text = Loaded::read(&Layers::default()).unwrap().describe();
    let again = read(&text, &[], &[]).unwrap();
    assert_eq!(again.origins.len(), SETTINGS.len());
    assert_eq!(SETTINGS.iter().map(variable).collect::<BTreeSet<_>>().len(), SETTINGS.len());
}

#[test]
fn a_value_lands_in_the_field_of_its_name() {
    for setting in SETTINGS {
        let mut config = Config::default();
        let other = match &setting.kind {
            settings::Kind::Text { .. } => continue,
            settings::Kind::Count { bounds, .. } | settings::Kind::Bytes { bounds, .. } => bounds.0.to_string(),
            settings::Kind::Duration { bounds_ms, .. } => format!("{}ms", bounds_ms.0),
        };
        let before = setting.kind.get(&config);
        setting.kind.set(&mut config, &other).unwrap();
        assert_ne!(setting.kind.get(&config), before, "{}", setting.key);
        let changed = SETTINGS.iter().filter(|any| any.kind.get(&config) != any.kind.get(&Config::default()));
        assert_eq!(changed.map(|setting| setting.key).collect::<Vec<_>>(), [setting.key]);
    }
}

//! What must hold for configuration files of any text. For fuzzers and tests only.

use std::path::Path;

use super::{Config, Layers, Loaded, SETTINGS, settings};

/// What is accepted is described in words that mean the same.
pub(crate) fn file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(loaded) = read(text) else { return };
    let described = loaded.describe();
    let again = read(&described);
    assert!(again.is_some(), "not accepted again: {described}");
    let values = |config: &Config| {
        let settings: Vec<_> = SETTINGS.iter().map(|setting| setting.kind.get(config)).collect();
        (settings, config.policies.clone())
    };
    assert_eq!(again.map(|again| values(&again.config)), Some(values(&loaded.config)));
}

fn read(text: &str) -> Option<Loaded> {
    let mut loaded = Loaded::read(&Layers::default()).ok()?;
    loaded.read_text(Path::new("orlop.toml"), text).ok()?;
    settings::check(&loaded.config).ok()?;
    Some(loaded)
}

/// All settings with their defaults, each by itself, and what is not to be accepted.
pub(crate) fn file_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Loaded::read(&Layers::default()).map_or_else(|_| String::new(), |loaded| loaded.describe())];
    let config = Config::default();
    seeds.extend(SETTINGS.iter().map(|setting| format!("{} = {}\n", setting.key, setting.kind.get(&config))));
    seeds.extend(
        [
            "[[policies]]\nname = 'a'\npattern = '**'\ntag_pattern = ['*', '!v*']\nsize_max_bytes = '2GiB'\n",
            "[http]\nconections_max = 7\n",
            "a.b.c.d = [1, {x = 1979-05-27T07:32:00Z}]",
            "data = '''x'''",
        ]
        .map(str::to_owned),
    );
    seeds.into_iter().map(String::into_bytes).collect()
}

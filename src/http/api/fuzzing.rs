//! Parameters and bodies of the admin API, whatever they are. For fuzzers and tests only.

use super::{ROOT, ROUTES, input::Parameters};

/// What is read of a query is within its bounds.
pub(in crate::http) fn parameters(query: &str) {
    const KNOWN: [&str; 7] = ["n", "last", "own", "repository", "organization", "digest", "tag"];
    let Ok(parameters) = Parameters::parse(Some(query), &KNOWN) else { return };
    if let Ok(page) = parameters.page() {
        assert!(page.limit <= 1_000 && page.asked() > 0);
    }
    let _ = (parameters.flag("own"), parameters.repository(), parameters.organization(), parameters.digest("digest"));
    let _ = parameters.text("tag").map(super::input::reference);
}

/// A request of each route and method, with the fields that the bodies have.
pub(in crate::http) fn requests() -> Vec<String> {
    let mut requests = Vec::new();
    for (route, methods) in ROUTES {
        let route = route.replace("{digest}", "{blob}");
        for method in methods.split(", ") {
            let body = match (method, route.as_str()) {
                ("GET", _) => String::new(),
                (_, "collect") => r#"{"free_bytes":1000000}"#.to_owned(),
                (_, "purge") => r#"{"repository":"a/b"}"#.to_owned(),
                (_, "quotas") => r#"{"organization":"a","limit_bytes":1000000}"#.to_owned(),
                (_, "pause" | "resume") => r#"{"what":"compact"}"#.to_owned(),
                (_, "restore") => r#"{"repository":"a/b","digest":"{manifest}","tag":"x"}"#.to_owned(),
                (_, "what-if") => r#"{"repository":"a/b","digests":["{manifest}"]}"#.to_owned(),
                (_, "verify") => r#"{"content":true}"#.to_owned(),
                _ => "{}".to_owned(),
            };
            let query = if method == "GET" { "?n=1&repository=a/b" } else { "" };
            let head = "host: localhost\ncontent-type: application/json";
            requests.push(format!("{method} {ROOT}{route}{query}\n{head}\n\n{body}"));
        }
    }
    requests
}

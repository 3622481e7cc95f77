//! What a deletion would give back.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{HINT, Shown, entries, number};
use crate::admin::{
    format::{counted, size, text},
    table::{left, render, right},
};

/// The answer as a table of scopes.
pub(in crate::admin) fn show(answer: &Value, _: Timestamp) -> Shown {
    let manifests = &answer["manifests"];
    let scope = |name: String, field: &str| json!({ "name": name, "gain": answer[field] });
    let scopes = [
        scope(format!("repository {}", text(&answer["repository"])), "in_repository"),
        scope(format!("organisation {}", text(&answer["organization"])), "in_organization"),
        scope("registry".to_owned(), "in_registry"),
    ];
    let table = render(
        vec![
            left("IN", |scope| text(&scope["name"])),
            right("RECLAIMABLE AT ONCE", |scope| size(&scope["gain"]["reclaimable_bytes"])),
            right("FREED IN THE END", |scope| size(&scope["gain"]["freed_bytes"])),
            right("OF MANIFESTS", |scope| size(&scope["gain"]["manifest_bytes"])),
        ],
        &scopes,
    );
    let stays: Vec<Value> = entries(&answer["stays"]).to_vec();
    let mut text = format!(
        "{} would cease to live, {} would be dropped in the end; nothing was changed\n\n{table}\n{HINT}\n",
        counted(number(&manifests["leave"]), "manifest"),
        number(&manifests["dropped"])
    );
    if !stays.is_empty() {
        text.push_str("\nThese would live on all the same:\n");
        text.push_str(&render(
            vec![
                left("TAG", |entry| crate::admin::format::text(&entry["tag"])),
                left("KEPT BY", |entry| crate::admin::format::text(&entry["kept_by"])),
                left("DIGEST", |entry| crate::admin::format::text(&entry["digest"])),
            ],
            &stays,
        ));
    }
    Shown::plain(text)
}

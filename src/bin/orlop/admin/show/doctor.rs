//! What the doctor says: a line for each check, its remedy below.

use jiff::Timestamp;
use serde_json::Value;

use super::{Shown, entries};
use crate::admin::{
    format::{counted, plain, text},
    table::{left, render},
};

/// All checks, and how many of them are warnings and problems: those are something to look at.
pub(in crate::admin) fn show(answer: &Value, _: Timestamp) -> Shown {
    let checks = entries(&answer["checks"]);
    let columns = vec![
        left("LEVEL", |check| text(&check["level"])),
        left("CHECK", |check| text(&check["name"])),
        left("WHAT", |check| text(&check["what"])),
    ];
    let table = render(columns, checks);
    // A line for the heads, then one for each check.
    let indent = table.find("WHAT").unwrap_or_default();
    let remedies = std::iter::once(None).chain(checks.iter().map(|check| check["remedy"].as_str()));
    let mut shown = String::new();
    for (line, remedy) in table.lines().zip(remedies) {
        shown.push_str(&format!("{line}\n"));
        if let Some(remedy) = remedy {
            shown.push_str(&format!("{:indent$}→ {}\n", "", plain(remedy)));
        }
    }
    let count = |level: &str| checks.iter().filter(|check| check["level"] == level).count() as u64;
    let (warnings, problems) = (count("warning"), count("problem"));
    shown.push_str(&match warnings + problems {
        0 => "all is well\n".to_owned(),
        _ => format!("{}, {}\n", counted(problems, "problem"), counted(warnings, "warning")),
    });
    Shown::new(shown, warnings + problems > 0)
}

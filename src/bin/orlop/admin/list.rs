//! Lists, page by page to their end.

use std::io::{self, Write};

use serde_json::Value;

use super::{call::Call, table::Table, transport::Transport};
use crate::Failure;

/// Most entries of a page: what the API gives at most.
const PAGE: u64 = 1_000;

/// A list that is being followed.
pub(super) struct Pages<'a> {
    transport: &'a dyn Transport,
    call: Call,
    field: &'static str,
    /// How many entries may still come.
    left: Option<u64>,
}

struct Page {
    entries: Vec<Value>,
    next: Option<String>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(transport: &'a dyn Transport, call: Call, field: &'static str, limit: Option<u64>) -> Self {
        Self { transport, call, field, left: limit }
    }

    /// Prints all entries as a table, and the note if there was any.
    pub(super) fn print(self, out: &mut dyn Write, mut table: Table, note: Option<&str>) -> Result<(), Failure> {
        let mut is_empty = true;
        let field = self.field;
        let next = self.each(&mut |entries| {
            is_empty &= entries.is_empty();
            table.print(out, entries)
        })?;
        if is_empty {
            writeln!(out, "no {field}")?;
        } else if let Some(note) = note {
            writeln!(out, "\n{note}")?;
        }
        if next.is_some() {
            writeln!(out, "\nThere are more; -n says how many to show.")?;
        }
        Ok(())
    }

    /// Prints all entries as one document, an entry a line, in the form of a single page.
    pub(super) fn print_json(self, out: &mut dyn Write) -> Result<(), Failure> {
        write!(out, "{{\"{}\":[", self.field)?;
        let mut separator = "\n";
        let next = self.each(&mut |entries| {
            entries.iter().try_for_each(|entry| {
                write!(out, "{separator}{entry}")?;
                separator = ",\n";
                Ok(())
            })
        })?;
        writeln!(out, "\n],\"next\":{}}}", next.map_or(Value::Null, Value::from))?;
        Ok(())
    }

    /// Gives the entries of all pages, and in the end where the next page would begin, if the limit was met before.
    fn each(mut self, give: &mut dyn FnMut(&[Value]) -> io::Result<()>) -> Result<Option<String>, Failure> {
        let mut last: Option<String> = None;
        loop {
            let n = self.left.map_or(PAGE, |left| left.min(PAGE));
            if n == 0 {
                return Ok(last);
            }
            let call = self.call.clone().with("n", n.to_string());
            let page = self.read(match &last {
                Some(last) => call.with("last", last),
                None => call,
            })?;
            give(&page.entries)?;
            self.left = self.left.map(|left| left.saturating_sub(page.entries.len() as u64));
            match page.next {
                // A server that gives the same page for ever must not be followed for ever.
                Some(next) if last.as_ref() == Some(&next) => {
                    return Err("the list does not go on: its next page is itself".into());
                }
                Some(next) => last = Some(next),
                None => return Ok(None),
            }
        }
    }

    fn read(&self, call: Call) -> Result<Page, Failure> {
        let mut answer = self.transport.ask(&call)?;
        let next = answer["next"].as_str().map(str::to_owned);
        match answer[self.field].take() {
            Value::Array(entries) => Ok(Page { entries, next }),
            _ => {
                Err(format!("the answer has no list \"{}\"; is the server another version of orlop?", self.field)
                    .into())
            }
        }
    }
}

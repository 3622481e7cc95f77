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
            writeln!(out, "no {}", field.replace("organiz", "organis"))?;
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;
    use crate::admin::{
        call::Answer,
        format,
        table::{left, right},
    };

    /// Answers in turn, and remembers what was asked.
    struct Canned {
        answers: Mutex<Vec<Value>>,
        asked: Mutex<Vec<String>>,
    }

    impl Canned {
        fn new(answers: impl IntoIterator<Item = Value>) -> Self {
            let mut answers: Vec<Value> = answers.into_iter().collect();
            answers.reverse();
            Self { answers: Mutex::new(answers), asked: Mutex::default() }
        }
    }

    impl Transport for Canned {
        fn send(&self, call: &Call) -> Result<Answer, Failure> {
            self.asked.lock().unwrap().push(call.target());
            let answer = self.answers.lock().unwrap().pop().ok_or("no more was expected")?;
            Ok(Answer { status: 200, body: answer.to_string().into_bytes() })
        }

        fn close(self: Box<Self>) -> Result<(), Failure> {
            Ok(())
        }
    }

    fn page(names: &[&str], next: Option<&str>) -> Value {
        let entries: Vec<Value> = names.iter().map(|name| json!({ "name": name, "tags": name.len() })).collect();
        json!({ "organizations": entries, "next": next })
    }

    fn print(transport: &Canned, limit: Option<u64>, json: bool) -> Result<String, Failure> {
        let pages = Pages::new(transport, Call::get("organizations"), "organizations", limit);
        let columns = vec![
            left("NAME", |entry| format::text(&entry["name"])),
            right("TAGS", |entry| format::count(&entry["tags"])),
        ];
        let mut out = Vec::new();
        if json { pages.print_json(&mut out) } else { pages.print(&mut out, Table::new(columns), Some("A note.")) }?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn a_list_is_followed_to_its_end_over_empty_pages_too() {
        let pages = || [page(&["aa", "b"], Some("b")), page(&[], Some("x y")), page(&["z"], None)];
        let transport = Canned::new(pages());
        let text = print(&transport, None, false).unwrap();
        assert_eq!(text, "NAME  TAGS\naa       2\nb        1\nz        1\n\nA note.\n");
        let asked = transport.asked.into_inner().unwrap();
        let root = "/api/v1/organizations?n=1000";
        assert_eq!(asked, [root.to_owned(), format!("{root}&last=b"), format!("{root}&last=x%20y")]);

        let text = print(&Canned::new(pages()), None, true).unwrap();
        let merged: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(merged, page(&["aa", "b", "z"], None));
        assert_eq!(text.lines().count(), 5, "an entry a line: {text}");
    }

    #[test]
    fn a_limit_ends_a_list_and_tells_where_it_goes_on() {
        let transport = Canned::new([page(&["a", "b"], Some("b")), page(&["c"], Some("c"))]);
        let text = print(&transport, Some(3), false).unwrap();
        assert!(text.ends_with("\nThere are more; -n says how many to show.\n"), "{text}");
        let asked = transport.asked.into_inner().unwrap();
        assert_eq!(asked, ["/api/v1/organizations?n=3", "/api/v1/organizations?n=1&last=b"]);
        let text = print(&Canned::new([page(&["a"], Some("a"))]), Some(1), true).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), page(&["a"], Some("a")));
    }

    #[test]
    fn an_empty_list_says_so_and_is_an_empty_document() {
        assert_eq!(print(&Canned::new([page(&[], None)]), None, false).unwrap(), "no organisations\n");
        let text = print(&Canned::new([page(&[], None)]), None, true).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), page(&[], None));
    }

    #[test]
    fn what_is_no_list_or_never_ends_is_an_error() {
        let error = print(&Canned::new([json!({ "tags": [] })]), None, false).unwrap_err().to_string();
        assert!(error.contains("\"organizations\""), "{error}");
        let same = || page(&["a"], Some("a"));
        let error = print(&Canned::new([same(), same(), same()]), None, false).unwrap_err().to_string();
        assert!(error.contains("does not go on"), "{error}");
    }
}

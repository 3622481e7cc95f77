//! The file `FORMAT`: what the directory is, of which version, and which store.
//!
//! Text, told in FORMAT.md (*FORMAT*). It is written once, before anything is acknowledged, and never changed; a directory
//! that has other files and not this one is refused.

use data_encoding::HEXLOWER;

use crate::disk::Disk;

use super::OpenError;

const PATH: &str = "FORMAT";
const NEW_PATH: &str = "FORMAT.new";
pub(super) const VERSION: &str = "1";

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) store: [u8; 16],
}

/// Reads the file; `None` when the directory is a new one.
pub(super) fn read(disk: &dyn Disk) -> Result<Option<Format>, OpenError> {
    let wrong = |problem: String| OpenError::Format { directory: disk.root().display().to_string(), problem };
    let file = match disk.open(PATH) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let entries = disk.list("").map_err(|error| OpenError::io("list the data directory".to_owned(), error))?;
            let known = ["lock", NEW_PATH, "lost+found"];
            return match entries.iter().find(|entry| !known.contains(&entry.name.as_str())) {
                Some(entry) => Err(wrong(format!(
                    "it has no FORMAT file, but holds \"{}\": this is not an orlop data directory; name another one, \
                     or put its FORMAT file back",
                    entry.name
                ))),
                None => Ok(None),
            };
        }
        Err(error) => return Err(OpenError::io("open FORMAT".to_owned(), error)),
    };
    let mut text = [0; 256];
    let len = file.read_at(&mut text, 0).map_err(|error| OpenError::io("read FORMAT".to_owned(), error))?;
    parse(&text[..len]).map(Some).map_err(wrong)
}

/// Writes the file of a new store, durably.
pub(super) fn create(disk: &dyn Disk, now_ms: u64) -> Result<Format, OpenError> {
    let mut store = [0; 16];
    getrandom::fill(&mut store)
        .map_err(|error| OpenError::io("draw a store id".to_owned(), std::io::Error::other(error.to_string())))?;
    let format = Format { store };
    let write = || {
        match disk.remove(NEW_PATH) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(NEW_PATH)?;
        file.write_all_at(text(&format, now_ms).as_bytes(), 0)?;
        file.sync_data()?;
        disk.rename(NEW_PATH, PATH)?;
        disk.sync_dir("")
    };
    write().map_err(|error| OpenError::io("write FORMAT".to_owned(), error))?;
    Ok(format)
}

fn text(format: &Format, now_ms: u64) -> String {
    // A clock beyond the year 9999 is shown as the epoch.
    let created = i64::try_from(now_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let created = created.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let lines = format!("orlop {VERSION}\nstore {}\ncreated {created}\n", HEXLOWER.encode(&format.store));
    let crc = crc32fast::hash(lines.as_bytes());
    format!("{lines}crc32 {crc:08x}\n")
}

fn parse(bytes: &[u8]) -> Result<Format, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "its FORMAT file is damaged: not UTF-8".to_owned())?;
    let mut lines = text.lines();
    let mut field = |name: &str| {
        let line = lines.next().and_then(|line| line.strip_prefix(name)).and_then(|line| line.strip_prefix(' '));
        line.ok_or_else(|| format!("its FORMAT file is damaged: the line \"{name} …\" is missing"))
    };
    let version = field("orlop")?;
    if version != VERSION {
        return Err(format!("it has format version {version}; this version of orlop reads version {VERSION}"));
    }
    let (store, _, crc) = (field("store")?, field("created")?, field("crc32")?);
    let covered = text.find("crc32 ").map_or("", |at| &text[..at]);
    if format!("{:08x}", crc32fast::hash(covered.as_bytes())) != crc {
        return Err("its FORMAT file is damaged: the checksum does not hold".to_owned());
    }
    if lines.next().is_some() || !text.ends_with('\n') {
        return Err("its FORMAT file is damaged: it does not end after its fourth line".to_owned());
    }
    let store = HEXLOWER.decode(store.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    Ok(Format { store: store.ok_or("its FORMAT file is damaged: the store id is not 32 hexadecimal digits")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_version_1_is_pinned() {
        let text = text(&Format { store: [0xab; 16] }, 1_792_574_400_123);
        let lines = "orlop 1\nstore abababababababababababababababab\ncreated 2026-10-21T09:20:00.123Z\n";
        assert_eq!(text, format!("{lines}crc32 {:08x}\n", crc32fast::hash(lines.as_bytes())));
        assert_eq!(parse(text.as_bytes()), Ok(Format { store: [0xab; 16] }));
    }

    #[test]
    fn what_is_no_format_file_is_refused() {
        let good = text(&Format { store: [7; 16] }, 0);
        assert!(parse(good.replace("orlop 1", "orlop 2").as_bytes()).unwrap_err().contains("format version 2"));
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(parse(&bytes).is_err(), "flip at {at}");
            assert!(parse(&good.as_bytes()[..at]).is_err(), "cut at {at}");
        }
    }
}

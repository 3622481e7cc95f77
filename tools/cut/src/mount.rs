//! The tree as a FUSE file system, with faults on purpose: delays, and writes and flushes that fail.
//!
//! It asks nothing of the disk below it but a place to be mounted at. A call that is delayed holds no lock, so others go on.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fastrand::Rng;
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use crate::{
    content::Content,
    tree::{Node, ROOT, Refused, Tree},
};

/// Threads that answer the kernel, so that delays overlap as on a disk with a queue.
const THREADS: usize = 4;
/// What the kernel may remember of names, all of which change through it only.
const NAMES_LAST: Duration = Duration::from_secs(3600);
/// How long a disk that has failed a flush answers nothing. Kernels reset such a disk, which takes seconds; one that said that
/// all is well in the next microsecond would be believed by calls that the file system has not stopped yet.
const RESET: Duration = Duration::from_millis(200);
const CAPACITY_BLOCKS: u64 = 4 << 20;
const BLOCK_BYTES: u32 = 4096;

/// What goes wrong on purpose, or takes its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Longest delay of a write or a read.
    pub(crate) delay_max: Duration,
    /// Longest delay of a flush.
    pub(crate) flush_delay_max: Duration,
    /// Writes that still succeed before one fails.
    pub(crate) writes_left: Option<u64>,
    /// Flushes that still succeed before one fails.
    pub(crate) flushes_left: Option<u64>,
    /// Whether all fail after the first one.
    pub(crate) lasting: bool,
}

impl Faults {
    /// Whether the next of those that are counted by `left` fails.
    fn strikes(left: &mut Option<u64>, lasting: bool) -> bool {
        match left {
            Some(0) => {
                if !lasting {
                    *left = None;
                }
                true
            }
            Some(count) => {
                *count -= 1;
                false
            }
            None => false,
        }
    }
}

#[derive(Debug)]
struct State {
    tree: Tree,
    faults: Faults,
    failed: u64,
    /// How often it was reset.
    resets: u64,
    /// Until when it is being reset.
    reset_until: Option<Instant>,
    rng: Rng,
}

/// The handle by which the experiments reach the file system below the mount.
#[derive(Debug, Clone)]
pub(crate) struct Double {
    state: Arc<Mutex<State>>,
    /// Whether the kernel keeps no pages of the files: for one that a loop device stands on.
    direct: bool,
}

impl Double {
    /// Over a tree; `direct` when pages are to reach it without a cache in between.
    pub(crate) fn new(tree: Tree, direct: bool, seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        let state = State { tree, faults: Faults::default(), failed: 0, resets: 0, reset_until: None, rng };
        Self { state: Arc::new(Mutex::new(state)), direct }
    }

    /// Mounts it until the answer is dropped.
    ///
    /// # Errors
    /// When the kernel refuses: not root, no /dev/fuse.
    pub(crate) fn mount(&self, at: &Path) -> io::Result<BackgroundSession> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("orlop-cut".to_owned()), MountOption::NoAtime];
        config.n_threads = Some(THREADS);
        fuser::spawn_mount(self.clone(), at, &config)
    }

    /// All as it is at this moment, with what is not durable, if that is so many blocks and changes of names.
    pub(crate) fn freeze(&self, unflushed_min: u64) -> Option<Tree> {
        let state = self.lock();
        (unflushed_min == 0 || state.tree.unflushed() >= unflushed_min).then(|| state.tree.clone())
    }

    /// Puts another tree in the place of this one. The kernel must not remember anything of the old one.
    pub(crate) fn replace(&self, tree: Tree) {
        self.lock().tree = tree;
    }

    /// What goes wrong from now on.
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Calls that failed on purpose so far.
    pub(crate) fn failed(&self) -> u64 {
        self.lock().failed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes its time, and waits for a reset to be over. What the caller does with the answer comes before the next one.
    fn delay(&self, longest: fn(&Faults) -> Duration) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let longest = longest(&state.faults);
        if longest > Duration::ZERO {
            // Most calls are quick and a few very slow, as on a disk that is at its limits.
            let share = state.rng.f64().powi(3);
            drop(state);
            thread::sleep(longest.mul_f64(share));
            state = self.lock();
        }
        while let Some(left) = state.reset_until.map(|until| until.saturating_duration_since(Instant::now())) {
            if left.is_zero() {
                state.reset_until = None;
            } else {
                drop(state);
                thread::sleep(left);
                state = self.lock();
            }
        }
        state
    }

    fn entry(&self, dir: u64, name: &OsStr) -> Result<FileAttr, Refused> {
        let state = self.lock();
        let number = state.tree.lookup(dir, name)?;
        attributes(&state.tree, number)
    }

    fn create_node(&self, dir: u64, name: &OsStr, node: Node) -> Result<FileAttr, Refused> {
        let mut state = self.lock();
        let number = state.tree.create(dir, name, node)?;
        attributes(&state.tree, number)
    }

    fn flush_file(&self, number: u64) -> Result<(), Errno> {
        let (mark, resets) = {
            let state = self.lock();
            (state.tree.file(number)?.mark(), state.resets)
        };
        let mut state = self.delay(|faults| faults.flush_delay_max);
        if state.resets > resets {
            // It was under way when the disk was reset, and what it was to make durable is gone.
            return Err(Errno::EIO);
        }
        let lasting = state.faults.lasting;
        let strikes = Faults::strikes(&mut state.faults.flushes_left, lasting);
        state.failed += u64::from(strikes);
        let file = state.tree.file_mut(number)?;
        if strikes {
            file.lose();
            state.resets += 1;
            state.reset_until = Some(Instant::now() + RESET);
            return Err(Errno::EIO);
        }
        file.flush(mark);
        Ok(())
    }

    fn write_file(&self, number: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let mut state = self.delay(|faults| faults.delay_max);
        let lasting = state.faults.lasting;
        if Faults::strikes(&mut state.faults.writes_left, lasting) {
            state.failed += 1;
            return Err(Errno::EIO);
        }
        state.tree.file_mut(number)?.write(offset, data);
        u32::try_from(data.len()).map_err(|_| Errno::EINVAL)
    }

    fn fallocate_file(&self, number: u64, offset: u64, len: u64, mode: i32) -> Result<(), Errno> {
        const KEEP_SIZE: i32 = 1;
        const PUNCH_HOLE: i32 = 2;
        const ZERO_RANGE: i32 = 16;
        let mut state = self.lock();
        let file = state.tree.file_mut(number)?;
        let zeroes = mode & (PUNCH_HOLE | ZERO_RANGE) != 0;
        if mode & !(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if mode & KEEP_SIZE == 0 {
            file.lengthen(offset + len);
        }
        if zeroes {
            file.zero(offset, len);
        }
        Ok(())
    }
}

impl From<Refused> for Errno {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Missing => Self::ENOENT,
            Refused::Exists => Self::EEXIST,
            Refused::NotDir => Self::ENOTDIR,
            Refused::IsDir => Self::EISDIR,
            Refused::NotEmpty => Self::ENOTEMPTY,
        }
    }
}

fn attributes(tree: &Tree, number: u64) -> Result<FileAttr, Refused> {
    let (kind, perm, size, blocks) = match tree.node(number)? {
        Node::Dir(_) => (FileType::Directory, 0o755, 0, 0),
        Node::File(content) => (FileType::RegularFile, 0o644, content.len(), content.sectors()),
    };
    let time = UNIX_EPOCH;
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    })
}

fn answer(done: Result<(), impl Into<Errno>>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(refused) => reply.error(refused.into()),
    }
}

fn answer_entry(done: Result<FileAttr, Refused>, reply: ReplyEntry) {
    match done {
        Ok(attributes) => reply.entry(&NAMES_LAST, &attributes, Generation(0)),
        Err(refused) => reply.error(refused.into()),
    }
}

fn answer_attributes(done: Result<FileAttr, Refused>, reply: ReplyAttr) {
    match done {
        Ok(attributes) => reply.attr(&Duration::ZERO, &attributes),
        Err(refused) => reply.error(refused.into()),
    }
}

impl Filesystem for Double {
    /// A loop device takes a write that was done in part for a whole one. What it sends asynchronously fails as a whole, as on a
    /// disk.
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        refused.map_err(|_| io::Error::other("the kernel's FUSE has no asynchronous direct writes"))
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(self.entry(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer_attributes(attributes(&self.lock().tree, ino.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.lock();
        let changed = size.map_or(Ok(()), |len| state.tree.file_mut(ino.0).map(|file| file.set_len(len)));
        answer_attributes(changed.and_then(|()| attributes(&state.tree, ino.0)), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        answer_entry(self.create_node(parent.0, name, Node::Dir(BTreeMap::new())), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.lock().tree.remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.lock().tree.remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = self.lock();
        let refused = match flags {
            RenameFlags::RENAME_NOREPLACE => state.tree.lookup(newparent.0, newname).is_ok().then_some(Errno::EEXIST),
            flags => (!flags.is_empty()).then_some(Errno::EINVAL),
        };
        match refused {
            Some(errno) => reply.error(errno),
            None => answer(state.tree.rename((parent.0, name), (newparent.0, newname)), reply),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = if self.direct { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::FOPEN_KEEP_CACHE };
        reply.opened(FileHandle(0), flags);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.create_node(parent.0, name, Node::File(Content::default())) {
            Ok(attributes) => {
                reply.created(&NAMES_LAST, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read =
            self.delay(|faults| faults.delay_max).tree.file(ino.0).map(|file| file.read(offset, u64::from(size)));
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(refused) => reply.error(refused.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_file(ino.0, offset, data) {
            Ok(written) => reply.written(written),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // The close of a handle, which makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.flush_file(ino.0), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer(self.fallocate_file(ino.0, offset, length, mode), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.lock();
        let names = match state.tree.dir(ino.0) {
            Ok(names) => names,
            Err(refused) => return reply.error(refused.into()),
        };
        let dots = [(".", ino.0), ("..", ROOT)].map(|(name, number)| (OsStr::new(name), number));
        let entries = dots.into_iter().chain(names.iter().map(|(name, &number)| (name.as_os_str(), number)));
        for (at, (name, number)) in entries.enumerate().skip(offset as usize) {
            let kind = match state.tree.node(number) {
                Ok(Node::File(_)) => FileType::RegularFile,
                _ => FileType::Directory,
            };
            if reply.add(INodeNo(number), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.delay(|faults| faults.flush_delay_max).tree.sync_dir(ino.0), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let used = self.lock().tree.bytes() / u64::from(BLOCK_BYTES);
        let free = CAPACITY_BLOCKS.saturating_sub(used);
        reply.statfs(CAPACITY_BLOCKS, free, free, 1 << 20, 1 << 20, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double() -> (Double, u64) {
        let mut tree = Tree::new();
        let number = tree.create(ROOT, OsStr::new("f"), Node::File(Content::default())).unwrap();
        (Double::new(tree, false, 1), number)
    }

    fn fails(faults: Faults, call: impl Fn(&Double, u64) -> bool) -> Vec<bool> {
        let (double, number) = double();
        double.set_faults(faults);
        let failed: Vec<bool> = (0..4).map(|_| !call(&double, number)).collect();
        assert_eq!(double.failed(), failed.iter().filter(|failed| **failed).count() as u64);
        failed
    }

    #[test]
    fn the_chosen_call_fails_once_or_from_then_on() {
        let write = |double: &Double, number| double.write_file(number, 0, b"x").is_ok();
        let flush = |double: &Double, number| double.flush_file(number).is_ok();
        let writes = Faults { writes_left: Some(1), ..Faults::default() };
        let flushes = Faults { flushes_left: Some(2), lasting: true, ..Faults::default() };
        assert_eq!(fails(writes, write), [false, true, false, false]);
        assert_eq!(fails(Faults { lasting: true, ..writes }, write), [false, true, true, true]);
        assert_eq!(fails(writes, flush), [false; 4]);
        assert_eq!(fails(flushes, flush), [false, false, true, true]);
    }

    #[test]
    fn holes_and_lengths_are_those_of_fallocate() {
        let (double, number) = double();
        double.write_file(number, 0, &[1; 100]).unwrap();
        double.fallocate_file(number, 10, 20, 3).unwrap();
        double.fallocate_file(number, 0, 200, 1).unwrap();
        assert_eq!(double.lock().tree.file(number).unwrap().len(), 100);
        double.fallocate_file(number, 0, 200, 0).unwrap();
        let bytes = double.lock().tree.file(number).unwrap().read(0, 300);
        assert_eq!(bytes, [vec![1; 10], vec![0; 20], vec![1; 70], vec![0; 100]].concat());
        assert_eq!(double.fallocate_file(number, 0, 10, 8), Err(Errno::EOPNOTSUPP));
    }
}

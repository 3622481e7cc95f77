//! A block device whose cache forgets: one file of the double, a loop device on it, and a real file system on that.
//!
//! The device stays for all cuts of a run and only its bytes are exchanged, between an unmount and the next mount: so the
//! kernel's page cache of the device is empty then, and btrfs never sees two devices with the same name of its own.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use fuser::BackgroundSession;

use crate::{
    command::run,
    content::Content,
    error::{CutError, file_error},
    mount::{Double, Faults},
    rounds::Ground,
    tree::{Node, ROOT, Tree},
};

/// Large enough for xfs, which wants 300 MiB.
const DISK_BYTES: u64 = 1 << 30;
const DISK: &str = "disk";
/// `open` fails on a block device that is in use: the same number on all of Linux's architectures that matter here.
const O_EXCL: i32 = 0o200;
/// How long a file system that was unmounted may still hold its device.
const FREE_MAX: Duration = Duration::from_secs(20);

/// A file system on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// ext4 with its defaults
    Ext4,
    /// xfs with its defaults
    Xfs,
    /// btrfs with its defaults
    Btrfs,
}

impl Kind {
    /// As mount(8) calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

/// The device, and where its file system is mounted. Dropping it takes everything down again.
#[derive(Debug)]
pub(crate) struct Device {
    double: Double,
    session: Option<BackgroundSession>,
    fuse_dir: PathBuf,
    mounted_at: PathBuf,
    loop_device: Option<String>,
    kind: Kind,
    mounted: bool,
}

impl Device {
    /// Makes a device of zeros.
    ///
    /// # Errors
    /// When FUSE or loop devices cannot be had.
    pub(crate) fn new(work: &Path, kind: Kind, seed: u64) -> Result<Self, CutError> {
        let double = Double::new(blank(), true, seed);
        let (fuse_dir, mounted_at) = (work.join("fuse"), work.join("mnt"));
        for dir in [&fuse_dir, &mounted_at] {
            fs::create_dir_all(dir).map_err(file_error(dir))?;
        }
        let session = double.mount(&fuse_dir).map_err(file_error(&fuse_dir))?;
        let mut device =
            Self { double, session: Some(session), fuse_dir, mounted_at, loop_device: None, kind, mounted: false };
        let file = device.fuse_dir.join(DISK);
        let found =
            run("losetup", [OsStr::new("--find"), "--show".as_ref(), "--direct-io=on".as_ref(), file.as_ref()])?;
        device.loop_device = Some(found);
        Ok(device)
    }

    /// Mounts the file system: the kernel recovers it, as after a power cut.
    fn mount(&mut self) -> Result<(), CutError> {
        let device = self.loop_device.clone().unwrap_or_default();
        run("mount", [OsStr::new("-t"), self.kind.name().as_ref(), device.as_ref(), self.mounted_at.as_ref()])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), CutError> {
        if !self.mounted {
            return Ok(());
        }
        let mut tries = 0;
        // A process that was killed a moment ago may still be closing its files.
        while let Err(error) = run("umount", [&self.mounted_at]) {
            tries += 1;
            if tries > 100 {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.mounted = false;
        self.wait_until_free()
    }

    /// Waits until no file system stands on the device. An unmount takes a mount away, and the file system with the last of
    /// them only: another process's namespace may have a copy for a moment. What that wrote at its end would lie on the next
    /// image, and make of it what no cut leaves.
    fn wait_until_free(&self) -> Result<(), CutError> {
        let Some(device) = self.loop_device.as_ref().map(Path::new) else { return Ok(()) };
        let began = Instant::now();
        loop {
            // Of a block device this asks whether anybody holds it, a mounted file system among them.
            match File::options().read(true).custom_flags(O_EXCL).open(device) {
                Ok(_) => return Ok(()),
                Err(_) if began.elapsed() < FREE_MAX => thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(file_error(device)(error)),
            }
        }
    }
}

impl Ground for Device {
    fn fresh(&mut self) -> Result<(), CutError> {
        self.unmount()?;
        self.double.replace(blank());
        let device = self.loop_device.clone().unwrap_or_default();
        match self.kind {
            Kind::Ext4 => run("mkfs.ext4", ["-q", "-F", "-E", "nodiscard", &device])?,
            Kind::Xfs => run("mkfs.xfs", ["-q", "-f", "-K", &device])?,
            Kind::Btrfs => run("mkfs.btrfs", ["-q", "-f", "-K", &device])?,
        };
        self.mount()
    }

    fn freeze(&self, unflushed_min: u64) -> Option<Tree> {
        self.double.freeze(unflushed_min)
    }

    fn go_on_from(&mut self, image: Tree) -> Result<(), CutError> {
        self.unmount()?;
        self.double.replace(image);
        self.mount()
    }

    fn set_faults(&self, faults: Faults) {
        self.double.set_faults(faults);
    }

    fn failed(&self) -> u64 {
        self.double.failed()
    }

    fn path(&self) -> &Path {
        &self.mounted_at
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.double.set_faults(Faults::default());
        if self.unmount().is_err() {
            let _ = run("umount", [OsStr::new("-l"), self.mounted_at.as_ref()]);
        }
        if let Some(device) = &self.loop_device {
            let _ = run("losetup", ["--detach", device]);
        }
        drop(self.session.take());
        let _ = run("umount", [OsStr::new("-l"), self.fuse_dir.as_ref()]);
    }
}

fn blank() -> Tree {
    let mut tree = Tree::new();
    let disk = Node::File(Content::zeros(DISK_BYTES));
    // An empty root has room for every name.
    let _ = tree.create(ROOT, OsStr::new(DISK), disk);
    let _ = tree.sync_dir(ROOT);
    tree
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::content::Survival;

    /// A loop device takes a write of which the double has done only a part for a whole one, and the rest is lost without a word:
    /// no disk that fails, but one that lies, and blobs that were acknowledged on it were gone.
    #[test]
    fn a_large_write_of_which_a_part_fails_is_told_as_failed() {
        let is_root = run("id", ["-u"]).is_ok_and(|id| id == "0");
        if !is_root || !Path::new("/dev/fuse").exists() || run("losetup", ["--find"]).is_err() {
            eprintln!("left out: it needs root, /dev/fuse and loop devices");
            return;
        }
        let work = tempfile::tempdir().unwrap();
        let source = work.path().join("source");
        let content = vec![7; 8 << 20];
        fs::write(&source, &content).unwrap();
        let mut device = Device::new(work.path(), Kind::Xfs, 1).unwrap();
        let file = device.path().join("f");
        let (from, to) = (format!("if={}", source.display()), format!("of={}", file.display()));
        let mut failed = 0;
        for parts in 0..8 {
            device.fresh().unwrap();
            let before = device.failed();
            device.set_faults(Faults { writes_left: Some(parts), ..Faults::default() });
            let is_done = run("dd", [from.as_str(), &to, "bs=8M", "conv=fsync", "status=none"]).is_ok();
            device.set_faults(Faults::default());
            failed += device.failed() - before;
            device.unmount().unwrap();
            device.mount().unwrap();
            let is_there = fs::read(&file).is_ok_and(|bytes| bytes == content);
            assert!(is_there || !is_done, "the write after {parts} fails");
        }
        assert!(failed > 4, "{failed}");
    }

    #[test]
    fn a_blank_device_survives_a_cut() {
        let tree = blank().cut(Survival { percent: 0, atom_bytes: 512 }, &mut Rng::with_seed(1));
        let disk = tree.lookup(ROOT, OsStr::new(DISK)).unwrap();
        assert_eq!(tree.file(disk).unwrap().len(), DISK_BYTES);
    }
}

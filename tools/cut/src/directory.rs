//! A directory that forgets what POSIX lets it forget: the double itself is the file system, mounted anew after each cut,
//! so that the kernel remembers nothing of before.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use fuser::BackgroundSession;

use crate::{
    command::run,
    error::{CutError, file_error},
    mount::{Double, Faults},
    rounds::Ground,
    tree::Tree,
};

/// The directory. Dropping it unmounts it.
#[derive(Debug)]
pub(crate) struct Directory {
    double: Double,
    session: Option<BackgroundSession>,
    mounted_at: PathBuf,
}

impl Directory {
    /// An empty one; it is mounted by [`Ground::fresh`].
    ///
    /// # Errors
    /// When the place to mount at cannot be made.
    pub(crate) fn new(work: &Path, seed: u64) -> Result<Self, CutError> {
        let mounted_at = work.join("mnt");
        fs::create_dir_all(&mounted_at).map_err(file_error(&mounted_at))?;
        Ok(Self { double: Double::new(Tree::new(), false, seed), session: None, mounted_at })
    }

    fn unmount(&mut self) -> Result<(), CutError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let mut tries = 0;
        // A process that was killed a moment ago may still be closing its files.
        while let Err(error) = run("umount", [&self.mounted_at]) {
            tries += 1;
            if tries > 100 {
                self.session = Some(session);
                return Err(error);
            }
            thread::sleep(Duration::from_millis(20));
        }
        drop(session);
        Ok(())
    }
}

impl Ground for Directory {
    fn fresh(&mut self) -> Result<(), CutError> {
        self.go_on_from(Tree::new())
    }

    fn freeze(&self, unflushed_min: u64) -> Option<Tree> {
        self.double.freeze(unflushed_min)
    }

    fn go_on_from(&mut self, image: Tree) -> Result<(), CutError> {
        self.unmount()?;
        self.double.replace(image);
        let session = self.double.mount(&self.mounted_at).map_err(file_error(&self.mounted_at))?;
        self.session = Some(session);
        Ok(())
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

impl Drop for Directory {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            let _ = run("umount", ["-l".as_ref(), self.mounted_at.as_os_str()]);
        }
    }
}

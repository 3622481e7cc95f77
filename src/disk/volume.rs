//! What the data directory lies on: the file system by the number that the kernel has for its kind (`statfs(2)`).

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Of which kind it is.
    pub file_system: FileSystem,
    /// How large it is, in bytes.
    pub size_bytes: u64,
    /// Files that can still be made; `None` where their number has no bound of its own.
    pub files_free: Option<u64>,
    /// Whether it is mounted to be read only.
    pub is_read_only: bool,
}

/// A kind of file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Its name; the number of the kind where that is not known here.
    pub name: String,
    /// What it stands on.
    pub nature: Nature,
}

/// What a file system stands on, and so what its syncs and locks are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Disks of this machine.
    Local,
    /// Its memory.
    Memory,
    /// Other file systems, laid one over the other: what a container writes to where nothing is mounted.
    Layers,
    /// Another machine, or the host of a virtual one.
    Network,
    /// A program (FUSE).
    Program,
    /// Not known here.
    Unknown,
}

/// Numbers of kinds: of Linux's `magic.h`, and of those that are not part of it.
const KINDS: &[(u32, &str, Nature)] = &[
    (0x0000_ef53, "ext4", Nature::Local),
    (0x5846_5342, "xfs", Nature::Local),
    (0x9123_683e, "btrfs", Nature::Local),
    (0x2fc1_2fc1, "zfs", Nature::Local),
    (0xf2f5_2010, "f2fs", Nature::Local),
    (0xca45_1a4e, "bcachefs", Nature::Local),
    (0x0102_1994, "tmpfs", Nature::Memory),
    (0x8584_58f6, "ramfs", Nature::Memory),
    (0x794c_7630, "overlay", Nature::Layers),
    (0x6175_6673, "aufs", Nature::Layers),
    (0x0000_6969, "nfs", Nature::Network),
    (0x0000_517b, "smb", Nature::Network),
    (0xff53_4d42, "cifs", Nature::Network),
    (0xfe53_4d42, "smb2", Nature::Network),
    (0x0102_1997, "9p", Nature::Network),
    (0x00c3_6400, "ceph", Nature::Network),
    (0x5346_414f, "afs", Nature::Network),
    (0x0bd0_0bd0, "lustre", Nature::Network),
    (0x0116_1970, "gfs2", Nature::Network),
    (0x7461_636f, "ocfs2", Nature::Network),
    (0x786f_4256, "vboxsf", Nature::Network),
    (0x6573_5546, "fuse", Nature::Program),
];

impl FileSystem {
    /// The kind with this number.
    pub(super) fn of(number: u32) -> Self {
        let known = KINDS.iter().find(|(known, ..)| *known == number);
        known.map_or_else(
            || Self { name: format!("{number:#010x}"), nature: Nature::Unknown },
            |(_, name, nature)| Self { name: (*name).to_owned(), nature: *nature },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_number_of_its_own_and_others_are_told_by_theirs() {
        assert_eq!(KINDS.iter().map(|(number, ..)| number).collect::<BTreeSet<_>>().len(), KINDS.len());
        assert_eq!(FileSystem::of(0xef53), FileSystem { name: "ext4".to_owned(), nature: Nature::Local });
        assert_eq!(FileSystem::of(0x6969).nature, Nature::Network);
        assert_eq!(FileSystem::of(7), FileSystem { name: "0x00000007".to_owned(), nature: Nature::Unknown });
    }
}

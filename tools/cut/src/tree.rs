//! A file system in memory: its files, its names as calls see them, those that are durable, and the changes between.
//!
//! A name that was made, changed or removed survives a cut or not until its directory is synced. A rename inside of a
//! directory is one change, between two directories it is two. Syncing a file says nothing of its name. Files are kept
//! until the next cut, as a removal may be undone by it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use fastrand::Rng;

use crate::content::{Content, Survival};

/// The number of the root directory.
pub(crate) const ROOT: u64 = 1;

/// A file or a directory.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// With its names as calls see them.
    Dir(BTreeMap<OsString, u64>),
    /// With its bytes.
    File(Content),
}

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// ENOENT
    Missing,
    /// EEXIST
    Exists,
    /// ENOTDIR
    NotDir,
    /// EISDIR
    IsDir,
    /// ENOTEMPTY
    NotEmpty,
}

/// A name's new meaning; `None` when it was removed.
#[derive(Debug, Clone)]
struct Change {
    dir: u64,
    name: OsString,
    node: Option<u64>,
}

type Names = BTreeMap<(u64, OsString), u64>;

/// The file system.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    durable: Names,
    /// In order. The changes of one call survive together.
    pending: Vec<Vec<Change>>,
}

impl Tree {
    /// An empty root.
    pub(crate) fn new() -> Self {
        let nodes = [(ROOT, Node::Dir(BTreeMap::new()))].into();
        Self { nodes, next: ROOT + 1, durable: Names::new(), pending: Vec::new() }
    }

    /// A node.
    pub(crate) fn node(&self, number: u64) -> Result<&Node, Refused> {
        self.nodes.get(&number).ok_or(Refused::Missing)
    }

    /// The names in a directory.
    pub(crate) fn dir(&self, number: u64) -> Result<&BTreeMap<OsString, u64>, Refused> {
        match self.node(number)? {
            Node::Dir(names) => Ok(names),
            Node::File(_) => Err(Refused::NotDir),
        }
    }

    /// The bytes of a file.
    pub(crate) fn file(&self, number: u64) -> Result<&Content, Refused> {
        match self.node(number)? {
            Node::File(content) => Ok(content),
            Node::Dir(_) => Err(Refused::IsDir),
        }
    }

    /// The bytes of a file, to change them.
    pub(crate) fn file_mut(&mut self, number: u64) -> Result<&mut Content, Refused> {
        match self.nodes.get_mut(&number) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir(_)) => Err(Refused::IsDir),
            None => Err(Refused::Missing),
        }
    }

    /// What a name means.
    pub(crate) fn lookup(&self, dir: u64, name: &OsStr) -> Result<u64, Refused> {
        self.dir(dir)?.get(name).copied().ok_or(Refused::Missing)
    }

    /// Gives a name to something new; returns its number.
    pub(crate) fn create(&mut self, dir: u64, name: &OsStr, node: Node) -> Result<u64, Refused> {
        match self.lookup(dir, name) {
            Ok(_) => return Err(Refused::Exists),
            Err(Refused::Missing) => {}
            Err(refused) => return Err(refused),
        }
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.change(vec![Change { dir, name: name.to_owned(), node: Some(number) }]);
        Ok(number)
    }

    /// Takes the name of a file away, or of an empty directory.
    pub(crate) fn remove(&mut self, dir: u64, name: &OsStr, wanted_dir: bool) -> Result<(), Refused> {
        match (self.node(self.lookup(dir, name)?)?, wanted_dir) {
            (Node::Dir(names), true) if !names.is_empty() => return Err(Refused::NotEmpty),
            (Node::Dir(_), true) | (Node::File(_), false) => {}
            (Node::Dir(_), false) => return Err(Refused::IsDir),
            (Node::File(_), true) => return Err(Refused::NotDir),
        }
        self.change(vec![Change { dir, name: name.to_owned(), node: None }]);
        Ok(())
    }

    /// Gives something another name, over what has it.
    pub(crate) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> Result<(), Refused> {
        let node = self.lookup(from.0, from.1)?;
        self.dir(to.0)?;
        self.change(vec![
            Change { dir: from.0, name: from.1.to_owned(), node: None },
            Change { dir: to.0, name: to.1.to_owned(), node: Some(node) },
        ]);
        Ok(())
    }

    /// Makes the names of one directory durable.
    pub(crate) fn sync_dir(&mut self, number: u64) -> Result<(), Refused> {
        self.dir(number)?;
        for changes in std::mem::take(&mut self.pending) {
            let (now, later): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.dir == number);
            now.into_iter().for_each(|change| apply(&mut self.durable, change));
            if !later.is_empty() {
                self.pending.push(later);
            }
        }
        Ok(())
    }

    /// Blocks of 4 KiB that were not flushed, and changes of names.
    pub(crate) fn unflushed(&self) -> u64 {
        let blocks = self.nodes.values().map(|node| match node {
            Node::File(content) => content.unflushed_blocks(),
            Node::Dir(_) => 0,
        });
        blocks.sum::<u64>() + self.pending.len() as u64
    }

    /// Bytes that its files take.
    pub(crate) fn bytes(&self) -> u64 {
        let sectors = self.nodes.values().map(|node| match node {
            Node::File(content) => content.sectors(),
            Node::Dir(_) => 0,
        });
        sectors.sum::<u64>() * 512
    }

    /// The file system as a power cut now would leave it; all of that is durable.
    pub(crate) fn cut(&self, survival: Survival, rng: &mut Rng) -> Self {
        let mut names = self.durable.clone();
        for changes in &self.pending {
            if survival.keeps(rng) {
                changes.iter().cloned().for_each(|change| apply(&mut names, change));
            }
        }
        let mut left = Self { next: self.next, ..Self::new() };
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            let inside = names.range((dir, OsString::new())..(dir + 1, OsString::new()));
            let inside: BTreeMap<OsString, u64> = inside.map(|((_, name), &node)| (name.clone(), node)).collect();
            for (name, &number) in &inside {
                left.durable.insert((dir, name.clone()), number);
                match self.nodes.get(&number) {
                    Some(Node::File(content)) => {
                        left.nodes.entry(number).or_insert_with(|| Node::File(content.cut(survival, rng)));
                    }
                    _ => open.push(number),
                }
            }
            left.nodes.insert(dir, Node::Dir(inside));
        }
        left
    }

    fn change(&mut self, changes: Vec<Change>) {
        for change in &changes {
            if let Some(Node::Dir(names)) = self.nodes.get_mut(&change.dir) {
                match change.node {
                    Some(node) => names.insert(change.name.clone(), node),
                    None => names.remove(&change.name),
                };
            }
        }
        self.pending.push(changes);
    }
}

fn apply(names: &mut Names, change: Change) {
    match change.node {
        Some(node) => names.insert((change.dir, change.name), node),
        None => names.remove(&(change.dir, change.name)),
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HALF: Survival = Survival { percent: 50, atom_bytes: 512 };

    fn listings(tree: &Tree, path: &[&str]) -> BTreeSet<Option<Vec<String>>> {
        let list = |seed| {
            let left = tree.cut(HALF, &mut Rng::with_seed(seed));
            let dir = path.iter().try_fold(ROOT, |dir, name| left.lookup(dir, OsStr::new(name))).ok()?;
            Some(left.dir(dir).ok()?.keys().map(|name| name.to_string_lossy().into_owned()).collect())
        };
        (0..100).map(list).collect()
    }

    fn names(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn file() -> Node {
        Node::File(Content::default())
    }

    #[test]
    fn a_name_is_durable_with_its_directory_only() {
        let mut tree = Tree::new();
        let dir = tree.create(ROOT, OsStr::new("d"), Node::Dir(BTreeMap::new())).unwrap();
        let number = tree.create(dir, OsStr::new("f"), file()).unwrap();
        let file = tree.file_mut(number).unwrap();
        file.flush(file.mark());
        assert_eq!(listings(&tree, &["d"]), [None, names(&[]), names(&["f"])].into());
        tree.sync_dir(dir).unwrap();
        assert_eq!(listings(&tree, &["d"]), [None, names(&["f"])].into());
        tree.sync_dir(ROOT).unwrap();
        assert_eq!(listings(&tree, &["d"]), [names(&["f"])].into());
    }

    #[test]
    fn a_rename_is_one_change_in_a_directory_and_two_between() {
        let mut tree = Tree::new();
        let dir = tree.create(ROOT, OsStr::new("d"), Node::Dir(BTreeMap::new())).unwrap();
        tree.create(ROOT, OsStr::new("a"), file()).unwrap();
        tree.sync_dir(ROOT).unwrap();
        tree.rename((ROOT, OsStr::new("a")), (ROOT, OsStr::new("b"))).unwrap();
        assert_eq!(listings(&tree, &[]), [names(&["a", "d"]), names(&["b", "d"])].into());
        tree.sync_dir(ROOT).unwrap();
        tree.rename((ROOT, OsStr::new("b")), (dir, OsStr::new("c"))).unwrap();
        tree.sync_dir(ROOT).unwrap();
        assert_eq!(listings(&tree, &[]), [names(&["d"])].into());
        assert_eq!(listings(&tree, &["d"]), [names(&[]), names(&["c"])].into());
    }

    #[test]
    fn calls_are_refused_as_file_systems_do() {
        let mut tree = Tree::new();
        let (d, f, x) = (OsStr::new("d"), OsStr::new("f"), OsStr::new("x"));
        let dir = tree.create(ROOT, d, Node::Dir(BTreeMap::new())).unwrap();
        tree.create(dir, f, file()).unwrap();
        assert_eq!(tree.create(dir, f, file()), Err(Refused::Exists));
        assert_eq!(tree.remove(ROOT, d, true), Err(Refused::NotEmpty));
        assert_eq!(tree.remove(ROOT, d, false), Err(Refused::IsDir));
        assert_eq!(tree.remove(dir, f, true), Err(Refused::NotDir));
        assert_eq!(tree.rename((ROOT, x), (dir, f)), Err(Refused::Missing));
        tree.remove(dir, f, false).unwrap();
        tree.remove(ROOT, d, true).unwrap();
    }
}

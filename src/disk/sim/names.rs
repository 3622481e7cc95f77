//! The names of the simulated disk: those that calls see, those that are durable, and the changes that lie between.

use std::{collections::BTreeMap, io};

use fastrand::Rng;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    /// A file by its number.
    File(u64),
}

type Tree = BTreeMap<String, Node>;

/// A name's new meaning; `None` when it was removed.
#[derive(Clone)]
struct Change {
    path: String,
    node: Option<Node>,
}

#[derive(Clone, Default)]
pub(super) struct Names {
    /// What calls see.
    tree: Tree,
    /// What survives any crash.
    durable: Tree,
    /// What leads from `durable` to `tree`, in order. The changes of one call survive together.
    pending: Vec<Vec<Change>>,
}

impl Names {
    pub(super) fn get(&self, path: &str) -> Option<Node> {
        self.tree.get(path).copied()
    }

    pub(super) fn file(&self, path: &str) -> io::Result<u64> {
        match self.get(path) {
            Some(Node::File(id)) => Ok(id),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The numbers of all files that have a name.
    pub(super) fn files(&self) -> impl Iterator<Item = u64> {
        self.tree.values().filter_map(|node| match node {
            Node::File(id) => Some(*id),
            Node::Dir => None,
        })
    }

    /// Last components and nodes of what lies in a directory.
    pub(super) fn list<'a>(&'a self, directory: &'a str) -> io::Result<impl Iterator<Item = (&'a str, Node)>> {
        self.expect_dir(directory)?;
        let inside = self.tree.iter().filter(move |(path, _)| parent(path) == directory);
        Ok(inside.map(|(path, node)| (path.rsplit('/').next().unwrap_or_default(), *node)))
    }

    pub(super) fn create(&mut self, path: &str, node: Node) -> io::Result<()> {
        self.expect_dir(parent(path))?;
        if self.tree.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(vec![Change { path: path.to_owned(), node: Some(node) }]);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let node = Some(Node::File(self.file(from)?));
        self.expect_dir(parent(to))?;
        self.change(vec![Change { path: from.to_owned(), node: None }, Change { path: to.to_owned(), node }]);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.file(path)?;
        self.change(vec![Change { path: path.to_owned(), node: None }]);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &str) {
        let inside = format!("{path}/");
        let gone = |name: &&String| *name == path || name.starts_with(&inside);
        let names: Vec<String> = self.tree.keys().filter(gone).cloned().collect();
        for path in names.into_iter().rev() {
            self.change(vec![Change { path, node: None }]);
        }
    }

    /// Changes that a power cut could take.
    pub(super) fn unsynced(&self) -> usize {
        self.pending.len()
    }

    /// Makes the names of one directory durable.
    pub(super) fn sync(&mut self, directory: &str) -> io::Result<()> {
        self.expect_dir(directory)?;
        for changes in std::mem::take(&mut self.pending) {
            let here = |change: &Change| parent(&change.path) == directory;
            let (now, later): (Vec<_>, Vec<_>) = changes.into_iter().partition(here);
            now.into_iter().for_each(|change| apply(&mut self.durable, change));
            if !later.is_empty() {
                self.pending.push(later);
            }
        }
        Ok(())
    }

    /// The names after a power cut.
    pub(super) fn crash(&self, rng: &mut Rng) -> Self {
        let mut tree = self.durable.clone();
        for changes in &self.pending {
            if rng.bool() {
                changes.iter().cloned().for_each(|change| apply(&mut tree, change));
            }
        }
        // What lies in a directory whose own name is lost cannot be reached. Parents sort before what they hold.
        let mut kept = Tree::new();
        for (path, node) in tree {
            if is_dir(&kept, parent(&path)) {
                kept.insert(path, node);
            }
        }
        Self { tree: kept.clone(), durable: kept, pending: Vec::new() }
    }

    fn change(&mut self, changes: Vec<Change>) {
        changes.iter().cloned().for_each(|change| apply(&mut self.tree, change));
        self.pending.push(changes);
    }

    fn expect_dir(&self, path: &str) -> io::Result<()> {
        if is_dir(&self.tree, path) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn is_dir(tree: &Tree, path: &str) -> bool {
    path.is_empty() || tree.get(path) == Some(&Node::Dir)
}

fn apply(tree: &mut Tree, change: Change) {
    match change.node {
        Some(node) => tree.insert(change.path, node),
        None => tree.remove(&change.path),
    };
}

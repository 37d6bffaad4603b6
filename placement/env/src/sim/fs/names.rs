//! The names of a file system: what processes see, what a crash would leave, and the changes between the two, in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::content::Content;

pub(super) type Inode = Arc<Mutex<Content>>;

#[derive(Clone)]
pub(super) enum Node {
    Dir,
    File(Inode),
}

#[derive(Clone)]
enum Change {
    Insert {
        path: PathBuf,
        node: Node,
    },
    Remove {
        path: PathBuf,
    },
    /// Atomic: a crash leaves the one name or the other.
    Rename {
        from: PathBuf,
        to: PathBuf,
        node: Node,
    },
}

#[derive(Default)]
pub(super) struct Names {
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    unsynced: Vec<Change>,
}

impl Names {
    /// The root is there from the start, however it is written.
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        if is_root(path) { Some(Node::Dir) } else { self.live.get(path).cloned() }
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        matches!(self.get(path), Some(Node::Dir))
    }

    pub(super) fn children(&self, dir: &Path) -> Vec<(PathBuf, Node)> {
        self.live.iter().filter(|(path, _)| parent(path) == dir).map(|(path, node)| (path.clone(), node.clone())).collect()
    }

    /// Every file once. (Hard links do not exist here, so no inode has two names.)
    pub(super) fn files(&self) -> impl Iterator<Item = &Inode> {
        self.live.values().filter_map(|node| match node {
            Node::File(inode) => Some(inode),
            Node::Dir => None,
        })
    }

    pub(super) fn insert(&mut self, path: &Path, node: Node) {
        self.change(Change::Insert { path: path.to_owned(), node });
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.change(Change::Remove { path: path.to_owned() });
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, node: Node) {
        self.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), node });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    /// Makes the changes to the names in `dir` durable. A rename across two directories becomes durable with either.
    pub(super) fn sync(&mut self, dir: &Path) {
        let (synced, unsynced) = std::mem::take(&mut self.unsynced).into_iter().partition(|change| change.touches(dir));
        self.unsynced = unsynced;
        for change in synced {
            change.apply(&mut self.durable);
        }
    }

    /// The power goes; the first `kept` of the unsynced changes had reached the journal, which is written in order. Returns
    /// the files that are left.
    pub(super) fn crash(&mut self, kept: usize) -> Vec<Inode> {
        for change in self.unsynced.drain(..).take(kept) {
            change.apply(&mut self.durable);
        }
        // A name in a directory that is gone is gone with it. Sorted, so each parent is decided before its children.
        let mut left: BTreeMap<PathBuf, Node> = BTreeMap::new();
        for (path, node) in std::mem::take(&mut self.durable) {
            let dir = parent(&path);
            if is_root(dir) || matches!(left.get(dir), Some(Node::Dir)) {
                left.insert(path, node);
            }
        }
        self.durable = left;
        self.live = self.durable.clone();
        self.files().cloned().collect()
    }

    pub(super) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Change::Insert { path, node } => names.insert(path.clone(), node.clone()),
            Change::Remove { path } => names.remove(path),
            Change::Rename { from, to, node } => {
                names.remove(from);
                names.insert(to.clone(), node.clone())
            }
        };
    }

    fn touches(&self, dir: &Path) -> bool {
        match self {
            Change::Insert { path, .. } | Change::Remove { path } => parent(path) == dir,
            Change::Rename { from, to, .. } => parent(from) == dir || parent(to) == dir,
        }
    }
}

pub(super) fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path == Path::new("/")
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

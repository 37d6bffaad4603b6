//! Merges the index shards of a bucket into one listing.
//!
//! Each shelf lists its own keys in byte order, folded by the delimiter, behind a cursor; [`Merge`] takes the smallest head
//! again and again. A key lives in one shelf, a common prefix may come from many and is taken once. Nothing is taken while a
//! shelf that has more shows no head, so the order is total and no key is skipped; for the same reason the page's
//! truncation is exact: when it is full, what is left is looked at, not guessed (K5, s3.md 1 to 6).
//!
//! The first question to each of S shelves is for little more than its fair share of the page; a shelf that runs dry is asked
//! again from its own last item.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use placement_types::UploadId;
use storage_node_proto::command::Shelf;
use storage_node_proto::object::{Upload, Version, VersionId};
use storage_node_proto::query::{Answer, ListItem, ListRange, Query};

use crate::error::Failure;
use crate::limits::{SHELF_PAGE_MAX, SHELVES_AT_ONCE};
use crate::meta_router::MetaRouter;

/// Where a shelf's listing goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The key or common prefix that was listed last; empty at the start.
    pub after: Bytes,
    /// When uploads are listed: the one of that key that was listed last. Without it, all of the key's are behind the cursor.
    pub upload: Option<UploadId>,
    /// The same when versions are listed.
    pub version: Option<VersionId>,
}

/// What is being listed, one implementor per kind of listing.
pub trait Listed: Sync {
    type Value: Send;

    /// The query for a shelf's next items.
    fn query(&self, shelf: Shelf, cursor: &Cursor, limit: u32) -> Query;

    /// The items of an answer, and whether the shelf has more.
    fn page(&self, answer: Answer) -> Result<Page<Self::Value>, Failure>;

    /// Where to go on after `item`.
    fn after(&self, item: &ListItem<Self::Value>) -> Cursor;
}

/// Items in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<ListItem<T>>,
    /// Exactly whether anything follows.
    pub more: bool,
}

/// The first `limit` items of a whole bucket, each shelf from its cursor on. Every shelf is asked, so that a deleted bucket is
/// noticed whatever the page holds.
pub async fn list<L: Listed>(
    router: &MetaRouter,
    shelves: impl Iterator<Item = (Shelf, Cursor)>,
    listed: &L,
    limit: usize,
) -> Result<Page<L::Value>, Failure> {
    let mut merge = Merge::new(shelves);
    loop {
        let share = fair_share(limit - merge.taken.len(), merge.sources.len());
        let questions: Vec<(usize, Shelf, Query)> =
            merge.dry().map(|(index, source)| (index, source.shelf, listed.query(source.shelf, &source.cursor, share))).collect();
        let mut answers = stream::iter(questions)
            .map(|(index, shelf, query)| async move { (index, router.query(shelf, query).await) })
            .buffer_unordered(SHELVES_AT_ONCE);
        while let Some((index, answer)) = answers.next().await {
            let page = listed.page(answer?)?;
            let cursor = page.items.last().map(|item| listed.after(item));
            merge.refill(index, page, cursor)?;
        }
        if let Some(more) = merge.take(limit) {
            return Ok(Page { items: merge.taken, more });
        }
    }
}

/// How much to ask of each of `shelves` for a page of `wanted`: hashing spreads keys evenly, and a third more covers the
/// luck of the draw. Never more than the page and the one item that tells whether it is the last.
fn fair_share(wanted: usize, shelves: usize) -> u32 {
    let share = wanted * 13 / (10 * shelves.max(1)) + 8;
    u32::try_from(share.min(wanted + 1)).unwrap_or(u32::MAX).min(SHELF_PAGE_MAX)
}

struct Source<T> {
    shelf: Shelf,
    heads: VecDeque<ListItem<T>>,
    /// Whether there is more behind `heads`.
    more: bool,
    /// Where that begins.
    cursor: Cursor,
}

struct Merge<T> {
    sources: Vec<Source<T>>,
    taken: Vec<ListItem<T>>,
}

impl<T> Merge<T> {
    fn new(shelves: impl Iterator<Item = (Shelf, Cursor)>) -> Self {
        let source = |(shelf, cursor)| Source { shelf, heads: VecDeque::new(), more: true, cursor };
        Self { sources: shelves.map(source).collect(), taken: Vec::new() }
    }

    /// The shelves that must be asked before anything can be taken.
    fn dry(&self) -> impl Iterator<Item = (usize, &Source<T>)> {
        self.sources.iter().enumerate().filter(|(_, source)| source.heads.is_empty() && source.more)
    }

    /// `cursor` is that of the page's last item.
    fn refill(&mut self, index: usize, page: Page<T>, cursor: Option<Cursor>) -> Result<(), Failure> {
        let source = &mut self.sources[index];
        match cursor {
            Some(cursor) => source.cursor = cursor,
            // It would be asked for ever; and to believe that it has no more could cut the listing short.
            None if page.more => {
                return Err(Failure::UnfitAnswer { to: "list", answer: "no items, and more of them".into() });
            }
            None => {}
        }
        source.more = page.more;
        source.heads = page.items.into();
        Ok(())
    }

    /// Takes what can be taken. `Some` when the page is complete: whether anything follows it. `None` when a shelf ran dry.
    fn take(&mut self, limit: usize) -> Option<bool> {
        loop {
            // When the page is full, one head is proof enough that something follows it.
            let full = self.taken.len() >= limit;
            let heads =
                self.sources.iter().enumerate().filter_map(|(index, source)| Some((source.heads.front()?.sort_key(), index)));
            let smallest = heads.min().map(|(_, index)| index);
            match smallest {
                Some(_) if full => return Some(true),
                _ if self.dry().next().is_some() => return None,
                None => return Some(false),
                Some(index) => {
                    let item = self.sources[index].heads.pop_front().expect("its head is the smallest");
                    self.drop_twins(&item);
                    self.taken.push(item);
                }
            }
        }
    }

    /// A common prefix comes from every shelf that has a key under it.
    fn drop_twins(&mut self, item: &ListItem<T>) {
        let ListItem::Prefix { prefix } = item else { return };
        for source in &mut self.sources {
            if matches!(source.heads.front(), Some(ListItem::Prefix { prefix: other }) if other == prefix) {
                source.heads.pop_front();
            }
        }
    }
}

/// Current objects.
pub struct Objects {
    pub prefix: Bytes,
    pub delimiter: Bytes,
}

impl Listed for Objects {
    type Value = Version;

    fn query(&self, shelf: Shelf, cursor: &Cursor, limit: u32) -> Query {
        Query::ListObjects { shelf, list: range(&self.prefix, &self.delimiter, cursor, limit) }
    }

    fn page(&self, answer: Answer) -> Result<Page<Version>, Failure> {
        match answer {
            Answer::Objects { items, more } => Ok(Page { items, more }),
            other => Err(Failure::of_answer("list objects", other)),
        }
    }

    fn after(&self, item: &ListItem<Version>) -> Cursor {
        Cursor { after: Bytes::copy_from_slice(item.sort_key()), ..Cursor::default() }
    }
}

/// Every version and delete marker, unfolded: only to learn whether there is any.
pub struct AnyVersion;

impl Listed for AnyVersion {
    type Value = (Version, bool);

    fn query(&self, shelf: Shelf, cursor: &Cursor, limit: u32) -> Query {
        Query::ListVersions { shelf, list: range(&Bytes::new(), &Bytes::new(), cursor, limit), version_marker: None }
    }

    fn page(&self, answer: Answer) -> Result<Page<(Version, bool)>, Failure> {
        match answer {
            Answer::Versions { items, more } => Ok(Page { items, more }),
            other => Err(Failure::of_answer("list versions", other)),
        }
    }

    fn after(&self, item: &ListItem<(Version, bool)>) -> Cursor {
        Cursor { after: Bytes::copy_from_slice(item.sort_key()), ..Cursor::default() }
    }
}

/// Every version and delete marker, newest first within a key, unfolded.
pub struct Versions {
    pub prefix: Bytes,
}

impl Listed for Versions {
    type Value = (Version, bool);

    fn query(&self, shelf: Shelf, cursor: &Cursor, limit: u32) -> Query {
        let list = range(&self.prefix, &Bytes::new(), cursor, limit);
        Query::ListVersions { shelf, list, version_marker: cursor.version }
    }

    fn page(&self, answer: Answer) -> Result<Page<(Version, bool)>, Failure> {
        AnyVersion.page(answer)
    }

    fn after(&self, item: &ListItem<(Version, bool)>) -> Cursor {
        let version = match item {
            ListItem::Entry { value: (version, _), .. } => Some(version.id),
            ListItem::Prefix { .. } => None,
        };
        Cursor { after: Bytes::copy_from_slice(item.sort_key()), version, upload: None }
    }
}

/// Uploads in progress.
pub struct Uploads {
    pub prefix: Bytes,
    pub delimiter: Bytes,
}

impl Listed for Uploads {
    type Value = Upload;

    fn query(&self, shelf: Shelf, cursor: &Cursor, limit: u32) -> Query {
        let list = range(&self.prefix, &self.delimiter, cursor, limit);
        Query::ListUploads { shelf, list, upload_marker: cursor.upload }
    }

    fn page(&self, answer: Answer) -> Result<Page<Upload>, Failure> {
        match answer {
            Answer::Uploads { items, more } => Ok(Page { items, more }),
            other => Err(Failure::of_answer("list uploads", other)),
        }
    }

    fn after(&self, item: &ListItem<Upload>) -> Cursor {
        let upload = match item {
            ListItem::Entry { value, .. } => Some(value.id),
            ListItem::Prefix { .. } => None,
        };
        Cursor { after: Bytes::copy_from_slice(item.sort_key()), upload, version: None }
    }
}

fn range(prefix: &Bytes, delimiter: &Bytes, cursor: &Cursor, limit: u32) -> ListRange {
    ListRange { prefix: prefix.clone(), delimiter: delimiter.clone(), after: cursor.after.clone(), limit }
}

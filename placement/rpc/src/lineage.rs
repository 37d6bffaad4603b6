//! Which incarnation of the cluster a process belongs to, and that nobody of another one is spoken to.
//!
//! The first thing both ends of every connection say is their cluster and its incarnation ([`Incarnation`]). A cluster is
//! recovered from a permanent loss by declaring nodes gone: when such a node comes back, or one that was kept and not
//! rewritten, it and everybody who is left refuse each other here, before anything of a protocol is exchanged, and it learns
//! from the later number that it is a thing of the past ([`Lineage::superseded`]). What another cluster says of itself means
//! nothing: an address may have passed to one with the same secret.
//!
//! | greeting | bytes |
//! |---|---|
//! | magic | 8: `DOZOLIFE` |
//! | cluster | `u128`; anything while the incarnation is not known |
//! | incarnation | `u64`; 0: not known |
//!
//! A member never changes its incarnation. A follower (a gateway, or a node that is not part of a cluster yet) says that it knows
//! of none, keeps to the latest that it hears of each cluster, and refuses earlier ones.

use std::collections::BTreeMap;
use std::io;

use placement_types::codec::{Decode, Encode};
use placement_types::{BoxStream, ClusterId, Incarnation, Kinship};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::limits::CLUSTERS_HEARD_MAX;

const MAGIC: [u8; 8] = *b"DOZOLIFE";
const GREETING_BYTES: usize = 32;

/// One per process; clones share it.
#[derive(Clone, Debug)]
pub struct Lineage {
    standing: watch::Sender<Standing>,
}

/// A cluster and its incarnation.
type Life = (ClusterId, Incarnation);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Standing {
    member: Option<Life>,
    /// The latest that a follower heard of.
    heard: BTreeMap<ClusterId, Incarnation>,
    superseded_by: Option<Incarnation>,
}

impl Default for Lineage {
    /// A follower that has heard nothing yet.
    fn default() -> Self {
        Self { standing: watch::Sender::new(Standing::default()) }
    }
}

impl Lineage {
    /// Of a member of a cluster.
    pub fn member(cluster: ClusterId, own: Incarnation) -> Self {
        let lineage = Self::default();
        lineage.settle(cluster, own);
        lineage
    }

    /// Becomes a member.
    pub fn settle(&self, cluster: ClusterId, own: Incarnation) {
        self.standing.send_modify(|standing| standing.member = Some((cluster, own)));
    }

    pub fn is_member(&self) -> bool {
        self.standing.borrow().member.is_some()
    }

    /// A follower has none.
    pub fn own(&self) -> Incarnation {
        self.standing.borrow().member.map_or(Incarnation::UNKNOWN, |(_, own)| own)
    }

    /// The latest that a follower has heard of a cluster.
    pub fn heard_of(&self, cluster: ClusterId) -> Incarnation {
        self.standing.borrow().heard.get(&cluster).copied().unwrap_or(Incarnation::UNKNOWN)
    }

    /// Resolves once a member hears of a later incarnation than its own: it must not go on.
    pub async fn superseded(&self) -> Incarnation {
        let mut standing = self.standing.subscribe();
        let by = standing.wait_for(|standing| standing.superseded_by.is_some()).await;
        // The sender is in `self`.
        by.ok().and_then(|standing| standing.superseded_by).unwrap_or_default()
    }

    /// Greets the other end of a new connection.
    ///
    /// # Errors
    /// When it belongs to another incarnation, or does not greet.
    pub(crate) async fn greet(&self, mut stream: BoxStream) -> io::Result<BoxStream> {
        let own = self.standing.borrow().member.unwrap_or((ClusterId::from_u128(0), Incarnation::UNKNOWN));
        let mut sent = stream.write_all(&greeting(own)).await;
        if sent.is_ok() {
            sent = stream.flush().await;
        }
        let mut heard = [0; GREETING_BYTES];
        // Also when nothing could be sent: what there is to read is then the reason.
        stream.read_exact(&mut heard).await?;
        sent?;
        let Some((cluster, heard)) = read_greeting(&heard) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer does not greet as this release does"));
        };
        if self.hear(cluster, heard) {
            return Ok(stream);
        }
        let why = format!("the peer is of incarnation {heard} of cluster {cluster}, which is not the one of this process");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }

    /// Whether whoever says so may be spoken to.
    fn hear(&self, cluster: ClusterId, heard: Incarnation) -> bool {
        if heard == Incarnation::UNKNOWN {
            return true;
        }
        let mut welcome = true;
        self.standing.send_if_modified(|standing| match standing.member {
            Some((own_cluster, _)) if own_cluster != cluster => false,
            Some((_, own)) => {
                let kinship = own.kinship(heard);
                welcome = kinship == Kinship::Same;
                let is_news = kinship == Kinship::Later && standing.superseded_by.is_none();
                if is_news {
                    standing.superseded_by = Some(heard);
                }
                is_news
            }
            None => {
                let kinship = standing.heard.get(&cluster).map(|known| known.kinship(heard));
                welcome = kinship != Some(Kinship::Foreign);
                let is_news = match kinship {
                    None => standing.heard.len() < CLUSTERS_HEARD_MAX,
                    Some(kinship) => kinship == Kinship::Later,
                };
                if is_news {
                    standing.heard.insert(cluster, heard);
                }
                is_news
            }
        });
        welcome
    }
}

fn greeting((cluster, incarnation): Life) -> Vec<u8> {
    [&MAGIC[..], &cluster.to_encoded(), &incarnation.to_encoded()].concat()
}

fn read_greeting(bytes: &[u8; GREETING_BYTES]) -> Option<Life> {
    let (magic, life) = bytes.split_at(MAGIC.len());
    let (cluster, incarnation) = life.split_at(16);
    let life = (ClusterId::from_encoded(cluster).ok()?, Incarnation::from_encoded(incarnation).ok()?);
    (magic == MAGIC).then_some(life)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_u128(0xc1);
    const FIRST: Incarnation = Incarnation::FIRST;
    const SECOND: Incarnation = FIRST.next(7);

    fn member(own: Incarnation) -> Lineage {
        Lineage::member(CLUSTER, own)
    }

    async fn meet(one: &Lineage, two: &Lineage) -> (bool, bool) {
        let (left, right) = tokio::io::duplex(64);
        let (one, two) = tokio::join!(one.greet(Box::new(left)), two.greet(Box::new(right)));
        (one.is_ok(), two.is_ok())
    }

    fn superseded_by(lineage: &Lineage) -> Option<Incarnation> {
        lineage.standing.borrow().superseded_by
    }

    #[tokio::test]
    async fn members_of_different_incarnations_refuse_each_other_and_the_earlier_one_learns_why() {
        let (old, new) = (member(FIRST), member(SECOND));
        assert_eq!(meet(&old, &member(FIRST)).await, (true, true));
        assert_eq!(meet(&old, &new).await, (false, false));
        assert_eq!(old.superseded().await, SECOND);
        assert_eq!(superseded_by(&new), None);
        // Two decisions made apart from each other: neither is the later one.
        assert_eq!(meet(&new, &member(FIRST.next(8))).await, (false, false));
        assert_eq!(superseded_by(&new), None);
    }

    #[tokio::test]
    async fn what_another_cluster_lived_through_concerns_nobody() {
        let (ours, theirs) = (member(FIRST), Lineage::member(ClusterId::from_u128(0xc2), SECOND));
        assert_eq!(meet(&ours, &theirs).await, (true, true));
        assert_eq!(superseded_by(&ours), None);
        let follower = Lineage::default();
        assert_eq!(meet(&follower, &theirs).await, (true, true));
        assert_eq!(meet(&follower, &ours).await, (true, true));
        assert_eq!(follower.heard_of(CLUSTER), FIRST);
    }

    #[tokio::test]
    async fn a_follower_keeps_to_the_latest_that_it_hears() {
        let (follower, old, new) = (Lineage::default(), member(FIRST), member(SECOND));
        assert_eq!(meet(&follower, &old).await, (true, true));
        assert_eq!(follower.heard_of(CLUSTER), FIRST);
        assert_eq!(meet(&follower, &new).await, (true, true));
        assert_eq!(follower.heard_of(CLUSTER), SECOND);
        // It refuses, and who is refused by a follower may yet be right.
        assert_eq!(meet(&follower, &old).await, (false, true));
        assert_eq!(superseded_by(&old), None);
        follower.settle(CLUSTER, SECOND);
        assert_eq!(meet(&follower, &old).await, (false, false));
        assert_eq!(old.superseded().await, SECOND);
    }

    #[tokio::test]
    async fn whoever_does_not_greet_is_refused() {
        let (left, mut right) = tokio::io::duplex(64);
        right.write_all(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".repeat(2)).await.unwrap();
        assert!(Lineage::default().greet(Box::new(left)).await.is_err());
        let (left, right) = tokio::io::duplex(64);
        drop(right);
        assert!(Lineage::default().greet(Box::new(left)).await.is_err());
    }
}

//! Handshakes over loopback: who gets in, who is refused, and who learns why.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use placement_types::{BoxStream, Env, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::server::Connected;

use crate::server::{Connection, handshake};
use crate::{Channels, ClusterSecret, Identity, Lineage, PeerIdentity, Security, Subject};

const NODE: NodeId = NodeId::from_u128(1);
const PEER: NodeId = NodeId::from_u128(2);

fn identity(secret: char, subject: Subject) -> Identity {
    Identity::derive(&ClusterSecret::parse(&secret.to_string().repeat(32)).unwrap(), subject).unwrap()
}

/// Both ends of a handshake; `expected` is whom the client looks for.
async fn meet(server: &Identity, client: &Security, expected: Option<NodeId>) -> (io::Result<Connection>, io::Result<BoxStream>) {
    let env = placement_env::system();
    let mut listener = env.net.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address();
    let security = Security::Mutual(server.clone());
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        handshake(&security, &Lineage::default(), stream).await
    };
    let channels = Channels::new(env.clone(), client.clone(), Lineage::default());
    tokio::join!(serve, channels.connect(&address, expected))
}

/// Whether a byte gets from client to server.
async fn talks(server: io::Result<Connection>, client: io::Result<BoxStream>) -> bool {
    let (Ok(mut server), Ok(mut client)) = (server, client) else { return false };
    let sent = async { client.write_all(b"x").await.is_ok() && client.flush().await.is_ok() };
    let (sent, received) = tokio::join!(sent, server.read_u8());
    sent && received.is_ok()
}

async fn within<T>(env: &Env, work: impl Future<Output = T>) -> T {
    env.timeout(Duration::from_secs(20), work).await.expect("it happens soon")
}

#[tokio::test]
async fn only_who_has_the_secret_gets_in() {
    let server = identity('s', Subject::Node(NODE));
    let same = |subject| Security::Mutual(identity('s', subject));
    let (accepted, connected) = meet(&server, &same(Subject::Node(PEER)), None).await;
    assert_eq!(accepted.as_ref().map(Connection::connect_info).ok(), Some(PeerIdentity::Node(PEER)));
    assert!(talks(accepted, connected).await);
    let (accepted, connected) = meet(&server, &same(Subject::Gateway), Some(NODE)).await;
    assert_eq!(accepted.as_ref().map(Connection::connect_info).ok(), Some(PeerIdentity::Gateway));
    assert!(talks(accepted, connected).await);

    let (accepted, connected) = meet(&server, &Security::Mutual(identity('t', Subject::Node(PEER))), None).await;
    assert!(accepted.is_err() && connected.is_err(), "another cluster's authority");
}

#[tokio::test]
async fn a_call_to_one_node_never_reaches_another() {
    let server = identity('s', Subject::Node(NODE));
    let client = Security::Mutual(identity('s', Subject::Gateway));
    let (_, connected) = meet(&server, &client, Some(PEER)).await;
    assert_eq!(connected.err().map(|error| error.kind()), Some(io::ErrorKind::PermissionDenied));
}

#[tokio::test]
async fn a_removed_node_is_refused_in_both_directions_and_learns_why_from_members_only() {
    let env = placement_env::system();
    let (member, removed) = (identity('s', Subject::Node(NODE)), identity('s', Subject::Node(PEER)));
    let before = meet(&member, &Security::Mutual(removed.clone()), None).await;
    member.admission().refuse(&BTreeSet::from([PEER]));

    // The connection of before ends at its next use.
    assert!(!talks(before.0, before.1).await);

    // The member calls the removed node: the server is refused, and what a client says about it proves nothing.
    let (accepted, connected) = meet(&removed, &Security::Mutual(member.clone()), None).await;
    assert!(connected.is_err());
    assert!(!talks(accepted, connected).await);
    assert!(env.timeout(Duration::from_millis(100), removed.admission().expelled()).await.is_err());

    // The removed node calls a member.
    let (accepted, connected) = meet(&member, &Security::Mutual(removed.clone()), None).await;
    assert!(accepted.is_err());
    let told = async {
        assert!(connected.is_err(), "the refusal is what it reads instead of a greeting");
        removed.admission().expelled().await;
    };
    within(&env, told).await;

    member.admission().refuse(&BTreeSet::new());
    let (accepted, connected) = meet(&member, &Security::Mutual(removed), None).await;
    assert!(talks(accepted, connected).await);
}

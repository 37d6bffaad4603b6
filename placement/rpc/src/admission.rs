//! Who is refused on the internal port although the authority vouches for him: nodes that were removed from the cluster.
//!
//! A removed node keeps its data, the secret and so a good certificate; only the cluster map says that it is out. Both ends of
//! every handshake ask here, and both ends of every connection ask again before they read or write once the answer may have
//! changed, so that a connection of before the removal ends too.
//!
//! Whoever is refused is told so by the TLS alert `certificate_revoked`. A process believes that only of a server whose
//! certificate it has verified: what arrives before may come from anybody ([`Admission::expelled`]).

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use parking_lot::RwLock;
use placement_types::{BoxStream, NodeId};
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::identity::PeerIdentity;

/// One per process; clones share it.
#[derive(Clone)]
pub struct Admission {
    inner: Arc<Inner>,
}

struct Inner {
    removed: RwLock<BTreeSet<NodeId>>,
    /// How often `removed` changed.
    edition: AtomicU64,
    expelled: watch::Sender<bool>,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("removed", &*self.inner.removed.read()).finish()
    }
}

impl Default for Admission {
    fn default() -> Self {
        let inner = Inner { removed: RwLock::default(), edition: AtomicU64::new(0), expelled: watch::Sender::new(false) };
        Self { inner: Arc::new(inner) }
    }
}

impl Admission {
    /// Refuses these nodes from now on, and no others.
    pub fn refuse(&self, removed: &BTreeSet<NodeId>) {
        if *self.inner.removed.read() == *removed {
            return;
        }
        self.inner.removed.write().clone_from(removed);
        self.inner.edition.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn admits(&self, peer: PeerIdentity) -> bool {
        match peer {
            PeerIdentity::Node(node) => !self.inner.removed.read().contains(&node),
            PeerIdentity::Gateway | PeerIdentity::Unproven => true,
        }
    }

    /// Resolves once a member of the cluster has refused this process because its node was removed.
    pub async fn expelled(&self) {
        let mut expelled = self.inner.expelled.subscribe();
        // The sender is in `self`.
        let _ = expelled.wait_for(|expelled| *expelled).await;
    }

    /// A verified server's connection, watched for the alert, or a client's, whose alerts mean nothing here.
    pub(crate) fn guard(&self, stream: BoxStream, peer: PeerIdentity, side: Side) -> Guarded {
        let edition = self.inner.edition.load(Ordering::Acquire);
        Guarded { stream, peer, admission: self.clone(), edition, side }
    }
}

/// Which side of a connection this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A connection that ends when its peer is removed from the cluster.
pub(crate) struct Guarded {
    stream: BoxStream,
    peer: PeerIdentity,
    admission: Admission,
    /// Of the admission when it was last asked.
    edition: u64,
    side: Side,
}

impl Guarded {
    fn ask_again(&mut self) -> io::Result<()> {
        let edition = self.admission.inner.edition.load(Ordering::Acquire);
        if edition != self.edition {
            if !self.admission.admits(self.peer) {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the peer was removed from the cluster"));
            }
            self.edition = edition;
        }
        Ok(())
    }

    fn note_alert(&self, error: &io::Error) {
        let told = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let revoked = matches!(told, Some(rustls::Error::AlertReceived(AlertDescription::CertificateRevoked)));
        if revoked && self.side == Side::Client {
            self.admission.inner.expelled.send_replace(true);
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.ask_again()?;
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &polled {
            self.note_alert(error);
        }
        polled
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.ask_again()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.ask_again()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

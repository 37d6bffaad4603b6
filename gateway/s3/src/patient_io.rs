//! A connection whose peer may be slow, but not for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use placement_types::{BoxFuture, Env};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::REPLY_IDLE_TIMEOUT;

/// Fails a write or flush with `TimedOut` when the peer has taken nothing for [`REPLY_IDLE_TIMEOUT`], so that a reader who
/// stopped reading does not hold a connection for ever. Reads are not watched here: a
/// kept-alive connection waits for its next request by right, and bodies have their own limit.
pub(crate) struct PatientIo<S> {
    stream: S,
    env: Env,
    /// Set while the peer takes nothing.
    stalled: Option<BoxFuture<'static, ()>>,
}

impl<S> PatientIo<S> {
    pub fn new(stream: S, env: Env) -> Self {
        Self { stream, env, stalled: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let clock = &self.env.clock;
        let stalled = self.stalled.get_or_insert_with(|| clock.sleep(REPLY_IDLE_TIMEOUT));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PatientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_little_is_waited_for_and_one_that_takes_nothing_is_not() {
        let (env, _) = placement_env::sim::env(1);
        let (ours, mut peer) = duplex(1000);
        let mut ours = PatientIo::new(ours, env.clone());
        let (written, ()) = tokio::join!(ours.write_all(&[7; 2000]), async {
            for _ in 0..10 {
                env.sleep(REPLY_IDLE_TIMEOUT - Duration::from_secs(1)).await;
                peer.read_exact(&mut [0; 100]).await.unwrap();
            }
        });
        written.unwrap();
        let began = env.monotonic();
        assert_eq!(ours.write_all(&[7; 1]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(env.monotonic() - began, REPLY_IDLE_TIMEOUT);
    }
}

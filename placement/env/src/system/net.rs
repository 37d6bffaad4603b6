//! TCP. Both ends send small messages at once (`TCP_NODELAY`): ours are requests and replies, never keystrokes to collect.
//!
//! A stream's unsent bytes are bounded ([`UNSENT_BYTES_MAX`]). Left to itself the kernel keeps some 3 MiB for a peer that reads
//! slowly, and reports room again only when a third of that is gone: a quarter of an hour of silence from one that reads
//! 1 KB/s, which cannot be told from one that is gone.

use std::io;
use std::os::fd::AsFd as _;

use async_trait::async_trait;
use placement_types::{BoxStream, Listener, Net};
use tokio::net::{TcpListener, TcpStream};

use super::sys;

/// The kernel reports room when half of it is sent: enough for a writer to come in time, measured to cost no throughput.
const UNSENT_BYTES_MAX: u32 = 256 << 10;

pub(super) struct SystemNet;

#[async_trait]
impl Net for SystemNet {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let stream = TcpStream::connect(address).await?;
        tune(&stream)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        // Tokio sets SO_REUSEADDR, so that a restart need not wait for the connections of its predecessor to time out.
        let listener = TcpListener::bind(address).await?;
        let local_address = listener.local_addr()?.to_string();
        Ok(Box::new(SystemListener { listener, local_address }))
    }
}

struct SystemListener {
    listener: TcpListener,
    local_address: String,
}

#[async_trait]
impl Listener for SystemListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, String)> {
        let (stream, peer) = self.listener.accept().await?;
        tune(&stream)?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_address(&self) -> String {
        self.local_address.clone()
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sys::set_unsent_bytes_max(stream.as_fd(), UNSENT_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_travel_both_ways_and_port_0_tells_which_it_got() {
        let mut listener = SystemNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        assert!(!address.ends_with(":0"), "{address}");
        let mut client = SystemNet.connect(&address).await.unwrap();
        let (mut server, peer) = listener.accept().await.unwrap();
        assert!(peer.starts_with("127.0.0.1:"));
        client.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        server.read_exact(&mut got).await.unwrap();
        server.write_all(&got).await.unwrap();
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
    }

    #[tokio::test]
    async fn little_is_kept_for_a_peer_that_reads_nothing() {
        let mut listener = SystemNet.listen("127.0.0.1:0").await.unwrap();
        let client = SystemNet.connect(&listener.local_address()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let piece = vec![7; 64 << 10];
        let mut taken = 0;
        while let Ok(written) = tokio::time::timeout(Duration::from_millis(200), server.write(&piece)).await {
            taken += written.unwrap();
        }
        // The peer's kernel has taken as much as its window, at first 64 KiB, allows.
        assert!((64 << 10..1 << 20).contains(&taken), "{taken} bytes");
        drop(client);
    }

    #[tokio::test]
    async fn nobody_listening_is_an_error() {
        let address = SystemNet.listen("127.0.0.1:0").await.unwrap().local_address();
        let error = SystemNet.connect(&address).await.err().expect("the listener is gone");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

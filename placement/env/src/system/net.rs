//! TCP. Both ends send small messages at once (`TCP_NODELAY`): ours are requests and replies, never keystrokes to collect.

use std::io;

use async_trait::async_trait;
use placement_types::{BoxStream, Listener, Net};
use tokio::net::{TcpListener, TcpStream};

pub(super) struct SystemNet;

#[async_trait]
impl Net for SystemNet {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
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
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_address(&self) -> String {
        self.local_address.clone()
    }
}

#[cfg(test)]
mod tests {
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
    async fn nobody_listening_is_an_error() {
        let address = SystemNet.listen("127.0.0.1:0").await.unwrap().local_address();
        let error = SystemNet.connect(&address).await.err().expect("the listener is gone");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

//! Turmoil's TCP behind the product's network trait.

use std::io;

use async_trait::async_trait;
use placement_types::{BoxStream, Listener, Net};
use turmoil::net::{TcpListener, TcpStream};

pub struct SimNet;

struct SimListener(TcpListener);

#[async_trait]
impl Net for SimNet {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let port: u16 = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        let stream = TcpStream::connect((host, port)).await?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(SimListener(TcpListener::bind(address).await?)))
    }
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, String)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_address(&self) -> String {
        self.0.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
    }
}

//! A machine without a network.

use std::io;

use async_trait::async_trait;
use placement_types::{BoxStream, Listener, Net};

pub struct RefusingNet;

#[async_trait]
impl Net for RefusingNet {
    async fn connect(&self, _address: &str) -> io::Result<BoxStream> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    async fn listen(&self, _address: &str) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::AddrNotAvailable.into())
    }
}

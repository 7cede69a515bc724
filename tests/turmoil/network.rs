//! The simulated network, as either side sees it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use coordinator::workers::{Incoming, Stream};
use futures::future::BoxFuture;
use turmoil::net::{TcpListener, TcpStream};
use worker::simulated::{Dial, Stream as WorkerStream};

/// Where workers reach the coordinator.
pub const COORDINATOR: &str = "coordinator";
const PORT: u16 = 50050;

/// The same with its port.
pub fn address() -> String {
    format!("{COORDINATOR}:{PORT}")
}

/// Where the coordinator listens.
pub struct Door(TcpListener);

impl Door {
    pub async fn open() -> io::Result<Self> {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.map(Self)
    }
}

impl Incoming for Door {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            let (stream, from) = self.0.accept().await?;
            Ok((Box::new(stream) as Box<dyn Stream>, from))
        })
    }
}

/// How a worker dials.
pub struct Dialler;

impl Dial for Dialler {
    fn dial(&self, address: &str) -> BoxFuture<'_, io::Result<Box<dyn WorkerStream>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok(Box::new(stream) as Box<dyn WorkerStream>)
        })
    }
}

//! Where workers register.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use coordinator_core::network::{InvalidNetwork, Network};

use super::http::TlsFiles;
use super::layers::{ConfigError, Layers, Source};
use super::values::{self, Why};
use super::{http, settings};

/// Where workers register, and in which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcConfig {
    /// Where connections are accepted.
    pub listen: GrpcListen,
    /// Where they may be in plain text.
    pub plaintext: Plaintext,
    /// What they are encrypted with, if they are.
    pub tls: Option<TlsFiles>,
    /// The authority whose certificates say who a worker is.
    pub authority: Option<PathBuf>,
    /// Where workers may be dialled that ask for it.
    pub advertise_allow: Vec<Network>,
    /// Whether whoever connects is told of the services.
    pub reflection: Reflection,
}

/// Whether gRPC reflection is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reflection {
    /// To whoever connects.
    On,
    /// To nobody.
    Off,
}

/// Where connections are accepted. Port zero lets the system choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcListen {
    /// Nobody chose it: when it is taken, the server goes on without.
    Default(SocketAddr),
    /// The operator chose it: when it is taken, the server does not start.
    Chosen(SocketAddr),
}

impl GrpcListen {
    /// The address, whoever chose it.
    pub const fn address(self) -> SocketAddr {
        let (Self::Default(address) | Self::Chosen(address)) = self;
        address
    }
}

/// Where workers may be spoken to without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// On the loopback interface and on Unix sockets.
    Local,
    /// Anywhere: the operator answers for the network.
    Anywhere,
}

/// The address to listen on, from the stronger of its two settings.
pub(super) fn read(layers: &mut Layers, tls: Option<TlsFiles>) -> Result<GrpcConfig, ConfigError> {
    let address = layers.get(&settings::GRPC, http::socket_address)?;
    let port = layers.require(&settings::GRPC_PORT, values::port)?;
    let port_source = layers.source(&settings::GRPC_PORT);
    let port_wins = http::rank(&port_source) > http::rank(&layers.source(&settings::GRPC));
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = match (address, port_source) {
        (Some(address), _) if !port_wins => GrpcListen::Chosen(address),
        (None, Source::Default) => GrpcListen::Default(local),
        (Some(_) | None, _) => GrpcListen::Chosen(local),
    };
    let plaintext = match layers.require(&settings::INSECURE_PLAINTEXT, values::switch)? {
        true => Plaintext::Anywhere,
        false => Plaintext::Local,
    };
    let reflection = match layers.require(&settings::GRPC_REFLECTION, values::switch)? {
        true => Reflection::On,
        false => Reflection::Off,
    };
    let authority = layers.get(&settings::TLS_CA, values::directory)?;
    let advertise_allow = layers.get(&settings::ADVERTISE_ALLOW, networks)?.unwrap_or_default();
    Ok(GrpcConfig { listen, plaintext, tls, authority, advertise_allow, reflection })
}

fn networks(text: &str) -> Result<Vec<Network>, Why> {
    values::listed(text).map(|one| one.parse().map_err(|error: InvalidNetwork| format!("{one:?}: {error}"))).collect()
}

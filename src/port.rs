//! The claim on the Kafka port, before any shard listens on it.
//!
//! Every shard listens on the port with SO_REUSEPORT, so two brokers started by mistake would
//! silently share it. Therefore the port is bound once *without* SO_REUSEPORT first: that fails if
//! anybody holds it. The option is then switched on for this socket, which never listens, so that
//! the shards can bind beside it while the claim holds the port.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::failure::{Exit, Failure};

/// How long the claim waits for a port in use. The kernel closes the sockets of a killed process
/// that used io_uring from a queue, after the process is gone: a restart at once would meet them.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(10);

/// A port that is ours; dropped when every shard listens.
#[derive(Debug)]
pub struct PortClaim {
    _socket: Socket,
    address: SocketAddr,
}

impl PortClaim {
    /// Claims `port` (0: any free one) on `bind`. The wildcard 0.0.0.0 means IPv6 as well, where
    /// this machine has it.
    pub fn new(bind: IpAddr, port: u16) -> Result<PortClaim, Failure> {
        let dual = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let plain = SocketAddr::new(bind, port);
        let wanted = if bind.is_unspecified() && has_ipv6() { dual } else { plain };
        let deadline = Instant::now() + PATIENCE;
        let claimed = loop {
            match claim(wanted) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    if Instant::now() >= deadline {
                        break Err(error);
                    }
                    std::thread::sleep(PAUSE);
                }
                claimed => break claimed,
            }
        };
        let (socket, address) = claimed.map_err(|error| refused(plain, &error))?;
        Ok(PortClaim { _socket: socket, address })
    }

    /// What the shards must bind: the claimed port, `[::]` where it is dual-stack.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Whether this machine lets us bind IPv6 at all (containers often switch it off).
fn has_ipv6() -> bool {
    claim(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)).is_ok()
}

fn claim(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of an earlier broker in TIME_WAIT must not keep this one from starting.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // Without the first listen a second claim could still succeed: SO_REUSEADDR alone lets two
    // sockets bind that both do not listen.
    socket.listen(1)?;
    let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    drop(socket);
    let socket = Socket::new(Domain::for_address(bound), Type::STREAM, None)?;
    if bound.is_ipv6() {
        socket.set_only_v6(!bound.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&bound.into())?;
    Ok((socket, bound))
}

fn refused(address: SocketAddr, error: &io::Error) -> Failure {
    let failure = Failure::new(Exit::Machine, format!("cannot listen on {address}: {error}"));
    match error.kind() {
        io::ErrorKind::AddrInUse => failure.hint(format!(
            "another process has port {}; stop it, or choose another with --kafka-port",
            address.port()
        )),
        io::ErrorKind::AddrNotAvailable => {
            failure.hint("--bind-addr must be an address of this machine, or 0.0.0.0 for all")
        }
        io::ErrorKind::PermissionDenied => {
            failure.hint("ports below 1024 need CAP_NET_BIND_SERVICE; choose another")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// As a shard listens.
    fn shard(address: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(16).unwrap();
        socket
    }

    #[test]
    fn shards_share_a_claimed_port_and_a_second_broker_is_refused() {
        let claim = PortClaim::new(LOOPBACK, 0).unwrap();
        let address = claim.address();
        assert_ne!(address.port(), 0);
        let _shards = [shard(address), shard(address)];
        drop(claim);
        let refused = PortClaim::new(LOOPBACK, address.port()).unwrap_err();
        assert_eq!(refused.exit, Exit::Machine);
        assert!(refused.to_string().contains("--kafka-port"), "{refused}");
    }

    #[test]
    fn the_wildcard_reaches_both_families() {
        let claim = PortClaim::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0).unwrap();
        let _shard = shard_dual(claim.address());
        let port = claim.address().port();
        drop(claim);
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if has_ipv6() {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }

    fn shard_dual(address: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(false).unwrap();
        }
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(16).unwrap();
        socket
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_a_hint() {
        let refused = PortClaim::new("192.0.2.1".parse().unwrap(), 0).unwrap_err();
        assert!(refused.to_string().contains("--bind-addr"), "{refused}");
    }
}

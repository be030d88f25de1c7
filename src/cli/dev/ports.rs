//! Which ports the replicas of a `larder dev` have: replica k those from P + 10k on.
//!
//! Whether a port is free is found out by listening on it for a moment. Somebody else may take it between that and the
//! replica's own start; the replica then ends and says so, and whoever asked for any free ports tries others.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Ports of one replica, from its first on: gRPC, peers, health, admin.
const PORTS: u16 = 4;

/// From one replica's first port to the next one's.
const STRIDE: u16 = 10;

/// Where free ports are looked for: below those that systems hand out by themselves (from 32768 on Linux).
const FREE: std::ops::Range<u16> = 10_000..32_000;

/// From one base to the next that is tried: room for so many tenths of replicas before two clusters meet.
const FREE_STEP: u16 = 200;

/// The ports of one replica, all on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
}

/// A port that is taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose other ports with --base-port")]
pub struct Taken {
    pub address: SocketAddr,
    source: io::Error,
}

impl Ports {
    /// Those of a replica by its number; none when there are no ports of such a number.
    pub fn of(base: u16, number: u16) -> Option<Self> {
        let first = base.checked_add(number.checked_mul(STRIDE)?)?;
        first.checked_add(PORTS - 1)?;
        Some(Self { first })
    }

    pub fn grpc(self) -> SocketAddr {
        self.at(0)
    }

    pub fn peer(self) -> SocketAddr {
        self.at(1)
    }

    pub fn health(self) -> SocketAddr {
        self.at(2)
    }

    pub fn admin(self) -> SocketAddr {
        self.at(3)
    }

    /// Whether all of them are free at the moment.
    pub fn free(self) -> Result<(), Taken> {
        (0..PORTS)
            .map(|offset| self.at(offset))
            .try_for_each(|address| TcpListener::bind(address).map(drop).map_err(|source| Taken { address, source }))
    }

    fn at(self, offset: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.first + offset).into()
    }
}

/// The greatest base port that has room for so many replicas.
pub fn greatest_base(replicas: u16) -> u16 {
    u16::MAX - (PORTS - 1) - replicas.saturating_sub(1).saturating_mul(STRIDE)
}

/// A base port from which on so many replicas have free ports. Begins to look where `start` says, so that two that look at
/// once seldom meet.
pub fn free_base(replicas: u16, start: u16) -> Option<u16> {
    let steps = FREE.len() / usize::from(FREE_STEP);
    let bases: Vec<u16> = FREE.step_by(usize::from(FREE_STEP)).collect();
    let from = usize::from(start) % steps.max(1);
    let free =
        |base: &u16| (0..replicas).all(|number| Ports::of(*base, number).is_some_and(|ports| ports.free().is_ok()));
    bases[from..].iter().chain(&bases[..from]).copied().find(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_k_has_the_ports_from_p_and_ten_k_on() {
        let ports = Ports::of(7070, 2).unwrap();
        let all = [ports.grpc(), ports.peer(), ports.health(), ports.admin()].map(|address| address.port());
        assert_eq!(all, [7090, 7091, 7092, 7093]);
        let greatest = greatest_base(3);
        assert!(Ports::of(greatest, 2).is_some() && Ports::of(greatest + 1, 2).is_none());
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let said = Ports { first: held.local_addr().unwrap().port() }.free().unwrap_err();
        assert_eq!(said.address, held.local_addr().unwrap());
    }
}

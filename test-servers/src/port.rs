use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use crate::error::{Error, Result};

/// Below the range from which the system takes ports for outgoing connections,
/// so that none of those occupies a server's port while it is down for a restart.
const PORTS: Range<u16> = 12_000..32_000;

/// A loopback TCP port nobody listens on at the moment.
pub(crate) fn free_port() -> Result<u16> {
    let start = RandomState::new().build_hasher().finish();
    (0..1000)
        .map(|offset| port_at(start.wrapping_add(offset)))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| Error::new(format!("find a free loopback port in {PORTS:?}: none of 1000 tried is free")))
}

fn port_at(position: u64) -> u16 {
    let width = u64::from(PORTS.end - PORTS.start);
    PORTS.start + u16::try_from(position % width).expect("the remainder is below the width, which is a u16")
}

//! Room for what others open here, of which nobody may have so much that none is left.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Places, so many in all and so many for each address.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    most: u32,
    most_of_one: u32,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    by_address: HashMap<IpAddr, u32>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// Whose it is, unless it is somebody's of this machine.
    address: Option<IpAddr>,
    taken: Arc<Mutex<Taken>>,
}

impl Room {
    /// Room for `most`, of which one address may have `most_of_one`.
    pub(crate) fn new(most: u32, most_of_one: u32) -> Self {
        Self { most, most_of_one, taken: Arc::default() }
    }

    /// A place, where there is one; whoever has no address counts among all alone.
    pub(crate) fn enter(&self, peer: Option<IpAddr>) -> Option<Place> {
        let address = peer.map(network_of);
        let mut taken = self.taken.lock();
        let of_one = address.and_then(|address| taken.by_address.get(&address)).copied().unwrap_or(0);
        if taken.all >= self.most || of_one >= self.most_of_one {
            return None;
        }
        taken.all += 1;
        if let Some(address) = address {
            taken.by_address.insert(address, of_one + 1);
        }
        Some(Place { address, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all -= 1;
        let Some(address) = &self.address else { return };
        if let Some(count) = taken.by_address.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(address);
            }
        }
    }
}

/// What an address is counted as: whoever has one of IPv6 has the 2^64 beside it.
pub(crate) fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others_and_gives_back_what_it_had() {
        let room = Room::new(3, 2);
        let [near, far, third] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|ip| Some(ip.parse::<IpAddr>().unwrap()));
        let first = room.enter(near);
        assert!(first.is_some());
        let second = room.enter(far);
        assert!(second.is_some() && room.enter(near).is_none(), "both are of one network");
        let third_place = room.enter(third);
        assert!(third_place.is_some() && room.enter(third).is_none(), "there is no room for more");
        drop(first);
        assert!(room.enter(third).is_some());
        drop((second, third_place));
        assert!(room.taken.lock().by_address.is_empty());
    }

    #[test]
    fn whoever_has_no_address_counts_among_all() {
        let room = Room::new(2, 1);
        let places = [room.enter(None), room.enter(None)];
        assert!(places.iter().all(Option::is_some) && room.enter(None).is_none());
    }
}

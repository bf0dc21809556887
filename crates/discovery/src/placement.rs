//! Which proxy a client is scraped through that is registered at several: by rendezvous hashing,
//! and where it was before as long as it is still registered there.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::listing::{Client, Labels, Listing};

/// The clients that are scraped through one proxy, by their labels.
pub type Placed<'a> = BTreeMap<&'a Labels, Vec<&'a Client>>;

/// Where each client was placed last.
#[derive(Debug, Default)]
pub struct Placement {
    homes: Homes,
}

/// Clients and the proxies that they are placed at.
#[derive(Debug, Default)]
struct Homes {
    proxies: Vec<SocketAddr>,
    /// Positions in the list of proxies: there are many more clients than proxies.
    homes: HashMap<Arc<str>, u32>,
}

impl Homes {
    fn get(&self, client: &str) -> Option<SocketAddr> {
        let position = usize::try_from(*self.homes.get(client)?).ok()?;
        self.proxies.get(position).copied()
    }

    fn insert(&mut self, client: &Arc<str>, proxy: SocketAddr) {
        if self.proxies.last() != Some(&proxy) {
            self.proxies.push(proxy);
        }
        // More than 2^32 proxies cannot be.
        let position = u32::try_from(self.proxies.len() - 1).unwrap_or(u32::MAX);
        self.homes.insert(Arc::clone(client), position);
    }
}

impl Placement {
    /// Declares that the clients of `listing` are scraped through `proxy`, as another run had it.
    pub fn remember(&mut self, proxy: SocketAddr, listing: &Listing) {
        for (_, clients) in listing.clients() {
            for client in clients {
                self.homes.insert(&client.key, proxy);
            }
        }
    }

    /// Places every client at one of the proxies that list it.
    pub fn place<'a>(
        &mut self,
        listings: &BTreeMap<SocketAddr, &'a Listing>,
    ) -> BTreeMap<SocketAddr, Placed<'a>> {
        let mut homes = Homes::default();
        homes
            .homes
            .reserve(listings.values().map(|listing| listing.len()).sum());
        for (&proxy, listing) in listings {
            for client in listing.clients().flat_map(|(_, clients)| clients) {
                let key = &client.key;
                let is_drawn_here = homes.get(key).is_none_or(|home| {
                    let before = self.homes.get(key);
                    before == Some(proxy)
                        || before != Some(home) && weight(key, proxy) > weight(key, home)
                });
                if is_drawn_here {
                    homes.insert(key, proxy);
                }
            }
        }
        self.homes = homes;
        let place_at = |proxy: SocketAddr, listing: &'a Listing| {
            let mut placed = Placed::new();
            for (labels, clients) in listing.clients() {
                let here: Vec<_> = clients
                    .iter()
                    .filter(|client| self.homes.get(&client.key) == Some(proxy))
                    .collect();
                if !here.is_empty() {
                    placed.insert(labels, here);
                }
            }
            placed
        };
        listings
            .iter()
            .map(|(&proxy, &listing)| (proxy, place_at(proxy, listing)))
            .collect()
    }
}

/// How much a client is drawn to a proxy. The same in every run and every version.
fn weight(client: &str, proxy: SocketAddr) -> u64 {
    let mut hash = FNV_OFFSET;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    };
    add(client.as_bytes());
    match proxy.ip() {
        IpAddr::V4(ip) => add(&ip.octets()),
        IpAddr::V6(ip) => add(&ip.octets()),
    }
    add(&proxy.port().to_be_bytes());
    // FNV leaves its high bits little mixed; they decide here.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proxy(number: u8) -> SocketAddr {
        SocketAddr::new([10, 0, 0, number].into(), 8080)
    }

    fn listing(names: impl IntoIterator<Item = usize>) -> Listing {
        let targets: Vec<_> = names
            .into_iter()
            .map(|name| format!("client-{name}"))
            .collect();
        Listing::parse(
            serde_json::json!([{ "targets": targets }])
                .to_string()
                .as_bytes(),
        )
        .unwrap()
    }

    fn place(
        placement: &mut Placement,
        listings: &[(u8, &Listing)],
    ) -> BTreeMap<String, SocketAddr> {
        let listings = listings
            .iter()
            .map(|&(number, listing)| (proxy(number), listing))
            .collect();
        let mut homes = BTreeMap::new();
        for (proxy, placed) in placement.place(&listings) {
            for client in placed.into_values().flatten() {
                assert!(
                    homes.insert(client.key.to_string(), proxy).is_none(),
                    "{client:?} twice"
                );
            }
        }
        homes
    }

    #[test]
    fn a_client_of_several_proxies_is_placed_once_and_evenly() {
        let all = listing(0..3_000);
        let homes = place(
            &mut Placement::default(),
            &[(1, &all), (2, &all), (3, &all)],
        );
        assert_eq!(homes.len(), 3_000);
        for number in 1..=3 {
            let count = homes
                .values()
                .filter(|home| **home == proxy(number))
                .count();
            assert!((900..1_100).contains(&count), "{count} at {number}");
        }
    }

    #[test]
    fn only_the_clients_of_a_proxy_that_goes_move() {
        let all = listing(0..300);
        let mut placement = Placement::default();
        let before = place(&mut placement, &[(1, &all), (2, &all), (3, &all)]);
        let after = place(&mut placement, &[(1, &all), (3, &all)]);
        for (client, home) in &before {
            if *home != proxy(2) {
                assert_eq!(after[client], *home);
            }
        }
        let back = place(&mut placement, &[(1, &all), (2, &all), (3, &all)]);
        assert_eq!(back, after, "a proxy that comes takes nobody away");
    }

    #[test]
    fn a_client_moves_when_its_proxy_does_not_list_it_any_more() {
        let one = listing([1]);
        let mut placement = Placement::default();
        assert_eq!(
            place(&mut placement, &[(1, &one), (2, &listing([]))])["client-1"],
            proxy(1)
        );
        assert_eq!(
            place(&mut placement, &[(1, &listing([])), (2, &one)])["client-1"],
            proxy(2)
        );
    }

    #[test]
    fn another_run_places_alike_by_what_is_remembered() {
        let all = listing(0..100);
        let mut first = Placement::default();
        // All are at the first proxy, because the second one came later.
        place(&mut first, &[(1, &all)]);
        let before = place(&mut first, &[(1, &all), (2, &all)]);
        let mut second = Placement::default();
        second.remember(proxy(1), &all);
        assert_eq!(place(&mut second, &[(1, &all), (2, &all)]), before);
    }

    proptest! {
        #[test]
        fn every_client_is_placed_once_where_it_is_listed(
            rounds in prop::collection::vec(prop::collection::vec(prop::collection::btree_set(0usize..12, 0..12), 4), 1..6)
        ) {
            let mut placement = Placement::default();
            let mut before: BTreeMap<String, SocketAddr> = BTreeMap::new();
            for round in rounds {
                let listings: Vec<Listing> = round.iter().map(|names| listing(names.iter().copied())).collect();
                let listings: Vec<(u8, &Listing)> = (1..).zip(&listings).collect();
                let homes = place(&mut placement, &listings);
                for name in 0..12 {
                    let key = format!("client-{name}");
                    let at: Vec<_> = (1..).zip(&round).filter(|(_, names)| names.contains(&name)).map(|(number, _)| proxy(number)).collect();
                    match homes.get(&key) {
                        None => prop_assert!(at.is_empty()),
                        Some(home) => {
                            prop_assert!(at.contains(home));
                            if let Some(old) = before.get(&key) && at.contains(old) {
                                prop_assert_eq!(home, old, "it moved without need");
                            }
                        }
                    }
                }
                before = homes;
            }
        }
    }
}

//! The faults, one after the other.

use std::time::Duration;

use pushprox_testkit::pushprox::Proxy;
use pushprox_testkit::wait::{SOON, idle};
use pushprox_testkit::wire::Connection;
use tokio::time::Instant;

use crate::account::Book;
use crate::random::Random;
use crate::world::{Place, What, World, name};

#[derive(Debug, Clone, Copy)]
enum Fault {
    ClientKilled,
    ClientFrozen,
    ClientEnded,
    TwoClients,
    ProxyKilled,
    ProxyEnded,
    ProxyFrozen,
    Silent,
    HalfHeads,
    Garbage,
    UnknownIds,
    UnknownPolls,
}

/// Makes trouble until it is time.
pub(crate) async fn make_until(end: Instant, mut random: Random, world: &World, account: &Book) {
    use Fault::{
        ClientEnded, ClientFrozen, ClientKilled, Garbage, HalfHeads, ProxyEnded, ProxyFrozen,
        ProxyKilled, Silent, TwoClients, UnknownIds, UnknownPolls,
    };
    while Instant::now() < end {
        // A proxy disturbs all of its clients, and there must be calm to be right in.
        let fault = random.one_of(&[
            ClientKilled,
            ClientKilled,
            ClientFrozen,
            ClientFrozen,
            ClientEnded,
            TwoClients,
            TwoClients,
            ProxyKilled,
            ProxyEnded,
            ProxyFrozen,
            Silent,
            HalfHeads,
            Garbage,
            UnknownIds,
            UnknownPolls,
        ]);
        account.fault(fault.text());
        fault.strike(&mut random, world).await;
        idle(random.millis(200, 2_000)).await;
    }
}

impl Fault {
    fn text(self) -> &'static str {
        match self {
            Self::ClientKilled => "client killed",
            Self::ClientFrozen => "client frozen",
            Self::ClientEnded => "client ended",
            Self::TwoClients => "a second client under a name, then killed",
            Self::ProxyKilled => "proxy killed",
            Self::ProxyEnded => "proxy ended",
            Self::ProxyFrozen => "proxy frozen",
            Self::Silent => "100 silent connections",
            Self::HalfHeads => "100 halves of a head",
            Self::Garbage => "100 times garbage",
            Self::UnknownIds => "100 pushes of unknown ids",
            Self::UnknownPolls => "100 polls that are given up",
        }
    }

    async fn strike(self, random: &mut Random, world: &World) {
        let place = random.one_of(&world.places());
        match self {
            Self::ClientKilled | Self::ClientEnded | Self::ClientFrozen | Self::TwoClients => {
                let disturbing = self.strike_client(place, random, world);
                world.disturb(What::Client(place), disturbing).await;
            }
            Self::ProxyKilled | Self::ProxyEnded => {
                world
                    .disturb(What::Proxy(MORTAL), self.restart(world))
                    .await;
            }
            Self::ProxyFrozen => {
                let freezing = async {
                    let proxy = world.proxy(place.proxy).lock().await;
                    proxy.daemon.freeze();
                    idle(random.millis(200, 2_000)).await;
                    proxy.daemon.thaw();
                };
                world.disturb(What::Proxy(place.proxy), freezing).await;
            }
            Self::Silent => strangers(place, "", random, world).await,
            Self::HalfHeads => {
                let half = "GET http://x.test/ HTTP/1.1\r\nHost: x";
                strangers(place, half, random, world).await;
            }
            Self::Garbage => {
                let garbage = "\u{16}\u{3}\u{1} no protocol of ours\r\n\r\n\r\n";
                strangers(place, garbage, random, world).await;
            }
            Self::UnknownIds => {
                let message = "HTTP/1.1 200 OK\r\n\
                    Id: 0e6b2b1c-5e0c-4b1e-9d5a-7d6f3c2b1a00\r\nContent-Length: 3\r\n\r\nbad";
                strangers(place, &post("/push", message), random, world).await;
            }
            Self::UnknownPolls => {
                let request = post("/poll", &format!("gone.{}", name(place)));
                strangers(place, &request, random, world).await;
            }
        }
    }

    async fn strike_client(self, place: Place, random: &mut Random, world: &World) {
        let mut client = world.client(place).lock().await;
        match self {
            Self::ClientFrozen => {
                client.daemon.freeze();
                idle(random.millis(200, 4_000)).await;
                client.daemon.thaw();
            }
            Self::TwoClients => {
                let mut second = world.new_client(place);
                idle(random.millis(500, 3_000)).await;
                second.daemon.kill();
                second.daemon.ended(SOON).await;
            }
            _ => {
                if matches!(self, Self::ClientEnded) {
                    client.daemon.terminate();
                } else {
                    client.daemon.kill();
                }
                client.daemon.ended(SOON).await;
                idle(random.millis(0, 1_500)).await;
                *client = world.new_client(place);
                // Where its proxy is there, it is registered soon.
                idle(Duration::from_millis(500)).await;
            }
        }
    }

    async fn restart(self, world: &World) {
        let mut proxy = world.proxy(MORTAL).lock().await;
        if matches!(self, Self::ProxyEnded) {
            proxy.daemon.terminate();
        } else {
            proxy.daemon.kill();
        }
        proxy.daemon.ended(SOON).await;
        *proxy = Proxy::start_at(&proxy.address.to_string(), &[]).await;
    }
}

/// Has 100 strangers say something to a proxy, stay for a while, and go. What they are told is the
/// business of other tests; here nobody else may notice.
async fn strangers(place: Place, said: &str, random: &mut Random, world: &World) {
    let mut strangers = Vec::new();
    for _ in 0..100 {
        // The proxy may be away just now.
        if let Ok(mut stranger) = Connection::open(world.address(place.proxy)).await
            && stranger.send(said.as_bytes()).await.is_ok()
        {
            strangers.push(stranger);
        }
    }
    idle(random.millis(100, 3_000)).await;
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: proxy\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The proxy that may be ended.
const MORTAL: usize = 1;

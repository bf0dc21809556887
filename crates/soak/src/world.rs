//! What runs: two proxies with clients of their own and one target for all, and which of them are
//! being disturbed.
//!
//! One proxy is steady: it may stand still for a while, but lives from the first scrape to the last,
//! so that what it leaves behind adds up. The other is mortal.

use std::net::SocketAddr;

use parking_lot::Mutex;
use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::rest::Rest;
use pushprox_testkit::target::{Target, ok};
use pushprox_testkit::wait::{SOON, free_port, idle};
use pushprox_testkit::wire::{Connection, Message};
use std::time::Duration;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

/// Where a scrape goes: to which proxy, and to which of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) proxy: usize,
    pub(crate) client: usize,
}

#[derive(Debug)]
pub(crate) struct World {
    proxies: [Turn<Proxy>; 2],
    addresses: [SocketAddr; 2],
    clients: Vec<(Place, Turn<Client>)>,
    target: Target,
    disturbed: Mutex<Vec<Disturbance>>,
    /// The steady proxy before anybody had come.
    rest: Rest,
}

/// A time in which a part cannot be relied upon.
#[derive(Debug, Clone, Copy)]
struct Disturbance {
    what: What,
    begun: Instant,
    /// None while it lasts.
    over: Option<Instant>,
}

/// What can be disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Proxy(usize),
    Client(Place),
}

impl World {
    pub(crate) async fn start() -> Self {
        let target = Target::start(answer).await;
        let addresses = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let [steady, mortal] = addresses;
        let steady = Proxy::start_at(&steady.to_string(), &[]).await;
        let rest = Rest::of(&steady.daemon);
        let proxies = [
            Turn::new(steady),
            Turn::new(Proxy::start_at(&mortal.to_string(), &[]).await),
        ];
        let mut clients = Vec::new();
        for proxy in 0..proxies.len() {
            for client in 0..CLIENTS {
                clients.push(Place { proxy, client });
            }
        }
        let world = Self {
            proxies,
            addresses,
            clients: Vec::new(),
            target,
            disturbed: Mutex::default(),
            rest,
        };
        let clients: Vec<_> = clients
            .into_iter()
            .map(|place| (place, Turn::new(world.new_client(place))))
            .collect();
        for (place, _) in &clients {
            let proxy = world.proxy(place.proxy).lock().await;
            proxy.registered(&name(*place)).await;
        }
        Self { clients, ..world }
    }

    /// Where there is something to scrape.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.clients.iter().map(|(place, _)| *place).collect()
    }

    pub(crate) fn address(&self, proxy: usize) -> SocketAddr {
        *self.addresses.get(proxy).expect("one of the two")
    }

    /// A proxy, to do something to it that others must not do at the same time.
    pub(crate) fn proxy(&self, proxy: usize) -> &Turn<Proxy> {
        self.proxies.get(proxy).expect("one of the two")
    }

    /// A client, likewise.
    pub(crate) fn client(&self, place: Place) -> &Turn<Client> {
        let found = self.clients.iter().find(|(found, _)| *found == place);
        &found.expect("a client of every place").1
    }

    pub(crate) fn new_client(&self, place: Place) -> Client {
        let proxy = format!("http://{}/", self.address(place.proxy));
        Client::start(&proxy, &self.target.url("/"), &name(place), &[])
    }

    /// Says that a part cannot be relied upon, from now until `during` is over and what depends on
    /// it has had time to recover.
    pub(crate) async fn disturb<T>(&self, what: What, during: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let disturbance = Disturbance {
            what,
            begun,
            over: None,
        };
        self.disturbed.lock().push(disturbance);
        let done = during.await;
        let recovery = match what {
            // Clients try again every 5 s at the latest.
            What::Proxy(_) => Duration::from_secs(7),
            What::Client(_) => Duration::from_secs(2),
        };
        let over = Some(Instant::now() + recovery);
        for known in &mut *self.disturbed.lock() {
            if known.what == what && known.begun == begun {
                known.over = over;
            }
        }
        done
    }

    /// Whether something that a scrape of `place` needs was disturbed at a time since `start`.
    pub(crate) fn was_disturbed(&self, place: Place, start: Instant) -> bool {
        let mut disturbed = self.disturbed.lock();
        // Nothing that is still open began before that.
        let old = Instant::now().checked_sub(Duration::from_secs(120));
        disturbed.retain(|known| old.is_none_or(|old| known.over.is_none_or(|over| over > old)));
        disturbed.iter().any(|known| {
            let is_needed =
                known.what == What::Proxy(place.proxy) || known.what == What::Client(place);
            is_needed && known.over.is_none_or(|over| over > start)
        })
    }

    /// The memory of the steady proxy now, in KiB.
    pub(crate) async fn steady_memory(&self) -> u64 {
        self.proxy(0).lock().await.daemon.own_memory()
    }

    /// Has everybody leave, and compares what the steady proxy has then with what it had when new.
    pub(crate) async fn everybody_leaves(&self) -> (usize, u64) {
        for (_, client) in &self.clients {
            let mut client = client.lock().await;
            client.daemon.kill();
            client.daemon.ended(SOON).await;
        }
        let steady = self.proxy(0).lock().await;
        self.rest.descriptors_return(&steady.daemon, SOON).await;
        idle(Duration::from_millis(200)).await;
        (steady.daemon.descriptors(), steady.daemon.own_memory())
    }
}

/// The name under which a client is registered.
pub(crate) fn name(place: Place) -> String {
    format!("client{}.proxy{}.test", place.client, place.proxy)
}

/// The body of a good answer to the scrape with this nonce.
pub(crate) fn body(nonce: &str, how: &str) -> String {
    match how {
        "large" => format!("{nonce}\n{}\n{nonce}\n", "x".repeat(200_000)),
        _ => format!("{nonce}\n"),
    }
}

/// Answers as the query says: `NONCE&HOW`.
async fn answer(request: Message, mut connection: Connection) -> Option<Connection> {
    let (_, query) = request.uri().split_once('?')?;
    let (nonce, how) = query.split_once('&')?;
    let body = body(nonce, how);
    let sent = match how {
        "chunked" => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let length = body.len();
            let chunked = format!("{head}{length:x}\r\n{body}\r\n0\r\n\r\n");
            connection.send(chunked.as_bytes()).await
        }
        "error" => {
            let error = "HTTP/1.1 500 out of order\r\nContent-Length: 0\r\n\r\n";
            connection.send(error.as_bytes()).await
        }
        "silence" => {
            idle(Duration::from_secs(5)).await;
            return None;
        }
        "half" => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                body.len() * 2
            );
            let sent = connection.send(format!("{head}{body}").as_bytes()).await;
            idle(Duration::from_millis(100)).await;
            sent.ok()?;
            return None;
        }
        "slow" => {
            idle(Duration::from_millis(300)).await;
            connection.send(&ok(&body)).await
        }
        _ => connection.send(&ok(&body)).await,
    };
    sent.ok()?;
    Some(connection)
}

/// Of each proxy.
const CLIENTS: usize = 6;

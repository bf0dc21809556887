//! A scrape as it can be held: curl asks for it, and nginx is the target, which passes on what a
//! test lets it have. So each of the four parts is a process that can be frozen and killed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pushprox_testkit::nginx::Nginx;
use pushprox_testkit::process::{Daemon, command};
use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::rest::Rest;
use pushprox_testkit::target::{Target, ok};
use pushprox_testkit::wait::{SOON, free_port, idle, until};
use pushprox_testkit::wire::{Connection, Message};
use tokio::sync::watch;

/// How far a scrape has come when something happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has not begun: a poll is parked for it.
    Parked,
    /// The proxy has written the instruction, and the client has not read it.
    HandedOut,
    /// The target has been asked and says nothing yet.
    Pulling,
    /// The head of the answer has come through, and nothing of its body.
    HeadSent,
    /// Half of the body has come through.
    HalfSent,
    /// The answer is longer than all buffers on its way, and its reader has stopped.
    HalfRead,
}

/// A part of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Proxy,
    Client,
    Target,
    Scraper,
}

/// How a scrape ended for its scraper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer that is whole.
    Answered(u16, String),
    /// By the end of the connection, before the answer was whole.
    CutOff,
    /// There is nothing to connect to.
    Refused,
    /// The scraper had enough.
    Silent,
    /// The scraper is dead.
    Dead,
}

/// A proxy, its client and its target.
pub(super) struct Chain {
    pub(super) proxy: Proxy,
    pub(super) client: Client,
    pub(super) target: Nginx,
    /// What the target passes on.
    origin: Target,
    /// How many bytes the origin got rid of.
    sent: Arc<AtomicUsize>,
    released: watch::Sender<u32>,
    scrapes: u32,
}

/// A scrape on its way.
pub(super) struct Scrape {
    pub(super) curl: Daemon,
    number: u32,
}

impl Chain {
    pub(super) async fn start() -> Self {
        let (released, release) = watch::channel(0);
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let origin = Target::start(move |request, connection| {
            answer(request, connection, release.clone(), Arc::clone(&counter))
        })
        .await;
        let upstream = origin.address();
        let target = Nginx::with(|address| {
            format!(
                "server {{\nlisten {address};\nlocation / {{\nproxy_pass http://{upstream};\n\
                 proxy_http_version 1.1;\nproxy_buffering off;\nproxy_read_timeout 1h;\n}}\n}}\n"
            )
        })
        .await;
        let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let proxy = Proxy::start_at(&address.to_string(), &[]).await;
        let client = client(&proxy, &target);
        proxy.registered(NAME).await;
        Self {
            proxy,
            client,
            target,
            origin,
            sent,
            released,
            scrapes: 0,
        }
    }

    /// Begins a scrape, to be given up by its scraper after `patience`.
    pub(super) fn scrape(&mut self, phase: Phase, patience: Duration) -> Scrape {
        self.scrapes += 1;
        let number = self.scrapes;
        let mut curl = command("curl");
        // Only what it says of itself comes at once, heads among it.
        curl.args(["-sS", "--no-buffer", "--verbose", "--http1.1"]);
        curl.args(["-H", "Connection: close", "-x", &self.proxy.url()]);
        let time = TIME.as_secs();
        curl.arg("-H")
            .arg(format!("X-Prometheus-Scrape-Timeout-Seconds: {time}"));
        curl.arg("--max-time").arg(patience.as_secs().to_string());
        if phase == Phase::HalfRead {
            // It must not be through before it can be stopped.
            curl.args(["--limit-rate", "5M", "--output", "/dev/null"]);
        }
        curl.arg(format!("http://{NAME}/?{number}={phase:?}"));
        Scrape {
            curl: Daemon::start("curl", curl),
            number,
        }
    }

    /// Waits until a scrape has come as far.
    pub(super) async fn reached(&self, phase: Phase, scrape: &mut Scrape) {
        match phase {
            Phase::Parked | Phase::HandedOut => {}
            Phase::Pulling => {
                let asked = format!("{}=", scrape.number);
                until("the scrape at the target", SOON, async || {
                    let requests = self.origin.requests();
                    let found = requests
                        .iter()
                        .any(|request| request.uri().contains(&asked));
                    found.then_some(())
                })
                .await;
            }
            Phase::HeadSent => {
                scrape.curl.line(&["HTTP/1.1 200"]).await;
            }
            Phase::HalfSent => {
                scrape.curl.line(&["the first half"]).await;
            }
            Phase::HalfRead => {
                scrape.curl.line(&["HTTP/1.1 200"]).await;
                scrape.curl.freeze();
                let mut before = usize::MAX;
                until("the target at a standstill", SOON, async || {
                    let now = self.sent.load(Ordering::SeqCst);
                    idle(Duration::from_millis(300)).await;
                    (now == std::mem::replace(&mut before, now)).then_some(())
                })
                .await;
            }
        }
        assert!(scrape.curl.runs(), "{phase:?} is over already");
    }

    /// Lets the target say what it has held back of a scrape.
    pub(super) fn release(&self, scrape: &Scrape) {
        self.released.send_replace(scrape.number);
    }

    /// A part's process; a scraper has one only while it scrapes.
    pub(super) fn part<'a>(
        &'a mut self,
        part: Part,
        scrape: Option<&'a mut Scrape>,
    ) -> &'a mut Daemon {
        match part {
            Part::Proxy => &mut self.proxy.daemon,
            Part::Client => &mut self.client.daemon,
            Part::Target => &mut self.target.daemon,
            Part::Scraper => &mut scrape.expect("a scrape").curl,
        }
    }

    /// Has the client end, so that nobody is connected, and starts another.
    pub(super) async fn rest(&mut self) -> Rest {
        self.client.daemon.kill();
        self.client.daemon.ended(SOON).await;
        self.proxy.holds(0, SOON).await;
        let rest = Rest::of(&self.proxy.daemon);
        self.replace(Part::Client).await;
        self.heals().await;
        rest
    }

    /// Puts a new one into the place of a part that was killed.
    pub(super) async fn replace(&mut self, part: Part) {
        match part {
            Part::Proxy => {
                let address = self.proxy.address.to_string();
                self.proxy = Proxy::start_at(&address, &[]).await;
            }
            Part::Client => self.client = client(&self.proxy, &self.target),
            Part::Target => self.target.start_again().await,
            Part::Scraper => {}
        }
    }

    /// Waits until a scrape is answered as it should be.
    pub(super) async fn heals(&self) {
        until("a good scrape", SOON, async || {
            let url = format!("http://{NAME}/?0={:?}", Phase::Parked);
            let answer = self.proxy.scrape(&url, 20.0).await;
            (answer.status() == 200 && answer.text() == WHOLE).then_some(())
        })
        .await;
    }

    /// How many instructions the proxy has written.
    pub(super) async fn handed_out(&self) -> f64 {
        let metric = "pushprox_http_requests_total{code=\"200\",path=\"/poll\"}";
        self.proxy.metric(metric).await.unwrap_or_default()
    }
}

impl Scrape {
    /// Waits for the end.
    pub(super) async fn ended(&mut self) -> Ended {
        let status = self.curl.ended(PATIENCE + SOON).await;
        let Some(code) = status.code() else {
            return Ended::Dead;
        };
        match code {
            0 => {
                let log = self.curl.lines_with(&["< HTTP/"]);
                let line = log.first().map_or("", |line| line.trim_start_matches("< "));
                let mut words = line.splitn(3, ' ').skip(1);
                let status = words.next().and_then(|word| word.parse().ok());
                let reason = words.next().unwrap_or_default().trim().to_owned();
                Ended::Answered(status.unwrap_or_default(), reason)
            }
            7 => Ended::Refused,
            28 => Ended::Silent,
            // A body that is short, nothing at all, a failure to receive.
            18 | 52 | 56 => Ended::CutOff,
            _ => panic!("curl ended with {code}: {:?}", self.curl.log()),
        }
    }
}

fn client(proxy: &Proxy, target: &Nginx) -> Client {
    let url = format!("http://{}/", target.address);
    Client::start(&proxy.url(), &url, NAME, &[])
}

/// Answers as the query of the scrape has it, and holds back what is to be released.
async fn answer(
    request: Message,
    mut connection: Connection,
    mut release: watch::Receiver<u32>,
    sent: Arc<AtomicUsize>,
) -> Option<Connection> {
    let (_, query) = request.uri().split_once('?')?;
    let (number, phase) = query.split_once('=')?;
    let number: u32 = number.parse().ok()?;
    let mut released = async || {
        release
            .wait_for(|&released| released >= number)
            .await
            .map(drop)
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", WHOLE.len());
    match phase {
        "Pulling" => {
            released().await.ok()?;
            connection.send(&ok(WHOLE)).await.ok()?;
        }
        "HeadSent" => {
            connection.send(head.as_bytes()).await.ok()?;
            released().await.ok()?;
            connection.send(WHOLE.as_bytes()).await.ok()?;
        }
        "HalfSent" => {
            connection.send(head.as_bytes()).await.ok()?;
            connection.send(FIRST.as_bytes()).await.ok()?;
            released().await.ok()?;
            connection
                .send(&WHOLE.as_bytes()[FIRST.len()..])
                .await
                .ok()?;
        }
        "HalfRead" => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                PIECES * PIECE
            );
            connection.send(head.as_bytes()).await.ok()?;
            for _ in 0..PIECES {
                connection.send(&[b'x'; PIECE]).await.ok()?;
                sent.fetch_add(PIECE, Ordering::SeqCst);
            }
        }
        _ => connection.send(&ok(WHOLE)).await.ok()?,
    }
    Some(connection)
}

/// What a scrape has, as Prometheus sends it: for a machine that stands still for a while, too.
pub(super) const TIME: Duration = Duration::from_secs(8);

/// How long a scraper waits that has to be told by another how its scrape has ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);

const NAME: &str = "phase.test";

const FIRST: &str = "the first half\n";
const WHOLE: &str = "the first half\nthe second half\n";

const PIECE: usize = 64 * 1024;
const PIECES: usize = 1_000;

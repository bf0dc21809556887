//! Connections from the listener to their first request: handshakes, and what is done when there are
//! too many.
//!
//! A newcomer has `--limit.head-timeout` to say what it wants. With its first request it takes a
//! place, of which there are as many as `--limit.connections` and the limit on open files allow.
//! Where there is none, it is told so, and gets nothing but the proxy's own pages, which probes and
//! operators need most at that time. Who has to go when there are too many newcomers is `crowd`'s to
//! say; accepting waits for nobody.

use std::sync::Arc;

use http::StatusCode;
use pushprox_daemon::web::{Accepted, HandshakeError};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::debug;

use crate::access::{Door, Peer};
use crate::crowd::{Newcomer, Settled};
use crate::http1::answer::Answer;
use crate::http1::request::{Kind, Request};
use crate::http1::socket::Socket;
use crate::limits::Limit;
use crate::parting::part;
use crate::{Proxy, connection, exchange};

/// Accepts connections until the proxy closes.
pub(crate) async fn accept(mut door: Door, proxy: Arc<Proxy>) {
    let (crowd, closing) = (&proxy.crowd, &proxy.closing);
    loop {
        let leave = || crowd.turn_out_oldest() || proxy.idle.end_longest();
        let accepted = door.listener.accept_in_place_of(leave);
        let (stream, address) = tokio::select! {
            () = closing.cancelled() => return,
            accepted = accepted => accepted,
        };
        crowd.make_room().await;
        let peer = Peer {
            ip: address.ip(),
            certificate: None,
            roles: door.roles,
        };
        // In a box, so that nothing of it is left while a poll is parked.
        let heard = Box::pin(hear(stream, peer, crowd.join(), proxy.clone()));
        crowd.connections.spawn(connection::serve(heard));
    }
}

/// Waits for a newcomer's first request. The connection comes back, with the request in front of it,
/// where it has found a place.
async fn hear(
    stream: TcpStream,
    peer: Peer,
    mut newcomer: Newcomer,
    proxy: Arc<Proxy>,
) -> Option<(Socket, Peer, Arc<Proxy>)> {
    let until = Instant::now() + proxy.limits.head_timeout;
    let shaken = tokio::select! {
        biased;
        shaken = shake_hands(stream, peer, until, newcomer.spoken(), &proxy) => shaken,
        () = newcomer.is_turned_out() => {
            // What is no TLS would be noise.
            proxy.hits.count(Some(Limit::Connections));
            None
        }
    };
    let (mut socket, peer) = shaken?;
    let heard = tokio::select! {
        biased;
        heard = connection::first_request(&mut socket, until, &proxy) => heard,
        () = newcomer.is_turned_out() => {
            proxy.hits.count(Some(Limit::Connections));
            socket.say(&no_room());
            return None;
        }
    };
    if let Ok(Some(request)) = &heard
        && find_place(&newcomer, request, &proxy).await
    {
        return Some((socket, peer, proxy));
    }
    newcomer.spoken()();
    let telling = async {
        match heard {
            Ok(Some(request)) => serve_without_room(socket, request, &peer, &proxy).await,
            Ok(None) => {}
            Err(bad) => connection::refuse(socket, bad, &proxy).await,
        }
    };
    tokio::select! {
        biased;
        () = telling => {}
        () = newcomer.is_turned_out() => {}
    }
    None
}

/// Whether there is a place for a connection with such a request. One that has been idle for long
/// leaves its own to a leg of a scrape; the proxy's own pages need none.
async fn find_place(newcomer: &Newcomer, request: &Request, proxy: &Proxy) -> bool {
    loop {
        match newcomer.settle() {
            Settled::Yes => return true,
            // Nobody is to leave for one that has to leave itself.
            Settled::TurnedOut => return false,
            Settled::NoPlace => {}
        }
        if request.kind == Kind::Other || !proxy.idle.end_longest() {
            return false;
        }
        proxy.hits.count(Some(Limit::Connections));
        // It is gone once its task has had its turn.
        yield_now().await;
    }
}

/// Serves a connection for which there is no place: the proxy's own pages once, and nothing else.
async fn serve_without_room(
    mut socket: Socket,
    mut request: Request,
    peer: &Peer,
    proxy: &Arc<Proxy>,
) {
    proxy.hits.count(Some(Limit::Connections));
    if request.kind == Kind::Other {
        request.keep_alive = false;
        exchange::serve(socket, request, peer, proxy).await;
    } else if socket.write(&no_room(), &proxy.patience).await.is_ok() {
        part(socket, proxy).await;
    }
}

/// What is answered where there is no room.
fn no_room() -> bytes::BytesMut {
    let text = format!("too many connections ({})", Limit::Connections);
    // The reason is all that Prometheus shows.
    Answer::with_reason(StatusCode::SERVICE_UNAVAILABLE, text.as_bytes(), false)
        .text(format!("{text}\n").as_bytes())
}

async fn shake_hands(
    stream: TcpStream,
    mut peer: Peer,
    until: Instant,
    greeted: impl FnOnce() + Send,
    proxy: &Proxy,
) -> Option<(Socket, Peer)> {
    let shaken = tokio::select! {
        shaken = proxy.access.web.accept(stream, until, greeted) => shaken,
        () = proxy.closing.cancelled() => return None,
    };
    match shaken {
        Ok(Accepted::Plain(stream)) => Some((Socket::new(stream), peer)),
        Ok(Accepted::Tls(stream, certificate)) => {
            peer.certificate = certificate.map(Arc::new);
            Some((Socket::new(*stream), peer))
        }
        Err(error) => {
            if matches!(error, HandshakeError::TimedOut) {
                proxy.hits.count(Some(Limit::HeadTimeout));
            }
            debug!(%error, peer = %peer.ip, "a TLS handshake failed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use pushprox_testkit::tls::Authority;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::sleep;
    use tokio_rustls::rustls;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::Config;
    use crate::access::{Access, Roles};

    /// A connection at both its ends.
    async fn connect() -> (TcpStream, TcpStream, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stranger = TcpStream::connect(address).await.unwrap();
        let (stream, from) = listener.accept().await.unwrap();
        let peer = Peer {
            ip: from.ip(),
            certificate: None,
            roles: Roles::ALL,
        };
        (stranger, stream, peer)
    }

    fn with_tls() -> Access {
        let folder = tempfile::tempdir().unwrap();
        let pair = Authority::new("CA").issue(folder.path(), "proxy", &["127.0.0.1"]);
        let file = folder.path().join("web.yml");
        let (cert, key) = (pair.cert.display(), pair.key.display());
        let text = format!("tls_server_config:\n  cert_file: {cert}\n  key_file: {key}\n");
        std::fs::write(&file, text).unwrap();
        Access::load(Some(file), None).unwrap()
    }

    /// Hears a newcomer to its end, and says for how long that was. What it was told comes back.
    async fn heard(access: Access, said: &'static [u8]) -> (Duration, String, u64) {
        let proxy = Proxy::new(&Config::default(), access, CancellationToken::new());
        let proxy = Arc::new(proxy);
        let (mut stranger, stream, peer) = connect().await;
        let speaking = async move {
            // Whatever comes late prolongs nothing.
            sleep(Duration::from_secs(7)).await;
            stranger.write_all(said).await.unwrap();
            let mut told = String::new();
            stranger.read_to_string(&mut told).await.unwrap();
            told
        };
        let before = Instant::now();
        let hearing = async {
            let end = hear(stream, peer, proxy.crowd.join(), proxy.clone()).await;
            assert!(end.is_none());
            before.elapsed()
        };
        let (lasted, told) = tokio::select! {
            both = async { tokio::join!(hearing, speaking) } => both,
            () = proxy.idle.sweep() => unreachable!("it goes on for ever"),
        };
        (lasted, told, proxy.hits.counter(Limit::HeadTimeout).get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_has_the_time_of_a_head_from_the_start() {
        let silent = heard(Access::open(), b"").await;
        assert_eq!(silent, (Duration::from_secs(10), String::new(), 1));
        let (lasted, told, hits) = heard(Access::open(), b"GET /").await;
        assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
        assert_eq!((lasted.as_secs(), hits), (10, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_handshake_is_a_part_of_that_time() {
        for said in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
            let half = heard(with_tls(), said).await;
            assert_eq!(
                half,
                (Duration::from_secs(10), String::new(), 1),
                "{said:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_is_not_interrupted_by_those_that_say_nothing() {
        let proxy = Proxy::new(&Config::default(), with_tls(), CancellationToken::new());
        let proxy = Arc::new(proxy);
        let (mut stranger, stream, peer) = connect().await;
        let before = Instant::now();
        let hearing = hear(stream, peer, proxy.crowd.join(), proxy.clone());
        let shaking = async {
            stranger.write_all(&first_word()).await.unwrap();
            stranger.read_exact(&mut [0]).await.unwrap();
            let silent: Vec<_> = (0..30).map(|_| proxy.crowd.join()).collect();
            for _ in 0..29 {
                assert!(proxy.crowd.turn_out_oldest());
            }
            sleep(Duration::from_secs(60)).await;
            drop(silent);
        };
        let heard = tokio::select! {
            heard = hearing => heard,
            () = shaking => unreachable!("its time is over before that"),
        };
        assert!(heard.is_none());
        assert_eq!(before.elapsed(), Duration::from_secs(10));
    }

    /// What a client of TLS says first.
    fn first_word() -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = "proxy".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_been_idle_for_long_leaves_its_place_to_a_poll() {
        let mut config = Config::default();
        config.limits.connections = 2;
        let proxy = Proxy::new(&config, Access::open(), CancellationToken::new());
        let proxy = Arc::new(proxy);
        let arrive = async |said: &str| {
            let (mut stranger, stream, peer) = connect().await;
            let heard = Box::pin(hear(stream, peer, proxy.crowd.join(), proxy.clone()));
            let serving = connection::serve(heard);
            proxy.crowd.connections.spawn(serving);
            stranger.write_all(said.as_bytes()).await.unwrap();
            let mut told = [0; 12];
            stranger.read_exact(&mut told).await.unwrap();
            (stranger, String::from_utf8_lossy(&told).into_owned())
        };
        let page = "GET /-/healthy HTTP/1.1\r\nHost: proxy\r\n\r\n";
        // A poll that is answered without having been parked.
        let poll = "POST /poll HTTP/1.1\r\nHost: proxy\r\nContent-Length: 1\r\n\r\n!";
        let (mut first, _) = arrive(page).await;
        sleep(Duration::from_secs(4)).await;
        let (second, _) = arrive(page).await;
        assert_eq!(arrive(poll).await.1, "HTTP/1.1 503");
        sleep(Duration::from_secs(7)).await;
        // A probe displaces nobody.
        assert_eq!(arrive(page).await.1, "HTTP/1.1 200");
        let (_third, told) = arrive(poll).await;
        assert_eq!(told, "HTTP/1.1 400");
        first.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(arrive(poll).await.1, "HTTP/1.1 503");
        let end = loop {
            match second.try_read(&mut [0; 512]) {
                Ok(0) => panic!("it was idle for a shorter time"),
                Ok(_) => {}
                Err(end) => break end,
            }
        };
        assert_eq!(end.kind(), std::io::ErrorKind::WouldBlock);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_leaves_a_place_to_one_that_has_to_leave_itself() {
        let proxy = Proxy::new(&Config::default(), Access::open(), CancellationToken::new());
        let proxy = Arc::new(proxy);
        let tasks = tokio_util::task::TaskTracker::new();
        let idle = tasks.spawn({
            let proxy = proxy.clone();
            async move { proxy.idle.stay(pending::<()>()).await }
        });
        sleep(Duration::from_secs(60)).await;
        let newcomer = proxy.crowd.join();
        assert!(proxy.crowd.turn_out_oldest());
        let poll = b"POST /poll HTTP/1.1\r\nContent-Length: 1\r\n\r\n";
        let poll = Request::parse(poll, &proxy.limits).unwrap().unwrap();
        assert!(!find_place(&newcomer, &poll, &proxy).await);
        sleep(Duration::from_secs(60)).await;
        assert!(!idle.is_finished());
    }
}

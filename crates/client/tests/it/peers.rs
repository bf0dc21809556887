//! A server that does exactly what a test tells it, as proxy and as target.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use pushprox_protocol::message::body::{BodyDecoder, Framing, Piece};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::support::soon;

/// A server that hands each request to the test, and answers with the bytes that the test gives.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Request>,
    connections: Arc<AtomicUsize>,
    _tasks: Tasks,
}

/// Ends a peer's tasks with it.
struct Tasks(tokio_util::sync::CancellationToken);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// One request, as far as it came.
#[derive(Debug)]
pub(crate) struct Request {
    /// The head as it was sent, with the blank line.
    pub(crate) head: String,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
    /// Whether the body came to its end.
    pub(crate) is_whole: bool,
    reply: oneshot::Sender<Reply>,
    gone: oneshot::Receiver<()>,
}

#[derive(Debug)]
enum Reply {
    More(Vec<u8>),
    Last(Vec<u8>),
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The first line of a pushed answer.
    pub(crate) fn status_line(&self) -> &str {
        let end = self.body.windows(2).position(|two| two == b"\r\n").unwrap();
        std::str::from_utf8(&self.body[..end]).unwrap()
    }

    /// Sends these bytes. Dropping a request instead closes its connection.
    pub(crate) fn reply(self, bytes: impl Into<Vec<u8>>) {
        // A client that has given it up meanwhile hears nothing.
        self.reply.send(Reply::More(bytes.into())).ok();
    }

    /// Sends these bytes and ends the connection.
    pub(crate) fn reply_and_close(self, bytes: impl Into<Vec<u8>>) {
        self.reply.send(Reply::Last(bytes.into())).unwrap();
    }

    /// Sends an answer with a length.
    pub(crate) fn answer(self, status: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        self.reply(bytes);
    }

    /// Waits until the client has given the request up.
    pub(crate) async fn gone(self) {
        soon(self.gone).await.unwrap();
    }
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, |stream| async { Some(stream) })
    }

    /// A peer whose connections go through `wrap` first.
    pub(crate) fn serve<S, W, F>(listener: TcpListener, wrap: W) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        W: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = Option<S>> + Send,
    {
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let stop = tokio_util::sync::CancellationToken::new();
        let tasks = TaskTracker::new();
        let spawning = tasks.clone();
        let stopped = stop.clone();
        let wrap = Arc::new(wrap);
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                let (sender, wrap) = (sender.clone(), Arc::clone(&wrap));
                spawning.spawn(stopped.clone().run_until_cancelled_owned(async move {
                    if let Some(stream) = wrap(stream).await {
                        serve_connection(stream, &sender).await;
                    }
                }));
            }
        }));
        Self {
            address,
            requests,
            connections,
            _tasks: Tasks(stop),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections since the start.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) async fn next(&mut self) -> Request {
        soon(self.requests.recv()).await.unwrap()
    }

    /// Whether a request has come that was not taken yet.
    pub(crate) fn try_next(&mut self) -> Option<Request> {
        self.requests.try_recv().ok()
    }
}

/// A proxy that is played by the test.
pub(crate) struct Proxy {
    pub(crate) peer: Peer,
    polls: VecDeque<Request>,
    pushes: VecDeque<Request>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        Self::over(Peer::start().await)
    }

    pub(crate) fn over(peer: Peer) -> Self {
        Self {
            peer,
            polls: VecDeque::new(),
            pushes: VecDeque::new(),
        }
    }

    pub(crate) fn url(&self) -> String {
        self.peer.url("/")
    }

    pub(crate) async fn poll(&mut self) -> Request {
        loop {
            if let Some(poll) = self.polls.pop_front() {
                return poll;
            }
            self.sort().await;
        }
    }

    pub(crate) async fn push(&mut self) -> Request {
        loop {
            if let Some(push) = self.pushes.pop_front() {
                return push;
            }
            self.sort().await;
        }
    }

    /// Answers the next poll with a scrape.
    pub(crate) async fn hand_out(&mut self, scrape: &str) {
        self.poll().await.answer("200 OK", scrape);
    }

    async fn sort(&mut self) {
        let request = self.peer.next().await;
        match request.head.split(' ').nth(1).unwrap() {
            path if path.ends_with("/poll") => self.polls.push_back(request),
            path if path.ends_with("/push") => self.pushes.push_back(request),
            path => panic!("nobody asks for {path}"),
        }
    }
}

async fn serve_connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    sender: &mpsc::UnboundedSender<Request>,
) {
    let mut input = Vec::new();
    loop {
        let Some(head) = read_head(&mut stream, &mut input).await else {
            return;
        };
        let (body, is_whole) = read_body(&mut stream, &mut input, &head).await;
        let (reply, answer) = oneshot::channel();
        let (leave, gone) = oneshot::channel();
        let request = Request {
            head,
            body,
            is_whole,
            reply,
            gone,
        };
        sender.send(request).ok();
        let mut byte = [0];
        tokio::select! {
            answer = answer => {
                let (bytes, is_last) = match answer {
                    Ok(Reply::More(bytes)) => (bytes, false),
                    Ok(Reply::Last(bytes)) => (bytes, true),
                    Err(_) => return,
                };
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() || is_last {
                    return;
                }
            }
            read = stream.read(&mut byte) => {
                assert!(matches!(read, Ok(0) | Err(_)), "a request came before the answer");
                leave.send(()).ok();
                return;
            }
        }
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = input.split_off(at + 4);
            let head = std::mem::replace(input, rest);
            return Some(String::from_utf8(head).unwrap());
        }
        if stream.read_buf(input).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut Vec<u8>,
    head: &str,
) -> (Vec<u8>, bool) {
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map(|value| value.trim().parse().unwrap());
    let framing = match length {
        Some(length) => Framing::Length(length),
        None if lower.contains("transfer-encoding: chunked") => Framing::Chunked,
        None => Framing::Length(0),
    };
    let mut decoder = BodyDecoder::new(framing);
    let mut body = Vec::new();
    loop {
        let mut bytes = Bytes::from(std::mem::take(input));
        loop {
            match decoder.decode(&mut bytes).unwrap() {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::NeedMore => break,
                Piece::End => {
                    input.extend_from_slice(&bytes);
                    return (body, true);
                }
            }
        }
        if stream.read_buf(input).await.unwrap_or(0) == 0 {
            return (body, false);
        }
    }
}

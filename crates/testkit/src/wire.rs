//! HTTP/1.1 by hand: bytes go out as they are written, and answers are read by their framing, so
//! that a test sees an answer that breaks off, one that is followed by another, or a reason phrase,
//! as no HTTP library shows them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, tcp};
use tokio::time::{Instant, timeout};

mod pieces;

pub use pieces::Pieces;

/// A request or an answer, as far as it came.
#[derive(Clone, Debug)]
pub struct Message {
    /// The start line and the headers, without the blank line.
    pub head: String,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// Whether the body came to its end as its framing has it. One without a framing ends with the
    /// connection.
    pub whole: bool,
}

/// A connection and what came in on it without being asked for yet.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    limit: Duration,
}

/// Sends a request that ends with its connection, and reads the one answer.
///
/// # Errors
/// When the connection fails before the head of an answer is there.
///
/// # Panics
/// When more comes after the answer, or nothing within a minute.
pub async fn ask(address: SocketAddr, request: &[u8]) -> io::Result<Message> {
    let mut connection = Connection::open(address).await?;
    connection.send(request).await?;
    let answer = connection.receive().await?;
    if answer.whole {
        let rest = connection.rest().await;
        assert!(rest.is_empty(), "{answer:?} is followed by {rest:?}");
    }
    Ok(answer)
}

/// Sends a request that may be refused before all of it has come, and reads the answer, which must be
/// there for a peer that goes on sending.
///
/// A peer that has stood still for longer than that is waited for may find a reset instead, and asks
/// again.
///
/// # Panics
/// When there is no answer.
pub async fn told_early(address: SocketAddr, request: &[u8]) -> Message {
    loop {
        let before = Instant::now();
        let connection = Connection::open(address).await.unwrap();
        match connection.send_and_receive(request).await {
            Ok(answer) => return answer,
            Err(error) => {
                let start = String::from_utf8_lossy(&request[..request.len().min(80)]);
                assert!(
                    before.elapsed() > WAITED_FOR,
                    "no answer to {start:?}: {error}"
                );
            }
        }
    }
}

/// Asks for a path of the server itself.
///
/// # Panics
/// When there is no answer.
pub async fn get(address: SocketAddr, path: &str) -> Message {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    ask(address, request.as_bytes())
        .await
        .unwrap_or_else(|error| panic!("GET {path} at {address}: {error}"))
}

/// The request with which Prometheus scrapes `url` through a proxy, its connection closed after it.
/// Headers may be added, each with its line end.
pub fn scrape_request(url: &str, seconds: f64, headers: &str) -> Vec<u8> {
    let authority = url.split('/').nth(2).unwrap_or_default();
    format!(
        "GET {url} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: Prometheus/2.42.0+ds\r\nConnection: close\r\n\
         X-Prometheus-Scrape-Timeout-Seconds: {seconds}\r\n{headers}\r\n"
    )
    .into_bytes()
}

impl Message {
    /// The status code of an answer, 0 if the start line has none.
    pub fn status(&self) -> u16 {
        self.start()
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0)
    }

    /// The reason phrase of an answer.
    pub fn reason(&self) -> &str {
        self.start().nth(2).unwrap_or("")
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start().next().unwrap_or("")
    }

    /// What a request asks for, as it was written.
    pub fn uri(&self) -> &str {
        self.start().nth(1).unwrap_or("")
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn start(&self) -> impl Iterator<Item = &str> {
        self.head.lines().next().unwrap_or("").splitn(3, ' ')
    }
}

impl Connection {
    /// Connects to `address`.
    ///
    /// # Errors
    /// As the system has it, refused among others.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(TcpStream::connect(address).await?))
    }

    /// Speaks over a connection that there is already.
    pub fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            limit: Duration::from_secs(60),
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the peer has gone, or takes nothing for a minute.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(self.limit, self.stream.write_all(bytes)).await?
    }

    /// Sends bytes to a peer that may answer and close before it has read them all; what it said is
    /// still there to be received.
    ///
    /// # Errors
    /// When the answer cannot be read.
    pub async fn send_and_receive(mut self, bytes: &[u8]) -> io::Result<Message> {
        let (mut reading, mut writing) = self.stream.split();
        let buffer = &mut self.buffer;
        // The first to end is the answer in most cases; the writing ends alone if the peer reads it
        // all first.
        let write = async {
            // A peer that hangs up is no failure here: its answer tells.
            drop(writing.write_all(bytes).await);
            std::future::pending::<()>().await;
        };
        let read = read_head(&mut reading, buffer);
        let head = tokio::select! {
            () = write => unreachable!("it is pending for ever"),
            head = timeout(self.limit, read) => head??,
        };
        self.receive_body(head).await
    }

    /// Declares that nothing more will be sent.
    ///
    /// # Errors
    /// When the peer has gone.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Cuts the connection with a reset instead of an orderly end.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Receives a whole message.
    ///
    /// # Errors
    /// When the connection ends or fails before the head is complete, or nothing comes for a
    /// minute.
    pub async fn receive(&mut self) -> io::Result<Message> {
        let head = self.receive_head().await?;
        self.receive_body(head).await
    }

    /// Receives a head and leaves its body, for [`Self::pieces`].
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub async fn receive_head(&mut self) -> io::Result<Message> {
        let (mut reading, _) = self.stream.split();
        timeout(self.limit, read_head(&mut reading, &mut self.buffer)).await?
    }

    /// The body of the message whose head was received, piece by piece.
    pub fn pieces<'a>(&'a mut self, head: &Message) -> Pieces<'a> {
        Pieces::of(head, self)
    }

    /// Whatever comes until the peer closes the connection.
    ///
    /// # Panics
    /// When it is not closed within a minute.
    pub async fn rest(&mut self) -> Vec<u8> {
        // A reset is an end too.
        while timeout(self.limit, self.stream.read_buf(&mut self.buffer))
            .await
            .expect("the connection stays open")
            .is_ok_and(|count| count > 0)
        {}
        self.buffer.split().to_vec()
    }

    /// Whether the peer has closed the connection, as far as one can see without waiting. What it
    /// said before is lost.
    pub fn is_closed(&self) -> bool {
        let mut said = [0; 1024];
        loop {
            match self.stream.try_read(&mut said) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    async fn receive_body(&mut self, mut message: Message) -> io::Result<Message> {
        let mut pieces = self.pieces(&message);
        let mut body = Vec::new();
        while let Some(piece) = pieces.next().await? {
            body.extend_from_slice(&piece);
        }
        message.whole = pieces.is_whole();
        message.body = body;
        Ok(message)
    }
}

async fn read_head(reading: &mut tcp::ReadHalf<'_>, buffer: &mut BytesMut) -> io::Result<Message> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.advance(end + 4);
            return Ok(Message {
                head,
                body: Vec::new(),
                whole: false,
            });
        }
        if reading.read_buf(buffer).await? == 0 {
            let text = String::from_utf8_lossy(buffer);
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the connection ended after {text:?}"),
            ));
        }
    }
}

/// How long a proxy takes in what comes behind its answer.
const WAITED_FOR: Duration = Duration::from_secs(2);

//! The requests that clients and scrapers send, as real ones write them.

use std::io::Write as _;

use crate::payload::Payload;

/// How the message inside a push tells where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Inner {
    /// By `Content-Length`
    Length,
    /// In one chunk, as Go clients push whatever the target sent without a length
    Chunked,
}

/// The name that a client registers.
pub(crate) fn name(client: u32) -> String {
    format!("c{client:05}.fleet.example")
}

/// A poll, as this project's client sends it.
pub(crate) fn poll(client: u32, out: &mut Vec<u8>) {
    let name = name(client);
    put(
        out,
        format_args!(
            "POST /poll HTTP/1.1\r\n\
             Prefer: wait={POLL_WAIT}\r\n\
             Accept: */*\r\n\
             Host: 127.0.0.1:8080\r\n\
             Content-Length: {}\r\n\r\n{name}",
            name.len()
        ),
    );
}

/// A scrape, as Prometheus 2.42 sends it.
pub(crate) fn scrape(client: u32, out: &mut Vec<u8>) {
    let name = name(client);
    put(
        out,
        format_args!(
            "GET http://{name}:9100/metrics HTTP/1.1\r\n\
             Host: {name}:9100\r\n\
             User-Agent: Prometheus/2.42.0+ds\r\n\
             Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\
             Accept-Encoding: gzip\r\n\
             X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
        ),
    );
}

/// The answer to a poll that hands a scrape out: the scrape's head with its id.
pub(crate) fn instruction(scrape: &[u8], id: u32, out: &mut Vec<u8>) -> Option<()> {
    let head = scrape.strip_suffix(b"\r\n")?;
    // As long as the UUIDs that real scrapes are named by.
    let id = format!("Id: {id:08x}-0000-4000-8000-000000000000\r\n\r\n");
    put(
        out,
        format_args!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            head.len() + id.len()
        ),
    );
    out.extend_from_slice(head);
    out.extend_from_slice(id.as_bytes());
    Some(())
}

/// The number in the id of an [`instruction`].
pub(crate) fn number_of(id: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(id.get(..8)?).ok()?, 16).ok()
}

/// A push up to and with the first line of the pushed body. Behind it come the payload's rest and
/// [`push_tail`].
pub(crate) fn push_head(id: &str, client: u32, payload: &Payload, inner: Inner, out: &mut Vec<u8>) {
    let (framing, first_chunk) = match inner {
        Inner::Length => (format!("Content-Length: {}", payload.size()), String::new()),
        Inner::Chunked => (
            "Transfer-Encoding: chunked".to_owned(),
            format!("{:x}\r\n", payload.size()),
        ),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\n\
         {framing}\r\n\
         Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Date: Tue, 24 Nov 2026 18:53:04 GMT\r\n\
         Id: {id}\r\n\
         X-Prometheus-Scrape-Timeout: 9.489589\r\n\r\n\
         {first_chunk}"
    );
    let length = head.len() + payload.size() + push_tail(inner).len();
    put(
        out,
        format_args!(
            "POST /push HTTP/1.1\r\n\
             Accept: */*\r\n\
             Host: 127.0.0.1:8080\r\n\
             Content-Length: {length}\r\n\r\n\
             {head}"
        ),
    );
    out.extend_from_slice(&Payload::first_line(client));
}

/// What ends the message inside a push.
pub(crate) fn push_tail(inner: Inner) -> &'static [u8] {
    match inner {
        Inner::Length => b"",
        Inner::Chunked => b"\r\n0\r\n\r\n",
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector does not fail.
    out.write_fmt(text).ok();
}

/// Seconds: longer than any row runs, so that no poll ends by time while one is measured.
const POLL_WAIT: u32 = 3600;

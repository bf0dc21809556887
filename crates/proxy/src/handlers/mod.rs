//! One handler for each request of the protocol: parse, ask the rendezvous, respond.

pub(crate) mod clients;
pub(crate) mod poll;
pub(crate) mod push;
pub(crate) mod scrape;

use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

/// Takes in what a peer still sends, within bounds, so that it reads the answer rather than a
/// reset connection, and so that the connection can go on.
async fn drain(mut body: Incoming) {
    let mut taken = 0;
    let drained = async {
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.into_data().map_or(0, |data: Bytes| data.remaining());
            if taken > MAX_DRAINED {
                return;
            }
        }
    };
    // When the bounds are reached, hyper closes the connection behind the answer.
    timeout(DRAIN_TIMEOUT, drained).await.ok();
}

const MAX_DRAINED: usize = 16 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

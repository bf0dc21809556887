//! HTTP/1.1 as clients speak it: polls and pushes, read from the bare socket and answered on it.
//!
//! A proxy's life is holding polls. Between two requests, and while a poll is parked, a connection
//! here is its socket and nothing else: no buffer, no parser, no timer of a library's. That, and
//! that the body of a push is read straight from its socket into the answer to Prometheus, is why
//! these two requests are not hyper's; every other request is.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod buffers;
pub(crate) mod request;
pub(crate) mod socket;

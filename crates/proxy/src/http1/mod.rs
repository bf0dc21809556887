//! HTTP/1.1 as the three legs speak it: polls, pushes and scrapes, read from the bare socket and
//! answered on it.
//!
//! A proxy's life is holding polls. Between two requests, and while a poll is parked, a connection
//! here is its socket and nothing else: no buffer, no parser, no timer of a library's. That, and
//! that the body of a push is read straight from its socket by the task that writes it to
//! Prometheus, is why these requests are not hyper's; every other request is.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod buffers;
pub(crate) mod head_room;
pub(crate) mod link;
pub(crate) mod pace;
pub(crate) mod request;
pub(crate) mod socket;

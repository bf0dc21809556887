//! The pull: asks the pull URL, and nothing else, for what a scrape wants.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method};
use pushprox_daemon::reload::Reloaded;
use pushprox_peer::leg::LegError;
use pushprox_protocol::headers::{
    ID, PULL_TOKEN, SCRAPE_TIMEOUT, SCRAPE_TIMEOUT_SECONDS, strip_hop_by_hop,
};
use pushprox_protocol::message::instruction::Instruction;
use pushprox_protocol::timeout::format;
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer::Answer;
use crate::config::PullToken;
use crate::error::PullError;
use crate::http::on_a_live_connection;
use crate::leg::TargetLeg;
use crate::pull_url::PullUrl;
use crate::urls::shown;

/// Pulls from one place.
#[derive(Debug, Clone)]
pub struct Scraper {
    leg: Arc<Reloaded<TargetLeg, LegError>>,
    url: PullUrl,
    token: Option<PullToken>,
}

impl Scraper {
    /// A scraper of `url`.
    #[must_use]
    pub fn new(
        leg: Arc<Reloaded<TargetLeg, LegError>>,
        url: PullUrl,
        token: Option<PullToken>,
    ) -> Self {
        Self { leg, url, token }
    }

    /// Pulls what the instruction asks for. The answer's body is still to come when this returns,
    /// but for its beginning.
    ///
    /// # Errors
    ///
    /// There is no answer, or it ends behind its head, or there is none until `deadline`.
    pub async fn pull(
        &self,
        instruction: &Instruction,
        deadline: Instant,
    ) -> Result<Answer, PullError> {
        let method = &instruction.method;
        if method != Method::GET && method != Method::HEAD {
            return Err(PullError::Method(method.clone()));
        }
        let url = self.url.for_scrape(instruction.query());
        let within = deadline.saturating_duration_since(Instant::now());
        let leg = self.leg.current();
        let mut headers = self.headers(instruction, &leg);
        headers.insert(SCRAPE_TIMEOUT_SECONDS, format(within));
        let ask = || {
            let mut request = reqwest::Request::new(method.clone(), url.clone());
            *request.headers_mut() = headers.clone();
            leg.http.execute(request)
        };
        // A scrape can be asked any number of times.
        let exchange = async {
            let response = on_a_live_connection(ask(), || Some(ask())).await;
            let response = response.map_err(|error| PullError::request(shown(&url), error))?;
            if response.status().is_informational() {
                return Err(PullError::Informational {
                    target: shown(&url),
                    status: response.status(),
                });
            }
            if let Some(coding) = foreign_coding(response.headers()) {
                let target = shown(&url);
                return Err(PullError::Coding { target, coding });
            }
            let mut answer = Answer::of_target(method, response);
            // Where the body is longer in coming, the head need not wait for it.
            if let Ok(begun) = timeout(HEAD_ALONE, answer.begin()).await {
                begun.map_err(|error| PullError::broke_off(shown(&url), error))?;
            }
            Ok(answer)
        };
        timeout_at(deadline, exchange).await.unwrap_or_else(|_| {
            Err(PullError::TimedOut {
                target: shown(&url),
                within,
            })
        })
    }

    /// The scrape's headers as far as they are for the target, and the operator's own.
    fn headers(&self, instruction: &Instruction, leg: &TargetLeg) -> HeaderMap {
        let mut headers = instruction.headers.clone();
        strip_hop_by_hop(&mut headers);
        // The host is the pull URL's; there is no body; the rest is not for the target.
        for name in [HOST, CONTENT_LENGTH, EXPECT, ID, SCRAPE_TIMEOUT, PULL_TOKEN] {
            headers.remove(name);
        }
        if let (Some(own), false) = (&leg.authorization, headers.contains_key(AUTHORIZATION)) {
            headers.insert(AUTHORIZATION, own.clone());
        }
        headers.extend(leg.headers.clone());
        if let Some(token) = &self.token {
            headers.insert(PULL_TOKEN, token.header());
        }
        headers
    }
}

/// A transfer coding that is still on the body. The HTTP library undoes chunks, once, and gives what
/// is coded in another way too as it is.
fn foreign_coding(headers: &HeaderMap) -> Option<String> {
    let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    let is_undone = match codings.as_slice() {
        [] => true,
        [only] => {
            let only = only.as_bytes().trim_ascii();
            only.eq_ignore_ascii_case(b"chunked") || only.eq_ignore_ascii_case(b"identity")
        }
        _ => false,
    };
    let codings = codings
        .iter()
        .map(|coding| String::from_utf8_lossy(coding.as_bytes()));
    (!is_undone).then(|| codings.collect::<Vec<_>>().join(", "))
}

/// A target that ends behind the head of its answer does so at once.
const HEAD_ALONE: Duration = Duration::from_millis(500);

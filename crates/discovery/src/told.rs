//! What has been logged: a trouble that stays is told once, then once a minute.

use std::time::Duration;

use tokio::time::Instant;

/// The last trouble that was told.
#[derive(Debug, Default)]
pub struct Told {
    last: Option<(String, Instant)>,
}

impl Told {
    /// Whether this is to be told now.
    pub fn is_news(&mut self, text: &str) -> bool {
        let now = Instant::now();
        let is_news = self
            .last
            .as_ref()
            .is_none_or(|(told, at)| told != text || now - *at >= AGAIN);
        if is_news {
            self.last = Some((text.to_owned(), now));
        }
        is_news
    }

    /// The trouble is over. Whether there was one.
    pub fn is_over(&mut self) -> bool {
        self.last.take().is_some()
    }
}

const AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trouble_is_told_once_then_once_a_minute_and_anew_after_it_was_over() {
        let mut told = Told::default();
        assert!(told.is_news("a"));
        assert!(!told.is_news("a"));
        assert!(told.is_news("b"));
        tokio::time::advance(AGAIN).await;
        assert!(told.is_news("b"));
        assert!(told.is_over());
        assert!(!told.is_over());
        assert!(told.is_news("b"));
    }
}

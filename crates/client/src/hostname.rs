//! The name to register where the operator gave none: the machine's FQDN as the resolver knows it.

use std::time::Duration;

use anyhow::Context as _;
use dns_lookup::{AddrInfoHints, SockType, getaddrinfo};
use pushprox_daemon::cli::UsageError;
use pushprox_protocol::Fqdn;
use tracing::info;

/// Asks the system. Without a qualified name it is the host name, and the log says so.
///
/// # Errors
///
/// The machine has no name that a client can register.
pub async fn fqdn() -> anyhow::Result<Fqdn> {
    let host = hostname::get().context("cannot tell the machine's host name")?;
    let host = host.to_string_lossy().into_owned();
    // The resolver blocks, and it may have a name server that does not answer.
    let asked = host.clone();
    let resolving = tokio::task::spawn_blocking(move || canonical_name(&asked));
    let canonical = match tokio::time::timeout(RESOLVER_TIMEOUT, resolving).await {
        Ok(Ok(name)) => name,
        _ => None,
    };
    choose(&host, canonical.as_deref())
}

fn canonical_name(host: &str) -> Option<String> {
    let hints = AddrInfoHints {
        flags: AI_CANONNAME,
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    getaddrinfo(Some(host), None, Some(hints))
        .ok()?
        .filter_map(Result::ok)
        .find_map(|answer| answer.canonname)
}

fn choose(host: &str, canonical: Option<&str>) -> anyhow::Result<Fqdn> {
    let qualified = canonical
        .map(|name| name.trim_end_matches('.'))
        .filter(|name| name.contains('.') && !name.starts_with("localhost."))
        .and_then(|name| name.parse().ok());
    if let Some(fqdn) = qualified {
        return Ok(fqdn);
    }
    let fqdn: Fqdn = host.parse().map_err(|error| {
        UsageError(format!(
            "--fqdn is required, because the machine's host name {host:?} cannot be registered: {error}"
        ))
    })?;
    info!(%fqdn, "the resolver knows no qualified name of this machine, registering its host name");
    Ok(fqdn)
}

/// `AI_CANONNAME` of netdb.h: the answer is to hold the canonical name. It is 2 on all systems that
/// these programs run on.
const AI_CANONNAME: i32 = 2;

const RESOLVER_TIMEOUT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(host: &str, canonical: Option<&str>) -> String {
        choose(host, canonical).unwrap().to_string()
    }

    #[test]
    fn a_qualified_name_is_taken_else_the_host_name() {
        assert_eq!(
            chosen("node", Some("node.example.org.")),
            "node.example.org"
        );
        assert_eq!(chosen("node", Some("node")), "node");
        assert_eq!(chosen("node", Some("localhost.localdomain")), "node");
        assert_eq!(chosen("node", Some("bad name.org")), "node");
        assert_eq!(chosen("node.example.org", None), "node.example.org");
    }

    #[test]
    fn a_host_without_a_usable_name_needs_the_flag() {
        let error = choose("my machine", None).unwrap_err();
        assert!(error.is::<UsageError>());
        assert!(
            error.to_string().starts_with("--fqdn is required"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn this_machine_has_a_name() {
        fqdn().await.unwrap();
    }
}

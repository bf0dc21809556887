//! What a proxy's `/clients` says: clients by their labels, read strictly enough that no answer can
//! spoil the file that Prometheus reads.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use pushprox_protocol::Fqdn;
use serde::Deserialize;

/// Labels of a client, by name.
pub type Labels = BTreeMap<String, String>;

/// The clients of a proxy, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    clients: BTreeMap<Labels, Vec<Client>>,
    /// Names and labels that Prometheus could not use, and that were left out.
    pub unusable: usize,
}

/// A registered name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client {
    /// As names compare: two that are equal are one client.
    pub key: Arc<str>,
    /// As it was registered; Prometheus gets it as target.
    pub target: Arc<str>,
}

/// An entry of the list, as file_sd and http_sd have it.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    targets: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    labels: Option<HashMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl Listing {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// When it is not JSON of the form that `/clients` has.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        // A Go program that has no clients may write its empty list so.
        let entries: Option<Vec<Entry<'_>>> = serde_json::from_slice(body)?;
        let mut listing = Self::default();
        let mut seen = BTreeSet::new();
        for entry in entries.unwrap_or_default() {
            let given = entry.labels.unwrap_or_default();
            let count = given.len();
            let labels: Labels = given
                .into_iter()
                .filter(|(name, _)| is_label_name(name) && !is_ours(name))
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect();
            listing.unusable += count - labels.len();
            let clients = listing.clients.entry(labels).or_default();
            for target in entry.targets {
                let Ok(name) = target.parse::<Fqdn>() else {
                    listing.unusable += 1;
                    continue;
                };
                let client = Client::new(&name, target.trim());
                if seen.insert(Arc::clone(&client.key)) {
                    clients.push(client);
                }
            }
        }
        listing.tidy();
        Ok(listing)
    }

    /// The clients with their labels.
    pub fn clients(&self) -> impl Iterator<Item = (&Labels, &[Client])> {
        self.clients
            .iter()
            .map(|(labels, clients)| (labels, clients.as_slice()))
    }

    /// How many clients there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.values().map(Vec::len).sum()
    }

    /// Whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Adds those clients of `older` that are not in here.
    pub fn add_missing(&mut self, older: &Self) {
        let keys: BTreeSet<Arc<str>> = self
            .clients
            .values()
            .flatten()
            .map(|client| Arc::clone(&client.key))
            .collect();
        for (labels, clients) in &older.clients {
            let missing: Vec<_> = clients
                .iter()
                .filter(|client| !keys.contains(&client.key))
                .cloned()
                .collect();
            if !missing.is_empty() {
                self.clients
                    .entry(labels.clone())
                    .or_default()
                    .extend(missing);
            }
        }
        self.tidy();
    }

    /// Sorts, so that equal listings are equal and are written alike.
    fn tidy(&mut self) {
        self.clients.retain(|_, clients| !clients.is_empty());
        for clients in self.clients.values_mut() {
            clients.sort_unstable();
            clients.shrink_to_fit();
        }
    }
}

impl Client {
    fn new(name: &Fqdn, target: &str) -> Self {
        let target: Arc<str> = target.into();
        let key = name.to_string().to_ascii_lowercase();
        // Most names are written as they compare: one allocation serves both.
        let key = if *key == *target {
            Arc::clone(&target)
        } else {
            key.into()
        };
        Self { key, target }
    }
}

/// Whether Prometheus takes this as the name of a label. One that it does not take would cost the
/// whole file.
fn is_label_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Labels that are not a proxy's to set: where the scrape goes, and those that are added here.
fn is_ours(name: &str) -> bool {
    name == "__address__" || name.starts_with(META_PREFIX)
}

/// How the labels begin that tell where a client was found.
pub const META_PREFIX: &str = "__meta_pushprox_";

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(listing: &Listing) -> Vec<String> {
        listing
            .clients()
            .flat_map(|(_, clients)| clients.iter().map(|client| client.target.to_string()))
            .collect()
    }

    fn parse(text: &str) -> Listing {
        Listing::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn clients_are_grouped_by_labels_and_each_is_there_once() {
        let listing = parse(
            r#"[{"targets":["b:9100","a"],"labels":{}},{"targets":["c"],"labels":{"room":"é\n\""}},
                {"targets":["A","a."]},{"targets":[],"labels":{"x":"y"}}]"#,
        );
        assert_eq!(targets(&listing), ["a", "b:9100", "c"]);
        assert_eq!(listing.len(), 3);
        assert_eq!(listing.unusable, 0);
        assert_eq!(listing.clients().count(), 2);
    }

    #[test]
    fn names_keep_the_case_in_which_they_were_registered() {
        let listing = parse(r#"[{"targets":["Node.Example.org:9100"],"labels":{}}]"#);
        let (_, clients) = listing.clients().next().unwrap();
        assert_eq!(&*clients[0].target, "Node.Example.org:9100");
        assert_eq!(&*clients[0].key, "node.example.org:9100");
    }

    #[test]
    fn what_prometheus_could_not_use_is_left_out_and_counted() {
        let listing = parse(
            r#"[{"targets":["a/b","","x y","ok"],
                 "labels":{"bad-name":"1","0":"1","":"1","fine":"1","__address__":"evil:1","__meta_pushprox_proxy":"x"}}]"#,
        );
        assert_eq!(targets(&listing), ["ok"]);
        let (labels, _) = listing.clients().next().unwrap();
        assert_eq!(labels.keys().collect::<Vec<_>>(), ["fine"]);
        assert_eq!(listing.unusable, 8);
    }

    #[test]
    fn an_empty_list_has_two_spellings_and_everything_else_is_an_error() {
        assert!(parse("[]").is_empty());
        assert!(parse("null").is_empty());
        for wrong in [
            "",
            "{}",
            "[1]",
            "[{}]",
            "[{\"targets\":\"a\"}]",
            "<html>",
            "[] []",
            "[{\"targets\":[\"a\"]}",
        ] {
            assert!(Listing::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn missing_clients_are_added_and_present_ones_keep_their_labels() {
        let mut new = parse(r#"[{"targets":["a"],"labels":{"v":"2"}}]"#);
        new.add_missing(&parse(r#"[{"targets":["A","b"],"labels":{"v":"1"}}]"#));
        let again: Vec<_> = new
            .clients()
            .map(|(labels, clients)| (labels["v"].clone(), clients.len()))
            .collect();
        assert_eq!(again, [("1".to_owned(), 1), ("2".to_owned(), 1)]);
    }
}

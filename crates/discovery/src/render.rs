//! From placed clients to what Prometheus reads: scrape configs, and the contents of SD files.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_yaml::{Mapping, Value};

use crate::index::Proxy;
use crate::listing::{Labels, META_PREFIX};
use crate::placement::Placed;
use crate::template::Template;
use crate::urls::ProxyUrl;

/// How scrape configs get their targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// From a file per proxy.
    Files(SdFiles),
    /// From the proxy itself, asked by Prometheus this often.
    Http {
        /// In seconds.
        refresh_interval: u64,
        /// The file of the token that it shows.
        token_file: Option<String>,
    },
}

/// The names of the SD files of one discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdFiles {
    /// Their folder, under the same path for Prometheus.
    pub folder: PathBuf,
    /// What stands before the address in their names. It is the discovery's own.
    pub prefix: String,
}

/// What scrape configs are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum JobName {
    /// By service and address; the label `job` is the service's name.
    #[default]
    Service,
    /// By the proxy's IP address, the label `job` too.
    Ip,
}

/// Everything about scrape configs that stays the same.
#[derive(Debug, Clone)]
pub struct Style {
    /// Where the targets come from.
    pub targets: Targets,
    /// What the jobs are called.
    pub job_name: JobName,
    /// How proxies are reached.
    pub proxy_url: ProxyUrl,
    /// For proxies with TLS: what Prometheus must know to reach them.
    pub tls_config: Mapping,
}

impl Style {
    /// The same for proxies that are reached by `proxy_url`.
    #[must_use]
    pub fn with_url(&self, proxy_url: &ProxyUrl) -> Self {
        Self {
            proxy_url: proxy_url.clone(),
            ..self.clone()
        }
    }
}

/// The scrape configs for `proxies`, with the settings of `template` added to each.
#[must_use]
pub fn jobs<'a>(
    proxies: impl IntoIterator<Item = &'a Proxy> + Clone,
    style: &Style,
    template: &Template,
) -> Vec<Mapping> {
    let names = match style.job_name {
        JobName::Service => proxies.clone().into_iter().map(long_name).collect(),
        JobName::Ip => ip_names(proxies.clone()),
    };
    proxies
        .into_iter()
        .zip(names)
        .map(|(proxy, name)| job(proxy, &name, style, template))
        .collect()
}

/// The content of a proxy's SD file: a group of targets per line.
#[must_use]
pub fn sd_file(proxy: &Proxy, placed: &Placed<'_>) -> Vec<u8> {
    let mut text = b"[".to_vec();
    for (position, (labels, clients)) in placed.iter().enumerate() {
        let mut labels: Labels = (*labels).clone();
        labels.extend(meta_labels(proxy));
        let group = SdGroup {
            labels: &labels,
            targets: clients.iter().map(|client| &*client.target).collect(),
        };
        text.extend_from_slice(if position == 0 { b"\n" } else { b",\n" });
        // Texts can always be written, and a vector takes them.
        serde_json::to_writer(&mut text, &group).ok();
    }
    text.extend_from_slice(b"\n]\n");
    text.shrink_to_fit();
    text
}

/// A group of targets as file_sd has it.
#[derive(Serialize)]
struct SdGroup<'a> {
    labels: &'a Labels,
    targets: Vec<&'a str>,
}

impl SdFiles {
    /// The file of a proxy.
    #[must_use]
    pub fn path(&self, proxy: SocketAddr) -> PathBuf {
        // Colons are left to IPv6, whose groups dashes separate as well.
        let ip = proxy.ip().to_string().replace(':', "-");
        self.folder
            .join(format!("{}{ip}_{}.json", self.prefix, proxy.port()))
    }

    /// The proxy of a file, if it is one of these files.
    #[must_use]
    pub fn proxy(&self, path: &Path) -> Option<SocketAddr> {
        let name = path.file_name()?.to_str()?;
        let name = name.strip_prefix(&self.prefix)?.strip_suffix(".json")?;
        let (ip, port) = name.split_once('_')?;
        let ip: IpAddr = ip.replace('-', ":").parse().ok()?;
        let proxy = SocketAddr::new(ip, port.parse().ok()?);
        // Only what this would write itself: no leading zeros, no other spelling.
        (self.path(proxy).file_name() == path.file_name()).then_some(proxy)
    }
}

fn job(proxy: &Proxy, name: &str, style: &Style, template: &Template) -> Mapping {
    let mut job = Mapping::new();
    job.insert("job_name".into(), name.into());
    job.insert("proxy_url".into(), style.proxy_url.at(proxy.address).into());
    if !style.tls_config.is_empty() {
        job.insert("tls_config".into(), style.tls_config.clone().into());
    }
    let mut relabel = Vec::new();
    match &style.targets {
        Targets::Files(files) => {
            let path = files.path(proxy.address).display().to_string();
            let sd = map([("files", Value::Sequence(vec![path.into()]))]);
            job.insert("file_sd_configs".into(), Value::Sequence(vec![sd]));
        }
        Targets::Http {
            refresh_interval,
            token_file,
        } => {
            let mut sd = http_sd(proxy, style, *refresh_interval);
            if let Some(path) = token_file {
                let authorization = map([
                    // Prometheus fills it in for scrapes only, whatever its manual says.
                    ("type", "Bearer".into()),
                    ("credentials_file", path.as_str().into()),
                ]);
                sd.insert("authorization".into(), authorization);
            }
            job.insert("http_sd_configs".into(), Value::Sequence(vec![sd.into()]));
            for (label, value) in meta_labels(proxy) {
                relabel.push(map([
                    ("target_label", label.into()),
                    ("replacement", literal(&value).into()),
                ]));
            }
        }
    }
    if style.job_name == JobName::Service {
        // A client that brings a label `job` of its own keeps it.
        relabel.push(map([
            ("source_labels", Value::Sequence(vec!["job".into()])),
            ("regex", escape(name).into()),
            ("target_label", "job".into()),
            ("replacement", literal(&proxy.service).into()),
        ]));
    }
    template.complete(&mut job, relabel);
    job
}

fn http_sd(proxy: &Proxy, style: &Style, refresh_interval: u64) -> Mapping {
    let mut sd = Mapping::new();
    sd.insert(
        "url".into(),
        String::from(style.proxy_url.clients(proxy.address)).into(),
    );
    sd.insert(
        "refresh_interval".into(),
        format!("{refresh_interval}s").into(),
    );
    if let Some((username, password)) = style.proxy_url.credentials() {
        let auth = map([("username", username.into()), ("password", password.into())]);
        sd.insert("basic_auth".into(), auth);
    }
    if !style.tls_config.is_empty() {
        sd.insert("tls_config".into(), style.tls_config.clone().into());
    }
    sd
}

fn meta_labels(proxy: &Proxy) -> [(String, String); 3] {
    [
        ("namespace", proxy.namespace.clone()),
        ("proxy", proxy.address.to_string()),
        ("service", proxy.service.clone()),
    ]
    .map(|(name, value)| (format!("{META_PREFIX}{name}"), value))
}

fn long_name(proxy: &Proxy) -> String {
    let Proxy {
        address,
        namespace,
        service,
    } = proxy;
    format!("pushprox/{namespace}/{service}/{address}")
}

/// IP addresses, with the port where one address has several proxies.
fn ip_names<'a>(proxies: impl IntoIterator<Item = &'a Proxy> + Clone) -> Vec<String> {
    let mut count: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for proxy in proxies.clone() {
        *count.entry(proxy.address.ip()).or_default() += 1;
    }
    let name = |proxy: &Proxy| match count.get(&proxy.address.ip()) {
        Some(1) => proxy.address.ip().to_string(),
        _ => proxy.address.to_string(),
    };
    proxies.into_iter().map(name).collect()
}

fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Mapping(
        pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value))
            .collect(),
    )
}

/// A text as a regular expression that matches it alone.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// A text as a replacement that stands for itself.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests;

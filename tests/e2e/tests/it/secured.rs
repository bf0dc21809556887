//! A folder with an authority, certificates and the two configuration files, and a proxy by them.

use std::path::{Path, PathBuf};

use pushprox_testkit::process::{Outcome, run};
use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::tls::{Authority, Pair, curl};
use pushprox_testkit::wait::{SOON, until};
use tempfile::TempDir;

/// A folder for the files of a test.
pub(crate) struct Folder {
    folder: TempDir,
    pub(crate) authority: Authority,
}

impl Folder {
    /// With `ca.crt`, and `server.crt` for loopback.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("test authority");
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
        authority.issue(folder.path(), "server", &["127.0.0.1", "localhost"]);
        Self { folder, authority }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        // In one piece, for whoever reads it at this moment.
        let staged = self.path().join("staged.file");
        std::fs::write(&staged, text).unwrap();
        std::fs::rename(staged, self.path().join(name)).unwrap();
        self.file(name)
    }

    /// A certificate of the authority's for one name.
    pub(crate) fn issue(&self, name: &str) -> Pair {
        self.authority.issue(self.path(), name, &[name])
    }

    /// `tls_server_config`, with these keys more.
    pub(crate) fn web(&self, keys: &str) -> String {
        let text =
            format!("tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{keys}");
        self.write("web.yml", &text)
    }

    /// A proxy with TLS that verifies certificates where there are any, and these members.
    pub(crate) async fn proxy(&self, auth: &str) -> Proxy {
        let web =
            self.web("  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n");
        let auth = self.write("auth.yml", auth);
        let flags = [
            format!("--web.config.file={web}"),
            format!("--auth.config.file={auth}"),
        ];
        Proxy::start(&flags.each_ref().map(String::as_str)).await
    }

    /// A client that shows this certificate to a proxy with TLS.
    pub(crate) fn client(&self, proxy: &Proxy, pair: &Pair, name: &str, pull_url: &str) -> Client {
        let flags = [
            format!("--tls.cacert={}", self.file("ca.crt")),
            format!("--tls.cert={}", pair.cert.display()),
            format!("--tls.key={}", pair.key.display()),
        ];
        let flags = flags.each_ref().map(String::as_str);
        Client::start(&https(proxy), pull_url, name, &flags)
    }

    /// Scrapes `url` through a proxy with TLS, by curl with these flags more.
    pub(crate) async fn scrape(&self, proxy: &Proxy, url: &str, more: &[String]) -> Outcome {
        let mut flags = vec!["--proxy".to_owned(), https(proxy)];
        flags.extend(["--proxy-cacert".to_owned(), self.file("ca.crt")]);
        flags.extend(more.iter().cloned());
        flags.push(url.to_owned());
        curl(&flags).await
    }

    /// Asks for a page of a proxy with TLS, by curl with these flags more.
    pub(crate) async fn page(&self, proxy: &Proxy, path: &str, more: &[String]) -> Outcome {
        let mut flags = vec!["--cacert".to_owned(), self.file("ca.crt")];
        flags.extend(more.iter().cloned());
        flags.push(format!("{}{path}", https(proxy)));
        curl(&flags).await
    }

    /// Waits until a scrape by curl with these flags is answered with 200.
    pub(crate) async fn scraped(&self, proxy: &Proxy, url: &str, more: &[String]) {
        until(&format!("a good answer from {url}"), SOON, async || {
            let answer = self.scrape(proxy, url, more).await;
            answer.stdout.contains(" 200 OK\r\n").then_some(())
        })
        .await;
    }
}

/// The URL of a proxy with TLS, without a path.
pub(crate) fn https(proxy: &Proxy) -> String {
    format!("https://{}", proxy.address)
}

/// A bcrypt hash, as cheap as there are.
pub(crate) async fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

/// What the file has of a token.
pub(crate) async fn digest(token: &str) -> String {
    let mut sum = pushprox_testkit::process::command("sh");
    sum.args(["-c", "printf %s \"$1\" | sha256sum", "sh", token]);
    let outcome = run(sum).await;
    outcome.stdout.split_whitespace().next().unwrap().to_owned()
}

/// Where a file of the repository is.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

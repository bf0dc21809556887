//! Authorities that issue certificates for a test, and curl to use them.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

use crate::process::{Outcome, command, run};

/// An authority that issues certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate and its key.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for `names`, hosts or addresses, as `file.crt` and `file.key`.
    pub fn issue(&self, folder: &Path, file: &str, names: &[&str]) -> Pair {
        self.issue_by(folder, file, &params(names))
    }

    /// The same, with a certificate that is no longer valid.
    pub fn issue_expired(&self, folder: &Path, file: &str, names: &[&str]) -> Pair {
        let mut params = params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.issue_by(folder, file, &params)
    }

    fn issue_by(&self, folder: &Path, file: &str, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            cert: folder.join(format!("{file}.crt")),
            key: folder.join(format!("{file}.key")),
        };
        std::fs::write(&pair.cert, certificate.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }
}

impl Pair {
    /// Flags of curl's that show this certificate; `prefix` is `--proxy-` or `--`.
    pub fn flags(&self, prefix: &str) -> Vec<String> {
        let flag = |name: &str, path: &Path| format!("{prefix}{name}={}", path.display());
        [flag("cert", &self.cert), flag("key", &self.key)]
            .iter()
            .flat_map(|flag| flag.split('=').map(str::to_owned))
            .collect()
    }
}

/// Runs curl, which prints the heads of answers as well as their bodies.
pub async fn curl(flags: impl IntoIterator<Item = impl AsRef<str>>) -> Outcome {
    let mut curl = command("curl");
    curl.args(["--silent", "--show-error", "--include", "--noproxy", "none"]);
    curl.args(["--max-time", "50"]);
    for flag in flags {
        curl.arg(flag.as_ref());
    }
    run(curl).await
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

//! The file's keys one by one, exporter-toolkit's own examples, and what TLS comes of them.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::*;

/// A folder with `server.crt`, `server.key` and `ca.crt` in it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(vec!["test CA".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&key, &ca).unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    write("server.crt", server.pem());
    write("server.key", key.serialize_pem());
    write("other.key", KeyPair::generate().unwrap().serialize_pem());
    write("ca.crt", ca.pem());
    write("junk", "no PEM at all\n".to_owned());
    folder
}

fn load(folder: &Path, text: &str) -> Result<WebConfig, String> {
    let path = folder.join("web.yml");
    fs::write(&path, text).unwrap();
    let read = WebConfig::read(&path, &mut Files::default());
    let prefix = format!("{}/", folder.display());
    read.map_err(|error| error.to_string().replace(&prefix, ""))
}

/// `tls_server_config` with the server's certificate and these keys.
fn tls(keys: &str) -> String {
    format!("tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{keys}")
}

#[test]
fn a_file_with_nothing_in_it_leaves_everything_open() {
    let folder = folder();
    for text in [
        "",
        "# nothing\n",
        "tls_server_config:\n",
        "tls_server_config: {}\nbasic_auth_users:\n",
    ] {
        let config = load(folder.path(), text).unwrap();
        assert!(
            config.tls().is_none() && config.users().is_none(),
            "{text:?}"
        );
        assert!(config.rate_limit().is_none() && config.headers().is_empty());
    }
}

/// The sample beside exporter-toolkit's documentation, and the good ones among its test files, by
/// their keys.
#[test]
fn examples_of_exporter_toolkit_load() {
    let folder = folder();
    let users = "basic_auth_users:
  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze
  bob: $2y$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m
";
    let sample = format!("# TLS and basic authentication.\n{}{users}", tls("\n"));
    let config = load(folder.path(), &sample).unwrap();
    assert!(config.tls().is_some() && config.users().unwrap().hash("alice").is_some());

    let config = load(folder.path(), users).unwrap();
    assert!(config.tls().is_none() && config.users().unwrap().hash("bob").is_some());

    let headers = "http_server_config:
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=31536000; includeSubDomains
    X-Content-Type-Options: nosniff
    X-XSS-Protection: 1
    Content-Security-Policy: \"default-src 'self' *.test.example.net\"
";
    let config = load(folder.path(), headers).unwrap();
    assert_eq!(config.headers().len(), 5);
    assert_eq!(config.headers()["x-xss-protection"], "1");

    for keys in [
        "  client_auth_type: NoClientCert\n",
        "  client_auth_type: RequestClientCert\n",
        "  client_auth_type: RequireAnyClientCert\n",
        "  client_auth_type: RequireClientCert\n",
        "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n",
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n",
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  client_allowed_sans: [a.example.org]\n",
        "  client_auth_type: \"\"\n  client_ca_file: \"\"\n",
        "  min_version: TLS12\n  max_version: TLS12\n  cipher_suites:\n  - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\n  - TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\n",
        "  cipher_suites:\n  - TLS_AES_128_GCM_SHA256\n",
        "  cipher_suites: []\n  curve_preferences: []\n",
        "  curve_preferences:\n  - CurveP256\n  - CurveP384\n  - X25519\n",
        "  min_version: TLS13\n  max_version: TLS13\n  prefer_server_cipher_suites: false\n",
        "http_server_config:\n  http2: false\n",
        "rate_limit:\n  interval: 1s\n  burst: 5\n",
    ] {
        let config = load(folder.path(), &tls(keys)).unwrap();
        let alpn = &config.tls().unwrap().alpn_protocols;
        assert_eq!(alpn, &[b"http/1.1".to_vec()], "{keys}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_reason() {
    let folder = folder();
    let suites = "there are TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, ";
    let no_pem = "there is no certificate in PEM format in it";
    for (text, wanted) in [
        (
            "tls_config: {}\n".to_owned(),
            "web.yml: unknown field `tls_config`",
        ),
        (
            tls("  cert_fil: x\n"),
            "tls_server_config: unknown field `cert_fil`",
        ),
        (
            tls("  cert: x\n"),
            "cert and cert_file are both there; leave one out",
        ),
        (
            "tls_server_config: {cert_file: server.crt}\n".to_owned(),
            "neither key_file nor key is there",
        ),
        (
            "tls_server_config: {min_version: TLS12}\n".to_owned(),
            "neither cert_file nor cert is there",
        ),
        (
            "tls_server_config: {cert_file: '', key_file: server.key}\n".to_owned(),
            "neither cert_file nor cert is there",
        ),
        (
            "tls_server_config: {cert_file: nowhere, key_file: server.key}\n".to_owned(),
            "cannot read nowhere: no such file",
        ),
        (
            "tls_server_config: {cert_file: junk, key_file: server.key}\n".to_owned(),
            no_pem,
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: junk}\n".to_owned(),
            "junk: there is no private key in PEM format in it",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: other.key}\n".to_owned(),
            "server.crt: cannot be used together with other.key: ",
        ),
        (
            tls("  client_ca_file: ca.crt\n"),
            "client CAs without a client_auth_type",
        ),
        (
            tls("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: junk\n"),
            no_pem,
        ),
        (
            tls("  client_auth_type: Always\n"),
            "\"Always\" is not one of NoClientCert",
        ),
        (
            tls(
                "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n  client_allowed_sans: [a]\n",
            ),
            "client_allowed_sans has no effect",
        ),
        (
            tls("  client_allowed_sans: [a]\n"),
            "client_allowed_sans has no effect",
        ),
        (
            tls("  min_version: TLS10\n"),
            "rustls has neither TLS 1.0 nor TLS 1.1",
        ),
        (
            tls("  max_version: TLS11\n"),
            "rustls has neither TLS 1.0 nor TLS 1.1",
        ),
        (
            tls("  min_version: TLS1.2\n"),
            "\"TLS1.2\" is not a TLS version",
        ),
        (
            tls("  min_version: TLS13\n  max_version: TLS12\n"),
            "min_version is above max_version",
        ),
        (
            tls("  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]\n"),
            "rustls has no suites with CBC, RC4 or 3DES",
        ),
        (
            tls("  cipher_suites: [TLS_RSA_WITH_AES_128_GCM_SHA256]\n"),
            "without forward secrecy (RSA key exchange)",
        ),
        (tls("  cipher_suites: [TLS_INVENTED]\n"), suites),
        (
            tls("  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  max_version: TLS12\n"),
            "cipher_suites leave nothing",
        ),
        (
            tls("  curve_preferences: [CurveP521]\n"),
            "rustls does no key exchange over it",
        ),
        (
            tls("  curve_preferences: [CurveP111]\n"),
            "is not a curve of Go's",
        ),
        (
            "http_server_config: {headers: {Server: x}}\n".to_owned(),
            "the header \"Server\" cannot be set here",
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: allow}}\n".to_owned(),
            "X-Frame-Options can be deny or sameorigin, not \"allow\"",
        ),
        (
            "http_server_config: {headers: {X-Content-Type-Options: sniff}}\n".to_owned(),
            "can be nosniff, not",
        ),
        (
            "basic_auth_users: {a: s3cret}\n".to_owned(),
            "this is not a bcrypt hash",
        ),
        (
            "basic_auth_users: s3cret\n".to_owned(),
            "(hidden), expected keys with values",
        ),
        (
            "rate_limit: {interval: 1s}\n".to_owned(),
            "with a burst of 0 no request passes",
        ),
        (
            "rate_limit: {interval: often, burst: 1}\n".to_owned(),
            "\"often\" is not a duration",
        ),
    ] {
        let error = load(folder.path(), &text).unwrap_err();
        assert!(error.contains(wanted), "{text}\n{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    let place = load(folder.path(), &tls("  min_version: TLS10\n")).unwrap_err();
    assert!(place.ends_with("at line 4 column 16"), "{place}");
}

#[test]
fn text_in_the_file_serves_as_well_as_a_file() {
    let folder = folder();
    let indented = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        text.lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    let text = format!(
        "tls_server_config:\n  cert: |\n{}  key: |\n{}  client_ca: |\n{}  \
         client_auth_type: RequireAndVerifyClientCert\n",
        indented("server.crt"),
        indented("server.key"),
        indented("ca.crt"),
    );
    let config = load(folder.path(), &text).unwrap();
    assert!(config.verifies_clients());
    let shown = format!("{config:?}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn a_certificate_is_trusted_as_long_as_a_handshake_would_trust_it() {
    let folder = folder();
    let authority = || {
        let mut params = CertificateParams::new(vec!["CA".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (first, next) = (authority(), authority());
    let issue = |by: &CertifiedIssuer<'_, KeyPair>, year| {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let signed = params.signed_by(&KeyPair::generate().unwrap(), by);
        signed.unwrap().der().clone()
    };
    let good = [issue(&first, 4000)];
    let (expired, foreign) = ([issue(&first, 2000)], [issue(&next, 4000)]);
    let asks = |auth_type: &str, more: &str, ca: &CertifiedIssuer<'_, KeyPair>| {
        fs::write(folder.path().join("ca.crt"), ca.pem()).unwrap();
        let keys = format!("  client_auth_type: {auth_type}\n  client_ca_file: ca.crt\n{more}");
        load(folder.path(), &tls(&keys)).unwrap()
    };
    for auth_type in ["VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] {
        let config = asks(auth_type, "", &first);
        assert!(config.trusts_client(&good));
        for other in [&[][..], &expired, &foreign] {
            assert!(!config.trusts_client(other));
        }
        assert!(!asks(auth_type, "", &next).trusts_client(&good));
    }
    // One that is on the list of authorities may be shown itself.
    let itself = [first.der().clone()];
    assert!(asks("RequireAndVerifyClientCert", "", &first).trusts_client(&itself));
    assert!(!asks("RequireAndVerifyClientCert", "", &next).trusts_client(&itself));
    for (name, is_allowed) in [("b.test", false), ("a.test", true)] {
        let some = format!("  client_allowed_sans: [{name}]\n");
        let some = asks("RequireAndVerifyClientCert", &some, &first);
        assert_eq!(some.trusts_client(&good), is_allowed);
        assert!(!some.trusts_client(&itself));
    }
    for certificate in [&good, &itself] {
        assert!(!asks("RequireAnyClientCert", "", &first).trusts_client(certificate));
    }
}

#[test]
fn a_client_that_is_trusted_itself_vouches_for_nobody() {
    let folder = folder();
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        let client = CertifiedIssuer::self_signed(params, key).unwrap();
        let forged = CertificateParams::new(vec!["b.test".to_owned()]).unwrap();
        let forged = forged.signed_by(&KeyPair::generate().unwrap(), &client);
        let forged = forged.unwrap().der().clone();
        let ca = fs::read_to_string(folder.path().join("ca.crt")).unwrap();
        // Alone, and beside an authority.
        for trusted in [client.pem(), client.pem() + &ca] {
            fs::write(folder.path().join("clients.crt"), trusted).unwrap();
            let keys = "  client_auth_type: RequireAndVerifyClientCert\n  \
                        client_ca_file: clients.crt\n";
            let config = load(folder.path(), &tls(keys)).unwrap();
            let chain = [forged.clone(), client.der().clone()];
            assert!(config.trusts_client(&chain[1..]));
            for forged in [&chain[..1], &chain] {
                assert!(!config.trusts_client(forged));
            }
        }
    }
}

#[test]
fn a_change_is_taken_over_unless_it_opens_what_was_closed() {
    let folder = folder();
    let path = folder.path().join("web.yml");
    let user =
        "basic_auth_users:\n  a: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG\n";
    let verifying = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";
    let some = format!("{verifying}  client_allowed_sans: [a.test, b.test]\n");
    let full = format!("{}{user}", tls(&some));
    fs::write(&path, &full).unwrap();
    let config = WebConfig::load(path.clone()).unwrap();
    for opened in [
        String::new(),
        user.to_owned(),
        tls(&some),
        format!("{}{user}", tls(verifying)),
        format!(
            "{}{user}",
            tls("  client_auth_type: RequireAnyClientCert\n  client_allowed_sans: [a.test]\n")
        ),
        format!(
            "{}{user}",
            tls("  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n")
        ),
    ] {
        fs::write(&path, &opened).unwrap();
        assert!(!config.refresh(), "{opened}");
        assert!(config.current().users().is_some() && config.current().requires_clients());
    }
    fs::write(
        &path,
        format!("{full}rate_limit: {{interval: 1s, burst: 2}}\n"),
    )
    .unwrap();
    assert!(config.refresh());
    assert!(config.current().rate_limit().is_some());
    let before = config.current();
    fs::write(folder.path().join("server.key"), "half").unwrap();
    assert!(!config.refresh());
    assert!(Arc::ptr_eq(
        before.tls().unwrap(),
        config.current().tls().unwrap()
    ));
}

//! Who is let in, and what for, by the files as operators write them.

use std::fs;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName, PROXY_AUTHORIZATION};
use pushprox_daemon::san::San;
use pushprox_protocol::Target;
use tempfile::TempDir;

use super::*;

struct Files(TempDir);

impl Files {
    fn new(auth: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(auth);
        files
    }

    fn write(&self, auth: &str) {
        let digest = pushprox_daemon::guard::token_digest(b"token-of-node7");
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let hash = bcrypt::hash("swordfish", 4).unwrap();
        let text = auth.replace("TOKEN", &digest).replace("HASH", &hash);
        fs::write(self.0.path().join("auth.yml"), text).unwrap();
    }

    fn access(&self) -> Access {
        Access::load(None, Some(self.0.path().join("auth.yml"))).unwrap()
    }
}

const AUTH: &str = "scrapers:
- {user: prometheus, password_bcrypt: HASH, names: ['*.edge.example.org:9100', 'node7']}
- {san: prometheus.example.org, names: ['*']}
clients:
- {token_sha256: TOKEN, names: ['node7']}
- {san: '*.edge.example.org', names: ['{san}:9100']}
";

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are good until a date"
)]
fn peer(sans: Option<&[&str]>) -> Peer {
    Peer {
        ip: "192.0.2.1".parse().unwrap(),
        certificate: sans.map(|sans| {
            let names = sans.iter().map(|san| San::Dns((*san).to_owned()));
            let not_after = SystemTime::now() + Duration::from_secs(3600);
            Arc::new(ClientCertificate::with_names(names.collect(), not_after))
        }),
        roles: Roles::ALL,
    }
}

fn with(name: HeaderName, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
}

fn name(text: &str) -> Fqdn {
    text.parse().unwrap()
}

fn target(text: &str) -> Target {
    Target::from_uri(&format!("http://{text}/").parse().unwrap()).unwrap()
}

/// `prometheus:swordfish`
const BASIC: &str = "Basic cHJvbWV0aGV1czpzd29yZGZpc2g=";

#[tokio::test]
async fn a_scraper_reaches_what_its_entry_says() {
    let files = Files::new(AUTH);
    let access = files.access();
    let admit = async |headers: &HeaderMap, sans| {
        access
            .admit(&peer(sans), Role::Scraper, headers, Place::Proxied)
            .await
    };
    let grant = admit(&with(PROXY_AUTHORIZATION, BASIC), None)
        .await
        .unwrap();
    assert_eq!(grant.identity.to_string(), "prometheus");
    assert!(grant.may_reach(&target("a.edge.example.org:9100")));
    assert!(grant.may_reach(&target("node7:1234")));
    assert!(!grant.may_reach(&target("a.edge.example.org")));
    assert!(!grant.may_reach(&target("node8:9100")));
    assert!(grant.may_see(name("a.edge.example.org").as_ref()));
    assert!(!grant.may_see(name("node8").as_ref()));

    let prometheus = ["prometheus.example.org"];
    let grant = admit(&HeaderMap::new(), Some(&prometheus)).await.unwrap();
    assert!(grant.may_reach(&target("anything:1")));

    let wrong = "Basic cHJvbWV0aGV1czpTd29yZGZpc2g=";
    for (headers, sans, denied) in [
        (HeaderMap::new(), None, Denied::Missing),
        (with(PROXY_AUTHORIZATION, wrong), None, Denied::Wrong),
        // The target's credentials are not for the proxy.
        (with(AUTHORIZATION, BASIC), None, Denied::Missing),
        (
            with(PROXY_AUTHORIZATION, "Bearer token-of-node7"),
            None,
            Denied::Wrong,
        ),
        // What is shown in the header counts, and has to be right.
        (
            with(PROXY_AUTHORIZATION, wrong),
            Some(&prometheus[..]),
            Denied::Wrong,
        ),
    ] {
        assert_eq!(admit(&headers, sans).await.unwrap_err(), denied);
    }
    let other = admit(&HeaderMap::new(), Some(&["other"]))
        .await
        .unwrap_err();
    assert!(matches!(other, Denied::NotAllowed(_)), "{other}");
}

#[tokio::test]
async fn a_client_registers_its_own_name_and_no_other() {
    let files = Files::new(AUTH);
    let access = files.access();
    let admit = async |headers: &HeaderMap, sans| {
        access
            .admit(&peer(sans), Role::Client, headers, Place::Own)
            .await
            .unwrap()
    };
    let token = with(AUTHORIZATION, "Bearer token-of-node7");
    let by_token = admit(&token, None).await;
    assert!(by_token.may_register(name("NODE7").as_ref()));
    assert!(by_token.may_register(name("node7:9100").as_ref()));
    assert!(!by_token.may_register(name("node8").as_ref()));

    let none = HeaderMap::new();
    let by_certificate = admit(&none, Some(&["x", "a.edge.example.org"])).await;
    assert!(by_certificate.may_register(name("a.edge.example.org:9100").as_ref()));
    assert!(!by_certificate.may_register(name("a.edge.example.org").as_ref()));
    assert!(!by_certificate.may_register(name("b.edge.example.org:9100").as_ref()));
    assert_ne!(by_token.identity, by_certificate.identity);
    assert_eq!(by_token.identity, admit(&token, None).await.identity);
    let b = admit(&none, Some(&["b.edge.example.org"])).await;
    assert_ne!(
        by_certificate.identity, b.identity,
        "one entry, two clients"
    );
}

#[tokio::test]
async fn credentials_that_share_a_name_are_one_client() {
    let files = Files::new(
        "scrapers: []
clients:
- {name: node7, token_sha256: TOKEN, names: ['node7']}
- {name: node7, user: node7, password_bcrypt: HASH, names: ['node7']}
",
    );
    let access = files.access();
    let mut identities = Vec::new();
    for shown in ["Bearer token-of-node7", "Basic bm9kZTc6c3dvcmRmaXNo"] {
        let shown = with(AUTHORIZATION, shown);
        let grant = access
            .admit(&peer(None), Role::Client, &shown, Place::Own)
            .await;
        identities.push(grant.unwrap().identity);
    }
    assert_eq!(identities[0], identities[1]);
    assert_eq!(identities[0].to_string(), "node7");
}

#[tokio::test]
async fn a_door_is_for_its_roles_only() {
    let access = Access::open();
    let door: DoorAddress = "clients@127.0.0.1:0".parse().unwrap();
    let mut peer = peer(None);
    peer.roles = door.roles;
    let none = HeaderMap::new();
    assert!(
        access
            .admit(&peer, Role::Client, &none, Place::Own)
            .await
            .is_ok()
    );
    let denied = access
        .admit(&peer, Role::Scraper, &none, Place::Proxied)
        .await;
    assert_eq!(
        denied.unwrap_err().to_string(),
        "this listener is not for scrapers"
    );
}

#[tokio::test]
async fn who_is_struck_off_may_no_longer_register() {
    let files = Files::new(AUTH);
    let access = files.access();
    let policy = access.policy.clone().unwrap();
    let token = with(AUTHORIZATION, "Bearer token-of-node7");
    let by_token = access
        .admit(&peer(None), Role::Client, &token, Place::Own)
        .await
        .unwrap();
    let sans = ["other.edge.example.org", "a.edge.example.org"];
    let none = HeaderMap::new();
    let by_certificate = access
        .admit(&peer(Some(&sans)), Role::Client, &none, Place::Own)
        .await
        .unwrap();
    let may = |grant: &Grant, text: &str| access.client_again(&grant.proof, &name(text)).is_some();
    files.write(&AUTH.replace(
        "names: ['node7']}\n- {san: '*",
        "names: ['node8']}\n- {san: '*",
    ));
    assert!(policy.refresh());
    assert_eq!(access.generation(), 1);
    assert!(!may(&by_token, "node7"));
    // By whichever of its names.
    assert!(may(&by_certificate, "other.edge.example.org:9100"));
    assert!(may(&by_certificate, "a.edge.example.org:9100"));

    files.write("scrapers: []\nclients: []\noperators: []\n");
    assert!(policy.refresh());
    assert!(!may(&by_certificate, "a.edge.example.org:9100"));

    files.write("scrapers: anyone\nclients: anyone\n");
    assert!(
        !policy.refresh(),
        "what was closed is not opened by a reload"
    );
    assert!(
        access
            .admit(&peer(None), Role::Client, &token, Place::Own)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_credential_that_is_replaced_is_struck_off_though_its_member_stays() {
    let both = "scrapers: []
clients:
- {name: node7, token_sha256: TOKEN, names: ['node7']}
- {name: node7, user: node7, password_bcrypt: HASH, names: ['node7']}
";
    let files = Files::new(both);
    let access = files.access();
    let policy = access.policy.clone().unwrap();
    let mut grants = Vec::new();
    for shown in ["Bearer token-of-node7", "Basic bm9kZTc6c3dvcmRmaXNo"] {
        let shown = with(AUTHORIZATION, shown);
        let admitted = access
            .admit(&peer(None), Role::Client, &shown, Place::Own)
            .await;
        grants.push(admitted.unwrap());
    }
    let may = |at: usize| access.client_again(&grants[at].proof, &name("node7"));
    assert_eq!(
        (may(0), may(1)),
        (
            Some(grants[0].identity.clone()),
            Some(grants[0].identity.clone())
        )
    );

    let other_token = "0".repeat(64);
    let text = both
        .replace("TOKEN", &other_token)
        .replace("HASH", &grants_hash(&grants[1]));
    files.write(&text);
    assert!(policy.refresh());
    assert_eq!((may(0), may(1).is_some()), (None, true));

    // Another hash, if only of the same password.
    files.write(&both.replace("TOKEN", &other_token));
    assert!(policy.refresh());
    assert_eq!((may(0), may(1)), (None, None));
}

/// The hash that a password met. `Files::write` makes another one each time.
fn grants_hash(grant: &Grant) -> String {
    match &grant.proof {
        Proof::Password(_, hash) => hash.expose().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_came_in_as_anyone_is_looked_at_again_when_only_members_may() {
    let files = Files::new("scrapers: []\nclients: anyone\n");
    let access = files.access();
    let policy = access.policy.clone().unwrap();
    let anyone = access
        .admit(&peer(None), Role::Client, &HeaderMap::new(), Place::Own)
        .await
        .unwrap();
    assert!(access.client_again(&anyone.proof, &name("node7")).is_some());
    files.write("scrapers: []\nclients: []\n");
    assert!(policy.refresh());
    assert!(access.client_again(&anyone.proof, &name("node7")).is_none());
}

#[tokio::test]
async fn a_user_of_the_web_configuration_is_struck_off_like_a_member() {
    let files = Files::new(AUTH);
    let path = files.0.path().join("web.yml");
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    let (first, other) = (hash("swordfish"), hash("other"));
    let users = |first: &str| format!("basic_auth_users: {{node7: {first}, other: {other}}}\n");
    fs::write(&path, users(&first)).unwrap();
    let access = Access::load(Some(path.clone()), None).unwrap();
    let shown = with(AUTHORIZATION, "Basic bm9kZTc6c3dvcmRmaXNo");
    let grant = access
        .admit(&peer(None), Role::Client, &shown, Place::Own)
        .await
        .unwrap();
    let may = || access.client_again(&grant.proof, &name("node7"));
    assert_eq!(may(), Some(grant.identity.clone()));
    for next in [
        users(&hash("changed")),
        format!("basic_auth_users: {{other: {other}}}\n"),
    ] {
        let before = access.generation();
        fs::write(&path, next).unwrap();
        assert!(access.web.refresh());
        assert_ne!(access.generation(), before);
        assert_eq!(may(), None);
    }
}

#[test]
fn users_of_the_web_configuration_are_refused_beside_members() {
    let files = Files::new(AUTH);
    let web = files.0.path().join("web.yml");
    let auth = files.0.path().join("auth.yml");
    let hash = bcrypt::hash("x", 4).unwrap();
    let users = format!("basic_auth_users: {{a: {hash}}}\n");
    fs::write(&web, &users).unwrap();
    let error = Access::load(Some(web.clone()), Some(auth.clone())).unwrap_err();
    let wanted = "web.yml: basic_auth_users cannot be used together with --auth.config.file";
    assert!(error.to_string().contains(wanted), "{error}");
    // Nor do they come in by the back door.
    fs::write(&web, "http_server_config: {}\n").unwrap();
    let access = Access::load(Some(web.clone()), Some(auth)).unwrap();
    fs::write(&web, &users).unwrap();
    assert!(!access.web.refresh());
}

#[test]
fn nothing_secret_is_in_the_debug_output() {
    let files = Files::new(AUTH);
    let access = files.access();
    let shown = format!("{access:?} {:?}", access.policy.as_ref().unwrap().current());
    assert!(!shown.contains("$2b$"), "{shown}");
}

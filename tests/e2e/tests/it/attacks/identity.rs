//! In another's name: stolen names, stolen ids, answers twice, and who has been struck off.

use pushprox_testkit::pushprox::Proxy;
use pushprox_testkit::tls::curl;
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::scrape_request;

use super::{ALICE, MALLORY, answer, handed_out, open, post, proxy, send};
use crate::secured::{Folder, digest, hash};

#[tokio::test]
async fn a_stolen_name_is_not_registered() {
    let folder = Folder::new();
    let proxy = proxy(&folder).await;
    for (headers, name, status, text) in [
        (MALLORY, "alice.test", 403, "may not register alice.test\n"),
        (MALLORY, "ALICE.test.", 403, "may not register"),
        (
            MALLORY,
            "alice.test:80",
            403,
            "may not register alice.test:80\n",
        ),
        ("", "alice.test", 401, "credentials are required\n"),
        (
            "Authorization: Bearer wrong\r\n",
            "alice.test",
            401,
            "these credentials are wrong\n",
        ),
        // Another client's token beside one's own.
        (
            &format!("{MALLORY}{ALICE}"),
            "alice.test",
            401,
            "neither Basic nor Bearer",
        ),
        (
            "Authorization: Negotiate abc\r\n",
            "alice.test",
            401,
            "neither Basic nor Bearer",
        ),
        // Credentials for a proxied request are none for a poll.
        (
            "Proxy-Authorization: Bearer token-of-alice\r\n",
            "alice.test",
            401,
            "are required",
        ),
    ] {
        let refused = send(&proxy, &post("/poll", headers, name)).await;
        assert_eq!(refused.status(), status, "{name}: {refused:?}");
        assert!(refused.text().contains(text), "{name}: {refused:?}");
        let challenged = refused.header("WWW-Authenticate").is_some();
        assert_eq!(challenged, status == 401, "{refused:?}");
    }
    assert_eq!(proxy.names().await, [""; 0]);
    let scrape = proxy.scrape("http://alice.test/", 1.0).await;
    assert_eq!(
        scrape.status(),
        503,
        "nobody answers in her name: {scrape:?}"
    );
}

#[tokio::test]
async fn a_stolen_id_does_not_let_another_answer() {
    let folder = Folder::new();
    let proxy = proxy(&folder).await;
    let (mut scrape, id) = handed_out(&proxy).await;
    for (headers, body, status) in [
        (MALLORY, answer(&id, "forged 1\n"), 403),
        ("", answer(&id, "forged 1\n"), 401),
        (
            "Authorization: Bearer wrong\r\n",
            answer(&id, "forged 1\n"),
            401,
        ),
        // A broken answer would end the scrape, if it were hers.
        (
            MALLORY,
            format!("HTTP/1.1 200 OK\r\nId: {id}\r\nbroken\r\n\r\n"),
            400,
        ),
        (
            "",
            format!("HTTP/1.1 200 OK\r\nId: {id}\r\nbroken\r\n\r\n"),
            401,
        ),
    ] {
        let refused = send(&proxy, &post("/push", headers, &body)).await;
        assert_eq!(refused.status(), status, "{body}: {refused:?}");
    }
    let taken = send(&proxy, &post("/push", ALICE, &answer(&id, "right 1\n"))).await;
    assert_eq!(taken.status(), 200, "{taken:?}");
    assert_eq!(scrape.receive().await.unwrap().text(), "right 1\n");
    until("the refusal counted", SOON, async || {
        let denied = "pushprox_auth_failures_total{reason=\"not_allowed\"}";
        (proxy.metric(denied).await == Some(1.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replayed_push_and_a_guessed_id_are_gone() {
    let folder = Folder::new();
    let proxy = proxy(&folder).await;
    let (mut scrape, id) = handed_out(&proxy).await;
    let push = post("/push", ALICE, &answer(&id, "right 1\n"));
    assert_eq!(send(&proxy, &push).await.status(), 200);
    assert_eq!(scrape.receive().await.unwrap().text(), "right 1\n");
    assert_eq!(send(&proxy, &push).await.status(), 410, "replayed");
    let guess = "00000000-0000-4000-8000-000000000000";
    let guessed = send(&proxy, &post("/push", ALICE, &answer(guess, "x 1\n"))).await;
    assert_eq!(guessed.status(), 410);
}

#[tokio::test]
async fn who_is_struck_off_is_handed_nothing_more() {
    let folder = Folder::new();
    let mut proxy = proxy(&folder).await;
    let mut poll = open(&proxy, &post("/poll", ALICE, "alice.test")).await;
    proxy.registered("alice.test").await;
    folder.write("auth.yml", "scrapers: anyone\nclients: []\n");
    proxy.daemon.line(&["read again after a change"]).await;
    let scrape = proxy.scrape("http://alice.test/", 1.0).await;
    assert_eq!(scrape.status(), 504, "{scrape:?}");
    assert_eq!(
        poll.rest().await,
        b"",
        "her poll is closed without a scrape"
    );
}

#[tokio::test]
async fn a_credential_that_is_replaced_is_handed_nothing_more_though_its_client_stays() {
    let folder = Folder::new();
    let auth = async |token: &str| {
        let token = digest(token).await;
        format!(
            "scrapers: anyone\nclients:\n- {{name: node, token_sha256: {token}, names: [node.test]}}\n"
        )
    };
    let file = folder.write("auth.yml", &auth("old").await);
    let mut proxy = Proxy::start(&[&format!("--auth.config.file={file}")]).await;
    let mut thief = open(
        &proxy,
        &post("/poll", "Authorization: Bearer old\r\n", "node.test"),
    )
    .await;
    proxy.registered("node.test").await;
    folder.write("auth.yml", &auth("new").await);
    proxy.daemon.line(&["read again after a change"]).await;
    let scrape = proxy.scrape("http://node.test/", 1.0).await;
    assert_eq!(scrape.status(), 504, "{scrape:?}");
    assert_eq!(thief.rest().await, b"");
}

#[tokio::test]
async fn a_user_of_the_web_configuration_that_is_struck_off_is_handed_nothing_more() {
    let folder = Folder::new();
    let (a, b) = (hash("a").await, hash("b").await);
    let file = folder.write(
        "users.yml",
        &format!("basic_auth_users: {{a: {a}, b: {b}}}\n"),
    );
    let mut proxy = Proxy::start(&[&format!("--web.config.file={file}")]).await;
    // a:a and b:b
    let mut struck = open(
        &proxy,
        &post("/poll", "Authorization: Basic YTph\r\n", "node.test"),
    )
    .await;
    let list = format!("{}clients", proxy.url());
    until("the name is on the list", SOON, async || {
        let list = curl(["--user", "b:b", &list]).await.stdout;
        list.contains("node.test").then_some(())
    })
    .await;
    folder.write("users.yml", &format!("basic_auth_users: {{b: {b}}}\n"));
    proxy.daemon.line(&["read again after a change"]).await;
    let shown = "Proxy-Authorization: Basic Yjpi\r\n";
    let scrape = send(&proxy, &scrape_request("http://node.test/", 1.0, shown)).await;
    assert_eq!(scrape.status(), 504, "{scrape:?}");
    assert_eq!(struck.rest().await, b"");
}

//! A certificate that cannot be read, among those to trust.

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::tls::Authority;

use crate::secured::{Folder, https};

const AUTH: &str = "scrapers:
- {san: prometheus.test, names: ['*']}
clients:
- {san: 'node.test', names: ['{san}']}
";

#[tokio::test]
async fn it_is_told_with_its_place_and_the_others_are_trusted() {
    let folder = Folder::new();
    // The text in it is "no certificate".
    let broken = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    let bundle = Authority::new("other").pem() + broken + &folder.authority.pem();
    let ca = folder.write("bundle.crt", &bundle);
    let (node, scraper) = (folder.issue("node.test"), folder.issue("prometheus.test"));
    let web =
        folder.web("  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: bundle.crt\n");
    let proxy = Proxy::start(&[
        &format!("--web.config.file={web}"),
        &format!("--auth.config.file={}", folder.write("auth.yml", AUTH)),
    ])
    .await;
    let flags = [
        format!("--tls.cacert={ca}"),
        format!("--tls.cert={}", node.cert.display()),
        format!("--tls.key={}", node.key.display()),
        format!("--pull.tls.cacert={ca}"),
    ];
    let client = Client::start(
        &https(&proxy),
        &format!("{}/-/healthy", https(&proxy)),
        "node.test",
        &flags.each_ref().map(String::as_str),
    );
    // Trusted by its certificate are the client and the scraper, by theirs proxy and target.
    let flags = scraper.flags("--proxy-");
    folder.scraped(&proxy, "http://node.test/", &flags).await;
    let told = format!("file={ca} position=2 ");
    assert_eq!(proxy.daemon.lines_with(&[&told]).len(), 1);
    assert_eq!(client.daemon.lines_with(&[&told]).len(), 2, "of each leg");
}

//! What lines look like, and that no value breaks out of one.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing::subscriber::with_default;
use tracing::{debug, info, info_span, warn};

use super::*;

fn lines(level: LogLevel, format: LogFormat, work: impl FnOnce()) -> Vec<String> {
    let written = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&written);
    let args = LogArgs { level, format };
    let subscriber = subscriber(&args, "proxyserver", move |line: &[u8]| {
        let line = String::from_utf8(line.to_vec()).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        // The time differs from run to run.
        let start = match format {
            LogFormat::Logfmt => " level=",
            LogFormat::Json => ",\"level\"",
        };
        let at = line.find(start).unwrap();
        sink.lock().push(
            line.split_at(at)
                .1
                .trim_end_matches('\n')
                .trim_start()
                .to_owned(),
        );
    });
    with_default(subscriber, work);
    Arc::try_unwrap(written).unwrap().into_inner()
}

fn logfmt(work: impl FnOnce()) -> Vec<String> {
    lines(LogLevel::Info, LogFormat::Logfmt, work)
}

#[test]
fn a_line_has_its_fields_in_order_and_those_of_its_spans() {
    let lines = logfmt(|| {
        let _outer = info_span!("poll", fqdn = "a", port = 1).entered();
        let inner = info_span!("scrape", scrape_id = tracing::field::Empty, fqdn = %"b");
        inner.record("scrape_id", "7");
        let _inner = inner.entered();
        warn!(code = 502, ok = false, took = ?std::time::Duration::from_millis(5), "scrape failed");
    });
    assert_eq!(
        lines,
        [
            "level=warn logger=proxyserver msg=\"scrape failed\" code=502 ok=false took=5ms \
          fqdn=b scrape_id=7 port=1"
        ]
    );
}

#[test]
fn values_cannot_forge_a_line_or_a_field() {
    let lines = logfmt(|| {
        info!(
            a = "x\nts=1 level=error",
            b = "say \"hi\" \\",
            c = "",
            d = "k=v",
            e = "\u{1b}[31m\u{0}\u{85}\u{2028}\u{202e}",
            f = "größer",
            level = "mine",
            "m\r\n"
        );
    });
    assert_eq!(
        lines,
        [concat!(
            r#"level=info logger=proxyserver msg="m\r\n" a="x\nts=1 level=error" "#,
            r#"b="say \"hi\" \\" c="" d="k=v" e="\u001b[31m\u0000\u0085\u2028\u202e" f=größer "#,
            r#"level_=mine"#
        )]
    );
}

#[test]
fn json_has_the_same_keys_and_stays_json() {
    let lines = lines(LogLevel::Info, LogFormat::Json, || {
        let _span = info_span!("scrape", fqdn = "a\"b").entered();
        info!(
            n = -3,
            x = 0.5,
            nan = f64::NAN,
            yes = true,
            text = "a\u{7}\\ \n\"",
            "done"
        );
    });
    assert_eq!(
        lines,
        [concat!(
            r#","level":"info","logger":"proxyserver","msg":"done","n":-3,"x":0.5,"nan":"NaN","#,
            r#""yes":true,"text":"a\u0007\\ \n\"","fqdn":"a\"b"}"#
        )]
    );
}

#[test]
fn long_values_are_cut() {
    let lines = logfmt(|| info!(long = "ä".repeat(100_000), "m"));
    let [line] = lines.as_slice() else { panic!() };
    assert!(line.len() < 2_200, "{}", line.len());
    assert!(line.ends_with("ä…\""), "{line}");
}

#[test]
fn errors_are_told_with_their_causes() {
    let error = crate::cli::UsageError("outer".to_owned());
    let lines = logfmt(|| info!(error = &error as &dyn std::error::Error, "m"));
    assert_eq!(lines, ["level=info logger=proxyserver msg=m error=outer"]);
}

#[test]
fn lines_below_the_level_are_not_even_formatted() {
    struct Bomb;
    impl fmt::Display for Bomb {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("formatted")
        }
    }
    let lines = logfmt(|| debug!(bomb = %Bomb, "m"));
    assert!(lines.is_empty());
}

#[test]
fn libraries_are_heard_from_warnings_on_unless_debugging() {
    let work = || {
        info!(target: "kube_client::x", "kube info");
        debug!(target: "kube_client::x", "kube debug");
        warn!(target: "kube_client::x", "kube warn");
        debug!(target: "hyper::proto", "hyper debug");
        warn!(target: "hyper::proto", "hyper warn");
        info!("ours");
    };
    let messages = |level| -> Vec<String> {
        lines(level, LogFormat::Logfmt, work)
            .iter()
            .map(|line| {
                line.split("msg=")
                    .last()
                    .unwrap()
                    .trim_matches('"')
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(
        messages(LogLevel::Info),
        ["kube warn", "hyper warn", "ours"]
    );
    assert_eq!(
        messages(LogLevel::Debug),
        ["kube info", "kube debug", "kube warn", "hyper warn", "ours"]
    );
    assert_eq!(messages(LogLevel::Error), [""; 0]);
}

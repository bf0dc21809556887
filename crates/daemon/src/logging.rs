//! The log: one line per event on stderr, in the logfmt of the Go programs or in JSON, which no
//! byte of a peer's can break out of.

use std::fmt;
use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber, set_global_default};
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

mod line;

pub(crate) use line::escape_controls;
use line::{Line, Value};

/// The flags of the log.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Least important lines that are logged.
    #[arg(
        long = "log.level",
        value_name = "LEVEL",
        value_enum,
        default_value = "info"
    )]
    pub level: LogLevel,

    /// How a line is written.
    #[arg(
        long = "log.format",
        value_name = "FORMAT",
        value_enum,
        default_value = "logfmt"
    )]
    pub format: LogFormat,
}

/// Values of `--log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Each request.
    Debug,
    /// What happens to the daemon.
    Info,
    /// What an operator should look at.
    Warn,
    /// What keeps the daemon from its work.
    Error,
}

/// Values of `--log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `ts=… level=info logger=… msg="…" key=value`.
    Logfmt,
    /// An object with the same keys.
    Json,
}

/// Sends the process's events to stderr under the name of `logger`. A second call changes nothing.
pub fn init(args: &LogArgs, logger: &str) {
    let to_stderr = |line: &[u8]| {
        // One write for the whole line, so that lines of several processes do not mix. There is
        // nowhere to report its failure.
        io::stderr().write_all(line).ok();
    };
    if set_global_default(subscriber(args, logger, to_stderr)).is_err() {
        tracing::warn!("the log was set up already");
    }
}

/// What [`init`] installs, with `sink` given each line whole, for tests that read the log.
pub fn subscriber(
    args: &LogArgs,
    logger: &str,
    sink: impl Fn(&[u8]) + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    tracing_subscriber::registry().with(Lines {
        level: args.level.into(),
        format: args.format,
        logger: logger.to_owned(),
        sink: Box::new(sink),
    })
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Info => Self::INFO,
            LogLevel::Warn => Self::WARN,
            LogLevel::Error => Self::ERROR,
        }
    }
}

struct Lines {
    level: LevelFilter,
    format: LogFormat,
    logger: String,
    sink: Sink,
}

type Sink = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The fields of a span, written once when they are known.
struct SpanFields(Vec<(&'static str, String)>);

impl Lines {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let bound = if is_ours(target) {
            self.level
        } else if self.level < LevelFilter::DEBUG || is_chatty(target) {
            // What a library has to say below a warning concerns its own inside.
            self.level.min(LevelFilter::WARN)
        } else {
            self.level
        };
        *metadata.level() <= bound
    }
}

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = SpanFields(Vec::new());
        attributes.record(&mut ToSpan {
            format: self.format,
            fields: &mut fields,
        });
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<SpanFields>() {
            values.record(&mut ToSpan {
                format: self.format,
                fields,
            });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Line::start(
            self.format,
            level_name(*event.metadata().level()),
            &self.logger,
        );
        event.record(&mut ToLine(&mut line));
        // The innermost span comes first, so that its fields win over those of the outer ones.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(fields)) = span.extensions().get() {
                for (name, written) in fields {
                    line.written(name, written);
                }
            }
        }
        line.finish(&self.sink);
    }
}

struct ToLine<'a>(&'a mut Line);

impl Values for ToLine<'_> {
    fn value(&mut self, field: &Field, value: Value<'_>) {
        self.0.field(field.name(), value);
    }
}

struct ToSpan<'a> {
    format: LogFormat,
    fields: &'a mut SpanFields,
}

impl Values for ToSpan<'_> {
    fn value(&mut self, field: &Field, value: Value<'_>) {
        let mut written = String::new();
        line::write_value(self.format, &mut written, value);
        let SpanFields(fields) = &mut self.fields;
        match fields.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, old)) => *old = written,
            None => fields.push((field.name(), written)),
        }
    }
}

/// Takes the values of an event or a span in the few shapes that lines know.
trait Values {
    fn value(&mut self, field: &Field, value: Value<'_>);
}

macro_rules! visit {
    ($type:ty) => {
        impl Visit for $type {
            fn record_f64(&mut self, field: &Field, value: f64) {
                let is_json = value.is_finite();
                let value: &dyn fmt::Display = &value;
                self.value(
                    field,
                    if is_json {
                        Value::Bare(value)
                    } else {
                        Value::Text(value)
                    },
                );
            }
            fn record_i64(&mut self, field: &Field, value: i64) {
                self.value(field, Value::Bare(&value));
            }
            fn record_u64(&mut self, field: &Field, value: u64) {
                self.value(field, Value::Bare(&value));
            }
            fn record_bool(&mut self, field: &Field, value: bool) {
                self.value(field, Value::Bare(&value));
            }
            fn record_str(&mut self, field: &Field, value: &str) {
                self.value(field, Value::Text(&value));
            }
            fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
                self.value(field, Value::Text(&crate::exit::causes(value)));
            }
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.value(field, Value::Text(&format_args!("{value:?}")));
            }
        }
    };
}
visit!(ToLine<'_>);
visit!(ToSpan<'_>);

/// Whether an event is the project's own. Those of a program's `main.rs` have the program's name.
fn is_ours(target: &str) -> bool {
    target.starts_with("pushprox") || ["proxy", "client", "discovery"].contains(&target)
}

/// Libraries whose debug lines show each byte's way and nothing that an operator can use.
fn is_chatty(target: &str) -> bool {
    ["hyper", "h2", "mio", "tower", "rustls", "want"]
        .iter()
        .any(|library| target.starts_with(library))
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    }
}

#[cfg(test)]
mod tests;

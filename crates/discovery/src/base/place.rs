//! Where in the text of a Prometheus configuration the list of scrape configs can be extended,
//! found by a YAML parser's marks, so that no comment, string or anchor is mistaken for it.

use granit_parser::{Event, Parser, Span, StrInput, StructureStyle};

use super::BaseError;

/// A place in the text, and in which style something can be put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Whole lines may stand before this one: items of the list, this far indented.
    Items { at: usize, indent: usize },
    /// Behind the opening bracket of a list in flow style.
    FlowItems { at: usize, empty: bool },
    /// A `null` is the list: lines go before it, and it ends as a comment.
    BeforeNull { at: usize, indent: usize },
    /// Whole lines may stand here: the key with its list.
    Key { at: usize, indent: usize },
    /// Behind the opening brace of a configuration in flow style.
    FlowKey { at: usize, empty: bool },
}

/// The places to try, best first.
pub(super) fn find(text: &str) -> Result<Vec<Place>, BaseError> {
    let mut events = Events::new(text);
    let root = match events.next()? {
        // Nothing but comments.
        None => {
            return Ok(vec![Place::Key {
                at: text.len(),
                indent: 0,
            }]);
        }
        Some((Event::Scalar(..), span)) if span.is_empty() => {
            return Ok(vec![Place::Key {
                at: events.document_end()?,
                indent: 0,
            }]);
        }
        Some(root) => root,
    };
    let (style, start) = match &root {
        (Event::MappingStart(style, ..), span) => (*style, *span),
        (Event::Scalar(text, ..), _) if is_null(text) => {
            return Err(BaseError::Unsuitable(
                "it is an explicit null; leave the file empty",
            ));
        }
        _ => return Err(BaseError::Unsuitable("it is not a mapping at its top")),
    };
    let mut first_key = None;
    let mut list = None;
    loop {
        let (key, key_span) = events.expect()?;
        if key == Event::MappingEnd {
            break;
        }
        first_key.get_or_insert(key_span);
        let is_list = matches!(&key, Event::Scalar(name, ..) if name == KEY);
        if !matches!(key, Event::Scalar(..)) {
            events.skip_rest_of(&key)?;
        }
        let (value, span) = events.expect()?;
        if !is_list {
            events.skip_rest_of(&value)?;
        } else if list.is_some() {
            return Err(BaseError::Unsuitable("scrape_configs is in it twice"));
        } else {
            list = Some(place_of_list(
                text,
                &mut events,
                key_span,
                &value,
                span,
                start.start.col(),
            )?);
        }
    }
    let end = events.document_end()?;
    Ok(match (list, style) {
        (Some(place), _) => vec![place],
        (None, StructureStyle::Flow) => vec![Place::FlowKey {
            at: bytes(start.start) + 1,
            empty: first_key.is_none(),
        }],
        (None, StructureStyle::Block) => {
            let indent = start.start.col();
            let mut places = vec![Place::Key { at: end, indent }];
            // A last value that would change by what follows it.
            if let Some(key) = first_key
                && let Some(at) = only_blank_before(text, bytes(key.start))
            {
                places.push(Place::Key { at, indent });
            }
            places
        }
    })
}

fn place_of_list(
    text: &str,
    events: &mut Events<'_>,
    key: Span,
    value: &Event<'_>,
    span: Span,
    root_indent: usize,
) -> Result<Place, BaseError> {
    match value {
        Event::SequenceStart(StructureStyle::Flow, ..) => {
            let (first, _) = events.expect()?;
            let empty = first == Event::SequenceEnd;
            if !empty {
                events.skip_rest_of(&first)?;
                events.skip_siblings()?;
            }
            Ok(Place::FlowItems {
                at: bytes(span.start) + 1,
                empty,
            })
        }
        Event::SequenceStart(StructureStyle::Block, ..) => {
            events.skip_rest_of(value)?;
            let (at, indent) = first_dash(text, bytes(key.end), bytes(span.start)).ok_or(
                BaseError::Unsuitable(
                    "the first item of scrape_configs is not on a line of its own; begin a new line for it below the key",
                ),
            )?;
            Ok(Place::Items {
                at: above_comments(text, at, bytes(key.end)),
                indent,
            })
        }
        Event::Scalar(scalar, _, anchor, None) if is_null(scalar) => {
            if span.is_empty() {
                // With an anchor, the mark of nothing lies behind that; without, anywhere below.
                let end = if *anchor == 0 { key.end } else { span.end };
                Ok(Place::Items {
                    at: next_line(text, bytes(end)),
                    indent: root_indent + 2,
                })
            } else {
                Ok(Place::BeforeNull {
                    at: bytes(span.start),
                    indent: root_indent + 2,
                })
            }
        }
        Event::Alias(_) => Err(BaseError::Unsuitable(
            "scrape_configs is an alias; write the list where the key is",
        )),
        _ => Err(BaseError::Unsuitable("scrape_configs is not a list")),
    }
}

/// The events of the text's only document.
struct Events<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Events<'a> {
    fn new(text: &'a str) -> Self {
        let options = granit_parser::options! {
            emit_comments: false,
            // As Prometheus's parser has it.
            block_scalar_eof_without_line_feed: true,
        };
        Self {
            parser: Parser::new_from_str_with_options(text, options),
        }
    }

    /// The first event of the document, or none if there is no document.
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, BaseError> {
        loop {
            let (event, span) = self.expect()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::StreamEnd => return Ok(None),
                event => return Ok(Some((event, span))),
            }
        }
    }

    fn expect(&mut self) -> Result<(Event<'a>, Span), BaseError> {
        self.parser
            .next_event()
            .unwrap_or_else(|| Ok((Event::StreamEnd, Span::default())))
            .map_err(|error| BaseError::Yaml(error.to_string()))
    }

    /// Passes over what belongs to a node whose first event was `start`.
    fn skip_rest_of(&mut self, start: &Event<'_>) -> Result<(), BaseError> {
        if is_start(start) {
            self.skip_siblings()
        } else {
            Ok(())
        }
    }

    /// Passes over everything up to the end of the collection that has been entered.
    fn skip_siblings(&mut self) -> Result<(), BaseError> {
        let mut depth = 1usize;
        while depth > 0 {
            let (event, _) = self.expect()?;
            match event {
                Event::SequenceEnd | Event::MappingEnd => depth -= 1,
                Event::StreamEnd => break,
                event if is_start(&event) => depth += 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Where the document ends: before `...`, or at the end of the text.
    fn document_end(&mut self) -> Result<usize, BaseError> {
        let (_, span) = self.expect()?;
        match self.expect()? {
            (Event::StreamEnd, end) if span.is_empty() => Ok(bytes(end.end)),
            (Event::StreamEnd, _) => Ok(bytes(span.start)),
            _ => Err(BaseError::Unsuitable(
                "there is more than one document in it",
            )),
        }
    }
}

fn is_start(event: &Event<'_>) -> bool {
    matches!(event, Event::SequenceStart(..) | Event::MappingStart(..))
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn bytes(mark: granit_parser::Marker) -> usize {
    mark.byte_offset().unwrap_or_default()
}

/// The first line below that of the key which begins with a dash, and how far it is indented.
///
/// The parser's mark of a list that is no deeper than its key lies behind the dash, perhaps lines
/// below it. Above the dash there is nothing but comments, an anchor or a tag.
fn first_dash(text: &str, key_end: usize, mark: usize) -> Option<(usize, usize)> {
    let mut at = next_line(text, key_end);
    while at <= mark && at < text.len() {
        let line = text.get(at..)?.lines().next()?;
        let item = line.trim_start_matches(' ');
        if item
            .strip_prefix('-')
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
        {
            return Some((at, line.len() - item.len()));
        }
        at = next_line(text, at);
    }
    None
}

/// The start of the line of `at`, if only blanks stand between.
fn only_blank_before(text: &str, at: usize) -> Option<usize> {
    let before = text.get(..at)?;
    let start = before.trim_end_matches(' ').len();
    (start == 0 || before.get(..start)?.ends_with(['\n', '\r'])).then_some(start)
}

/// The start of the line behind that of `at`.
fn next_line(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.find('\n').map_or(text.len(), |end| at + end + 1)
}

/// Moves up from the start of a line over blank lines and comments, which belong to what follows
/// them, down to where the key's own line ends.
fn above_comments(text: &str, mut at: usize, key_end: usize) -> usize {
    loop {
        let Some(before) = text.get(..at).and_then(|before| before.strip_suffix('\n')) else {
            return at;
        };
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = before.get(start..).unwrap_or_default().trim();
        if start <= key_end || !(line.is_empty() || line.starts_with('#')) {
            return at;
        }
        at = start;
    }
}

const KEY: &str = "scrape_configs";

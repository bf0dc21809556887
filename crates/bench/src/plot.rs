//! The plot of how cost grows with the fleet, as an SVG file that stands by itself.

use std::fmt::Write as _;

use crate::scale::{Cost, Scale};

/// Draws memory and CPU against clients, the proxy beside the least relay.
pub(crate) fn svg(scale: &Scale) -> String {
    let panels = [
        Panel {
            title: "Resident memory of parked clients",
            unit: "MB",
            of: |cost| cost.memory as f64 / 1e6,
        },
        Panel {
            title: "CPU per scrape of 20 kB, 16 at once",
            unit: "µs",
            of: |cost| cost.per_scrape,
        },
        Panel {
            title: "CPU while each is scraped every 15 s",
            unit: "% of a core",
            of: |cost| cost.core * 100.0,
        },
    ];
    let width = MARGIN_LEFT + panels.len() as f64 * (PLOT_WIDTH + GAP);
    let height = MARGIN_TOP + PLOT_HEIGHT + MARGIN_BOTTOM;
    let mut out = String::new();
    put(
        &mut out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" role=\"img\" \
             aria-label=\"Memory and CPU of the proxy and of the least relay against clients\">\n\
             <style>{STYLE}</style>\n\
             <rect class=\"ground\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>\n"
        ),
    );
    for (number, panel) in panels.iter().enumerate() {
        let left = MARGIN_LEFT + number as f64 * (PLOT_WIDTH + GAP);
        put(
            &mut out,
            format_args!("<g transform=\"translate({left} {MARGIN_TOP})\">\n"),
        );
        panel.draw(scale, &mut out);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

struct Panel {
    title: &'static str,
    unit: &'static str,
    of: fn(&Cost) -> f64,
}

impl Panel {
    fn draw(&self, scale: &Scale, out: &mut String) {
        let most_clients = scale.points.iter().map(|point| point.clients as f64);
        let most_clients = Axis::up_to(most_clients.fold(1.0, f64::max));
        let values = scale.points.iter();
        let values = values.flat_map(|point| [(self.of)(&point.proxy), (self.of)(&point.least)]);
        let most = Axis::up_to(values.fold(f64::MIN_POSITIVE, f64::max));
        put(
            out,
            format_args!(
                "<text class=\"title\" x=\"0\" y=\"-26\">{}</text>\n\
                 <text class=\"unit\" x=\"0\" y=\"-9\">{}</text>\n",
                self.title, self.unit
            ),
        );
        for tick in most.ticks() {
            let y = PLOT_HEIGHT - most.place(tick, PLOT_HEIGHT);
            put(
                out,
                format_args!(
                    "<line class=\"grid\" x1=\"0\" x2=\"{PLOT_WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n\
                     <text class=\"tick\" x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                    y + 4.0,
                    Number(tick)
                ),
            );
        }
        for tick in most_clients.ticks() {
            let x = most_clients.place(tick, PLOT_WIDTH);
            put(
                out,
                format_args!(
                    "<text class=\"tick\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                    PLOT_HEIGHT + 17.0,
                    Number(tick)
                ),
            );
        }
        put(
            out,
            format_args!(
                "<line class=\"axis\" x1=\"0\" x2=\"{PLOT_WIDTH}\" y1=\"{PLOT_HEIGHT}\" y2=\"{PLOT_HEIGHT}\"/>\n\
                 <text class=\"unit\" x=\"{PLOT_WIDTH}\" y=\"{}\" text-anchor=\"end\">clients</text>\n",
                PLOT_HEIGHT + 34.0
            ),
        );
        type Side = fn(&crate::scale::Point) -> &Cost;
        let sides: [(&str, &str, Side); 2] = [
            ("proxy", "proxy", |point| &point.proxy),
            ("least", "least relay", |point| &point.least),
        ];
        for (row, (class, name, side)) in sides.into_iter().enumerate() {
            let places: Vec<(f64, f64)> = scale
                .points
                .iter()
                .map(|point| {
                    let x = most_clients.place(point.clients as f64, PLOT_WIDTH);
                    let y = PLOT_HEIGHT - most.place((self.of)(side(point)), PLOT_HEIGHT);
                    (x, y)
                })
                .collect();
            let line: Vec<String> = places
                .iter()
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            put(
                out,
                format_args!(
                    "<polyline class=\"line {class}\" points=\"{}\"/>\n",
                    line.join(" ")
                ),
            );
            for (x, y) in places {
                put(
                    out,
                    format_args!(
                        "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>\n"
                    ),
                );
            }
            let x = row as f64 * 70.0;
            let y = PLOT_HEIGHT + 31.0;
            put(
                out,
                format_args!(
                    "<circle class=\"dot {class}\" cx=\"{}\" cy=\"{}\" r=\"4\"/>\n\
                     <text class=\"tick\" x=\"{}\" y=\"{}\">{name}</text>\n",
                    x + 4.0,
                    y,
                    x + 12.0,
                    y + 4.0
                ),
            );
        }
    }
}

/// From nothing to a round number, in round steps.
#[derive(Debug, Clone, Copy)]
struct Axis {
    step: f64,
    steps: u32,
}

impl Axis {
    fn up_to(most: f64) -> Self {
        let power = 10_f64.powf((most / 4.0).log10().floor());
        let rounded = |factor: &f64| factor * power * 5.0 >= most;
        let factor = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(rounded);
        let step = factor.unwrap_or(10.0) * power;
        let steps = (1..=10).find(|steps| step * f64::from(*steps) >= most * 0.999);
        Self {
            step,
            steps: steps.unwrap_or(10),
        }
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        (0..=self.steps).map(move |number| f64::from(number) * self.step)
    }

    /// Where a value is on an axis of this length.
    fn place(self, value: f64, length: f64) -> f64 {
        value / (self.step * f64::from(self.steps)) * length
    }
}

/// A number as short as its value allows.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(number) = *self;
        if number >= 1000.0 {
            let thousands = format!("{:.1}", number / 1000.0);
            return write!(f, "{}k", thousands.trim_end_matches(".0"));
        }
        let text = format!("{number:.2}");
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    out.write_fmt(text).ok();
}

/// The ground is drawn with the text, so that both fit whatever page the plot is on.
const STYLE: &str = "\
text{font-family:-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}\
.title{font-size:14px;font-weight:600}.unit{font-size:12px;fill:#59636e}.tick{font-size:12px}\
.ground{fill:#ffffff;stroke:#d1d9e0}.grid{stroke:#e4e8ec}.axis{stroke:#59636e}\
.line{fill:none;stroke-width:2}.line.proxy{stroke:#0969da}.line.least{stroke:#bc4c00}\
.dot.proxy{fill:#0969da}.dot.least{fill:#bc4c00}\
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.unit{fill:#9198a1}\
.ground{fill:#0d1117;stroke:#3d444d}.grid{stroke:#262c36}.axis{stroke:#9198a1}\
.line.proxy{stroke:#4493f8}.line.least{stroke:#f0883e}\
.dot.proxy{fill:#4493f8}.dot.least{fill:#f0883e}}";

const MARGIN_LEFT: f64 = 52.0;
const MARGIN_TOP: f64 = 58.0;
const MARGIN_BOTTOM: f64 = 48.0;
const PLOT_WIDTH: f64 = 250.0;
const PLOT_HEIGHT: f64 = 190.0;
const GAP: f64 = 62.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers_close_above_the_most() {
        for (most, end, step) in [
            (18_000.0, 20_000.0, 5_000.0),
            (31.0, 40.0, 10.0),
            (0.9, 1.0, 0.2),
            (100.0, 100.0, 20.0),
        ] {
            let axis = Axis::up_to(most);
            let last = axis.ticks().last().unwrap();
            assert!((last - end).abs() < 1e-9, "{most}: {axis:?}");
            assert!((axis.step - step).abs() < 1e-9, "{most}: {axis:?}");
        }
        assert_eq!(Number(2500.0).to_string(), "2.5k");
        assert_eq!(Number(20_000.0).to_string(), "20k");
        assert_eq!(Number(0.5).to_string(), "0.5");
        assert_eq!(Number(0.0).to_string(), "0");
    }
}

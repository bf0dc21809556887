//! The table: a row for each goal, with its figure and verdict, for people, as Markdown and as JSON.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::kernel::Machine;

/// All that a run has found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            machine,
            seconds: 0.0,
            rows: Vec::new(),
        }
    }

    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        let of_it = |row: &&Row| row.verdict == verdict;
        self.rows.iter().filter(of_it).count()
    }

    /// The last line: how many goals are met, and how long the run took.
    pub(crate) fn summary(&self) -> String {
        let Machine {
            processor,
            cores,
            kernel,
            placement,
        } = &self.machine;
        format!(
            "{} met, {} missed, {} failed, in {:.0} s on {cores} × {processor}, {kernel}, placement {placement}",
            self.count(Verdict::Met),
            self.count(Verdict::Missed),
            self.count(Verdict::Failed),
            self.seconds,
        )
    }

    /// The table as Markdown, with the summary.
    pub(crate) fn markdown(&self) -> String {
        let mut text =
            String::from("| figure | goal | measured | rounds | |\n|---|--:|--:|--:|---|\n");
        for row in &self.rows {
            let [figure, goal, value, spread, verdict] = row.cells();
            writeln!(
                text,
                "| {figure} | {goal} | {value} | {spread} | {verdict} |"
            )
            .ok();
        }
        text.push('\n');
        text.push_str(&self.summary());
        text.push_str(".\n");
        text
    }
}

/// One goal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What `--only` calls it.
    pub(crate) row: String,
    pub(crate) figure: String,
    pub(crate) goal: String,
    /// What was measured, to be compared with the limit.
    pub(crate) value: Option<f64>,
    pub(crate) limit: f64,
    /// The unit of both.
    pub(crate) unit: String,
    pub(crate) verdict: Verdict,
    /// What each round found, where `value` is the median of several.
    pub(crate) rounds: Vec<f64>,
    /// What else was measured on the way, in words.
    pub(crate) details: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// It could not be measured, or something went wrong on the way.
    Failed,
}

impl Row {
    /// A row that is met when `value` is at most `limit`.
    pub(crate) fn new(row: &str, figure: &str, value: f64, limit: f64, unit: &str) -> Self {
        Self {
            row: row.to_owned(),
            figure: figure.to_owned(),
            goal: format!("≤ {}", quantity(limit, unit)),
            value: Some(value),
            limit,
            unit: unit.to_owned(),
            verdict: match value <= limit {
                true => Verdict::Met,
                false => Verdict::Missed,
            },
            rounds: Vec::new(),
            details: Vec::new(),
        }
    }

    pub(crate) fn failed(row: &str, error: &anyhow::Error) -> Self {
        Self {
            row: row.to_owned(),
            figure: row.to_owned(),
            goal: String::new(),
            value: None,
            limit: 0.0,
            unit: String::new(),
            verdict: Verdict::Failed,
            rounds: Vec::new(),
            details: vec![format!("{error:#}")],
        }
    }

    /// A row whose value is the median of what several rounds have found.
    pub(crate) fn of_rounds(
        row: &str,
        figure: &str,
        rounds: Vec<f64>,
        limit: f64,
        unit: &str,
    ) -> Self {
        let row = Self::new(row, figure, median(&rounds), limit, unit);
        Self { rounds, ..row }
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }

    /// One line of the table, and the details below it.
    pub(crate) fn text(&self) -> String {
        let [figure, goal, value, spread, verdict] = self.cells();
        let mut text = format!("{figure:<64} {goal:>12} {value:>12} {spread:>15}  {verdict}");
        for detail in &self.details {
            write!(text, "\n    {}", detail.replace('\n', "\n    ")).ok();
        }
        text
    }

    fn cells(&self) -> [String; 5] {
        let value = self
            .value
            .map_or_else(|| "–".to_owned(), |value| quantity(value, &self.unit));
        let least = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self
            .rounds
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let spread = match self.rounds.is_empty() {
            true => String::new(),
            false => format!("{} – {}", quantity(least, ""), quantity(most, "")),
        };
        let verdict = match self.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Failed => "FAILED",
        };
        [
            self.figure.clone(),
            self.goal.clone(),
            value,
            spread,
            verdict.to_owned(),
        ]
    }
}

/// The heads of the table's columns.
pub(crate) fn heads() -> String {
    format!(
        "{:<64} {:>12} {:>12} {:>15}  verdict",
        "figure", "goal", "measured", "rounds"
    )
}

fn quantity(value: f64, unit: &str) -> String {
    let number = match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 20.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    match unit {
        "" => number,
        "×" => format!("{number} ×"),
        _ => format!("{number} {unit}"),
    }
}

/// The middle of some values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.get(middle.wrapping_sub(1))) {
        (Some(upper), Some(lower)) if sorted.len().is_multiple_of(2) => {
            f64::midpoint(*upper, *lower)
        }
        (Some(middle), _) => *middle,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_met_up_to_its_limit_and_shows_its_spread() {
        let row = Row::of_rounds("it", "a figure", vec![1.0, 9.0, 1.5], 1.5, "×").detail("more");
        assert_eq!(row.verdict, Verdict::Met);
        assert_eq!(
            Row::new("it", "a figure", 1.6, 1.5, "×").verdict,
            Verdict::Missed
        );
        let mut report = Report::new(Machine::this());
        report.rows = vec![row, Row::failed("other", &anyhow::anyhow!("it is gone"))];
        let markdown = report.markdown();
        assert!(markdown.contains("| a figure | ≤ 1.50 × | 1.50 × | 1.00 – 9.00 | met |"));
        assert!(markdown.contains("| other |  | – |  | FAILED |"));
        assert!(markdown.contains("1 met, 0 missed, 1 failed"));
        assert!(report.rows[1].text().contains("it is gone"));
    }
}

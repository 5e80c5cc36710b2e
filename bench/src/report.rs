//! The rows, as a Markdown table and as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    machine::Machine,
    measure::{Sample, median},
};

/// All that one call measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    pub(crate) peers: Vec<Peer>,
}

/// One line of the table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    id: String,
    what: String,
    unit: Unit,
    ours: Figure,
    reference: Option<Reference>,
    required: Option<Requirement>,
}

/// What another library does, as its own program measured it on the same server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    what: String,
    unit: Unit,
    samples: Vec<f64>,
    /// The id of the row that does the same with this library.
    beside: String,
}

/// The median of the runs, and how far they were apart.
#[derive(Debug, Serialize, Deserialize)]
struct Figure {
    median: f64,
    lowest: f64,
    highest: f64,
    /// All of them, in the order in which they were measured.
    runs: Vec<f64>,
    /// CPU seconds of the measuring process per million events, as a median; the servers' are not in it.
    cpu_per_million: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reference {
    what: String,
    figure: Figure,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    PerSecond,
    Milliseconds,
    Megabytes,
    Queries,
    Percent,
}

/// What a row has to reach.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Requirement {
    AtLeast(f64),
    Below(f64),
    AtMost(f64),
    /// Of the reference.
    RatioOf(f64),
    /// At most so many milliseconds above the reference.
    Above(f64),
}

impl Row {
    pub(crate) fn new(id: impl Into<String>, what: impl Into<String>, unit: Unit, ours: &[Sample]) -> Self {
        Self { id: id.into(), what: what.into(), unit, ours: Figure::of(ours), reference: None, required: None }
    }

    pub(crate) fn beside(mut self, what: impl Into<String>, samples: &[Sample]) -> Self {
        self.reference = Some(Reference { what: what.into(), figure: Figure::of(samples) });
        self
    }

    pub(crate) fn required(mut self, requirement: Requirement) -> Self {
        self.required = Some(requirement);
        self
    }

    /// The name by which a filter finds the row.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn ratio(&self) -> Option<f64> {
        self.reference.as_ref().map(|reference| self.ours.median / reference.figure.median)
    }

    /// Whether the row reaches what is required; `None` if nothing is.
    fn is_met(&self) -> Option<bool> {
        let ours = self.ours.median;
        Some(match self.required? {
            Requirement::AtLeast(least) => ours >= least,
            Requirement::Below(bound) => ours < bound,
            Requirement::AtMost(most) => ours <= most,
            Requirement::RatioOf(least) => self.ratio()? >= least,
            Requirement::Above(most) => ours - self.reference.as_ref()?.figure.median <= most,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.unit;
        let reference = self.reference.as_ref();
        let beside = reference.map(|r| format!("{}: {}", r.what, unit.show(r.figure.median)));
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}"));
        let required = self.required.map(|required| required.show(unit));
        let met = self.is_met().map(|met| if met { " ✓" } else { " ✗" });
        let cpu = [Some(&self.ours), reference.map(|r| &r.figure)].map(|f| f.and_then(|f| f.cpu_per_million));
        let cpu = cpu.into_iter().flatten().map(|cpu| format!("{cpu:.2}")).collect::<Vec<_>>().join(" / ");
        write!(
            f,
            "| `{}` {} | {} | {} | {} | {}{} | {cpu} |",
            self.id,
            self.what,
            unit.show(self.ours.median),
            beside.unwrap_or_default(),
            ratio.unwrap_or_default(),
            required.unwrap_or_default(),
            met.unwrap_or_default(),
        )
    }
}

impl Report {
    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Adds what another program measured, as JSON: a list of objects with the text `what`, the `unit` of the row, all
    /// `samples`, and the id of the row that it is put `beside`.
    ///
    /// # Errors
    ///
    /// If it is not such a list.
    pub fn merge(&mut self, peers: &str) -> serde_json::Result<()> {
        self.peers.extend(serde_json::from_str::<Vec<Peer>>(peers)?);
        Ok(())
    }

    fn write_peer(&self, peer: &Peer, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Peer { what, unit, samples, beside } = peer;
        let value = median(samples.iter().copied()).unwrap_or(f64::NAN);
        let ours = self.rows.iter().find(|row| row.id == *beside).map(|row| row.ours.median);
        let ratio = ours.map(|ours| format!("{:.2}", ours / value));
        let ours = ours.map(|ours| format!(": {}", unit.show(ours)));
        let (ours, ratio) = (ours.unwrap_or_default(), ratio.unwrap_or_default());
        writeln!(f, "| {what} | {} | `{beside}`{ours} | {ratio} |", unit.show(value))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "| what | ours | beside | ratio | required | CPU s per million, ours / beside |")?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        if !self.peers.is_empty() {
            writeln!(f, "\n| other libraries | theirs | ours | ours / theirs |\n|---|--:|--:|--:|")?;
        }
        self.peers.iter().try_for_each(|peer| self.write_peer(peer, f))
    }
}

impl Figure {
    fn of(samples: &[Sample]) -> Self {
        let values = || samples.iter().map(|sample| sample.value);
        Self {
            median: median(values()).unwrap_or(f64::NAN),
            lowest: values().fold(f64::INFINITY, f64::min),
            highest: values().fold(f64::NEG_INFINITY, f64::max),
            runs: values().collect(),
            cpu_per_million: median(samples.iter().filter_map(|sample| sample.cpu_per_million)),
        }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", grouped(value)),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Megabytes => format!("{value:.1} MB"),
            Self::Queries => format!("{value:.2}"),
            Self::Percent => format!("{value:.2} %"),
        }
    }
}

impl Requirement {
    fn show(self, unit: Unit) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {}", unit.show(least)),
            Self::Below(bound) => format!("< {}", unit.show(bound)),
            Self::AtMost(most) => format!("≤ {}", unit.show(most)),
            Self::RatioOf(least) => format!("≥ {least} ×"),
            Self::Above(most) => format!("≤ {most} ms above"),
        }
    }
}

/// A whole number with a comma between groups of three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let head = digits.len() % 3;
    let mut text = digits[..head].to_owned();
    for at in (head..digits.len()).step_by(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&digits[at..at + 3]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, reference: f64, required: Requirement) -> Row {
        Row::new("a", "a", Unit::Milliseconds, &[ours.into()]).beside("b", &[reference.into()]).required(required)
    }

    #[test]
    fn a_row_is_judged_by_its_medians() {
        let samples = [1.0, 9.0, 2.0].map(Sample::from);
        assert_eq!(Row::new("a", "a", Unit::Queries, &samples).is_met(), None);
        assert_eq!(Row::new("a", "a", Unit::Queries, &samples).required(Requirement::AtMost(2.0)).is_met(), Some(true));
        for (required, met) in [
            (Requirement::AtLeast(4.0), true),
            (Requirement::AtLeast(4.1), false),
            (Requirement::Below(4.0), false),
            (Requirement::RatioOf(2.0), true),
            (Requirement::RatioOf(2.1), false),
            (Requirement::Above(2.0), true),
            (Requirement::Above(1.9), false),
        ] {
            assert_eq!(row(4.0, 2.0, required).is_met(), Some(met), "{required:?}");
        }
    }

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!([0.0, 999.0, 1000.0, 1_234_567.4].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}

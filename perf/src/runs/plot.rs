//! A row as a picture: one panel per figure, one bar per subject, whiskers from the smallest to the
//! largest run. Plain SVG, drawn here, so that a page of results needs nothing else.

use std::fmt::Write;

use super::record::{self, Record, Spread};
use super::rows::{Figure, Row};
use super::subject::Subject;

const PANEL_WIDTH: usize = 480;
const LABEL_WIDTH: usize = 150;
const VALUE_WIDTH: usize = 70;
const BAR_HEIGHT: usize = 18;
const BAR_STEP: usize = 26;
const TITLE_HEIGHT: usize = 30;
const COLUMNS: usize = 2;

/// The picture of a row.
pub fn row(row: &Row, records: &[Record]) -> String {
    let panels: Vec<_> = row
        .figures
        .iter()
        .map(|figure| (figure, bars(row, figure, records)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let panel_height = TITLE_HEIGHT + row.subjects.len() * BAR_STEP + 14;
    let width = PANEL_WIDTH * COLUMNS.min(panels.len()).max(1);
    let height = TITLE_HEIGHT + panels.len().div_ceil(COLUMNS) * panel_height;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(&format!("{}: {}", row.name, row.title)),
    );
    for (nth, (figure, bars)) in panels.iter().enumerate() {
        let x = nth % COLUMNS * PANEL_WIDTH;
        let y = TITLE_HEIGHT + nth / COLUMNS * panel_height;
        panel(&mut out, (x, y), figure, bars);
    }
    out.push_str("</svg>\n");
    out
}

fn bars(row: &Row, figure: &Figure, records: &[Record]) -> Vec<(Subject, Spread)> {
    let spread = |subject: &Subject| {
        let spread = record::spread(records, row.name, subject.name(), figure.name)?;
        Some((*subject, spread))
    };
    row.subjects.iter().filter_map(spread).collect()
}

fn panel(out: &mut String, (x, y): (usize, usize), figure: &Figure, bars: &[(Subject, Spread)]) {
    let largest = bars.iter().map(|(_, spread)| spread.max).fold(0.0, f64::max);
    let room = (PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH) as f64;
    let length = |value: f64| if largest > 0.0 { value / largest * room } else { 0.0 };
    let title = escaped(figure.title);
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{title}</text>",
        x + LABEL_WIDTH,
        y + 18
    );
    for (nth, (subject, spread)) in bars.iter().enumerate() {
        let top = y + TITLE_HEIGHT + nth * BAR_STEP;
        let (left, middle) = ((x + LABEL_WIDTH) as f64, top as f64 + BAR_HEIGHT as f64 / 2.0);
        let (low, high) = (left + length(spread.min), left + length(spread.max));
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{left:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{}\"/>\n\
             <path d=\"M{low:.1} {middle:.1}H{high:.1}\" stroke=\"black\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.*}</text>",
            left - 6.0,
            middle + 4.0,
            escaped(subject.title()),
            length(spread.median),
            colour(*subject),
            high + 6.0,
            middle + 4.0,
            figure.decimals,
            spread.median,
        );
    }
}

fn colour(subject: Subject) -> &'static str {
    match subject {
        Subject::Null => "#b8b8b8",
        Subject::NullDurable => "#8c8c8c",
        Subject::Chronik => "#2166ac",
        Subject::ChronikRelaxed => "#92c5de",
        Subject::Kafka => "#f4a582",
        Subject::KafkaFlush => "#b2182b",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::machine::Machine;
    use crate::runs::record::Figures;
    use crate::runs::rows;
    use std::path::Path;

    #[test]
    fn the_longest_bar_fills_the_panel_and_the_others_keep_their_share() {
        let record = |subject: &str, mb_s: f64| Record {
            row: "P2".to_owned(),
            subject: subject.to_owned(),
            started_ms: 1,
            commit: String::new(),
            congestion: String::new(),
            scale: 1.0,
            machine: Machine::describe(Path::new("/")),
            commands: Vec::new(),
            figures: Figures::from([("mb_s".to_owned(), mb_s)]),
        };
        let svg = row(rows::row("P2").unwrap(), &[record("null", 200.0), record("chronik", 50.0)]);
        assert!(svg.contains("width=\"260.0\" height=\"18\" fill=\"#b8b8b8\""), "{svg}");
        assert!(svg.contains("width=\"65.0\" height=\"18\" fill=\"#2166ac\""), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 3, "{svg}");
        assert_eq!(escaped("a < b & c"), "a &lt; b &amp; c");
    }
}

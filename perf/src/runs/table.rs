//! A folder of raw results as one page: a table per row, medians with their spread, ratios.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::plot;
use super::record::{self, Record, Spread};
use super::rows::{Figure, Row, ROWS};
use super::subject::Subject;
use crate::error::PerfError;

/// Writes `README.md` and a plot per row beside the raw results.
pub fn write(folder: &Path) -> Result<(), PerfError> {
    let records = record::load(folder)?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(PerfError::io(path.display().to_string()))
    };
    for row in ROWS.iter().filter(|row| measured(row, &records)) {
        write(&format!("{}.svg", row.name), &plot::row(row, &records))?;
    }
    write("README.md", &page(&records))
}

fn measured(row: &Row, records: &[Record]) -> bool {
    records.iter().any(|record| record.row == row.name)
}

fn page(records: &[Record]) -> String {
    let mut out = String::from(
        "# Results\n\n\
         Medians with (smallest to largest) of the runs. Subjects of a row took turns; every run \
         had a new process and an\nempty data folder, and warmed up first. MB and GB are 2^20 and \
         2^30 bytes of record values. Client and broker share\nthe cores. Raw results with the \
         commands: the `.jsonl` files beside this page, made by `perf/run`.\n",
    );
    let mut machines: Vec<_> = records.iter().map(|record| record.machine.line()).collect();
    machines.sort_unstable();
    machines.dedup();
    for machine in machines {
        let _ = write!(out, "\nMachine: {machine}.\n");
    }
    for row in ROWS.iter().filter(|row| measured(row, records)) {
        section(&mut out, row, records);
    }
    out
}

fn section(out: &mut String, row: &Row, records: &[Record]) {
    let of_row: Vec<_> = records.iter().filter(|record| record.row == row.name).collect();
    let distinct = |of: fn(&Record) -> String| {
        let mut seen: Vec<String> = of_row.iter().map(|record| of(record)).collect();
        seen.sort_unstable();
        seen.dedup();
        seen.join(", ")
    };
    let _ = write!(
        out,
        "\n## {}: {}\n\n{}. Target: {}.\n\nCommit {}, congestion control {}",
        row.name,
        row.title,
        row.how,
        row.target,
        distinct(|record| record.commit.clone()),
        distinct(|record| record.congestion.clone()),
    );
    let scales = distinct(|record| record.scale.to_string());
    if scales != "1" {
        let _ = write!(out, ", at {scales} of the full amount");
    }
    let _ = write!(out, "; `perf/run {}`.\n\n| |", row.name);
    for Figure { title, .. } in row.figures {
        let _ = write!(out, " {title} |");
    }
    let _ = write!(out, " runs |\n|---|{}---:|\n", "---:|".repeat(row.figures.len()));
    for subject in row.subjects {
        line(out, row, *subject, records);
    }
    for other in Subject::ALL.into_iter().filter(|other| *other != Subject::Chronik) {
        ratio(out, row, other, records);
    }
    let _ = write!(out, "\n![{}]({}.svg)\n", row.name, row.name);
}

fn line(out: &mut String, row: &Row, subject: Subject, records: &[Record]) {
    let runs = records.iter().filter(|r| r.row == row.name && r.subject == subject.name()).count();
    if runs == 0 {
        return;
    }
    let _ = write!(out, "| {} |", subject.title());
    for figure in row.figures {
        let spread = record::spread(records, row.name, subject.name(), figure.name);
        let _ = write!(out, " {} |", shown(spread, figure.decimals));
    }
    let _ = writeln!(out, " {runs} |");
}

/// Ours in parts of another subject's, figure by figure.
fn ratio(out: &mut String, row: &Row, other: Subject, records: &[Record]) {
    let median = |subject: Subject, figure: &Figure| {
        Some(record::spread(records, row.name, subject.name(), figure.name)?.median)
    };
    let ratios: Vec<Option<f64>> = row
        .figures
        .iter()
        .map(|figure| {
            let (ours, theirs) = (median(Subject::Chronik, figure)?, median(other, figure)?);
            (theirs > 0.0).then(|| ours / theirs)
        })
        .collect();
    if ratios.iter().all(Option::is_none) {
        return;
    }
    let _ = write!(out, "| Chronik / {} |", other.title());
    for ratio in ratios {
        match ratio {
            Some(ratio) => _ = write!(out, " {ratio:.2} |"),
            None => out.push_str(" |"),
        }
    }
    out.push_str(" |\n");
}

fn shown(spread: Option<Spread>, decimals: usize) -> String {
    match spread {
        None => String::new(),
        Some(Spread { median, count: 1, .. }) => format!("{median:.decimals$}"),
        Some(Spread { median, min, max, .. }) => {
            format!("{median:.decimals$} ({min:.decimals$} to {max:.decimals$})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::machine::Machine;
    use crate::runs::record::Figures;

    fn record(subject: &str, mb_s: f64) -> Record {
        Record {
            row: "P2".to_owned(),
            subject: subject.to_owned(),
            started_ms: 1,
            commit: "abc1234".to_owned(),
            congestion: "cubic".to_owned(),
            scale: 1.0,
            machine: Machine::describe(Path::new("/")),
            commands: Vec::new(),
            figures: Figures::from([("mb_s".to_owned(), mb_s)]),
        }
    }

    #[test]
    fn a_page_has_medians_spreads_and_ratios() {
        let records = [record("null", 200.0), record("chronik", 180.0), record("chronik", 160.0)];
        let page = page(&records);
        assert!(page.contains("| Chronik | 170 (160 to 180) |"), "{page}");
        assert!(page.contains("| null broker | 200 |"), "{page}");
        assert!(page.contains("| Chronik / null broker | 0.85 |"), "{page}");
        assert!(page.contains("Commit abc1234, congestion control cubic; `perf/run P2`"), "{page}");
        assert!(!page.contains("Kafka, no fsync"), "{page}");
    }
}

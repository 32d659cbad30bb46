//! Raw results: one line of JSON per subject and round, appended as they come.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use crate::error::PerfError;

/// The figures of one run, by the names that the row gave them.
pub type Figures = BTreeMap<String, f64>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub row: String,
    pub subject: String,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    pub commit: String,
    pub congestion: String,
    pub scale: f64,
    pub machine: Machine,
    pub commands: Vec<String>,
    pub figures: Figures,
}

/// The file of a row in a folder of results.
pub fn append(folder: &Path, record: &Record) -> Result<(), PerfError> {
    fs::create_dir_all(folder).map_err(PerfError::io(folder.display().to_string()))?;
    let path = folder.join(format!("{}.jsonl", record.row));
    let mut line = serde_json::to_string(record).expect("it has string keys");
    line.push('\n');
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(PerfError::io(path.display().to_string()))
}

/// All records of a folder, by row, in the order they were made.
pub fn load(folder: &Path) -> Result<Vec<Record>, PerfError> {
    let what = || folder.display().to_string();
    let mut records = Vec::new();
    for entry in fs::read_dir(folder).map_err(PerfError::io(what()))? {
        let path = entry.map_err(PerfError::io(what()))?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let name = path.display().to_string();
        let text = fs::read_to_string(&path).map_err(PerfError::io(&*name))?;
        for line in text.lines() {
            let record: Record = serde_json::from_str(line)
                .map_err(|error| PerfError::Codec(format!("{name}: {error}")))?;
            records.push(record);
        }
    }
    records.sort_by(|a, b| (&a.row, a.started_ms).cmp(&(&b.row, b.started_ms)));
    Ok(records)
}

/// The middle of some figures, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub count: usize,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let count = values.len();
        let median = (values[(count - 1) / 2] + values[count / 2]) / 2.0;
        Some(Spread { median, min, max, count })
    }
}

/// What a row's runs on a subject gave for one figure.
pub fn spread(records: &[Record], row: &str, subject: &str, figure: &str) -> Option<Spread> {
    let runs = records.iter().filter(|record| record.row == row && record.subject == subject);
    Spread::of(runs.filter_map(|record| record.figures.get(figure).copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0, count: 4 });
        assert_eq!(Spread::of(vec![7.0]).unwrap().median, 7.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::describe(folder.path());
        let record = |row: &str, started_ms| Record {
            row: row.to_owned(),
            subject: "null".to_owned(),
            started_ms,
            commit: "abc".to_owned(),
            congestion: "cubic".to_owned(),
            scale: 1.0,
            machine: machine.clone(),
            commands: vec!["loadgen --rate 1".to_owned()],
            figures: Figures::from([("mb_s".to_owned(), 1.5 * started_ms as f64)]),
        };
        let records = [record("P1", 2), record("P2", 1), record("P2", 3)];
        for record in [2, 0, 1].map(|at| &records[at]) {
            append(folder.path(), record).unwrap();
        }
        let loaded = load(folder.path()).unwrap();
        assert_eq!(loaded, records);
        assert_eq!(spread(&loaded, "P2", "null", "mb_s").unwrap().median, 3.0);
        assert_eq!(spread(&loaded, "P2", "kafka", "mb_s"), None);
    }
}

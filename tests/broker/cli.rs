//! The command line without a broker, and the commands that talk to one.

use crate::support::{chronik, output, run};

#[test]
fn version_and_help_are_answers() {
    let version = run(&["--version"]);
    assert!(version.status.success());
    let expected = concat!("chronik-server ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected);
    let help = run(&["standalone", "--help"]);
    assert!(help.status.success());
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("--advertised-addr <HOST>"), "{help}");
    assert!(help.contains("CHRONIK_ADVERTISED_ADDR"), "{help}");
}

#[test]
fn an_unknown_option_is_an_error_that_names_the_nearest() {
    let flag = run(&["standalone", "--kafka-prot", "9092"]);
    let said = String::from_utf8_lossy(&flag.stderr);
    assert_eq!(flag.status.code(), Some(2), "{said}");
    assert!(said.contains("--kafka-port"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chronik.toml");
    std::fs::write(&file, "[cluster]\nnode_id = 2\nkafka_prot = 9092\n").unwrap();
    for command in [["config", "check"].as_slice(), &["standalone"]] {
        let ended = output(chronik().args(command).arg("--config").arg(&file));
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(said.contains("chronik.toml:3: unknown option `kafka_prot`"), "{said}");
        assert!(said.contains("did you mean `kafka_port`?"), "{said}");
    }
}

#[test]
fn the_reference_is_a_file_that_is_valid() {
    let reference = run(&["config", "reference"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chronik.toml");
    std::fs::write(&file, &reference.stdout).unwrap();
    let check = output(chronik().args(["config", "check", "--config"]).arg(&file));
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

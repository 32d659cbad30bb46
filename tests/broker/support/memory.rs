//! What a process takes of the machine's memory, as the kernel counts it.

/// Bytes. The peaks are those since the process began.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub resident_bytes: u64,
    pub peak_resident_bytes: u64,
    pub peak_virtual_bytes: u64,
}

impl Memory {
    /// Has the kernel count the peak of resident memory anew; where it does not, the peak stays.
    pub fn forget_peak(process: u32) {
        let _ = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
    }

    pub fn of(process: u32) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let bytes = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        Memory {
            resident_bytes: bytes("VmRSS:"),
            peak_resident_bytes: bytes("VmHWM:"),
            peak_virtual_bytes: bytes("VmPeak:"),
        }
    }
}

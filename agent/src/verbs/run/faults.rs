//! A GPU that fails while the service rests is noticed by the kernel's own line, not at the next slow look.

use std::collections::BTreeSet;

use crate::cli::Common;
use crate::host::kernel_log::Follower;
use crate::kernel_log::standing;

/// The faults that ended a rest before. A GPU that says the same a thousand times ends one rest.
#[derive(Default)]
pub struct Faults(BTreeSet<(String, Option<String>)>);

impl Faults {
    /// Says what failed, once a fault is told that keeps work off a GPU and was not told before.
    pub async fn next(&mut self, log: Option<Follower>) -> String {
        let Some(mut log) = log else { return std::future::pending().await };
        // Without a log the slow look finds faults alone.
        while let Ok(record) = log.next().await {
            for fault in standing::judge("", &[record], &[]).standing.into_iter().map(|standing| standing.told.fault) {
                if self.0.insert((fault.id(), fault.device.clone())) {
                    return fault.to_string();
                }
            }
        }
        std::future::pending().await
    }
}

/// The log of the running kernel, from here on; an image has none.
pub fn follow(common: &Common) -> Option<Follower> {
    if common.root != std::path::Path::new("/") {
        return None;
    }
    Follower::from_now().inspect_err(|error| tracing::warn!("{error:#}; faults of GPUs are found by the slow look alone")).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[tokio::test]
    async fn a_fault_ends_one_rest_however_often_it_is_told() {
        let mut faults = Faults::default();
        let mut rest = async |lines: &[&str]| {
            let (kernel, reader) = UnixDatagram::pair().unwrap();
            reader.set_nonblocking(true).unwrap();
            for line in lines {
                kernel.send(format!("4,1,100,-;{line}").as_bytes()).unwrap();
            }
            faults.next(Some(Follower::over(reader.into()).unwrap())).await
        };
        let (lost, other) = ("NVRM: Xid (PCI:0000:05:00): 79, x", "NVRM: Xid (PCI:0000:06:00): 79, x");
        assert_eq!(
            rest(&["usb 1-1: new device", "NVRM: Xid (PCI:0000:05:00): 31, x", lost]).await,
            "Xid 79 (GPU has fallen off the bus) on 0000:05:00.0"
        );
        assert!(rest(&[lost, lost, other]).await.contains("0000:06:00.0"));
    }
}

//! The JSON document about a job: what a command reads, and what a webhook gets.

use serde::Serialize;

use super::{Concerned, Failure, Job, What};
use crate::model::QuarantineReport;

#[derive(Serialize)]
struct Document<'a> {
    action: What,
    number: u64,
    host: &'a str,
    quarantine: &'a QuarantineReport,
    interfaces: &'a [Concerned],
}

/// One line, without a line end.
pub(super) fn of(job: &Job) -> Result<Vec<u8>, Failure> {
    let host = host();
    let document = Document {
        action: job.what,
        number: job.number,
        host: &host,
        quarantine: &job.report,
        interfaces: &job.interfaces,
    };
    serde_json::to_vec(&document).map_err(|e| Failure::Failed(format!("cannot write the job as JSON: {e}")))
}

/// The same for each attempt at this job, and different for every other one, on all hosts. Quarantines are counted anew
/// when a host has lost its state, so the time of the beginning is in it.
pub(super) fn key(job: &Job) -> String {
    let since = job.report.since.as_second();
    let host: String = host().chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    format!("{host}-{since}-{}-{}-{}", job.report.id, job.what, job.number)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actuators::testing::job;

    #[test]
    fn it_says_which_way_whom_and_on_which_host() {
        let document: serde_json::Value = serde_json::from_slice(&of(&job(What::Lift, 7)).unwrap()).unwrap();
        assert_eq!((&document["action"], &document["quarantine"]["id"]), (&"lift".into(), &7.into()));
        assert_eq!(document["interfaces"][0]["name"], "tap0");
        assert_eq!(document["host"], host());
    }

    #[test]
    fn each_order_has_a_key_of_its_own() {
        let another = Job { number: 2, ..job(What::Impose, 7) };
        let keys = [key(&job(What::Impose, 7)), key(&job(What::Lift, 7)), key(&job(What::Impose, 8)), key(&another)];
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), 4, "{keys:?}");
        assert_eq!(key(&job(What::Impose, 7)), keys[0]);
        assert!(keys[0].ends_with("-7-impose-1"), "{}", keys[0]);
    }
}

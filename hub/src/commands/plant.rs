//! What commands need of the catalogue, the host and the plant log, joined.

use durable_log::{LogView, Position};
use model::{NodeId, SampleBatch, Value};
use proto::log_record::LogRecord;
use proto::receipt::{COMMAND_REPORT_METRIC, CommandReport};

use super::{Plant, Target};
use crate::catalogue::Catalogue;
use crate::host::Host;

/// The hub's own plant.
#[derive(Clone, Debug)]
pub struct HubPlant {
    /// Names the points.
    pub catalogue: Catalogue,
    /// Knows who is online.
    pub host: Host,
    /// The plant log.
    pub log: LogView,
}

impl Plant for HubPlant {
    fn target(&self, path: &str) -> Option<Target> {
        let id = self.catalogue.find(path)?;
        let definition = self.catalogue.point(id)?.definition.clone();
        Some(Target { definition, place: self.host.device_of(id)? })
    }

    fn log_end(&self) -> u64 {
        self.log.durable_end().0
    }

    fn reports_since(&self, from: u64) -> Vec<(NodeId, CommandReport)> {
        let mut reader = self.log.reader(Position(from));
        let mut found = Vec::new();
        loop {
            match reader.next() {
                Ok(Some((_, record))) => {
                    if let Ok(LogRecord::Received { agent, batch, .. }) = LogRecord::decode(record)
                        && let Some(node) = self.catalogue.agent(agent)
                    {
                        let reports = reports_in(&batch, &self.catalogue);
                        found.extend(reports.into_iter().map(|report| (node.clone(), report)));
                    }
                }
                Ok(None) => return found,
                Err(error) => {
                    tracing::error!(%error, "plant log not readable while looking for command reports");
                    return found;
                }
            }
        }
    }
}

/// The command reports among the samples of a record; what is no report is logged and left out.
#[must_use]
pub fn reports_in(batch: &SampleBatch, catalogue: &Catalogue) -> Vec<CommandReport> {
    let mut reports = Vec::new();
    for sample in &batch.samples {
        let Some(Value::Bytes(bytes)) = &sample.value else { continue };
        let entry = catalogue.point(sample.point);
        let is_report = entry.is_some_and(|entry| {
            entry.definition.device.is_none() && entry.definition.metric == COMMAND_REPORT_METRIC
        });
        if is_report {
            match CommandReport::decode(bytes) {
                Ok(report) => reports.push(report),
                Err(error) => tracing::warn!(%error, "a command report cannot be read"),
            }
        }
    }
    reports
}

//! What arrives in a session: STATE of the host, receipts, rebirth requests, commands, looks at points.

use model::{DataType, Value};
use proto::health::{LOOK_METRIC, Look};
use proto::receipt::{RECEIPT_METRIC, Receipt};
use proto::seal::{self, Seal};
use proto::sparkplug::{MessageType, PayloadView, StatePayload, Topic};
use runtime::mqtt_client::Message;
use tokio::time::Instant;

use super::Session;
use crate::commands::read_request;
use crate::edge_node::REBIRTH_METRIC;
use crate::health::Promise;
use crate::uplink::SessionError;

impl Session<'_> {
    pub(super) async fn take(&mut self, message: Message) -> Result<(), SessionError> {
        if !self.is_whole(&message) {
            self.uplink.meters.damaged.increment();
            return Ok(()); // as if it had never come
        }
        match Topic::parse(&message.topic) {
            Some(Topic::State { .. }) => self.take_state(&message),
            Some(Topic::Node { kind: MessageType::NCmd, device: None, .. }) => {
                self.take_node_command(&message).await?
            }
            Some(Topic::Node { kind: MessageType::DCmd, device: Some(device), .. }) => {
                self.take_device_command(&device, &message);
            }
            _ => self.uplink.meters.ignored.increment(),
        }
        Ok(())
    }

    /// Whether what arrived is what was sent, as far as its seal tells. A host that has sealed a message of this session
    /// seals all of them; others are believed without, but for STATE, which is a text of the standard.
    fn is_whole(&mut self, message: &Message) -> bool {
        let is_state = matches!(Topic::parse(&message.topic), Some(Topic::State { .. }));
        match seal::check(&message.topic, &message.payload) {
            Seal::Whole => {
                self.host_seals = true;
                true
            }
            Seal::Broken => is_state,
            Seal::Absent => is_state || !self.host_seals || is_rebirth(&message.payload),
        }
    }

    /// STATE of our host; an older one than we know is a late retained message.
    pub(super) fn take_state(&mut self, message: &Message) {
        let Some(state) = StatePayload::decode(&message.payload) else {
            self.uplink.meters.ignored.increment();
            return;
        };
        if self.state_timestamp.is_some_and(|known| state.timestamp < known) {
            return;
        }
        self.state_timestamp = Some(state.timestamp);
        self.host_is_online = Some(state.online);
    }

    async fn take_node_command(&mut self, message: &Message) -> Result<(), SessionError> {
        let receipt = match PayloadView::decode(&message.payload) {
            Ok(payload) if !message.retain => {
                let mut receipt = None;
                for (index, metric) in payload.metrics.iter().enumerate() {
                    let value = |data_type| metric.value.to_value(data_type, payload.value_micros(index));
                    match metric.name {
                        Some(REBIRTH_METRIC) => {
                            if value(DataType::Boolean) == Some(Value::Boolean(true)) {
                                self.uplink.meters.rebirths.increment();
                                self.rebirth_asked = true;
                            }
                        }
                        Some(RECEIPT_METRIC) => {
                            receipt = match value(DataType::Bytes) {
                                Some(Value::Bytes(bytes)) => Some(Receipt::decode(&bytes)),
                                _ => None,
                            };
                        }
                        Some(LOOK_METRIC) => {
                            let look = match value(DataType::Bytes) {
                                Some(Value::Bytes(bytes)) => Look::decode(&bytes).ok(),
                                _ => None,
                            };
                            if !look.is_some_and(|look| self.reporting.ask(look)) {
                                self.uplink.meters.ignored.increment();
                            }
                        }
                        _ => self.uplink.meters.ignored.increment(),
                    }
                }
                receipt
            }
            Ok(payload) => {
                if payload.metrics.iter().any(|metric| metric.name == Some(RECEIPT_METRIC)) {
                    self.refuse_receipt("it was retained");
                }
                return Ok(());
            }
            Err(_) => {
                self.uplink.meters.ignored.increment();
                return Ok(());
            }
        };
        match receipt {
            Some(Ok(receipt)) => self.take_receipt(receipt).await,
            Some(Err(error)) => {
                self.refuse_receipt(&error.to_string());
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn take_receipt(&mut self, receipt: Receipt) -> Result<(), SessionError> {
        let setup = &self.uplink.setup;
        let now = setup.clock.now();
        setup.skew.learn(receipt.hub_time);
        let refused = setup.outbox.receive(&receipt).await?;
        if refused.unknown_epochs + refused.beyond_end > 0 {
            self.refuse_receipt(&format!(
                "{} epochs that were never written here, {} ranges beyond what was accepted",
                refused.unknown_epochs, refused.beyond_end
            ));
        }
        self.uplink.meters.receipts.increment();
        if self.last_receipt.replace(Instant::now()).is_none() {
            self.history_not_before = self.born_at.unwrap_or(self.begun);
        }
        self.is_holding = receipt.holding.is_some();
        self.reporting.is_wanted = receipt.takes_health;
        self.uplink.setup.health.session(|session| {
            session.last_receipt = Some(now);
            session.holding = receipt.holding;
            session.promise = Promise::Receipts;
        });
        if !self.uplink.state.has_receipts {
            self.uplink.forget_handed().await?;
            self.uplink.state.has_receipts = true;
            self.uplink.store_state().await;
        }
        Ok(())
    }

    /// Alarms once per session and reason, counts always.
    fn refuse_receipt(&mut self, why: &str) {
        if self.last_refusal != why {
            tracing::error!(node = %self.uplink.setup.node, %why, "a receipt cannot be true and was refused");
            why.clone_into(&mut self.last_refusal);
        }
        self.uplink.meters.receipts_refused.increment();
        self.uplink.setup.health.session(|session| session.receipts_refused += 1);
    }

    fn take_device_command(&mut self, device: &str, message: &Message) {
        let setup = &self.uplink.setup;
        let request = read_request(&setup.points, device, &message.payload, message.retain);
        let sent = request.and_then(|request| {
            setup.commands.try_send(request).map_err(|_| "too many commands are waiting")
        });
        if let Err(why) = sent {
            tracing::warn!(%device, %why, "a command was not taken");
            self.uplink.meters.ignored.increment();
        }
    }
}

/// Whether a payload asks for births and nothing else: other hosts than ours may do so too.
fn is_rebirth(payload: &[u8]) -> bool {
    let named = |payload: PayloadView<'_>| {
        !payload.metrics.is_empty()
            && payload.metrics.iter().all(|metric| metric.name == Some(REBIRTH_METRIC))
    };
    PayloadView::decode(payload).is_ok_and(named)
}

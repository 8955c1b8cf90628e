//! A round of reading: messages go out, what comes back becomes readings.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{DataType, Quality, QualityClass, Reason};

use super::EtherNetIp;
use super::cip::{self, Held, STRUCTURE, Status};
use super::connection::refused;
use super::plan::{self, Block, Span};
use super::value::{self, Form};
use crate::drivers::{DriverError, READINGS_MAX, Reading, Readings};

/// The longest data that is read in parts, and the most parts.
const DATA_BYTES_MAX: usize = 65_536;
const PARTS_MAX: usize = 1024;

/// What is left of a round of reading.
#[derive(Default)]
pub(super) struct Round {
    pub(super) queue: VecDeque<Arc<Block>>,
    /// What does not go together with others.
    pub(super) alone: VecDeque<Arc<Block>>,
}

impl EtherNetIp {
    /// What a block's read brought.
    async fn took(
        &mut self,
        block: &Arc<Block>,
        held: Held,
        bytes: &[u8],
        into: &mut Readings,
    ) -> Result<(), DriverError> {
        let wants_text = |(_, point): &&(Span, usize)| {
            self.points.get(*point).is_some_and(|p| p.data_type == DataType::String && p.form == Form::Whole)
        };
        if held.code == STRUCTURE
            && let Some((span, _)) = block.points.iter().find(wants_text)
        {
            self.learn_text(held.handle, *span).await?;
        }
        let Some(elements) = value::elements(held, bytes, block.span.count.into()) else {
            let why = format!("{} bytes for {} elements", bytes.len(), block.span.count);
            return Err(self.malformed(why));
        };
        for (span, point) in &block.points {
            let Some(place) = self.points.get(*point).copied() else { continue };
            let from = usize::try_from(span.start.saturating_sub(block.span.start)).unwrap_or(usize::MAX);
            let own = elements.get(from..).and_then(|rest| rest.get(..span.count.into())).unwrap_or_default();
            if let (Some(known), Some(first)) = (self.held.get_mut(*point), own.first()) {
                *known = Some((held, first.len()));
            }
            let decoded =
                value::decode(held, own, place.form, place.data_type, |handle| self.is_text(handle));
            if decoded == Err(Reason::TypeMismatch) {
                let meaning = format!("the tag is of type {}", value::name(held.code));
                self.hint(0x1_0000 | u32::from(held.code), &meaning, *span);
            }
            let quality = match &decoded {
                Err(reason) => Quality::bad(*reason),
                Ok(_) if self.stop_check.is_stopped() => Quality::uncertain(Reason::DeviceStopped),
                Ok(_) => Quality::GOOD,
            };
            into.list.push(Reading { point: *point, time: None, value: decoded.ok(), quality });
        }
        Ok(())
    }

    pub(super) fn is_text(&self, handle: u16) -> bool {
        self.texts.get(&handle).copied().unwrap_or(false)
    }

    /// A block was refused: halved where it is a range, else a quality.
    fn was_refused(&mut self, block: &Arc<Block>, status: Status, round: &mut Round, into: &mut Readings) {
        let may_be_a_part = matches!(status.general, 0x04 | 0x05 | 0x13 | 0x15 | 0xff);
        if may_be_a_part && let Some(halves) = block.split() {
            let halves = halves.map(Arc::new);
            self.blocks.retain(|known| !Arc::ptr_eq(known, block));
            self.blocks.extend(halves.clone());
            round.queue.extend(halves);
            return;
        }
        self.hint(status.code().into(), &status.meaning(), block.span);
        let quality = quality(status);
        let refused =
            |(_, point): &(Span, usize)| Reading { point: *point, time: None, value: None, quality };
        into.list.extend(block.points.iter().map(refused));
    }

    /// The next message of a round.
    pub(super) async fn request(
        &mut self,
        round: &mut Round,
        into: &mut Readings,
    ) -> Result<(), DriverError> {
        if let Some(block) = round.alone.pop_front() {
            return self.read_alone(&block, round, into).await;
        }
        let points_max = READINGS_MAX.saturating_sub(into.list.len());
        let path = |span: Span| self.path(span).len();
        let taken = plan::next_request(&mut round.queue, self.room()?, points_max, path);
        if !self.knows_several {
            round.alone.extend(taken);
            return Ok(());
        }
        let requests: Vec<_> =
            taken.iter().map(|block| cip::read(&self.path(block.span), block.span.count)).collect();
        let bytes = self.exchange(&cip::several(&requests)).await?;
        let answer = cip::answer(&bytes, cip::SEVERAL).map_err(|why| self.malformed(why))?;
        match answer.status.general {
            0 | 0x1e => {}
            0x01 | 0x07 => {
                self.connection = None;
                return Err(refused(&answer));
            }
            general => {
                self.knows_several = general != 0x08;
                round.alone.extend(taken);
                return Ok(());
            }
        }
        let answers = cip::answers(answer.data, &vec![cip::READ; taken.len()]);
        let answers = answers.map_err(|why| self.malformed(why))?;
        for (block, answer) in taken.iter().zip(answers) {
            if answer.status.is_partial() || answer.status.general == 0x11 {
                round.alone.push_back(block.clone());
            } else if answer.status.is_ok() {
                let typed = cip::typed(answer.data).ok_or_else(|| self.malformed("a value without type"));
                let (held, bytes) = typed?;
                self.took(block, held, bytes, into).await?;
            } else {
                self.was_refused(block, answer.status, round, into);
            }
        }
        Ok(())
    }

    /// A block by itself, in as many parts as it takes.
    async fn read_alone(
        &mut self,
        block: &Arc<Block>,
        round: &mut Round,
        into: &mut Readings,
    ) -> Result<(), DriverError> {
        let (path, count) = (self.path(block.span), block.span.count);
        let (mut data, mut first): (Vec<u8>, Option<Held>) = (Vec::new(), None);
        for _ in 0..PARTS_MAX {
            let (service, request) = match u32::try_from(data.len()) {
                Ok(offset) if first.is_some() => (cip::READ_ON, cip::read_on(&path, count, offset)),
                _ => (cip::READ, cip::read(&path, count)),
            };
            let bytes = self.exchange(&request).await?;
            let answer = cip::answer(&bytes, service).map_err(|why| self.malformed(why))?;
            if matches!(answer.status.general, 0x01 | 0x07) {
                self.connection = None;
                return Err(refused(&answer));
            }
            if !answer.status.is_ok() && !answer.status.is_partial() {
                self.was_refused(block, answer.status, round, into);
                return Ok(());
            }
            let typed = cip::typed(answer.data).ok_or_else(|| self.malformed("a value without type"));
            let (held, part) = typed?;
            if first.is_some_and(|first| first != held) || data.len() + part.len() > DATA_BYTES_MAX {
                return Err(self.malformed("parts that do not belong together"));
            }
            first = Some(held);
            data.extend(part);
            if answer.status.is_ok() {
                return self.took(block, held, &data, into).await;
            }
            if part.is_empty() {
                return Err(self.malformed("a part without data"));
            }
        }
        Err(self.malformed("parts without end"))
    }
}

fn quality(status: Status) -> Quality {
    match status {
        Status { general: 0x0f, .. } => Quality::bad(Reason::AccessDenied),
        Status { general: 0xff, extended: 0x2107 } => Quality::bad(Reason::TypeMismatch),
        _ => Quality::with_detail(QualityClass::Bad, Reason::DeviceException, status.code()),
    }
}

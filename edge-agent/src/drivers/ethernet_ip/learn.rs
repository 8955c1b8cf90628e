//! What only the controller knows of tags: how an array of BOOL is packed, which structures are texts.

use model::DataType;

use super::cip::{self, Held, Path, Status};
use super::plan::Span;
use super::tags::{PointPlace, Tag};
use super::value::{self, Form};
use super::{EtherNetIp, STRUCTURES_MAX};
use crate::drivers::DriverError;

impl EtherNetIp {
    /// Several requests in as many messages as it takes; what each of them found, or nothing.
    pub(super) async fn ask_types(&mut self, paths: &[Path]) -> Result<Vec<Option<Held>>, DriverError> {
        let room = self.room()?;
        let mut found = Vec::with_capacity(paths.len());
        let mut rest = paths;
        while !rest.is_empty() {
            let (mut fits, mut asked) = (0, cip::SEVERAL_ASKED);
            for path in rest {
                asked += cip::EACH + cip::READ_ASKED + path.len();
                if fits > 0 && asked > room || (fits + 1) * (cip::EACH + cip::READ_ANSWERED + 8) > room {
                    break;
                }
                fits += 1;
            }
            let (now, later) = rest.split_at(fits.clamp(1, rest.len()));
            rest = later;
            let requests: Vec<_> = now.iter().map(|path| cip::read(path, 1)).collect();
            let bytes = self.exchange(&cip::several(&requests)).await?;
            let answer = cip::answer(&bytes, cip::SEVERAL).map_err(|why| self.malformed(why))?;
            match answer.status.general {
                0 | 0x1e => {
                    let answers = cip::answers(answer.data, &vec![cip::READ; now.len()]);
                    let answers = answers.map_err(|why| self.malformed(why))?;
                    let is_there = |status: Status| status.is_ok() || status.is_partial();
                    let types = answers.iter().map(|answer| {
                        cip::typed(answer.data).filter(|_| is_there(answer.status)).map(|(held, _)| held)
                    });
                    found.extend(types);
                }
                _ => found.extend(vec![None; now.len()]),
            }
        }
        Ok(found)
    }

    /// Elements of an array of BOOL are bits of its double words, where the controller packs them.
    pub(super) async fn place_bits(&mut self) -> Result<(), DriverError> {
        let is_element = |place: &PointPlace, tags: &[Tag]| {
            place.data_type == DataType::Boolean
                && place.form == Form::Whole
                && tags.get(place.span.tag).is_some_and(|tag| tag.is_indexed)
        };
        let mut numbers: Vec<usize> =
            self.points.iter().filter(|p| is_element(p, &self.tags)).map(|place| place.span.tag).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let paths: Vec<Path> =
            numbers.iter().filter_map(|tag| self.tags.get(*tag)).map(|tag| tag.path.clone()).collect();
        let found = self.ask_types(&paths).await?;
        let packed: Vec<usize> = numbers
            .into_iter()
            .zip(found)
            .filter(|(_, held)| held.is_some_and(|held| held.code == value::DWORD))
            .map(|(tag, _)| tag)
            .collect();
        for place in &mut self.points {
            if is_element(place, &self.tags) && packed.binary_search(&place.span.tag).is_ok() {
                let bit = u8::try_from(place.span.start % 32).unwrap_or_default();
                place.form = Form::Bit(bit);
                place.span = Span { start: place.span.start / 32, unit: 4, ..place.span };
            }
        }
        Ok(())
    }

    /// Whether a structure is a text: LEN and DATA, whatever its name and length.
    pub(super) async fn learn_text(&mut self, handle: u16, span: Span) -> Result<(), DriverError> {
        if self.texts.contains_key(&handle) {
            return Ok(());
        }
        let path = self.path(span);
        let paths = [path.clone().name("LEN"), path.name("DATA").element(0)];
        let found = self.ask_types(&paths).await?;
        let codes: Vec<_> = found.iter().map(|held| held.map(|held| held.code)).collect();
        if self.texts.len() >= STRUCTURES_MAX {
            self.texts.clear();
        }
        self.texts.insert(handle, codes == [Some(value::DINT), Some(value::SINT)]);
        Ok(())
    }
}

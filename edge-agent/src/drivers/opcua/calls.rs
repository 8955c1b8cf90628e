//! Services that take lists, called in pieces that the server can take.

use opcua::client::services::{Browse, BrowseNext, Read};
use opcua::types::{
    BrowseDescription, ByteString, DataValue, ReadValueId, ReferenceDescription, StatusCode,
    TimestampsToReturn,
};

use super::fault::code;
use super::limits::Limits;
use super::link::Link;
use crate::drivers::DriverError;

/// References in one answer: some hundred bytes each.
const REFERENCES: u32 = 1000;
/// References of one node; a folder of more is no folder.
const REFERENCES_MAX: usize = 200_000;

/// Reads; as many answers as questions.
pub(super) async fn read(
    link: &mut Link,
    limits: &Limits,
    nodes: Vec<ReadValueId>,
) -> Result<Vec<DataValue>, DriverError> {
    let mut answers = Vec::with_capacity(nodes.len());
    let mut size = limits.reads;
    let mut rest = nodes.as_slice();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        let (number, timeout, token, handle) = link.header();
        let request = Read::new_manual(number, timeout, token, handle)
            .timestamps_to_return(TimestampsToReturn::Both)
            .nodes_to_read(piece.to_vec());
        match link.ask(request).await {
            Ok(answer) => {
                let found = answer.results.unwrap_or_default();
                if found.len() != piece.len() {
                    return Err(DriverError::Malformed(format!(
                        "{} answers to {} reads",
                        found.len(),
                        piece.len()
                    )));
                }
                answers.extend(found);
                rest = after;
            }
            Err(error) if piece.len() > 1 && is_too_much(&error) => size = piece.len() / 2,
            Err(error) => return Err(error),
        }
    }
    Ok(answers)
}

/// Whether a smaller call may succeed.
pub(super) fn is_too_much(error: &DriverError) -> bool {
    let too_much = [
        StatusCode::BadTooManyOperations,
        StatusCode::BadEncodingLimitsExceeded,
        StatusCode::BadResponseTooLarge,
        StatusCode::BadRequestTooLarge,
        StatusCode::BadTcpMessageTooLarge,
    ];
    matches!(error, DriverError::Refused { code: said, .. } if too_much.iter().any(|status| code(*status) == *said))
}

/// Browses to the end; the references of each question. What cannot be browsed has none.
pub(super) async fn browse(
    link: &mut Link,
    limits: &Limits,
    nodes: Vec<BrowseDescription>,
) -> Result<Vec<Vec<ReferenceDescription>>, DriverError> {
    let mut found = Vec::with_capacity(nodes.len());
    for piece in nodes.chunks(limits.browses) {
        let (number, timeout, token, handle) = link.header();
        let request = Browse::new_manual(number, timeout, token, handle)
            .max_references_per_node(REFERENCES)
            .nodes_to_browse(piece.to_vec());
        let results = link.ask(request).await?.results.unwrap_or_default();
        if results.len() != piece.len() {
            return Err(DriverError::Malformed(format!(
                "{} answers to {} browses",
                results.len(),
                piece.len()
            )));
        }
        for result in results {
            let mut references = result.references.unwrap_or_default();
            let mut point = result.continuation_point;
            while !point.is_null_or_empty() {
                point = more(link, point, &mut references).await?;
            }
            found.push(references);
        }
    }
    Ok(found)
}

/// The next page; returns where the one after it begins.
async fn more(
    link: &mut Link,
    point: ByteString,
    references: &mut Vec<ReferenceDescription>,
) -> Result<ByteString, DriverError> {
    let (number, timeout, token, handle) = link.header();
    let is_enough = references.len() >= REFERENCES_MAX;
    let request = BrowseNext::new_manual(number, timeout, token, handle)
        .release_continuation_points(is_enough)
        .continuation_point(point);
    let answer = link.ask(request).await?;
    let Some(page) = answer.results.unwrap_or_default().into_iter().next().filter(|_| !is_enough) else {
        return Ok(ByteString::null());
    };
    if page.status_code.is_bad() {
        return Err(DriverError::Refused {
            reason: format!("browsing on: {}", page.status_code),
            code: code(page.status_code),
        });
    }
    references.extend(page.references.unwrap_or_default());
    Ok(page.continuation_point)
}

//! Topic filters as the broker seam uses them; the rules are the standard's and live with the codec.

pub(super) use proto::mqtt::topic::overlap;
pub use proto::mqtt::topic::{matches, unshared};

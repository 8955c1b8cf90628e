//! Whole plants, peers that are not ours, and the rule-book.

mod tidy;
